//! See `paygress_fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paygress_fuzz::message(bytes));
