//! libFuzzer's way into [`marline_fuzz::datagram`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| marline_fuzz::datagram::check(bytes));
