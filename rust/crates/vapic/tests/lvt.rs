// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Local vector table and error interrupt (SDM Vol. 3, 11.5.1 to 11.5.3).

use crate::common::{esr, fresh, read, write, xapic};
use vapic::{regs, Eoi, LvtDelivery, LvtSource, Trigger};

const SOURCES: [LvtSource; 6] = [
    LvtSource::Timer,
    LvtSource::Thermal,
    LvtSource::Pmc,
    LvtSource::Lint0,
    LvtSource::Lint1,
    LvtSource::Error,
];

#[test]
fn delivery_modes() {
    use LvtSource::*;
    for source in SOURCES {
        for mode in 0..8 {
            let mut apic = xapic(0);
            write(&mut apic, source.offset(), (mode << 8) | 0x45);
            let expected = match (mode, source) {
                // No delivery mode: always fixed.
                (_, Timer | Error) | (0, _) => Some(LvtDelivery::Fixed(0x45)),
                (2, _) => Some(LvtDelivery::Smi),
                (4, _) => Some(LvtDelivery::Nmi),
                (5, Lint0 | Lint1) => Some(LvtDelivery::Init),
                (7, Lint0 | Lint1) => Some(LvtDelivery::ExtInt),
                _ => None,
            };
            assert_eq!(apic.signal(source), expected, "{source:?} {mode}");
            let fixed = matches!(expected, Some(LvtDelivery::Fixed(_)));
            assert_eq!(apic.pending(), fixed.then_some(0x45));
        }
    }
}

#[test]
fn masked_entries_deliver_nothing() {
    for source in SOURCES {
        let mut apic = xapic(0);
        assert_eq!(apic.signal(source), None, "masked by RESET");
        write(&mut apic, source.offset(), regs::LVT_MASKED | 0x45);
        assert_eq!(apic.signal(source), None);
        assert_eq!(apic.pending(), None);
    }
}

#[test]
fn software_disable_masks_and_holds_the_masks() {
    let mut apic = xapic(0);
    for offset in regs::LVTS {
        write(&mut apic, offset, 0x45);
    }
    write(&mut apic, regs::SVR, 0xFF);
    for offset in regs::LVTS {
        assert_eq!(read(&mut apic, offset), regs::LVT_MASKED | 0x45);
        write(&mut apic, offset, 0x46);
        assert_eq!(
            read(&mut apic, offset),
            regs::LVT_MASKED | 0x46,
            "cannot be unmasked"
        );
    }
    write(&mut apic, regs::SVR, 0x1FF);
    for offset in regs::LVTS {
        assert_eq!(
            read(&mut apic, offset),
            regs::LVT_MASKED | 0x46,
            "enabling unmasks nothing"
        );
    }
}

#[test]
fn pins() {
    let mut apic = xapic(0);
    write(&mut apic, regs::LVT_LINT0, 0x700);
    write(&mut apic, regs::LVT_LINT1, 0x400);
    assert_eq!(apic.lint(0), Some(LvtDelivery::ExtInt));
    assert_eq!(apic.lint(1), Some(LvtDelivery::Nmi));
    assert_eq!(apic.lint(2), None);
    assert_eq!(fresh(0).lint(0), None, "masked after RESET");
    let mut apic = fresh(0);
    apic.write_apic_base(regs::DEFAULT_BASE).unwrap();
    assert_eq!(apic.lint(0), Some(LvtDelivery::ExtInt), "INTR");
    assert_eq!(apic.lint(1), Some(LvtDelivery::Nmi));
    assert_eq!(apic.signal(LvtSource::Thermal), None);
}

#[test]
fn level_triggered_lint0_has_a_remote_irr() {
    let mut apic = xapic(0);
    write(&mut apic, regs::LVT_LINT0, regs::LVT_LEVEL | 0x50);
    assert_eq!(apic.lint(0), Some(LvtDelivery::Fixed(0x50)));
    let set = regs::LVT_REMOTE_IRR | regs::LVT_LEVEL | 0x50;
    assert_eq!(read(&mut apic, regs::LVT_LINT0), set);
    assert_eq!(apic.lint(0), None, "not again before the EOI");
    write(&mut apic, regs::LVT_LINT0, regs::LVT_LEVEL | 0x50);
    assert_eq!(read(&mut apic, regs::LVT_LINT0), set, "read-only");
    assert_eq!(apic.acknowledge(), Some(0x50));
    assert_eq!(
        apic.eoi(),
        Some(Eoi {
            vector: 0x50,
            level_triggered: true
        })
    );
    assert_eq!(read(&mut apic, regs::LVT_LINT0), regs::LVT_LEVEL | 0x50);
    assert_eq!(apic.lint(0), Some(LvtDelivery::Fixed(0x50)));
    write(&mut apic, regs::LVT_LINT0, 0x50);
    assert_eq!(read(&mut apic, regs::LVT_LINT0), 0x50, "edge mode has none");

    let mut apic = xapic(0);
    write(&mut apic, regs::LVT_LINT1, regs::LVT_LEVEL | 0x50);
    apic.lint(1);
    assert!(!apic.is_level_triggered(0x50), "LINT1 is always edge");
}

#[test]
fn a_counter_overflow_masks_its_entry() {
    let mut apic = xapic(0);
    write(&mut apic, regs::LVT_PMC, 0x400);
    assert_eq!(apic.signal(LvtSource::Pmc), Some(LvtDelivery::Nmi));
    assert_eq!(read(&mut apic, regs::LVT_PMC), regs::LVT_MASKED | 0x400);
    assert_eq!(apic.signal(LvtSource::Pmc), None);
    write(&mut apic, regs::LVT_THERMAL, 0x400);
    for _ in 0..2 {
        assert_eq!(apic.signal(LvtSource::Thermal), Some(LvtDelivery::Nmi));
    }
}

#[test]
fn the_first_error_since_an_esr_write_interrupts() {
    let mut apic = xapic(0);
    write(&mut apic, regs::LVT_ERROR, 0xFE);
    read(&mut apic, 0x40);
    assert_eq!(apic.acknowledge(), Some(0xFE));
    apic.eoi();
    assert_eq!(read(&mut apic, regs::ESR), 0, "shown only by a write");
    read(&mut apic, 0x40);
    apic.accept(3, Trigger::Edge);
    assert_eq!(apic.pending(), None, "not re-armed");
    assert_eq!(
        esr(&mut apic),
        regs::ESR_ILLEGAL_REGISTER_ADDRESS | regs::ESR_RECEIVE_ILLEGAL_VECTOR
    );
    apic.accept(3, Trigger::Edge);
    assert_eq!(apic.acknowledge(), Some(0xFE));
}

#[test]
fn an_illegal_vector_in_the_table_is_an_error() {
    let mut apic = xapic(0);
    write(&mut apic, regs::LVT_ERROR, 0xFE);
    write(&mut apic, regs::LVT_THERMAL, 0x0F);
    assert_eq!(apic.signal(LvtSource::Thermal), None);
    assert_eq!(apic.acknowledge(), Some(0xFE));
    assert_eq!(esr(&mut apic), regs::ESR_RECEIVE_ILLEGAL_VECTOR);
    // The error entry itself with such a vector ends there.
    write(&mut apic, regs::LVT_ERROR, 0x0F);
    read(&mut apic, 0x40);
    assert_eq!(
        esr(&mut apic),
        regs::ESR_ILLEGAL_REGISTER_ADDRESS | regs::ESR_RECEIVE_ILLEGAL_VECTOR
    );
}
