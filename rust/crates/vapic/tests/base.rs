// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `IA32_APIC_BASE`, RESET and INIT (SDM Vol. 3, 11.4.4, 11.4.7 and 11.12.5).

use crate::common::{
    fresh, msr, read, write, x2apic, xapic, TestApic, CONFIG, X2APIC_BASE, XAPIC_BASE,
};
use vapic::{
    regs, ApicPage, Config, DeliveryMode, Destination, DestinationView, Effect, Lapic, Mode,
    Trigger,
};

const DISABLED: u64 = regs::DEFAULT_BASE;
const INVALID: u64 = regs::DEFAULT_BASE | regs::BASE_EXTD;

/// SDM figure 11-27 as a table: from, value written, mode after it or a fault.
const TRANSITIONS: [(u64, u64, Option<Mode>); 12] = [
    (DISABLED, DISABLED, Some(Mode::Disabled)),
    (DISABLED, XAPIC_BASE, Some(Mode::XApic)),
    (DISABLED, X2APIC_BASE, None),
    (DISABLED, INVALID, None),
    (XAPIC_BASE, DISABLED, Some(Mode::Disabled)),
    (XAPIC_BASE, XAPIC_BASE, Some(Mode::XApic)),
    (XAPIC_BASE, X2APIC_BASE, Some(Mode::X2Apic)),
    (XAPIC_BASE, INVALID, None),
    (X2APIC_BASE, DISABLED, Some(Mode::Disabled)),
    (X2APIC_BASE, XAPIC_BASE, None),
    (X2APIC_BASE, X2APIC_BASE, Some(Mode::X2Apic)),
    (X2APIC_BASE, INVALID, None),
];

