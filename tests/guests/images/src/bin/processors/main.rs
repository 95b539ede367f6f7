// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Hypercalls about sets of VPs: synthetic cluster IPIs and flushes (TLFS 7, 10).
#![no_std]
#![no_main]

mod call;
mod flush;
mod input;
mod ipi;

use guest::{image, test};

image!(
    "processors",
    [
        test!(ipi_to_each, "H-0B C-4A10", ipi::to_each),
        test!(ipi_padding, "A-18", ipi::padding),
        test!(ipi_to_all, "H-0B", ipi::to_all),
        test!(ipi_to_sets, "H-15 C-4A11 A-12", ipi::to_sets),
        test!(ipi_to_halted, "H-0B", ipi::to_halted),
        test!(ipi_storm, "H-0B", ipi::storm),
        test!(ipi_parameters, "H-0B H-15 K-08", ipi::parameters),
        test!(flush_space, "H-02 C-4A2", flush::space),
        test!(flush_list, "H-03 C-3D14", flush::list),
        test!(flush_list_from_middle, "H-03 K-07", flush::list_from_middle),
        test!(flush_sets, "H-13 H-14 C-4A11", flush::sets),
        test!(flush_each_other, "H-02", flush::each_other),
        test!(flush_parameters, "H-02 H-03 K-04", flush::parameters),
        test!(input_place, "A-14 K-06", input::place),
        test!(input_words, "A-01 A-02 A-03 A-04 A-26 K-05", input::words),
        test!(input_fast, "A-11 A-11b A-12 C-3D4", input::fast),
        test!(input_padding, "A-18", input::padding),
        test!(input_in_overlay, "A-19", input::in_overlay),
        test!(input_list, "A-06 A-20 K-07", input::list),
        test!(spin_wait, "H-08 F-SP1 C-4B", input::spin_wait),
        test!(input_untouched, "A-16", input::untouched),
        test!(input_registers_kept, "A-23", input::registers_kept),
    ]
);
