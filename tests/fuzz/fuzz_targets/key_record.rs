//! Whatever can be read as a record of `/keys put` is written as the same bytes.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::key_record(data));
