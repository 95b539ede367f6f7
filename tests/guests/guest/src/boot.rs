// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The way into Rust: PVH entry, start-up IPI, first code of each processor.

use crate::{console, cpu, idt, percpu, smp};
use core::arch::global_asm;

global_asm!(include_str!("boot.S"), options(att_syntax));

extern "C" {
    /// Provided by each image through [`crate::image!`].
    fn guest_main() -> !;
    /// Where the loader put `hvm_start_info`.
    static pvh_start_info: u64;
}

/// The command line by PVH; empty where there is none.
pub(crate) fn command_line() -> &'static str {
    const MAGIC: u32 = 0x336e_c578;
    // SAFETY: boot.S wrote it before any of this ran; by PVH's protocol the structure and the text, which ends in a zero, are
    // memory of the loader's below 4 GiB. Other loaders leave something else in EBX, which is told by the magic number.
    unsafe {
        let info = pvh_start_info as *const u32;
        if info.is_null() || info.read_unaligned() != MAGIC {
            return "";
        }
        let text = info.byte_add(24).cast::<u64>().read_unaligned() as *const u8;
        if text.is_null() {
            return "";
        }
        let length = (0..4096).take_while(|&i| text.add(i).read() != 0).count();
        core::str::from_utf8(core::slice::from_raw_parts(text, length)).unwrap_or("")
    }
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
