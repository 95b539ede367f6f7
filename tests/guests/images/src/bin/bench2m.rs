// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the first touch of memory costs that the VMM has in pages of 2 MiB.
#![no_std]
#![no_main]

use core::ptr::read_volatile;
use guest::{image, measure::measure_with, test, Pass, Verdict};

/// The machine has 512 MiB; the tests' library and the firmware have touched some of the first 64.
const FIRST: u64 = 64 << 20;
const PAGES: usize = 192;

fn first_touch() -> Verdict {
    measure_with("first_touch_2m", PAGES, |i| {
        // SAFETY: RAM that nothing else uses.
        unsafe { read_volatile((FIRST + ((i as u64) << 21)) as *const u8) };
    });
    Pass
}

image!("bench2m", [test!(first_touch, "-", first_touch)]);
