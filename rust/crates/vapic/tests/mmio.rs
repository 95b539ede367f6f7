// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The xAPIC page: registers, sizes, IPIs (SDM Vol. 3, 11.4.1 and 11.6.1).

use crate::common::{esr, read, write, x2apic, xapic, TestApic};
use vapic::{regs, Effect};

/// Offsets of SDM table 11-1 (without CMCI, which is not offered).
fn exists(offset: u16) -> bool {
    let rows = [0x20, 0x30, 0x300, 0x310, 0x3E0];
    rows.contains(&offset)
        || (0x80..=0xF0).contains(&offset)
        || (0x100..=0x280).contains(&offset)
        || (0x320..=0x390).contains(&offset)
}

#[test]
fn reserved_registers_are_errors() {
    for offset in (0..0x1000).step_by(16) {
        let mut apic = xapic(1);
        read(&mut apic, offset);
        let expected = if exists(offset) {
            0
        } else {
            regs::ESR_ILLEGAL_REGISTER_ADDRESS
        };
        assert_eq!(esr(&mut apic), expected, "read of {offset:#x}");
        let mut apic = xapic(1);
        write(&mut apic, offset, 0x40);
        assert_eq!(esr(&mut apic), expected, "write of {offset:#x}");
    }
}

#[test]
fn read_only_registers_ignore_writes() {
    for offset in [
        regs::ID,
        regs::VERSION,
        regs::APR,
        regs::PPR,
        regs::RRD,
        regs::TIMER_CCR,
    ]
    .into_iter()
    .chain((0x100..0x280).step_by(16))
    {
        let mut apic = xapic(5);
        let before = read(&mut apic, offset);
        assert_eq!(write(&mut apic, offset, !before), Effect::None);
        assert_eq!(read(&mut apic, offset), before, "{offset:#x}");
    }
    assert_eq!(read(&mut xapic(5), regs::ID), 5 << 24);
}

#[test]
fn reserved_bits_are_not_kept() {
    for (offset, kept) in [
        (regs::TPR, 0xFF),
        (regs::LDR, 0xFF00_0000),
        (regs::DFR, 0xFFFF_FFFF),
        (regs::SVR, 0x3FF),
        (regs::ICR_HIGH, 0xFF00_0000),
        (regs::ICR_LOW, 0x000C_CFFF),
        (regs::LVT_TIMER, 0x7_00FF),
        (regs::LVT_THERMAL, 0x1_07FF),
        (regs::LVT_PMC, 0x1_07FF),
        (regs::LVT_LINT0, 0x1_A7FF),
        (regs::LVT_LINT1, 0x1_A7FF),
        (regs::LVT_ERROR, 0x1_00FF),
        (regs::TIMER_ICR, 0xFFFF_FFFF),
        (regs::TIMER_DCR, 0xB),
    ] {
        let mut apic = xapic(1);
        write(&mut apic, offset, u32::MAX);
        assert_eq!(read(&mut apic, offset), kept, "{offset:#x}");
    }
    let mut apic = xapic(1);
    write(&mut apic, regs::DFR, 0);
    assert_eq!(read(&mut apic, regs::DFR), 0x0FFF_FFFF);
}

#[test]
fn sizes_and_alignment() {
    let mut apic = xapic(0xA5);
    write(&mut apic, regs::TIMER_ICR, 0x1122_3344);
    for (offset, len, value) in [
        (0, 4, 0x1122_3344),
        (0, 2, 0x3344),
        (0, 1, 0x44),
        (1, 1, 0x33),
        (1, 2, 0x2233),
        (2, 2, 0x1122),
        (3, 1, 0x11),
        (3, 2, 0),
        (2, 4, 0),
        (4, 4, 0),
        (4, 0, 0),
        (12, 1, 0),
        (0, 8, 0),
        (0, 255, 0),
    ] {
        assert_eq!(
            apic.mmio_read(regs::TIMER_ICR + offset, len, 0),
            value,
            "{offset} {len}"
        );
    }
    for (offset, len) in [(0, 1), (0, 2), (0, 8), (1, 1), (2, 2), (4, 4)] {
        assert_eq!(
            apic.mmio_write(regs::TPR + offset, len, 0x77, 0),
            Effect::None
        );
        assert_eq!(apic.tpr(), 0, "{offset} {len}");
    }
}

#[test]
fn no_page_in_x2apic_mode() {
    let mut apic = x2apic(1);
    assert_eq!(read(&mut apic, regs::SVR), 0);
    assert_eq!(write(&mut apic, regs::TPR, 0x50), Effect::None);
    assert_eq!(apic.tpr(), 0);
}

/// What a write of the ICR sends, as `Icr::value`.
fn sent(apic: &mut TestApic, low: u32) -> Option<u64> {
    write(apic, regs::ICR_HIGH, 0x0200_0000);
    match write(apic, regs::ICR_LOW, low) {
        Effect::SendIpi(icr) => Some(icr.value()),
        Effect::None => None,
        effect => panic!("{effect:?}"),
    }
}

