//! See `paygress_fuzz::component`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paygress_fuzz::component(bytes));
