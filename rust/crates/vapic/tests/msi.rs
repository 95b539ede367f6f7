// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Message-signalled interrupts.

use vapic::{DeliveryMode, Destination, Msi, Trigger};

#[test]
fn fields() {
    let msi = Msi::new(0xfee5_a000, 0x41);
    assert_eq!(msi.vector(), 0x41);
    assert_eq!(msi.delivery_mode(), DeliveryMode::Fixed);
    assert_eq!(msi.trigger(), Trigger::Edge);
    assert_eq!(
        msi.destination(),
        Destination {
            id: 0x5a,
            logical: false,
            x2apic: false
        }
    );
    let msi = Msi::new(0xfeef_f00c, 0xc1ff);
    assert_eq!(msi.vector(), 0xff);
    assert_eq!(msi.delivery_mode(), DeliveryMode::LowestPriority);
    assert_eq!(msi.trigger(), Trigger::Level);
    assert!(msi.destination().logical && msi.destination().is_broadcast());
}

#[test]
fn each_field_stands_alone() {
    // One bit of address or data never leaks into another field.
    let zero = Msi::new(0, 0);
    for bit in 0..32 {
        let a = Msi::new(1 << bit, 0);
        assert_eq!(a.destination().logical, bit == 2);
        let id = if (12..20).contains(&bit) {
            1 << (bit - 12)
        } else {
            0
        };
        assert_eq!(a.destination().id, id);
        assert_eq!((a.vector(), a.trigger()), (0, Trigger::Edge));
        let d = Msi::new(0, 1 << bit);
        assert_eq!(d.vector(), if bit < 8 { 1 << bit } else { 0 });
        let mode = if (8..11).contains(&bit) {
            1 << (bit - 8)
        } else {
            0
        };
        assert_eq!(d.delivery_mode(), DeliveryMode::from_bits(mode));
        assert_eq!(d.trigger() == Trigger::Level, bit == 15);
        assert_eq!(d.destination(), zero.destination());
    }
}

#[test]
fn bits_round_trip_and_zero_is_none() {
    assert_eq!(Msi::from_bits(0), None);
    for (address, data) in [(0, 0), (0xfee0_0004, 0x8930), (u32::MAX, u32::MAX)] {
        let msi = Msi::new(address, data);
        assert_eq!(Msi::from_bits(msi.to_bits()), Some(msi));
    }
}

#[test]
fn what_is_not_an_interrupt() {
    assert!(!Msi::new(0, 0).is_legal());
    assert!(!Msi::new(0, 15).is_legal());
    assert!(Msi::new(0, 16).is_legal());
    assert!(!Msi::new(0, 0x10f).is_legal());
    for (mode, legal) in [
        (2, true),
        (3, false),
        (4, true),
        (5, true),
        (6, false),
        (7, true),
    ] {
        assert_eq!(Msi::new(0, mode << 8).is_legal(), legal, "mode {mode}");
    }
}
