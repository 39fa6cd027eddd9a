//! libFuzzer's way into [`marline_fuzz::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::control::check(bytes));
