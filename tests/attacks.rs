//! The attacks of `docs/encryption.md`, from outside: the real daemon, the real `dsc`, and between and beside
//! them a server and peers that do what an attacker would (`tests/evil`).
//!
//! "Refused" means that the command fails or the line is shown as unreadable, that no text of it is shown
//! or sent, and that what is honest goes on as before: after each refusal an honest message still opens.
//!
//! | | |
//! |---|---|
//! | 1 to 4, 14 | keys that the server makes up, forges, hides or has used up: `attacks/directory.rs` |
//! | 5, 11 to 13 | ghosts in rooms, flipped bits, downgrades, resets: `attacks/tampering.rs` |
//! | 6 to 10 | replays, delays, gaps, counters, moved envelopes: `attacks/delivery.rs` |
//! | 11, 12, 17, 18, of files | peers and a server that lie about a file, or in the way of it: `attacks/files*.rs` |
//! | 15 to 19 | members and peers that forge, stay, equivocate, inject: `attacks/peer.rs` |
//! | 20 | stores that are restored, cloned, stolen, edited: `attacks/state.rs` |
//!
//! Beside them: the server never holds a word (`plaintext.rs`), kill -9 at every write (`kill.rs`), a network
//! that breaks (`network.rs`), programs on top of `dsc` (`programs.rs`), and the tools themselves (`harness.rs`).
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
#[path = "attacks/files.rs"]
mod files;
#[path = "attacks/files_saved.rs"]
mod files_saved;
#[path = "attacks/files_served.rs"]
mod files_served;
#[path = "attacks/harness.rs"]
mod harness;
#[path = "attacks/kill.rs"]
mod kill;
#[path = "attacks/network.rs"]
mod network;
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
