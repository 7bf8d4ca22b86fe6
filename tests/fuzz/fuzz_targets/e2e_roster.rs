//! A room's log: whoever reads it comes to the same roster.
#![no_main]

#[path = "../e2e/mod.rs"]
mod e2e;

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::states::roster(data));
