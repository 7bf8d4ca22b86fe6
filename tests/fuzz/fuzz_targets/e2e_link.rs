//! What links a device to an account.
#![no_main]

#[path = "../e2e/mod.rs"]
mod e2e;

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::forms::link(data));
