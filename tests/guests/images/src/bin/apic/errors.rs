// SPDX-License-Identifier: GPL-2.0 OR MIT
//! ESR, the error interrupt, and the software-disabled APIC.

use guest::apic::*;
use guest::{cpu, hv, record, require, time, Pass, Verdict};

const ERROR: u8 = 0x48;
const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;

fn esr() -> u32 {
    write(ESR, 0);
    read(ESR)
}

pub fn illegal_vector() -> Verdict {
    require!(!hv::tcg(), "TCG has no ESR and delivers vector 5");
    record::start(&[ERROR]);
    write(LVT_ERROR, u32::from(ERROR));
    let _ = esr();
    assert_eq!(esr(), 0);
    send(id(), 5 | ICR_ASSERT);
    let error = esr();
    // The same APIC sends and receives: either may be the one that tells.
    assert!(
        error & (SEND_ILLEGAL_VECTOR | RECEIVE_ILLEGAL_VECTOR) != 0,
        "ESR {error:#x} after sending vector 5"
    );
    cpu::take_interrupts();
    assert!(record::len() >= 1, "no error interrupt");
    assert_eq!(esr(), 0, "not cleared by the next write");
    // An LVT entry with an illegal vector: on delivery or when written.
    write(LVT_TIMER, 3);
    write(TIMER_INITIAL, 1000);
    let told = time::reached(|| esr() & RECEIVE_ILLEGAL_VECTOR != 0);
    write(LVT_TIMER, LVT_MASKED);
    write(LVT_ERROR, LVT_MASKED);
    cpu::take_interrupts();
    assert!(told, "timer with vector 3");
    Pass
}

/// SVR bit 8 clear: LVTs stay masked, fixed interrupts are refused, NMIs are not (12.4.7.2).
pub fn software_disabled() -> Verdict {
    require!(!hv::tcg(), "TCG does not mask LVTs");
    record::start(&[0x51]);
    write(LVT_TIMER, 0x51);
    write(SVR, u32::from(SPURIOUS));
    assert!(read(LVT_TIMER) & LVT_MASKED != 0, "LVT not masked");
    write(LVT_TIMER, 0x51);
    assert!(read(LVT_TIMER) & LVT_MASKED != 0, "LVT was unmasked");
    send(id(), 0x51 | ICR_ASSERT);
    time::spin(10_000);
    cpu::take_interrupts();
    record::expect(&[]);
    record::start(&[guest::idt::NMI]);
    guest::idt::hook(guest::idt::NMI, |_| record::note(guest::idt::NMI));
    send(id(), ICR_NMI | ICR_ASSERT);
    let nmi = time::reached(|| record::len() == 1);
    write(SVR, SVR_ENABLE | u32::from(SPURIOUS));
    assert!(nmi, "NMI refused");
    record::start(&[0x51]);
    cpu::take_interrupts();
    record::expect(&[]);
    assert!(read(LVT_TIMER) & LVT_MASKED != 0, "masks went away");
    send(id(), 0x51 | ICR_ASSERT);
    cpu::take_interrupts();
    record::expect(&[0x51]);
    Pass
}
