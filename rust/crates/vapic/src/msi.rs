// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Message-signalled interrupts (SDM Vol. 3, 11.11).

use crate::{DeliveryMode, Destination, Trigger};

/// What the address and the data of an MSI say, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi(u32);

impl Msi {
    /// There is one: so that 0 can stand for none.
    const VALID: u32 = 1 << 31;
    const LEVEL: u32 = 1 << 15;
    const LOGICAL: u32 = 1 << 11;

    /// That of the low half of the address and the data.
    #[inline]
    pub const fn new(address_lo: u32, data: u32) -> Self {
        let logical = if address_lo & (1 << 2) != 0 {
            Self::LOGICAL
        } else {
            0
        };
        let id = (address_lo >> 12) & 0xff;
        Self(Self::VALID | (id << 16) | logical | data & (Self::LEVEL | 0x7ff))
    }

    /// Never 0.
    #[inline]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The message of which [`Self::to_bits`] gave `bits`. 0: none.
    #[inline]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & Self::VALID == 0 {
            None
        } else {
            Some(Self(bits))
        }
    }

    /// The vector.
    #[inline]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// The delivery mode.
    #[inline]
    pub const fn delivery_mode(self) -> DeliveryMode {
        DeliveryMode::from_bits(self.0 >> 8)
    }

    /// The trigger mode.
    #[inline]
    pub const fn trigger(self) -> Trigger {
        if self.0 & Self::LEVEL != 0 {
            Trigger::Level
        } else {
            Trigger::Edge
        }
    }

    /// Who it is for.
    #[inline]
    pub const fn destination(self) -> Destination {
        Destination {
            id: (self.0 >> 16) & 0xff,
            logical: self.0 & Self::LOGICAL != 0,
            x2apic: false,
        }
    }

    /// Whether it can be delivered: vectors below 16 are no interrupt's, start-up and the reserved
    /// modes are no MSI's.
    #[inline]
    pub const fn is_legal(self) -> bool {
        match self.delivery_mode() {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.vector() >= 16,
            DeliveryMode::StartUp | DeliveryMode::Reserved => false,
            _ => true,
        }
    }
}
