//! libFuzzer's way into [`marline_fuzz::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::frame::check(bytes));
