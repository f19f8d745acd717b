//! See `paygress_fuzz::template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paygress_fuzz::template(bytes));
