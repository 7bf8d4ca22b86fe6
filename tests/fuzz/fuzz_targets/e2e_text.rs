//! Base64, base32, hexadecimal, names of accounts, rooms and files.
#![no_main]

#[path = "../e2e/mod.rs"]
mod e2e;

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::forms::text(data));
