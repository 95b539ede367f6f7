// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Save and restore.

use crate::common::{fresh, write, x2apic, xapic, Random, TestApic, CONFIG, X2APIC_BASE};
use hvdef::HvLocalInterruptControllerState;
use vapic::{regs, ApicPage, Lapic, TimerMode, Trigger};

/// An APIC that has been used at random.
fn used(random: &mut Random, x2: bool) -> (TestApic, u64) {
    let mut apic = if x2 { x2apic(3) } else { xapic(3) };
    let mut now = 0;
    for _ in 0..300 {
        now += random.below(5000);
        let offset = [
            regs::TPR,
            regs::EOI,
            regs::LDR,
            regs::DFR,
            regs::SVR,
            regs::ESR,
            regs::ICR_LOW,
            regs::ICR_HIGH,
            regs::TIMER_ICR,
            regs::TIMER_DCR,
            regs::LVT_TIMER,
            regs::LVT_LINT0,
            regs::LVT_LINT1,
            regs::LVT_ERROR,
            regs::LVT_PMC,
            0x40,
        ][random.below(16) as usize];
        let value = match offset {
            regs::SVR => 0xFF | (random.below(8).min(1) << 8) as u32,
            regs::TIMER_ICR => random.below(4000) as u32,
            _ => random.next() as u32 & 0x9F_A7FF,
        };
        if x2 {
            let _ = apic.msr_write(crate::common::msr(offset), value.into(), now);
        } else {
            apic.mmio_write(offset, 4, value, now);
        }
        apic.accept(random.next() as u8, Trigger::Level);
        apic.accept(random.next() as u8, Trigger::Edge);
        apic.acknowledge();
        apic.lint(0);
        apic.timer_expire(now);
    }
    (apic, now)
}

#[test]
fn restored_apics_go_on_alike() {
    for seed in 1..100 {
        let mut random = Random::new(seed);
        let x2 = seed % 2 == 0;
        let (mut apic, now) = used(&mut random, x2);
        let state = apic.save(now);
        let mut copy = fresh(3);
        copy.set_apic_base(apic.apic_base()).unwrap();
        copy.set_tpr(apic.tpr());
        copy.restore_tsc_deadline(apic.tsc_deadline(now));
        copy.restore(&state, now);
        assert_eq!(copy.save(now), state, "seed {seed}");
        assert_eq!(copy.view(), apic.view());
        assert_eq!(copy.ppr(), apic.ppr());
        assert_eq!(
            copy.timer_deadline().is_some(),
            apic.timer_deadline().is_some()
        );
        for step in 0..50 {
            let now = now + step * 700;
            if let (Some(a), Some(b)) = (copy.timer_ticks_left(now), apic.timer_ticks_left(now)) {
                // One count at the largest divisor.
                assert!(a.abs_diff(b) <= 1280, "seed {seed}: {a} {b}");
            }
            assert_eq!(
                copy.acknowledge(),
                apic.acknowledge(),
                "seed {seed} step {step}"
            );
            if step % 3 == 0 {
                assert_eq!(copy.eoi(), apic.eoi());
            }
        }
    }
}

#[test]
fn the_state_has_the_registers() {
    let mut apic = xapic(3);
    for (offset, value) in [
        (regs::LDR, 0x0800_0000),
        (regs::DFR, 0),
        (regs::ICR_HIGH, 0x0900_0000),
        (regs::ICR_LOW, 0x1F0),
        (regs::LVT_THERMAL, 0x31),
        (regs::LVT_PMC, 0x32),
        (regs::LVT_LINT0, 0x33),
        (regs::LVT_LINT1, 0x34),
        (regs::LVT_ERROR, 0x35),
        (regs::LVT_TIMER, 0x2_0036),
        (regs::TIMER_DCR, 0xB),
        (regs::TIMER_ICR, 1000),
    ] {
        write(&mut apic, offset, value);
    }
    apic.accept(0x90, Trigger::Level);
    apic.acknowledge();
    apic.accept(0x41, Trigger::Edge);
    apic.accept(1, Trigger::Edge);
    apic.acknowledge();
    let mut expected = HvLocalInterruptControllerState {
        apic_id: 3 << 24,
        apic_version: 0x5_0014,
        apic_ldr: 0x0800_0000,
        apic_dfr: 0x0FFF_FFFF,
        apic_spurious: 0x1FF,
        apic_icr_high: 0x0900_0000,
        apic_icr_low: 0x1F0,
        apic_lvt_thermal: 0x31,
        apic_lvt_perfmon: 0x32,
        apic_lvt_lint0: 0x33,
        apic_lvt_lint1: 0x34,
        apic_lvt_error: 0x35,
        apic_lvt_timer: 0x2_0036,
        apic_error_status: regs::ESR_RECEIVE_ILLEGAL_VECTOR,
        apic_initial_count: 1000,
        // 250 of 10 TSC ticks each have gone by.
        apic_counter_value: 750,
        apic_divide_configuration: 0xB,
        ..Default::default()
    };
    expected.apic_isr[4] = 1 << 16;
    expected.apic_tmr[4] = 1 << 16;
    expected.apic_irr[2] = 1 << 1;
    // The error interrupt, 35H.
    expected.apic_irr[1] = 1 << 21;
    assert_eq!(apic.save(2500), expected);
}

