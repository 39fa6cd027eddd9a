//! libFuzzer's way into [`marline_fuzz::join_code`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::join_code::check(bytes));
