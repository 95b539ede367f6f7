// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Writes that signal an ioeventfd: QEMU's `pci-testdev` has registers for it in memory and in ports.

use core::ptr::{read_volatile, write_volatile};
use guest::measure::measure;
use guest::{cpu, require, Pass, Verdict};

/// Vendor and device of `pci-testdev`.
const TESTDEV: u32 = 0x0005_1b36;
/// Its second test: an eventfd for whatever is written.
const WILDCARD: u8 = 1;

/// A register of the PCI function `device` of bus 0, by configuration mechanism 1.
fn config(device: u32, register: u32) -> u32 {
    cpu::outl(0xcf8, 1 << 31 | device << 11 | register);
    cpu::inl(0xcfc)
}

/// A write to memory, and to a port, that the device's own eventfd answers.
pub fn doorbells() -> Verdict {
    let device = (0..32).find(|&device| config(device, 0) == TESTDEV);
    require!(device.is_some(), "no pci-testdev");
    let device = device.unwrap_or(0);
    cpu::outl(0xcf8, 1 << 31 | device << 11 | 4);
    cpu::outl(0xcfc, 3);
    let memory = u64::from(config(device, 0x10) & !0xf);
    let ports = (config(device, 0x14) & !3) as u16;
    // The registers begin with the number of the test; at 4 and 8 are the place and the value to write.
    // SAFETY: the device's own memory, identity-mapped.
    let (at, value) = unsafe {
        write_volatile(memory as *mut u8, WILDCARD);
        let at = memory + u64::from(read_volatile((memory + 4) as *const u32));
        (at as *mut u8, read_volatile((memory + 8) as *const u8))
    };
    // SAFETY: as above.
    measure("mmio_ioeventfd", || unsafe { write_volatile(at, value) });
    cpu::outb(ports, WILDCARD);
    let at = ports + cpu::inl(ports + 4) as u16;
    let value = cpu::inb(ports + 8);
    measure("pio_ioeventfd", || cpu::outb(at, value));
    Pass
}
