//! See `paygress_fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paygress_fuzz::token(bytes));
