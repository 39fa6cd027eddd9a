//! libFuzzer's way into [`marline_fuzz::squeeze`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::squeeze::check(bytes));
