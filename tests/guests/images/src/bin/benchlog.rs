// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What writes cost while the VMM has the pages that are written listed: 256 MiB, each page once.
#![no_std]
#![no_main]

use core::ptr::write_volatile;
use guest::{cpu, image, measure::measure_with, say, test, Pass, Verdict};

/// The machine has 512 MiB; the tests' library and the firmware have touched some of the first 64.
const FIRST: u64 = 64 << 20;
/// Of 4 MiB: the CPU's log of pages, which KVM uses, is full twice in one.
const PIECES: usize = 64;
const PAGES: u64 = 1024;
/// Ticks until the VMM has begun.
const BEGINS: u64 = 100_000_000;

fn write_piece(i: usize) {
    for page in 0..PAGES {
        // SAFETY: RAM that nothing else uses.
        unsafe { write_volatile((FIRST + ((i as u64 * PAGES + page) << 12)) as *mut u8, 1) };
    }
}

fn log() -> Verdict {
    (0..PIECES).for_each(write_piece);
    // For longer than the pass below takes, in seconds.
    say!("monitor: calc_dirty_rate -b 10");
    let start = cpu::rdtsc();
    while cpu::rdtsc() - start < BEGINS {}
    measure_with("dirty_log_write_4m", PIECES, write_piece);
    Pass
}

image!("benchlog", [test!(log, "-", log)]);
