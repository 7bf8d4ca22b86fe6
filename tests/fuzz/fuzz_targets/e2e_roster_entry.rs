//! One entry of a room's log.
#![no_main]

#[path = "../e2e/mod.rs"]
mod e2e;

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::states::entry(data));
