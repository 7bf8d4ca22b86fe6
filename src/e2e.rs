//! End-to-end encryption, "DownStream/1": everything that two devices say to each other so that the
//! server between them can neither read nor change it.
//!
//! It is Signal's published design (PQXDH, Double Ratchet, Sender Keys, Sesame) written narrowly, with
//! five deviations: a committing AEAD, fresh salt in every message key, the whole transcript in the
//! handshake's KDF, Ed25519 beside X25519, and signed device lists and room rosters.
//!
//! The module is pure. It knows no network, no file and no clock, and names nothing else of the
//! project (`docs/encryption.md` says what it gives and what not). Randomness ([`rng::Rng`]) and time ([`time::Now`]) are passed in. State is plain data:
//! every operation borrows it and returns the rows that change, and the caller commits those in one
//! transaction. An error therefore leaves every byte as it was. No primitive is written here.
//!
//! # The map
//!
//! *Ground.* [`wire`] is the one reader and writer, `labels` every domain separation label, [`error`]
//! the codes of `cannot open (code)`, [`secret`] bytes that are wiped and never shown, [`name`] names
//! and ids, [`armour`] base64 and its like, [`padding`] the lengths.
//!
//! *Primitives, wrapped once.* `kdf`, [`dh`], [`kem`], [`sign`], and [`caead`], the committing AEAD
//! under everything that is sealed.
//!
//! *Who is who.* [`cert`] and [`device_list`] are what an account signs, [`contact`] what is pinned of
//! it and how that may change, [`identity`] this device, [`link`] how a device joins an account,
//! [`number`] what two people compare.
//!
//! *Between two devices.* [`bundle`] and [`prekeys`] are the public and private side of what starts a
//! session, `pqxdh` the start, [`ratchet`] the session, [`skipped`] its late messages, [`sessions`] the
//! set of them and which one is used, [`marks`] what was opened before, `multi` the payload that all
//! slots share.
//!
//! *In rooms.* [`roster`] is one entry and [`roster_log`] the rules of the log, [`sender_key`] a chain,
//! [`room`] the chains of a room and when they rotate, [`audience`] who its next message goes to.
//!
//! *What is said.* [`envelope`] is the outer form, [`inner`] the inner message, [`thread`] the order of
//! messages, [`descriptor`] and [`mod@file`] files.
//!
//! *For the client.* [`state`] is all that a device knows, [`receive`] opens lines, [`send`] seals them,
//! [`keyslot`] seals the store.
//!
//! # One line in, one line out
//!
//! ```text
//! State::open(line)         -> Opened { change, inner, .. }        commit, apply, then print
//! State::seal_message(to)   -> Sealed { change, body, .. }         commit, apply, then emit
//! State::seal_room(room)    -> SealedRoom { signals, message }     the signals go first
//! State::learn, read_roster -> Change                              what `/keys` and `/roster` show
//! ```
//!
//! Sealing says what it lacks ([`error::SealError::NeedList`], [`error::SealError::NeedBundles`]); the
//! caller fetches it and seals again.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]

// A canary is this module with a defence turned off (scripts/canaries.sh); it must never reach anybody.
#[cfg(all(feature = "canary", not(debug_assertions)))]
compile_error!("a `break-*` feature turns a defence off and is for tests only: build without it");

pub mod armour;
pub mod audience;
pub mod bundle;
pub mod caead;
pub mod cert;
pub mod contact;
pub mod descriptor;
pub mod device_list;
pub mod dh;
pub mod envelope;
pub mod error;
pub mod file;
pub mod identity;
pub mod inner;
pub(crate) mod kdf;
pub mod kem;
pub mod keyslot;
pub(crate) mod labels;
pub mod link;
pub mod marks;
pub(crate) mod multi;
pub mod name;
pub mod number;
pub mod padding;
pub(crate) mod pqxdh;
pub mod prekeys;
pub mod ratchet;
pub mod receive;
pub mod rng;
pub mod room;
pub mod roster;
pub mod roster_log;
pub mod secret;
pub mod send;
pub mod sender_key;
pub mod sessions;
pub mod sign;
pub mod skipped;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod thread;
pub mod time;
#[cfg(test)]
mod vectors;
pub mod wire;
