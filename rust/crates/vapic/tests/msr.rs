// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Every x2APIC MSR: which exist, which way, and which bits (SDM Vol. 3, table 11-6).

use crate::common::{fresh, msr, x2apic, xapic, TestApic, CONFIG, X2APIC_BASE};
use vapic::{regs, ApicPage, Config, Effect, GeneralProtection, Lapic, Mode};

/// The table: MSRs that can be read, that can be written, and the bits a write may have.
const TABLE: [(std::ops::RangeInclusive<u32>, bool, Option<u64>); 21] = [
    (0x802..=0x802, true, None),
    (0x803..=0x803, true, None),
    (0x808..=0x808, true, Some(0xFF)),
    (0x80A..=0x80A, true, None),
    (0x80B..=0x80B, false, Some(0)),
    (0x80D..=0x80D, true, None),
    (0x80F..=0x80F, true, Some(0x3FF)),
    (0x810..=0x827, true, None),
    (0x828..=0x828, true, Some(0)),
    (0x830..=0x830, true, Some(0xFFFF_FFFF_000C_DFFF)),
    (0x832..=0x832, true, Some(0x7_10FF)),
    (0x833..=0x834, true, Some(0x1_17FF)),
    (0x835..=0x836, true, Some(0x1_F7FF)),
    (0x837..=0x837, true, Some(0x1_10FF)),
    (0x838..=0x838, true, Some(0xFFFF_FFFF)),
    (0x839..=0x839, true, None),
    (0x83E..=0x83E, true, Some(0xB)),
    (0x83F..=0x83F, false, Some(0xFF)),
    // Arbitration priority, remote read and destination format exist in xAPIC mode only.
    (0x809..=0x809, false, None),
    (0x80C..=0x80C, false, None),
    (0x80E..=0x80E, false, None),
];

fn row(msr: u32) -> (bool, Option<u64>) {
    TABLE
        .iter()
        .find(|row| row.0.contains(&msr))
        .map_or((false, None), |row| (row.1, row.2))
}

#[test]
fn every_msr_in_x2apic_mode() {
    for msr in 0x7F0..=0x90F {
        let (readable, writable) = row(msr);
        assert_eq!(x2apic(1).msr_read(msr, 0).is_ok(), readable, "{msr:#x}");
        assert_eq!(
            x2apic(1).msr_write(msr, 0, 0).is_ok(),
            writable.is_some(),
            "{msr:#x}"
        );
        for bit in 0..64 {
            let allowed = writable.is_some_and(|bits| (bits >> bit) & 1 == 1);
            // Mode 11B of the timer is reserved, which one bit alone is not.
            let got = x2apic(1).msr_write(msr, 1 << bit, 0);
            assert_eq!(got.is_ok(), allowed, "{msr:#x} bit {bit}");
        }
        if let Some(bits) = writable {
            let bits = if msr == 0x832 {
                bits & !(1 << 18)
            } else {
                bits
            };
            assert!(x2apic(1).msr_write(msr, bits, 0).is_ok(), "{msr:#x}");
        }
    }
}

#[test]
fn no_msr_in_the_other_modes() {
    for base in [regs::DEFAULT_BASE, regs::DEFAULT_BASE | regs::BASE_EN] {
        for msr in 0x800..=0x8FF {
            let mut apic = xapic(1);
            apic.set_apic_base(base).unwrap();
            assert_ne!(apic.mode(), Mode::X2Apic);
            assert_eq!(apic.msr_read(msr, 0), Err(GeneralProtection), "{msr:#x}");
            for value in [0, 0x40] {
                assert_eq!(
                    apic.msr_write(msr, value, 0),
                    Err(GeneralProtection),
                    "{msr:#x}"
                );
            }
        }
    }
}

