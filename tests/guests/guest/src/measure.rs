// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Rows of a benchmark.

use crate::{cpu, say};
use core::cell::UnsafeCell;

/// Samples of a row, if nothing else is said.
pub const N: usize = 2000;

struct Samples(UnsafeCell<[u64; N]>);
// SAFETY: only the bootstrap processor measures.
unsafe impl Sync for Samples {}
static SAMPLES: Samples = Samples(UnsafeCell::new([0; N]));

/// Ticks between two readings with nothing between: taken off every sample.
fn overhead() -> u64 {
    let mut least = u64::MAX;
    for _ in 0..N {
        let start = cpu::rdtsc();
        least = least.min(cpu::rdtsc() - start);
    }
    least
}

/// Ticks of quiet before and after a measurement, in which the host can take stock of its own counters.
const QUIET: u64 = 20_000_000;

/// Waits without PAUSE, which would make exits of its own.
fn quiet() {
    let start = cpu::rdtsc();
    while cpu::rdtsc() - start < QUIET {}
}

/// Prints the row of `n` samples, each taken by `sample` after `prepare`. The lines `<` and `>` tell the host where they begin
/// and end.
pub fn samples(name: &str, n: usize, mut prepare: impl FnMut(), mut sample: impl FnMut() -> u64) {
    // SAFETY: `samples` is not reentered, and one processor measures.
    let samples = unsafe { &mut (&mut *SAMPLES.0.get())[..n] };
    say!("<");
    quiet();
    for slot in samples.iter_mut() {
        prepare();
        *slot = sample();
    }
    say!(">");
    quiet();
    samples.sort_unstable();
    say!(
        "bench {name} ticks {} min {} n {n}",
        samples[n / 2],
        samples[0]
    );
}

/// Measures `n` runs.
pub fn measure_with(name: &str, n: usize, mut run: impl FnMut(usize)) {
    let overhead = overhead();
    let mut i = 0;
    samples(
        name,
        n,
        || (),
        || {
            let start = cpu::rdtsc();
            run(i);
            let ticks = cpu::rdtsc() - start;
            i += 1;
            ticks.saturating_sub(overhead)
        },
    );
}

/// Measures [`N`] runs.
pub fn measure(name: &str, mut run: impl FnMut()) {
    for _ in 0..10 {
        run();
    }
    measure_with(name, N, |_| run());
}