#[test]
fn hostile_states_do_no_harm() {
    let mut random = Random::new(99);
    for round in 0..200 {
        let mut word = || {
            if round == 0 {
                u32::MAX
            } else {
                random.next() as u32
            }
        };
        let mut words = || std::array::from_fn(|_| word());
        let (apic_isr, apic_tmr, apic_irr) = (words(), words(), words());
        let state = HvLocalInterruptControllerState {
            apic_id: word(),
            apic_version: word(),
            apic_ldr: word(),
            apic_dfr: word(),
            apic_spurious: word(),
            apic_isr,
            apic_tmr,
            apic_irr,
            apic_esr: word(),
            apic_icr_high: word(),
            apic_icr_low: word(),
            apic_lvt_timer: word(),
            apic_lvt_thermal: word(),
            apic_lvt_perfmon: word(),
            apic_lvt_lint0: word(),
            apic_lvt_lint1: word(),
            apic_lvt_error: word(),
            apic_lvt_cmci: word(),
            apic_error_status: word(),
            apic_initial_count: word(),
            apic_counter_value: word(),
            apic_divide_configuration: word(),
            apic_remote_read: word(),
        };
        let mut apic = if round % 2 == 0 { x2apic(3) } else { xapic(3) };
        apic.restore(&state, u64::MAX - 5);
        for vector in 0..16 {
            assert!(!apic.is_requested(vector) && !apic.is_in_service(vector));
        }
        assert!(state.apic_spurious & 0x100 != 0 || apic.timer_deadline().is_none());
        let saved = apic.save(u64::MAX - 5);
        assert_eq!(saved.apic_id, if round % 2 == 0 { 3 } else { 3 << 24 });
        assert_eq!(saved.apic_version, 0x5_0014);
        for now in [0, 1, u64::MAX / 2, u64::MAX] {
            apic.timer_expire(now);
        }
        while apic.eoi().is_some() {}
        let mut last = u8::MAX;
        while let Some(vector) = apic.acknowledge() {
            assert!(vector <= last);
            last = vector;
            apic.eoi();
        }
    }
}

#[test]
fn a_deadline_may_be_restored_before_the_registers() {
    let mut apic = xapic(0);
    write(&mut apic, regs::LVT_TIMER, (2 << 17) | 0x40);
    apic.write_tsc_deadline(5000, 100);
    let state = apic.save(100);
    for deadline_first in [true, false] {
        let mut copy = fresh(0);
        if deadline_first {
            copy.restore_tsc_deadline(5000);
            copy.restore(&state, 100);
        } else {
            copy.restore(&state, 100);
            copy.restore_tsc_deadline(5000);
        }
        assert_eq!(copy.timer_mode(), TimerMode::TscDeadline);
        assert_eq!(copy.timer_deadline(), Some(5000));
        assert_eq!(copy.tsc_deadline(100), 5000);
    }
}

#[test]
fn a_disabled_apic_is_not_restored() {
    let mut apic = xapic(0);
    apic.accept(0x40, Trigger::Edge);
    let state = apic.save(0);
    let mut copy: TestApic = Lapic::new(Box::new(ApicPage::new()), 0, true, CONFIG);
    copy.write_apic_base(regs::DEFAULT_BASE).unwrap();
    copy.restore(&state, 0);
    assert_eq!(copy.pending(), None);
    assert!(!copy.is_software_enabled());
    copy.set_apic_base(X2APIC_BASE).unwrap();
    copy.restore(&state, 0);
    assert_eq!(copy.pending(), Some(0x40));
}

#[test]
fn an_error_interrupt_is_not_raised_twice() {
    for armed in [true, false] {
        let mut apic = xapic(0);
        write(&mut apic, regs::LVT_ERROR, 0xFE);
        if !armed {
            apic.accept(1, Trigger::Edge);
            apic.acknowledge();
            apic.eoi();
        }
        let state = apic.save(0);
        let mut copy = fresh(0);
        copy.restore(&state, 0);
        copy.accept(1, Trigger::Edge);
        assert_eq!(copy.pending(), armed.then_some(0xFE));
    }
}
