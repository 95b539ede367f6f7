// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Who gets a message (SDM Vol. 3, 11.6.1, 11.6.2 and 11.12.10).

use crate::common::{fresh, write, x2apic, xapic, Random, XAPIC_BASE};
use vapic::{
    regs, x2apic_ldr, DeliveryMode, Destination, DestinationView, Icr, Shorthand, Trigger,
};

fn physical(id: u32, x2apic: bool) -> Destination {
    Destination {
        id,
        logical: false,
        x2apic,
    }
}

fn logical(id: u32, x2apic: bool) -> Destination {
    Destination {
        id,
        logical: true,
        x2apic,
    }
}

const FLAT: u32 = u32::MAX;
const CLUSTER: u32 = 0x0FFF_FFFF;

#[test]
fn physical_destinations() {
    for (view, id) in [
        (DestinationView::xapic(7, 0, FLAT, true), 7),
        (DestinationView::x2apic(7, true), 7),
        (DestinationView::x2apic(0x1234_5678, true), 0x1234_5678),
    ] {
        assert!(view.matches(physical(id, true)));
        assert!(!view.matches(physical(id + 1, true)));
        assert!(view.matches(physical(0xFF, false)), "8-bit broadcast");
        assert!(view.matches(physical(u32::MAX, true)), "32-bit broadcast");
        assert!(
            !view.matches(physical(0xFF, true)),
            "255 is an APIC ID in x2APIC mode"
        );
    }
    assert!(DestinationView::x2apic(0xFF, true).matches(physical(0xFF, true)));
}

#[test]
fn logical_flat_is_a_set_of_eight() {
    for ldr in 0..=255u32 {
        let view = DestinationView::xapic(1, ldr << 24, FLAT, true);
        for id in 0..=255 {
            let expected = id == 0xFF || (0..8).any(|bit| ldr & id & (1 << bit) != 0);
            assert_eq!(view.matches(logical(id, false)), expected);
        }
    }
}

#[test]
fn logical_cluster_is_a_cluster_and_a_set_of_four() {
    for ldr in 0..=255u32 {
        let view = DestinationView::xapic(1, ldr << 24, CLUSTER, true);
        for id in 0..=255 {
            let same_cluster = ldr / 16 == id / 16;
            let expected = id == 0xFF || same_cluster && (ldr % 16) & (id % 16) != 0;
            assert_eq!(view.matches(logical(id, false)), expected);
        }
        let view = DestinationView::xapic(1, ldr << 24, 0x3FFF_FFFF, true);
        assert!(!view.matches(logical(ldr & 0x7F, false)), "no such model");
    }
}

#[test]
fn x2apic_logical_is_derived() {
    assert_eq!(x2apic_ldr(0), 1);
    assert_eq!(x2apic_ldr(0x2A), 0x0002_0400);
    let mut random = Random::new(5);
    for _ in 0..20_000 {
        let apic_id = random.below(1 << 20) as u32;
        let cluster = if random.below(2) == 0 {
            apic_id >> 4
        } else {
            random.below(1 << 16) as u32
        };
        let set = random.next() as u32 & 0xFFFF;
        let expected = cluster == apic_id >> 4 && (set >> (apic_id & 15)) & 1 == 1;
        let id = (cluster << 16) | set;
        let view = DestinationView::x2apic(apic_id, true);
        assert_eq!(view.matches(logical(id, true)), expected || id == u32::MAX);
        if id > 0xFF {
            let xapic = DestinationView::xapic(1, 0xFF00_0000, FLAT, true);
            assert_eq!(xapic.matches(logical(id, true)), id == u32::MAX);
        }
    }
}

#[test]
fn disabled_apics_take_less() {
    use DeliveryMode::*;
    let everywhere = physical(0xFF, false);
    for mode in [Fixed, LowestPriority, Smi, Nmi, Init, StartUp, ExtInt] {
        let fixed = matches!(mode, Fixed | LowestPriority);
        assert!(DestinationView::x2apic(1, true).accepts(everywhere, mode));
        assert!(DestinationView::xapic(1, 0, FLAT, true).accepts(everywhere, mode));
        assert_eq!(
            DestinationView::x2apic(1, false).accepts(everywhere, mode),
            !fixed
        );
        assert_eq!(
            DestinationView::xapic(1, 0, FLAT, false).accepts(everywhere, mode),
            !fixed
        );
        assert!(!DestinationView::disabled(1).accepts(everywhere, mode));
    }
}

