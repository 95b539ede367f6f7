// SPDX-License-Identifier: GPL-2.0 OR MIT
//! From the ICR through IRR and ISR to the handler.

use core::sync::atomic::{AtomicU32, Ordering};
use guest::apic::*;
use guest::{cpu, idt, record, smp, time, Pass, Verdict};

/// Pending before the instruction behind the ICR write.
pub fn self_ipi() -> Verdict {
    record::start(&[0x51]);
    for _ in 0..100 {
        send_self(0x51);
        assert!(vector_bit(IRR, 0x51), "not pending at once");
        record::expect(&[]);
        cpu::take_interrupts();
        record::expect(&[0x51]);
    }
    cpu::sti();
    send_self(0x51);
    let at_once = record::len();
    cpu::cli();
    assert_eq!(at_once, 1, "not taken at once with interrupts on");
    Pass
}

pub fn priorities() -> Verdict {
    record::start(&[0x31, 0x32, 0x41, 0x51, 0xf1]);
    for vector in [0x41, 0x31, 0xf1, 0x51, 0x32, 0x51] {
        send_self(vector);
    }
    cpu::take_interrupts();
    record::expect(&[0xf1, 0x51, 0x41, 0x32, 0x31]);
    Pass
}

/// A handler with interrupts on is interrupted by higher classes only.
pub fn nesting() -> Verdict {
    record::start(&[0x35, 0x51]);
    idt::hook(0x31, |_| {
        send_self(0x35);
        cpu::take_interrupts(); // same class: waits
        record::note(0x31);
        send_self(0x51);
        cpu::take_interrupts(); // higher class: nests
        record::note(0xee);
        eoi();
    });
    send_self(0x31);
    cpu::take_interrupts();
    record::expect(&[0x31, 0x51, 0xee, 0x35]);
    Pass
}

pub fn tpr_blocks() -> Verdict {
    record::start(&[0x41, 0x51, 0x61]);
    cpu::set_cr8(5);
    for vector in [0x41, 0x51, 0x61] {
        send_self(vector);
    }
    cpu::take_interrupts();
    record::expect(&[0x61]);
    cpu::sti();
    cpu::set_cr8(4);
    let after_cr8 = record::len();
    write(TPR, 0x3f);
    let after_tpr = record::len();
    cpu::cli();
    cpu::set_cr8(0);
    assert_eq!(
        (after_cr8, after_tpr),
        (1, 2),
        "not taken at the write that let it through"
    );
    record::expect(&[0x51, 0x41]);
    Pass
}

pub fn ppr() -> Verdict {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    idt::hook(0x51, |_| {
        let in_service = read(PPR);
        write(TPR, 0x83);
        let above = read(PPR);
        write(TPR, 0x21);
        let below = read(PPR);
        write(TPR, 0);
        eoi();
        SEEN.store(
            in_service | above << 8 | below << 16 | read(PPR) << 24,
            Ordering::Release,
        );
    });
    write(TPR, 0x34);
    assert_eq!(read(PPR), 0x34);
    write(TPR, 0);
    send_self(0x51);
    cpu::take_interrupts();
    assert_eq!(
        SEEN.load(Ordering::Acquire),
        0x0050_8350,
        "PPR in the handler"
    );
    Pass
}

pub fn irr_isr() -> Verdict {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    SEEN.store(0, Ordering::Release);
    idt::hook(0x51, |_| {
        if idt::count(0x51) > 1 {
            return eoi();
        }
        send_self(0x51); // pending once more while in service
        let bits = [
            vector_bit(ISR, 0x51),
            vector_bit(IRR, 0x51),
            vector_bit(TMR, 0x51),
        ];
        eoi();
        let after = vector_bit(ISR, 0x51);
        let seen = bits.iter().fold(0, |sum, &bit| sum << 1 | u32::from(bit));
        SEEN.store(seen << 1 | u32::from(after), Ordering::Release);
    });
    send_self(0x51);
    send_self(0x51); // merges
    assert!(vector_bit(IRR, 0x51) && !vector_bit(ISR, 0x51));
    cpu::take_interrupts();
    cpu::take_interrupts();
    assert_eq!(idt::count(0x51), 2);
    assert_eq!(
        SEEN.load(Ordering::Acquire),
        0b1100,
        "ISR, IRR, TMR, ISR after EOI"
    );
    assert!(!vector_bit(IRR, 0x51) && !vector_bit(ISR, 0x51));
    Pass
}

