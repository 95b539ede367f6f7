// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Interrupt messages: delivery modes and the interrupt command register (SDM Vol. 3, 11.6.1).

use crate::destination::{Destination, DestinationView};

/// Delivery mode of an interrupt message: bits 10:8 of the ICR, of an LVT entry and of MSI data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The vector goes to each addressed processor.
    Fixed = 0,
    /// The vector goes to the one of lowest priority among the addressed.
    LowestPriority = 1,
    /// System management interrupt.
    Smi = 2,
    /// Reserved (remote read of old APICs).
    Reserved = 3,
    /// Non-maskable interrupt.
    Nmi = 4,
    /// INIT.
    Init = 5,
    /// Start-up IPI; reserved elsewhere.
    StartUp = 6,
    /// Interrupt of an external 8259A; reserved in the ICR.
    ExtInt = 7,
}

impl DeliveryMode {
    /// The mode that the low three bits of `bits` encode.
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::Reserved,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            _ => Self::ExtInt,
        }
    }

    /// Whether the message carries a vector for the IRR (fixed and lowest priority).
    #[inline]
    pub const fn has_vector(self) -> bool {
        matches!(self, Self::Fixed | Self::LowestPriority)
    }
}

/// Trigger mode of an interrupt: what the TMR records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Edge-triggered.
    Edge = 0,
    /// Level-triggered: its EOI is broadcast to the IOAPICs.
    Level = 1,
}

/// Destination shorthand of the ICR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorthand {
    /// The destination field counts.
    None = 0,
    /// Only the sender.
    ToSelf = 1,
    /// All, with the sender.
    AllIncludingSelf = 2,
    /// All but the sender.
    AllExcludingSelf = 3,
}

/// What was written to the interrupt command register, with the width of its destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Icr {
    value: u64,
    x2apic: bool,
}

impl Icr {
    /// The bits of the low half that can be set; delivery status, bit 12, always reads idle.
    pub const LOW_MASK: u32 = 0x000C_CFFF;
    /// ICR bits that must be zero in x2APIC mode. Bit 12 is not among them: processors ignore it.
    pub const X2APIC_RESERVED: u64 = 0xFFF3_2000;

    /// The message of an ICR `value` written in x2APIC mode (32-bit destination) or xAPIC mode
    /// (8-bit destination).
    #[inline]
    pub const fn new(value: u64, x2apic: bool) -> Self {
        Self { value, x2apic }
    }

    /// The register's value.
    #[inline]
    pub const fn value(self) -> u64 {
        self.value
    }

    /// The vector; of a start-up IPI, the page of the entry point.
    #[inline]
    pub const fn vector(self) -> u8 {
        self.value as u8
    }

    /// The delivery mode.
    #[inline]
    pub const fn delivery_mode(self) -> DeliveryMode {
        DeliveryMode::from_bits(self.value as u32 >> 8)
    }

    /// Logical destination mode.
    #[inline]
    pub const fn logical(self) -> bool {
        self.value & (1 << 11) != 0
    }

    /// Level: assert. Only INIT knows de-assert.
    #[inline]
    pub const fn level_assert(self) -> bool {
        self.value & (1 << 14) != 0
    }

    /// Trigger mode as written. The messages themselves are always edge (SDM 11.6.1), so it tells
    /// only INIT level de-assert from INIT.
    #[inline]
    pub const fn trigger(self) -> Trigger {
        if self.value & (1 << 15) != 0 {
            Trigger::Level
        } else {
            Trigger::Edge
        }
    }

    /// The shorthand.
    #[inline]
    pub const fn shorthand(self) -> Shorthand {
        match (self.value >> 18) & 3 {
            0 => Shorthand::None,
            1 => Shorthand::ToSelf,
            2 => Shorthand::AllIncludingSelf,
            _ => Shorthand::AllExcludingSelf,
        }
    }

    /// The destination field; it means nothing with a shorthand.
    #[inline]
    pub const fn destination(self) -> Destination {
        let id = if self.x2apic {
            (self.value >> 32) as u32
        } else {
            (self.value >> 56) as u32
        };
        Destination {
            id,
            logical: self.logical(),
            x2apic: self.x2apic,
        }
    }

    /// Whether this message, sent by the processor of which `is_sender` tells the target's view
    /// apart, goes to the target: shorthand, destination, and what a disabled APIC still takes.
    ///
    /// For [`DeliveryMode::LowestPriority`] the caller picks one of the accepting targets.
    #[inline]
    pub const fn targets(self, view: DestinationView, is_sender: bool) -> bool {
        let addressed = match self.shorthand() {
            Shorthand::None => view.matches(self.destination()),
            Shorthand::ToSelf => is_sender,
            Shorthand::AllIncludingSelf => true,
            Shorthand::AllExcludingSelf => !is_sender,
        };
        addressed && view.takes(self.delivery_mode())
    }

    /// Whether the combination of fields is one that the APIC sends: SDM table 11-3 for the
    /// shorthands, no reserved mode, no INIT level de-assert (without effect since the Pentium 4).
    #[inline]
    pub(crate) const fn is_sent(self) -> bool {
        match self.delivery_mode() {
            DeliveryMode::Fixed => true,
            DeliveryMode::Reserved | DeliveryMode::ExtInt => false,
            DeliveryMode::Init
                if matches!(self.trigger(), Trigger::Level) && !self.level_assert() =>
            {
                false
            }
            _ => matches!(
                self.shorthand(),
                Shorthand::None | Shorthand::AllExcludingSelf
            ),
        }
    }
}

impl core::fmt::Debug for Icr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Icr")
            .field("vector", &self.vector())
            .field("delivery_mode", &self.delivery_mode())
            .field("shorthand", &self.shorthand())
            .field("level_assert", &self.level_assert())
            .field("trigger", &self.trigger())
            .field("destination", &self.destination())
            .finish()
    }
}
