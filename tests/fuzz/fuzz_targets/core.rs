//! A whole run of the core: clients, clock, network, hasher and a failing store, decided by the input and judged by
//! the oracle of the simulation.
#![no_main]

#[path = "../../simulation/mod.rs"]
mod sim;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    sim::play(data, false);
});
