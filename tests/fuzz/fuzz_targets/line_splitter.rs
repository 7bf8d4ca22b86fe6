//! However the stream is cut, the same lines come out, and no more than the limit is kept.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::line_splitter(data));
