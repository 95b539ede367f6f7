// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A triple fault ends the VM: after `# triple fault` nothing may follow on COM1.
#![no_std]
#![no_main]

use core::arch::asm;
use guest::{idt, image, say, test, Verdict};

fn triple_fault() -> Verdict {
    say!("# triple fault");
    idt::load_limit(0);
    // SAFETY: no gate is left: #UD, #GP as double fault, shutdown.
    unsafe { asm!("ud2") };
    idt::load();
    panic!("goes on after a triple fault")
}

image!("triple", [test!(triple_fault, "H-P15", triple_fault)]);
