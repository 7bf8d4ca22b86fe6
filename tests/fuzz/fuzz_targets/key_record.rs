//! Whatever the server takes as a record of `/keys put` is kept byte for byte.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::key_record(data));
