//! DownStream: a self-hosted chat server that a person can talk to by hand.
//!
//! The map, from the wire to the disk; a module names only what stands above it:
//!
//! - [`protocol`]: the wire, both directions. Lines, names, requests, replies.
//! - [`ops`]: what the core may ask of a store and of the password hasher. Plain data.
//! - [`session`]: the state of one connection.
//! - [`hub`]: who is here, who is in which room, who receives what.
//! - [`commands`]: the core's only entry: an input goes in, effects come out. No clock, no socket, no
//!   file, no thread.
//! - [`store`]: one SQLite file behind a thread that commits in groups.
//! - [`hasher`]: Argon2id on a small bounded pool of threads.
//! - [`tls`]: certificates → what a handshake starts from.
//! - [`config`]: what the operator wrote → what it means.
//! - [`service`]: systemd, listening sockets, file descriptors. [`logging`]: the log.
//! - [`reactor`]: the loop; the only reader of the clock.
//! - [`cli`]: the command line. [`operator`]: its commands. [`startup`]: from it to a loop.
//! - [`e2e`]: end-to-end encryption. Pure; names nothing of ours, and the daemon never names it.

pub mod protocol;

#[cfg(feature = "daemon")]
pub mod ops;

#[cfg(feature = "daemon")]
pub mod session;

#[cfg(feature = "daemon")]
pub mod hub;

#[cfg(feature = "daemon")]
pub mod commands;

#[cfg(feature = "daemon")]
pub mod store;

#[cfg(feature = "daemon")]
pub mod hasher;

#[cfg(feature = "daemon")]
pub mod tls;

#[cfg(feature = "daemon")]
pub mod config;

#[cfg(feature = "daemon")]
pub mod service;

#[cfg(feature = "daemon")]
pub mod logging;

#[cfg(feature = "daemon")]
pub mod reactor;

#[cfg(feature = "daemon")]
pub mod cli;

#[cfg(feature = "daemon")]
pub mod operator;

#[cfg(feature = "daemon")]
pub mod startup;

#[cfg(feature = "client")]
pub mod e2e;
