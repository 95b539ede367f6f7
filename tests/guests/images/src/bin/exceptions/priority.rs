// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Which of several events comes first (SDM 3A, table 6-2).

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest::{apic, cpu, idt, record, Pass, Verdict};

/// POPFQ that sets IF has no shadow, STI has one of one instruction.
pub fn interrupt_shadow() -> Verdict {
    apic::init_best();
    static RIP: AtomicU64 = AtomicU64::new(0);
    idt::hook(0x51, |frame| {
        RIP.store(frame.rip, Ordering::Release);
        apic::eoi();
    });
    let (behind_popf, behind_nop): (u64, u64);
    apic::send_self(0x51);
    // SAFETY: the interrupt is hooked.
    unsafe {
        asm!("lea {0}, [rip + 2f]", "pushfq", "or qword ptr [rsp], 0x200", "popfq", "2:", "nop", "cli", out(reg) behind_popf)
    };
    assert_eq!(RIP.load(Ordering::Acquire), behind_popf, "POPFQ");
    apic::send_self(0x51);
    // SAFETY: the interrupt is hooked.
    unsafe { asm!("lea {0}, [rip + 2f]", "sti", "nop", "2:", "cli", out(reg) behind_nop) };
    assert_eq!(RIP.load(Ordering::Acquire), behind_nop, "STI");
    // STI; CLI lets nothing in.
    apic::send_self(0x51);
    // SAFETY: no effect on memory.
    unsafe { asm!("sti", "cli") };
    assert_eq!(idt::count(0x51), 2);
    cpu::take_interrupts();
    Pass
}

pub fn nmi_before_interrupt() -> Verdict {
    apic::init_best();
    record::start(&[0x51]);
    idt::hook(idt::NMI, |_| {
        if record::len() == 0 {
            apic::send(apic::id(), apic::ICR_NMI | apic::ICR_ASSERT);
            apic::send_self(0x51);
        }
        record::note(idt::NMI);
    });
    cpu::sti();
    apic::send(apic::id(), apic::ICR_NMI | apic::ICR_ASSERT);
    let done = guest::time::reached(|| record::len() >= 3);
    cpu::cli();
    assert!(done, "lost one");
    record::expect(&[idt::NMI, idt::NMI, 0x51]);
    Pass
}

/// The instruction in STI's shadow faults before the interrupt is taken.
pub fn fault_before_interrupt() -> Verdict {
    apic::init_best();
    record::start(&[0x51]);
    idt::hook(idt::UD, |frame| {
        record::note(idt::UD);
        frame.rip += 2;
    });
    apic::send_self(0x51);
    // SAFETY: both are hooked.
    unsafe { asm!("sti", "ud2", "nop", "cli") };
    record::expect(&[idt::UD, 0x51]);
    Pass
}

/// The instruction that lets an interrupt through was single-stepped: #DB, then the interrupt.
pub fn trap_before_interrupt() -> Verdict {
    apic::init_best();
    record::start(&[0x51]);
    idt::hook(idt::DB, |frame| {
        record::note(idt::DB);
        frame.rflags &= !cpu::RFLAGS_TF;
        cpu::set_dr6(0xffff_0ff0);
    });
    cpu::set_cr8(15);
    apic::send_self(0x51);
    // SAFETY: both are hooked.
    unsafe {
        asm!("sti", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov cr8, {0}", "nop", "cli", in(reg) 0u64);
    }
    record::expect(&[idt::DB, 0x51]);
    Pass
}

/// NMIs stay blocked over an STI, and until IRET.
pub fn nmi_blocked_until_iret() -> Verdict {
    apic::init_best();
    record::start(&[0x51]);
    idt::hook(idt::NMI, |_| {
        record::note(0xa0 + idt::count(idt::NMI) as u8);
        if idt::count(idt::NMI) == 1 {
            apic::send(apic::id(), apic::ICR_NMI | apic::ICR_ASSERT);
            cpu::inb(0x3fd);
            guest::time::spin(10_000);
            record::note(0xaf);
        }
    });
    apic::send(apic::id(), apic::ICR_NMI | apic::ICR_ASSERT);
    let done = guest::time::reached(|| record::len() >= 3);
    assert!(done, "lost one");
    record::expect(&[0xa1, 0xaf, 0xa2]);
    Pass
}

pub fn interrupt_flag() -> Verdict {
    static FLAGS: AtomicU64 = AtomicU64::new(0);
    idt::hook(0x51, |frame| {
        FLAGS.store(
            cpu::rflags() & 0x200 | frame.rflags & 0x200 << 1,
            Ordering::Release,
        )
    });
    cpu::sti();
    // SAFETY: hooked.
    unsafe { asm!("int 0x51") };
    let after = cpu::rflags();
    cpu::cli();
    assert_eq!(
        FLAGS.load(Ordering::Acquire) & 0x200,
        0,
        "IF inside an interrupt gate"
    );
    assert!(after & cpu::RFLAGS_IF != 0, "IF behind IRET");
    Pass
}