#[test]
fn views_follow_the_registers() {
    let mut apic = fresh(9);
    assert!(!apic.view().is_software_enabled() && apic.view().is_enabled());
    for (offset, value) in [(regs::SVR, 0x1FF), (regs::LDR, 0x2300_0000), (regs::DFR, 0)] {
        assert_eq!(
            write(&mut apic, offset, value),
            vapic::Effect::DestinationChanged
        );
    }
    let view = apic.view();
    assert_eq!(view, DestinationView::xapic(9, 0x2300_0000, 0, true));
    assert_eq!(DestinationView::from_bits(view.to_bits()), view);
    assert_eq!((view.apic_id(), view.is_x2apic()), (9, false));
    assert!(apic.matches_destination(logical(0x21, false), DeliveryMode::Fixed));
    assert!(!apic.matches_destination(logical(0x24, false), DeliveryMode::Fixed));
    apic.write_apic_base(XAPIC_BASE | regs::BASE_EXTD).unwrap();
    assert_eq!(apic.view(), DestinationView::x2apic(9, true));
    let apic = x2apic(0xFFFF_FFFE);
    assert_eq!(
        DestinationView::from_bits(apic.view().to_bits()).apic_id(),
        0xFFFF_FFFE
    );
    assert!(xapic(9)
        .view()
        .accepts(physical(9, false), DeliveryMode::Fixed));
}

#[test]
fn icr_fields() {
    let icr = Icr::new(0x2A00_0000_0008_C97F, false);
    assert_eq!(icr.vector(), 0x7F);
    assert_eq!(icr.delivery_mode(), DeliveryMode::LowestPriority);
    assert_eq!(icr.shorthand(), Shorthand::AllIncludingSelf);
    assert_eq!(icr.trigger(), Trigger::Level);
    assert!(icr.logical() && icr.level_assert());
    assert_eq!(icr.destination(), logical(0x2A, false));
    assert_eq!(
        Icr::new(0x1234_5678_0000_0000, true).destination(),
        physical(0x1234_5678, true)
    );
    for bits in 0..8 {
        assert_eq!(DeliveryMode::from_bits(bits) as u32, bits);
        assert_eq!(
            Icr::new(u64::from(bits) << 8, true).delivery_mode() as u32,
            bits
        );
    }
    for bits in 0..4 {
        assert_eq!(Icr::new(bits << 18, true).shorthand() as u64, bits);
    }
}

#[test]
fn shorthands_and_destinations_pick_targets() {
    let views: Vec<_> = (0..4)
        .map(|id| DestinationView::x2apic(id, id != 3))
        .collect();
    let targets = |value: u64| -> Vec<u32> {
        let icr = Icr::new(value, true);
        let sender = 1;
        views
            .iter()
            .filter(|view| icr.targets(**view, view.apic_id() == sender))
            .map(|view| view.apic_id())
            .collect()
    };
    const NMI: u64 = 4 << 8;
    assert_eq!(targets(0x40), [0]);
    assert_eq!(targets((2 << 32) | 0x40), [2]);
    assert_eq!(targets((0xFFFF_FFFF << 32) | 0x40), [0, 1, 2]);
    assert_eq!(targets((0xFFFF_FFFF << 32) | NMI), [0, 1, 2, 3]);
    assert_eq!(targets((0b1110 << 32) | (1 << 11) | 0x40), [1, 2]);
    assert_eq!(targets((1 << 18) | 0x40), [1]);
    assert_eq!(targets((2 << 18) | 0x40), [0, 1, 2]);
    assert_eq!(targets((3 << 18) | 0x40), [0, 2]);
    assert_eq!(targets((3 << 18) | NMI), [0, 2, 3]);
}
