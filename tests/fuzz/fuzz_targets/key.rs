//! libFuzzer's way into [`marline_fuzz::key`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::key::check(bytes));
