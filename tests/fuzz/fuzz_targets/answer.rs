//! What is read out of a server's line stands in it, and nothing of it steers a terminal.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::answer(data));
