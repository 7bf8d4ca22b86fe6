//! Device lists shown one after the other: forward only, under one identity.
#![no_main]

#[path = "../e2e/mod.rs"]
mod e2e;

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::states::learn(data));
