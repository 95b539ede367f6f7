// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The way into Rust: PVH entry, start-up IPI, first code of each processor.

use crate::{console, cpu, idt, percpu, smp};
use core::arch::global_asm;

global_asm!(include_str!("boot.S"), options(att_syntax));

extern "C" {
    /// Provided by each image through [`crate::image!`].
    fn guest_main() -> !;
}

/// First Rust code of every processor; called once per start by `boot.S`.
#[no_mangle]
extern "C" fn guest_entry(cpu: u32) -> ! {
    if cpu == 0 {
        // Mask the PICs of machines that have them: interrupts here are the APIC's.
        cpu::outb(0x21, 0xff);
        cpu::outb(0xa1, 0xff);
        console::init();
        idt::build();
    }
    percpu::init(cpu as usize);
    idt::load();
    if cpu == 0 {
        // SAFETY: every image defines `guest_main` by the `image!` macro.
        unsafe { guest_main() }
    }
    smp::ap_main()
}
