//! libFuzzer's way into [`marline_fuzz::settings`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::settings::check(bytes));
