//! A seeded simulation of the core: the real [`Core`](downstream::commands::Core), driven by a schedule
//! that chance draws, with a clock, a network, a hasher and a store whose answers come when the schedule
//! says. The store is the real engine in memory; batches of writes are lost now and then, reads fail.
//!
//! An oracle reads what the network was given and what the store committed, and nothing else:
//!
//! - every command gets its one reply, in order; rows are never interleaved; every line is well-formed;
//! - what is acknowledged is committed, what is refused is not there, a key stores once;
//! - each session gets the messages of its conversations in order, once, and in the end all of them,
//!   also after having been far behind; nothing reaches a stranger, or anybody before the login's reply;
//! - what is queued and what is waited for stays within its bounds;
//! - a read marker never passes a message that no session showed to have got, and a login tells exactly
//!   what is unread;
//! - a signal reaches each session of its receiver once, in order, except the one that sent it; it waits until it
//!   is acknowledged, and is then gone;
//! - a roster grows by one place at a time, by its members; a one-time key is given away once, and none is lost;
//! - a file is told to its conversation when all its bytes are there, and read back as they were; a chunk goes where
//!   the one before ended;
//! - when everybody has gone, nothing is left.
//!
//! One `u64` decides everything. A failure names it: `SIM_SEED=… SIM_STEPS=…` runs that one again.
//! `SIM_SEEDS=…` runs so many from `SIM_SEED` on, `SIM_SHOW=…` prints more of what led to a failure.
#![cfg(feature = "daemon")]
#![expect(clippy::panic, reason = "this is a test")]

#[path = "simulation/mod.rs"]
mod sim;

/// Seeds and steps of each in an ordinary run: 10⁵ steps.
const SEEDS: u64 = 50;
const STEPS: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

#[test]
fn the_core_keeps_its_promises() {
    let steps = number("SIM_STEPS").unwrap_or(STEPS);
    let (from, seeds) = match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(seed), None) => (seed, 1),
        (seed, seeds) => (seed.unwrap_or(1), seeds.unwrap_or(SEEDS)),
    };
    for seed in from..from + seeds {
        sim::run(seed, steps);
    }
}

#[test]
fn a_seed_is_a_run() {
    assert_eq!(sim::run(7, 1500), sim::run(7, 1500));
}
