// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What calls for 7 other VPs cost, beside those for one.
#![no_std]
#![no_main]

#[path = "bench/calls.rs"]
mod calls;

use guest::{image, test, Verdict};

fn calls_for_7() -> Verdict {
    let names = ["pv_ipi_to_7", "pv_flush_of_7", "pv_flush_page_of_7"];
    calls::processor_calls(7, names)
}

image!(
    "bench8",
    [test!(calls_for_7, "H-02 H-03 H-0B", calls_for_7)]
);
