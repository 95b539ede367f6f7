// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Who a message is for (SDM Vol. 3, 11.6.2 and 11.12.10).

use crate::icr::DeliveryMode;

/// The destination of an interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// APIC ID or logical ID: 32 bits with `x2apic`, 8 bits without.
    pub id: u32,
    /// Logical destination mode.
    pub logical: bool,
    /// The message has a 32-bit destination (x2APIC ICR); not so messages of an xAPIC, of an
    /// IOAPIC and MSIs. It decides which `id` is the broadcast.
    pub x2apic: bool,
}

impl Destination {
    /// Whether all ones: the broadcast of both destination modes.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        self.id == if self.x2apic { u32::MAX } else { 0xFF }
    }
}

/// What a sender must know of a local APIC to tell whether a message is for it.
///
/// It fits a `u64` ([`Self::to_bits`]), so that a virtual processor can publish it atomically.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DestinationView(u64);

impl DestinationView {
    const X2APIC: u64 = 1 << 48;
    const ENABLED: u64 = 1 << 49;
    const SOFTWARE_ENABLED: u64 = 1 << 50;

    /// The view of an APIC in xAPIC mode, which has eight bits of `apic_id`; `ldr` and `dfr` are the
    /// registers' values.
    #[inline]
    pub const fn xapic(apic_id: u32, ldr: u32, dfr: u32, software_enabled: bool) -> Self {
        Self(
            (apic_id & 0xFF) as u64
                | ((ldr as u64 >> 24) << 32)
                | ((dfr as u64 >> 28) << 40)
                | Self::ENABLED
                | if software_enabled {
                    Self::SOFTWARE_ENABLED
                } else {
                    0
                },
        )
    }

    /// The view of an APIC in x2APIC mode; its logical ID follows from its APIC ID.
    #[inline]
    pub const fn x2apic(apic_id: u32, software_enabled: bool) -> Self {
        Self(
            apic_id as u64
                | Self::X2APIC
                | Self::ENABLED
                | if software_enabled {
                    Self::SOFTWARE_ENABLED
                } else {
                    0
                },
        )
    }

    /// The view of an APIC that `IA32_APIC_BASE` disables: it takes no message.
    #[inline]
    pub const fn disabled(apic_id: u32) -> Self {
        Self(apic_id as u64)
    }

    /// The view as one word.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The view of which [`Self::to_bits`] gave `bits`.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The APIC ID.
    #[inline]
    pub const fn apic_id(self) -> u32 {
        self.0 as u32
    }

    /// In x2APIC mode.
    #[inline]
    pub const fn is_x2apic(self) -> bool {
        self.0 & Self::X2APIC != 0
    }

    /// Enabled in `IA32_APIC_BASE`.
    #[inline]
    pub const fn is_enabled(self) -> bool {
        self.0 & Self::ENABLED != 0
    }

    /// Enabled in the SVR.
    #[inline]
    pub const fn is_software_enabled(self) -> bool {
        self.0 & Self::SOFTWARE_ENABLED != 0
    }

    /// Whether the APIC in its present state takes messages of `mode`: software-disabled it takes
    /// only NMI, SMI, INIT and start-up (SDM 11.4.7.2).
    #[inline]
    pub const fn takes(self, mode: DeliveryMode) -> bool {
        self.is_software_enabled() || (self.is_enabled() && !mode.has_vector())
    }

    /// Whether `destination` names this APIC, be it enabled or not.
    #[inline]
    pub const fn matches(self, destination: Destination) -> bool {
        if destination.is_broadcast() {
            return true;
        }
        let id = destination.id;
        if !destination.logical {
            return id == self.apic_id();
        }
        if self.is_x2apic() {
            let ldr = x2apic_ldr(self.apic_id());
            return id >> 16 == ldr >> 16 && id & ldr & 0xFFFF != 0;
        }
        // An xAPIC compares eight bits: a wider destination is not for it.
        if id > 0xFF {
            return false;
        }
        let ldr = (self.0 >> 32) as u32 & 0xFF;
        match (self.0 >> 40) & 0xF {
            0xF => id & ldr != 0,
            0x0 => id >> 4 == ldr >> 4 && id & ldr & 0xF != 0,
            _ => false,
        }
    }

    /// Whether the APIC accepts a message of `mode` sent to `destination`.
    #[inline]
    pub const fn accepts(self, destination: Destination, mode: DeliveryMode) -> bool {
        self.takes(mode) && self.matches(destination)
    }
}

/// The logical destination register of x2APIC mode: cluster in 31:16, one bit in 15:0
/// (SDM 11.12.10.2).
#[inline]
pub const fn x2apic_ldr(apic_id: u32) -> u32 {
    ((apic_id >> 4) << 16) | (1 << (apic_id & 0xF))
}
