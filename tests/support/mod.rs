//! What the tests against the real daemon share: starting it, speaking to it over TLS, and comparing
//! what it says with what was expected.
//!
//! Nothing here sleeps. Every wait is for a condition, and ends after [`DEADLINE`] only when the test
//! has failed anyway.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is wrong and says what it was"
)]

pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod dialogue;
pub(crate) mod pattern;
pub(crate) mod process;
pub(crate) mod script;

#[allow(unused_imports, reason = "each test file uses its own part of this")]
pub(crate) use self::{
    client::{Client, Options},
    daemon::{Daemon, Home},
};

use std::time::Duration;

/// How long something may take that happens at once on a machine that is not overloaded. Only a test
/// that fails ever waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How a connection ended, as seen from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The server said close_notify, then closed.
    Cleanly,
    /// The stream ended without a close_notify, or with an error.
    Abruptly(String),
    /// Nothing came within [`DEADLINE`].
    Silent,
}

/// Something that carries lines to the daemon and back.
pub(crate) trait Link {
    /// Sends `bytes` as they are.
    fn send(&mut self, bytes: &[u8]);
    /// The next line without its ending, or how the connection ended.
    fn line(&mut self) -> Result<String, Ended>;
    /// Says that nothing more will be sent, and goes on reading.
    fn half_close(&mut self);
    /// Ends the connection in an orderly way.
    fn close(&mut self);
    /// Ends the connection as a crash of the client would.
    fn kill(&mut self);
}

/// Bytes that look random and are the same in every run (splitmix64).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}
