// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The page as VMX's virtual-APIC page: what the processor does in it by itself (SDM Vol. 3,
//! chapter "APIC Virtualization and Virtual Interrupts").

use crate::common::{esr, read, xapic, TestApic};
use vapic::{regs, Effect, Eoi, LvtDelivery, Trigger};

/// A store by APIC-register virtualization, and its exit.
fn virtualized_write(apic: &mut TestApic, offset: u16, value: u32) -> Effect {
    apic.page_mut().set(offset, value);
    apic.apic_write_exit(offset, 0)
}

fn set_bit(apic: &mut TestApic, base: u16, vector: u16, value: bool) {
    let offset = base + (vector >> 5) * 16;
    let bit = 1 << (vector & 31);
    let word = apic.page().get(offset);
    apic.page_mut()
        .set(offset, if value { word | bit } else { word & !bit });
}

#[test]
fn apic_write_exits_take_the_value_from_the_page() {
    let mut apic = xapic(4);
    assert_eq!(virtualized_write(&mut apic, regs::ID, 0), Effect::None);
    assert_eq!(read(&mut apic, regs::ID), 4 << 24, "read-only again");
    virtualized_write(&mut apic, regs::ICR_HIGH, u32::MAX);
    assert!(matches!(
        virtualized_write(&mut apic, regs::ICR_LOW, 0xFFF0_1041),
        Effect::SendIpi(icr) if icr.value() == 0xFF00_0000_0000_0041
    ));
    virtualized_write(&mut apic, regs::ESR, 0x77);
    assert_eq!(read(&mut apic, regs::ESR), 0);
    for (offset, kept) in [(regs::LDR, 0xFF00_0000), (regs::LVT_ERROR, 0x1_00FF)] {
        virtualized_write(&mut apic, offset, u32::MAX);
        assert_eq!(read(&mut apic, offset), kept);
    }
}

#[test]
fn changes_are_seen_though_the_page_has_the_new_value() {
    let mut apic = xapic(0);
    virtualized_write(&mut apic, regs::LVT_LINT0, 0x40);
    assert_eq!(
        virtualized_write(&mut apic, regs::SVR, 0xFF),
        Effect::DestinationChanged
    );
    assert_eq!(apic.lint(0), None, "masked by the software disable");
    assert_eq!(
        virtualized_write(&mut apic, regs::SVR, 0x1FF),
        Effect::DestinationChanged
    );
    virtualized_write(&mut apic, regs::LVT_LINT0, 0x40);
    assert_eq!(apic.lint(0), Some(LvtDelivery::Fixed(0x40)));

    virtualized_write(&mut apic, regs::TIMER_ICR, 1000);
    assert!(apic.timer_deadline().is_none(), "masked");
    virtualized_write(&mut apic, regs::LVT_TIMER, 0x41);
    assert!(apic.timer_deadline().is_some());
    virtualized_write(&mut apic, regs::LVT_TIMER, (2 << 17) | 0x41);
    assert!(apic.timer_deadline().is_none(), "a change of mode");
    virtualized_write(&mut apic, regs::TIMER_ICR, 5);
    assert_eq!(read(&mut apic, regs::TIMER_ICR), 0, "ignored in this mode");
    assert_eq!(esr(&mut apic), 0);
}

#[test]
fn a_shadowed_tpr_counts() {
    let mut apic = xapic(0);
    apic.accept(0x55, Trigger::Edge);
    apic.page_mut().set(regs::TPR, 0x50);
    assert_eq!((apic.pending(), read(&mut apic, regs::PPR)), (None, 0x50));
    apic.page_mut().set(regs::TPR, 0x40);
    assert_eq!(apic.pending(), Some(0x55));
}

#[test]
fn virtual_interrupt_delivery() {
    let mut apic = xapic(0);
    apic.accept(0x71, Trigger::Level);
    apic.accept(0x31, Trigger::Edge);
    // The processor delivers 71H and takes a self IPI of 92H.
    set_bit(&mut apic, regs::IRR, 0x71, false);
    set_bit(&mut apic, regs::ISR, 0x71, true);
    set_bit(&mut apic, regs::IRR, 0x92, true);
    apic.sync_from_page();
    assert_eq!(
        (apic.highest_irr(), apic.highest_isr()),
        (Some(0x92), Some(0x71))
    );
    assert_eq!(apic.ppr(), 0x70);
    // It delivers and ends 92H, then ends 71H, for which the EOI-exit bitmap asks an exit.
    set_bit(&mut apic, regs::IRR, 0x92, false);
    set_bit(&mut apic, regs::ISR, 0x71, false);
    assert_eq!(
        apic.eoi_exit(0x71),
        Eoi {
            vector: 0x71,
            level_triggered: true
        }
    );
    assert_eq!((apic.pending(), apic.highest_isr()), (Some(0x31), None));
}
