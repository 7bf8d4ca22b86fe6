//! Certificates, device lists, and the records of `/keys put` on both sides.
#![no_main]

#[path = "../e2e/mod.rs"]
mod e2e;

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::forms::certificate(data));
