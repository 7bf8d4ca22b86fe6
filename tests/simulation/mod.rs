//! The core in a world that chance, or a fuzzer, decides: what `tests/simulation.rs` and the fuzz target
//! `core` share.
#![allow(dead_code, reason = "each uses its own part of this")]
#![allow(unreachable_pub, reason = "the modules below are of a test alone")]
#![allow(clippy::panic, clippy::expect_used, clippy::print_stderr, reason = "this is a test")]

mod backend;
mod client;
mod exchanges;
mod files;
mod garble;
mod model;
mod oracle;
mod programs;
mod rng;
mod trace;
mod wire;
mod world;

use std::panic::AssertUnwindSafe;

use rng::Rng;
use world::World;

/// Steps between two points at which everything comes to its end and must be complete.
const ROUND: u64 = 500;
/// Bytes of a fuzzer's input that decide one step.
const STEP_BYTES: usize = 16;
/// Steps of one input: what is longer is cut, so that the fuzzer looks for what is new and not for what is long.
const STEPS_MAX: usize = 1500;

/// What came out of a run, to compare two: writes, deliveries, bytes.
pub type Fingerprint = (u64, u64, u64);

/// Runs one seed; on failure prints what led to it.
pub fn run(seed: u64, steps: u64) -> Fingerprint {
    let told =
        |story: String, why: &str| eprintln!("{story}\n{why}\nSIM_SEED={seed} SIM_STEPS={steps} runs this again");
    watched(World::new(Rng::new(seed), true), told, |world| {
        for step in 1..=steps {
            world.step();
            if step % ROUND == 0 {
                world.quiesce();
                if step % (2 * ROUND) == 0 {
                    world.acknowledge();
                }
            }
        }
        let fingerprint = world.fingerprint();
        world.finish();
        fingerprint
    })
}

/// Runs what a fuzzer made: the first [`STEP_BYTES`] decide what the world is like, each further so many one
/// step. `story` remembers what happened, for the message of a failure; it costs half of the time.
pub fn play(data: &[u8], story: bool) -> Fingerprint {
    let mut pieces = data.chunks(STEP_BYTES);
    let rng = Rng::scripted(pieces.next().unwrap_or_default());
    watched(
        World::new(rng, story),
        |story, why| eprintln!("{story}\n{why}"),
        |world| {
            for piece in pieces.take(STEPS_MAX) {
                world.script(piece);
                world.step();
            }
            let fingerprint = world.fingerprint();
            world.finish();
            fingerprint
        },
    )
}

fn watched<T>(mut world: World, told: impl Fn(String, &str), run: impl FnOnce(&mut World) -> T) -> T {
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    result.unwrap_or_else(|cause| {
        told(world.story(), cause.downcast_ref::<String>().map_or("see above", String::as_str));
        std::panic::resume_unwind(cause)
    })
}