pub fn nmi() -> Verdict {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.store(0, Ordering::Relaxed);
    idt::hook(idt::NMI, |_| {
        if COUNT.fetch_add(1, Ordering::AcqRel) == 0 {
            // Blocked until IRET; several merge into one.
            send(id(), ICR_NMI | ICR_ASSERT);
            send(id(), ICR_NMI | ICR_ASSERT);
            time::spin(10_000);
            COUNT.fetch_add(
                u32::from(COUNT.load(Ordering::Acquire) != 1) * 100,
                Ordering::AcqRel,
            );
        }
    });
    send(id(), ICR_NMI | ICR_ASSERT);
    let done = time::reached(|| COUNT.load(Ordering::Acquire) >= 2);
    time::spin(100_000);
    assert!(done, "{} NMIs", COUNT.load(Ordering::Acquire));
    assert_eq!(COUNT.load(Ordering::Acquire), 2, "nested, or one lost");
    Pass
}

pub fn physical() -> Verdict {
    record::start(&[0x51, 0x52]);
    send(id(), 0x51 | ICR_ASSERT);
    cpu::take_interrupts();
    record::expect(&[0x51]);
    // Lowest priority with one candidate; x2APIC mode may refuse the delivery mode.
    if !is_x2apic() {
        send(id(), 0x52 | 1 << 8 | ICR_ASSERT);
        cpu::take_interrupts();
        record::expect(&[0x52]);
    }
    // Nobody has this id.
    send(
        if is_x2apic() { 0x00ab_cdef } else { 0xee },
        0x51 | ICR_ASSERT,
    );
    cpu::take_interrupts();
    record::expect(&[]);
    Pass
}

pub fn shorthands() -> Verdict {
    let everyone = if is_x2apic() { 0xffff_ffff } else { 0xff };
    record::start(&[0x51]);
    send(everyone, 0x51 | ICR_ASSERT);
    cpu::take_interrupts();
    record::expect(&[0x51]);
    send(0, 0x51 | ICR_ASSERT | ICR_ALL);
    cpu::take_interrupts();
    record::expect(&[0x51]);
    send(0, 0x51 | ICR_ASSERT | ICR_OTHERS);
    cpu::take_interrupts();
    record::expect(&[]);
    if !is_x2apic() {
        return Pass; // `start` puts all in x2APIC mode: the others are asked there.
    }
    let cpus = smp::start() as u32;
    extern "C" fn listen(_: u64) {
        cpu::sti();
        let heard = time::reached(|| SEEN.load(Ordering::Acquire) >= u32::MAX / 2);
        cpu::cli();
        assert!(heard, "never told to stop");
    }
    static SEEN: AtomicU32 = AtomicU32::new(0);
    SEEN.store(0, Ordering::Release);
    idt::hook(0x52, |_| {
        SEEN.fetch_add(1, Ordering::AcqRel);
        eoi();
    });
    for other in 1..cpus {
        smp::post(other as usize, listen, 0);
    }
    let mut wanted = 0;
    for (destination, low, expected) in [
        (0, ICR_OTHERS, cpus - 1),
        (0, ICR_ALL, cpus),
        (everyone, 0, cpus),
        (0, ICR_OTHERS, cpus - 1),
    ] {
        wanted += expected;
        send(destination, 0x52 | ICR_ASSERT | low);
        cpu::take_interrupts();
        assert!(
            time::reached(|| SEEN.load(Ordering::Acquire) == wanted),
            "shorthand {low:#x}"
        );
    }
    time::spin(100_000);
    assert_eq!(SEEN.load(Ordering::Acquire), wanted);
    SEEN.store(u32::MAX / 2, Ordering::Release);
    for other in 1..cpus {
        smp::join(other as usize);
    }
    Pass
}
