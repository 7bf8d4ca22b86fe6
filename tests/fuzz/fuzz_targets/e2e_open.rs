//! A line for a device in the middle of talking: refused, it changes no byte.
#![no_main]

#[path = "../e2e/mod.rs"]
mod e2e;

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::states::open(data));
