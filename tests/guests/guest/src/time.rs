// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Limits without a clock: TSC ticks and rounds, both generous.

use crate::cpu::{pause, rdtsc};

/// Ticks that must pass before a wait is given up: seconds on a fast machine,
/// and still ten seconds or so where a tick is an emulated instruction.
pub const LIMIT_TICKS: u64 = 2_000_000_000;
/// Rounds that must pass as well, so that a stalled machine gets its chance.
pub const LIMIT_ROUNDS: u64 = 100_000;

/// Spins until `done`, at most the limit; says whether it came true.
#[must_use]
pub fn reached(mut done: impl FnMut() -> bool) -> bool {
    let start = rdtsc();
    let mut rounds = 0u64;
    loop {
        if done() {
            return true;
        }
        pause();
        rounds += 1;
        if rounds > LIMIT_ROUNDS && rdtsc().wrapping_sub(start) > LIMIT_TICKS {
            return done();
        }
    }
}

/// Spins for a number of ticks.
pub fn spin(ticks: u64) {
    let start = rdtsc();
    while rdtsc().wrapping_sub(start) < ticks {
        pause();
    }
}