#[test]
fn ipis_are_sent_by_the_low_half() {
    let mut apic = xapic(0);
    let high = 0x0200_0000_0000_0000;
    assert_eq!(sent(&mut apic, 0x40), Some(high | 0x40));
    assert_eq!(sent(&mut apic, 0xC0_01C0 & !0xC0_0000), Some(high | 0x1C0));
    assert_eq!(sent(&mut apic, 0x4500), Some(high | 0x4500), "INIT");
    assert_eq!(
        sent(&mut apic, 0xC500),
        Some(high | 0xC500),
        "INIT, level assert"
    );
    assert_eq!(sent(&mut apic, 0x8500), None, "INIT level de-assert");
    assert_eq!(sent(&mut apic, 0x0500), Some(high | 0x0500), "INIT, edge");
    assert_eq!(
        sent(&mut apic, 0x4608),
        Some(high | 0x4608),
        "start-up, page 8"
    );
    assert_eq!(sent(&mut apic, 0x0200), Some(high | 0x0200), "SMI");
    assert_eq!(sent(&mut apic, 0x0400), Some(high | 0x0400), "NMI");
    assert_eq!(sent(&mut apic, 0x0340), None, "reserved mode 3");
    assert_eq!(sent(&mut apic, 0x0740), None, "reserved mode 7");
    assert_eq!(esr(&mut apic), 0);
    write(&mut apic, regs::ICR_LOW, 0x1040);
    assert_eq!(
        read(&mut apic, regs::ICR_LOW),
        0x40,
        "delivery status is idle"
    );
}

/// SDM table 11-3: only fixed goes with the shorthands that include the sender.
#[test]
fn shorthands() {
    for mode in 0..8 {
        for shorthand in 0..4 {
            let valid = match shorthand {
                0 | 3 => ![3, 7].contains(&mode),
                2 => mode == 0,
                _ => false,
            };
            let low = 0x4040 | (mode << 8) | (shorthand << 18);
            if (mode, shorthand) != (0, 1) {
                assert_eq!(
                    sent(&mut xapic(0), low).is_some(),
                    valid,
                    "{mode} {shorthand}"
                );
            }
        }
    }
    let mut apic = xapic(0);
    assert_eq!(
        write(&mut apic, regs::ICR_LOW, (1 << 18) | 0x40),
        Effect::InterruptPending
    );
    assert_eq!(apic.pending(), Some(0x40), "in the IRR at once");
    assert!(!apic.is_level_triggered(0x40));
}

#[test]
fn self_ipis_of_x2apic() {
    let mut apic = x2apic(3);
    assert_eq!(apic.msr_write(0x83F, 0x55, 0), Ok(Effect::InterruptPending));
    assert_eq!(apic.acknowledge(), Some(0x55));
    assert_eq!(
        apic.msr_write(0x830, (1 << 18) | 0x66, 0),
        Ok(Effect::InterruptPending)
    );
    assert_eq!(apic.acknowledge(), Some(0x66));
}

#[test]
fn illegal_vectors_are_errors_of_the_sender() {
    for mode in [0, 1] {
        let mut apic = xapic(0);
        assert!(
            sent(&mut apic, (mode << 8) | 0xF).is_some(),
            "the receivers see it too"
        );
        assert_eq!(esr(&mut apic), regs::ESR_SEND_ILLEGAL_VECTOR);
    }
    let mut apic = xapic(0);
    assert_eq!(write(&mut apic, regs::ICR_LOW, (1 << 18) | 2), Effect::None);
    assert_eq!(
        esr(&mut apic),
        regs::ESR_SEND_ILLEGAL_VECTOR | regs::ESR_RECEIVE_ILLEGAL_VECTOR
    );
    sent(&mut apic, 0x4500);
    sent(&mut apic, 0x4600);
    assert_eq!(
        esr(&mut apic),
        0,
        "INIT and start-up have no interrupt vector"
    );
}

#[test]
fn software_disabled_apics_still_send() {
    let mut apic = xapic(0);
    write(&mut apic, regs::SVR, 0xFF);
    assert!(sent(&mut apic, 0x4500).is_some());
    assert!(sent(&mut apic, 0x40).is_some());
    assert_eq!(
        write(&mut apic, regs::ICR_LOW, (1 << 18) | 0x40),
        Effect::None
    );
}

#[test]
fn a_new_apic_is_reset_whatever_the_page_had() {
    let mut page = Box::new(vapic::ApicPage::new());
    for offset in (0..0x400).step_by(16) {
        page.set(offset, u32::MAX);
    }
    let mut apic: TestApic = vapic::Lapic::new(page, 4, false, crate::common::CONFIG);
    let mut other = crate::common::fresh(4);
    for offset in (0..0x400).step_by(16).filter(|&offset| exists(offset)) {
        assert_eq!(
            read(&mut apic, offset),
            read(&mut other, offset),
            "{offset:#x}"
        );
    }
}
