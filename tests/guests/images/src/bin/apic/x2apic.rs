// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What only the x2APIC has: MSRs that fault, SELF IPI, logical ids by hardware.

use guest::apic::*;
use guest::expect::{rdmsr_gp, wrmsr_gp};
use guest::{cpu, hv, record, require, Pass, Verdict};

pub fn faults() -> Verdict {
    require!(!hv::tcg(), "TCG lets reserved bits pass");
    for reserved in [
        0x800, 0x801, 0x804, 0x80c, 0x80e, 0x829, 0x831, 0x83a, 0x840, 0x8ff,
    ] {
        rdmsr_gp(reserved);
        wrmsr_gp(reserved, 0);
    }
    for (read_only, value) in [
        (ID, 0),
        (VERSION, 0),
        (PPR, 0),
        (LDR, 0),
        (ISR, 0),
        (TMR, 0),
        (IRR, 0),
        (TIMER_CURRENT, 0),
    ] {
        wrmsr_gp(x2apic_msr(read_only), value);
    }
    rdmsr_gp(x2apic_msr(EOI));
    rdmsr_gp(x2apic_msr(SELF_IPI));
    wrmsr_gp(x2apic_msr(EOI), 1);
    wrmsr_gp(x2apic_msr(ESR), 1);
    wrmsr_gp(x2apic_msr(TPR), 0x100);
    wrmsr_gp(x2apic_msr(SVR), 1 << 32);
    wrmsr_gp(x2apic_msr(TIMER_INITIAL), 1 << 32);
    wrmsr_gp(x2apic_msr(SELF_IPI), 0x100);
    Pass
}

/// Reserved bits inside registers that are there.
pub fn reserved_bits() -> Verdict {
    require!(!hv::tcg(), "TCG lets reserved bits pass");
    wrmsr_gp(x2apic_msr(LVT_TIMER), 1 << 20);
    wrmsr_gp(x2apic_msr(TIMER_DIVIDE), 1 << 4);
    wrmsr_gp(x2apic_msr(ICR), 1 << 20 | 0x51);
    Pass
}

pub fn self_ipi_msr() -> Verdict {
    record::start(&[0x51, 0x61]);
    cpu::wrmsr(x2apic_msr(SELF_IPI), 0x51);
    cpu::wrmsr(x2apic_msr(SELF_IPI), 0x61);
    assert!(vector_bit(IRR, 0x51) && vector_bit(IRR, 0x61));
    cpu::take_interrupts();
    record::expect(&[0x61, 0x51]);
    Pass
}

pub fn logical() -> Verdict {
    record::start(&[0x51]);
    let (id, ldr) = (id(), read(LDR));
    assert_eq!(ldr, id >> 4 << 16 | 1 << (id & 15), "LDR of id {id:#x}");
    for (destination, delivered) in [
        (ldr, true),
        (ldr | 0x8000, true),
        (ldr ^ 0x10000, false),
        (ldr & !0xffff, false),
    ] {
        send(destination, 0x51 | ICR_LOGICAL | ICR_ASSERT);
        cpu::take_interrupts();
        assert_eq!(
            record::len(),
            usize::from(delivered),
            "logical destination {destination:#x}"
        );
        record::start(&[0x51]);
    }
    Pass
}
