//! The attacks of `docs/encryption.md`, from outside: the real daemon, the real `dsc`, and between and beside
//! them a server and peers that do what an attacker would (`tests/evil`).
//!
//! "Refused" means that the command fails or the line is shown as unreadable, that no text of it is shown
//! or sent, and that the store of keys is not written.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is wrong and says what it was"
)]

#[path = "e2e_common/mod.rs"]
mod common;
mod evil;
mod support;

#[path = "attacks/delivery.rs"]
mod delivery;
#[path = "attacks/directory.rs"]
mod directory;
#[path = "attacks/harness.rs"]
mod harness;
#[path = "attacks/kill.rs"]
mod kill;
#[path = "attacks/peer.rs"]
mod peer;
#[path = "attacks/plaintext.rs"]
mod plaintext;
#[path = "attacks/programs.rs"]
mod programs;
#[path = "attacks/state.rs"]
mod state;
#[path = "attacks/tampering.rs"]
mod tampering;
