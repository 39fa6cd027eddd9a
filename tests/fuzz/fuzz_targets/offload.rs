//! libFuzzer's way into [`marline_fuzz::offload`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::offload::check(bytes));
