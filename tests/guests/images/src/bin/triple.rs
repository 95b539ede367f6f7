// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A triple fault ends the VM. The image says so beforehand: after its `done`
//! nothing may follow on COM1, the debug-exit port is not reached, and the VMM
//! tells of a guest that crashed (QEMU with `-no-reboot` ends with status 0).
#![no_std]
#![no_main]

use core::arch::asm;
use guest::{idt, say};

#[no_mangle]
extern "C" fn guest_main() -> ! {
    say!("# image triple");
    say!("ok triple_fault [H-P15]");
    say!("done 1 0");
    idt::load_limit(0);
    // SAFETY: no gate is left: #UD, #GP, #DF and then shutdown.
    unsafe { asm!("ud2") };
    idt::load();
    say!("not ok triple_fault [H-P15]: goes on after a triple fault");
    guest::console::exit(true)
}
