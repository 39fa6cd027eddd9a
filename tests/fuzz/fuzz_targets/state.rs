//! libFuzzer's way into [`marline_fuzz::state`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::state::check(bytes));