#[test]
fn transitions() {
    for (from, to, expected) in TRANSITIONS {
        let mut apic = fresh(3);
        apic.set_apic_base(from).unwrap();
        let before = (apic.apic_base(), apic.mode());
        match (apic.write_apic_base(to), expected) {
            (Ok(effect), Some(mode)) => {
                assert_eq!(effect, Effect::BaseChanged);
                assert_eq!((apic.apic_base(), apic.mode()), (to, mode));
            }
            (Err(_), None) => assert_eq!((apic.apic_base(), apic.mode()), before),
            (got, _) => panic!("{from:#x} -> {to:#x}: {got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn the_vmm_may_set_any_valid_mode() {
    for from in [DISABLED, XAPIC_BASE, X2APIC_BASE] {
        for to in [DISABLED, XAPIC_BASE, X2APIC_BASE] {
            let mut apic = fresh(0);
            apic.set_apic_base(from).unwrap();
            apic.set_apic_base(to).unwrap();
            assert_eq!(apic.apic_base(), to | regs::BASE_BSP);
        }
        assert!(fresh(0).set_apic_base(INVALID).is_err());
    }
}

#[test]
fn reserved_bits_fault() {
    let mut apic = fresh(0);
    for bit in (0..8).chain([9]).chain(46..64) {
        assert!(
            apic.write_apic_base(XAPIC_BASE | (1 << bit)).is_err(),
            "bit {bit}"
        );
    }
    for bit in 12..46 {
        assert!(
            apic.write_apic_base(XAPIC_BASE ^ (1 << bit)).is_ok(),
            "bit {bit}"
        );
        assert_eq!(apic.base(), regs::DEFAULT_BASE ^ (1 << bit));
        assert_eq!(apic.mode(), Mode::XApic);
    }
}

#[test]
fn x2apic_must_be_offered() {
    let config = Config {
        x2apic_available: false,
        ..CONFIG
    };
    let mut apic: TestApic = Lapic::new(Box::new(ApicPage::new()), 0, true, config);
    assert!(apic.write_apic_base(X2APIC_BASE).is_err());
    assert!(apic.set_apic_base(X2APIC_BASE).is_err());
}

#[test]
fn the_bsp_flag_is_given() {
    for (id, bsp) in [(0, regs::BASE_BSP), (1, 0)] {
        let mut apic = fresh(id);
        assert_eq!(apic.apic_base(), XAPIC_BASE | bsp);
        assert_eq!(apic.is_bsp(), bsp != 0);
        apic.write_apic_base(XAPIC_BASE | (bsp ^ regs::BASE_BSP))
            .unwrap();
        assert_eq!(apic.apic_base(), XAPIC_BASE | bsp);
        apic.reset();
        assert_eq!(apic.apic_base(), XAPIC_BASE | bsp);
    }
}

#[test]
fn x2apic_keeps_registers_but_ids_and_icr_high() {
    let mut apic = xapic(0x25);
    write(&mut apic, regs::LDR, 0x0400_0000);
    write(&mut apic, regs::LVT_LINT1, 0x400);
    write(&mut apic, regs::TPR, 0x20);
    write(&mut apic, regs::ICR_HIGH, 0x0700_0000);
    apic.accept(0x99, Trigger::Edge);
    apic.write_apic_base(X2APIC_BASE).unwrap();
    let mut get = |offset| apic.msr_read(msr(offset), 0).unwrap();
    assert_eq!(get(regs::ID), 0x25);
    assert_eq!(get(regs::LDR), 0x0002_0020);
    assert_eq!(get(regs::LVT_LINT1), 0x400);
    assert_eq!(get(regs::TPR), 0x20);
    assert_eq!(get(regs::ICR_LOW), 0);
    assert_eq!(get(regs::SVR), 0x1FF);
    assert_eq!(get(regs::IRR + 0x40), 1 << 25);
    assert_eq!(apic.pending(), Some(0x99));
    assert!(apic.is_software_enabled());
}

/// SDM 11.4.7.1.
fn assert_reset_registers(get: &mut dyn FnMut(u16) -> u32) {
    for offset in [
        regs::TPR,
        regs::PPR,
        regs::ESR,
        regs::ICR_LOW,
        regs::TIMER_ICR,
        regs::TIMER_CCR,
        regs::TIMER_DCR,
    ] {
        assert_eq!(get(offset), 0, "{offset:#x}");
    }
    for base in [regs::ISR, regs::TMR, regs::IRR] {
        for i in 0..8 {
            assert_eq!(get(base + i * 16), 0);
        }
    }
    for offset in regs::LVTS {
        assert_eq!(get(offset), 0x1_0000, "{offset:#x}");
    }
    assert_eq!(get(regs::SVR), 0xFF);
    assert_eq!(get(regs::VERSION), 0x0005_0014);
}

/// Gives every register something that RESET must take away.
fn scramble(apic: &mut TestApic) {
    for vector in 16..=255 {
        apic.accept(vector, Trigger::Level);
    }
    apic.acknowledge();
    apic.set_tpr(0x33);
    for offset in regs::LVTS {
        apic.msr_write(msr(offset), 0x55, 0).ok();
        write(apic, offset, 0x55);
    }
    for (offset, value) in [
        (regs::TIMER_DCR, 3),
        (regs::TIMER_ICR, 1000),
        (regs::ICR_LOW, 0x40FF),
    ] {
        apic.msr_write(msr(offset), value, 0).ok();
        write(apic, offset, value as u32);
    }
    apic.accept(1, Trigger::Edge);
}

#[test]
fn reset_and_init_of_xapic() {
    for init in [false, true] {
        let mut apic = xapic(6);
        let relocated = XAPIC_BASE ^ 0x10_0000;
        apic.write_apic_base(relocated).unwrap();
        scramble(&mut apic);
        write(&mut apic, regs::LDR, 0x0F00_0000);
        write(&mut apic, regs::DFR, 0);
        if init {
            apic.init();
            assert_eq!(apic.apic_base(), relocated, "INIT leaves IA32_APIC_BASE");
        } else {
            apic.reset();
            assert_eq!(apic.apic_base(), XAPIC_BASE);
        }
        assert_reset_registers(&mut |offset| read(&mut apic, offset));
        assert_eq!(read(&mut apic, regs::ID), 6 << 24);
        assert_eq!(read(&mut apic, regs::LDR), 0);
        assert_eq!(read(&mut apic, regs::DFR), u32::MAX);
        assert_eq!(apic.view(), DestinationView::xapic(6, 0, u32::MAX, false));
        assert_eq!(
            (apic.pending(), apic.highest_isr(), apic.timer_deadline()),
            (None, None, None)
        );
        assert_eq!(crate::common::esr(&mut apic), 0);
    }
}

#[test]
fn init_leaves_x2apic_mode_and_reset_ends_it() {
    let mut apic = x2apic(0x123);
    scramble(&mut apic);
    apic.init();
    assert_eq!(apic.mode(), Mode::X2Apic);
    assert_reset_registers(&mut |offset| apic.msr_read(msr(offset), 0).unwrap() as u32);
    assert_eq!(apic.msr_read(msr(regs::ID), 0), Ok(0x123));
    assert_eq!(apic.msr_read(msr(regs::LDR), 0), Ok(0x0012_0008));
    assert_eq!(apic.view(), DestinationView::x2apic(0x123, false));
    apic.reset();
    assert_eq!(apic.mode(), Mode::XApic);
}

#[test]
fn a_disabled_apic_comes_back_as_after_reset() {
    for mut apic in [xapic(2), x2apic(2)] {
        scramble(&mut apic);
        apic.write_apic_base(DISABLED).unwrap();
        assert!(!apic.is_software_enabled());
        assert_eq!(apic.view(), DestinationView::disabled(2));
        assert_eq!(apic.pending(), None);
        assert!(!apic.accept(0x40, Trigger::Edge));
        assert!(apic.msr_read(msr(regs::ID), 0).is_err());
        assert_eq!(read(&mut apic, regs::ID), 0);
        assert_eq!(write(&mut apic, regs::SVR, 0x1FF), Effect::None);
        assert!(!apic.is_software_enabled());
        apic.write_apic_base(XAPIC_BASE).unwrap();
        assert_reset_registers(&mut |offset| read(&mut apic, offset));
    }
}

#[test]
fn without_a_local_apic_the_base_is_kept_and_nothing_else() {
    let config = Config {
        present: false,
        ..CONFIG
    };
    let mut apic = Lapic::new(Box::new(ApicPage::new()), 1, false, config);
    for value in [XAPIC_BASE, X2APIC_BASE, 0] {
        apic.set_apic_base(value).unwrap();
        assert_eq!((apic.apic_base(), apic.mode()), (value, Mode::Disabled));
    }
    assert!(apic.set_apic_base(XAPIC_BASE | 1).is_err());
    assert!(apic.write_apic_base(XAPIC_BASE).is_err());
    apic.reset();
    assert!(!apic.is_enabled());
    apic.set_cr8(7);
    assert_eq!(apic.cr8(), 7);
    assert!(!apic.accept(0x41, Trigger::Edge));
    let all = Destination {
        id: 0xff,
        logical: false,
        x2apic: false,
    };
    assert!(!apic.view().accepts(all, DeliveryMode::Nmi));
}
