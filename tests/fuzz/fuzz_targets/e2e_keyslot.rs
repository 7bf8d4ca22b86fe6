//! Key slots up to the passphrase, which is not tried, and sealed rows.
#![no_main]

#[path = "../e2e/mod.rs"]
mod e2e;

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::forms::keyslot(data));