#[test]
fn what_is_written_is_read() {
    for (offset, value, read) in [
        (regs::TPR, 0xA5, 0xA5),
        (regs::SVR, 0x3F0, 0x3F0),
        (regs::LVT_TIMER, 0x3_10EE, 0x3_00EE),
        (regs::LVT_THERMAL, 0x1_1755, 0x1_0755),
        (regs::LVT_PMC, 0x0_04FE, 0x0_04FE),
        (regs::LVT_LINT0, 0x1_F7FF, 0x1_A7FF),
        (regs::LVT_LINT1, 0x0_0400, 0x0_0400),
        (regs::LVT_ERROR, 0x0_00FE, 0x0_00FE),
        (regs::TIMER_ICR, 0x8765_4321, 0x8765_4321),
        (regs::TIMER_DCR, 0xB, 0xB),
        // Delivery status reads idle.
        (regs::ICR_LOW, 0x1234_5678_000C_D8FE, 0x1234_5678_000C_C8FE),
    ] {
        let mut apic = x2apic(1);
        apic.msr_write(msr(offset), value, 0).unwrap();
        assert_eq!(apic.msr_read(msr(offset), 0), Ok(read), "{offset:#x}");
    }
}

#[test]
fn the_icr_is_one_field_in_the_page() {
    let mut apic = x2apic(1);
    let icr = 0x89AB_CDEF_0000_0840;
    assert!(
        matches!(apic.msr_write(0x830, icr, 0), Ok(Effect::SendIpi(sent)) if sent.value() == icr)
    );
    // Virtualized RDMSR takes EDX from the four bytes after EAX (SDM 31.5).
    assert_eq!(
        (apic.page().get(0x300), apic.page().get(0x304)),
        (0x840, 0x89AB_CDEF)
    );
}

#[test]
fn esr_takes_only_zero() {
    let mut apic = x2apic(1);
    apic.msr_write(0x83F, 5, 0).unwrap();
    assert_eq!(apic.msr_read(0x828, 0), Ok(0), "not latched yet");
    assert!(apic.msr_write(0x828, 1, 0).is_err());
    assert_eq!(apic.msr_read(0x828, 0), Ok(0));
    apic.msr_write(0x828, 0, 0).unwrap();
    assert_eq!(
        apic.msr_read(0x828, 0),
        Ok(0x60),
        "send and receive illegal vector"
    );
    apic.msr_write(0x828, 0, 0).unwrap();
    assert_eq!(apic.msr_read(0x828, 0), Ok(0));
}

#[test]
fn reserved_timer_modes() {
    let mut apic = x2apic(0);
    assert!(apic.msr_write(0x832, 3 << 17, 0).is_err());
    let config = Config {
        tsc_deadline_available: false,
        ..CONFIG
    };
    let mut apic: TestApic = Lapic::new(Box::new(ApicPage::new()), 0, true, config);
    apic.write_apic_base(X2APIC_BASE).unwrap();
    assert!(apic.msr_write(0x832, 2 << 17, 0).is_err());
    assert!(apic.msr_write(0x832, 1 << 17, 0).is_ok());
    assert!(apic.msr_write(regs::MSR_TSC_DEADLINE, 5, 0).is_err());
    assert!(apic.msr_read(regs::MSR_TSC_DEADLINE, 0).is_err());
}

#[test]
fn eoi_by_msr() {
    let mut apic = x2apic(0);
    apic.accept(0x61, vapic::Trigger::Edge);
    apic.acknowledge();
    assert!(apic.msr_write(0x80B, 1, 0).is_err());
    assert!(apic.is_in_service(0x61));
    assert!(matches!(apic.msr_write(0x80B, 0, 0), Ok(Effect::Eoi(eoi)) if eoi.vector == 0x61));
}

#[test]
fn software_disable_by_msr() {
    let mut apic = fresh(0);
    apic.write_apic_base(X2APIC_BASE).unwrap();
    assert_eq!(
        apic.msr_write(0x80F, 0x1FF, 0),
        Ok(Effect::DestinationChanged)
    );
    assert!(apic.is_software_enabled());
    assert_eq!(
        apic.msr_write(0x80F, 0x1FE, 0),
        Ok(Effect::None),
        "only the vector"
    );
    assert_eq!(
        apic.msr_write(0x80F, 0xFE, 0),
        Ok(Effect::DestinationChanged)
    );
    assert!(!apic.is_software_enabled());
}
