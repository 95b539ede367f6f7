// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What only the xAPIC has: the page, and logical destinations that software chooses.

use core::arch::asm;
use guest::apic::*;
use guest::{cpu, record, Pass, Verdict};

fn logical(destination: u32, delivered: bool) {
    send(destination, 0x51 | ICR_LOGICAL | ICR_ASSERT);
    cpu::take_interrupts();
    if delivered {
        record::expect(&[0x51]);
    } else {
        record::expect(&[]);
    }
}

pub fn logical_flat() -> Verdict {
    record::start(&[0x51]);
    write(DFR, 0xffff_ffff);
    write(LDR, 0x0400_0000);
    assert_eq!((read(DFR), read(LDR)), (0xffff_ffff, 0x0400_0000));
    logical(0x04, true);
    logical(0x06, true);
    logical(0xff, true);
    logical(0xfb, false);
    logical(0x40, false);
    write(LDR, 0);
    Pass
}

pub fn logical_cluster() -> Verdict {
    record::start(&[0x51]);
    write(DFR, 0x0fff_ffff);
    write(LDR, 0x3400_0000); // cluster 3, member 4
    logical(0x34, true);
    logical(0x36, true);
    logical(0x38, false);
    logical(0x24, false);
    logical(0xff, true);
    write(DFR, 0xffff_ffff);
    write(LDR, 0);
    Pass
}

/// Loads and stores as compilers write them.
pub fn mmio_forms() -> Verdict {
    let tpr = BASE + u64::from(TPR);
    let (a, b, c, d): (u64, u64, u64, u64);
    // SAFETY: TPR has no effect with interrupts off.
    unsafe {
        asm!("mov dword ptr [{0}], 0x10", "mov {1}, -1", "mov {1:e}, [{0}]", in(reg) tpr, out(reg) a);
        asm!("mov r9d, 0x20", "mov [r8], r9d", "mov r10d, [r8]", in("r8") tpr, out("r9") _, out("r10") b);
        asm!("mov dword ptr [rsi + rcx * 4 + 0x40], 0x30", "mov edx, [rsi + rcx * 4 + 0x40]",
             in("rsi") BASE, in("rcx") 0x10u64, out("rdx") c);
        asm!("mov eax, 0x40", "movabs [0xfee00080], eax", "xor eax, eax", "movabs eax, [0xfee00080]", out("rax") d);
    }
    mmio_write(TPR, 0);
    assert_eq!(
        (a, b, c, d),
        (0x10, 0x20, 0x30, 0x40),
        "a load that zero-extends"
    );
    Pass
}

/// xAPIC again after x2APIC, by way of disabled.
pub fn back() -> Verdict {
    assert_eq!(id(), mmio_read(ID) >> 24);
    record::start(&[0x51]);
    send_self(0x51);
    cpu::take_interrupts();
    record::expect(&[0x51]);
    Pass
}
