// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The local vector table and the error status register (SDM Vol. 3, 11.5.1 to 11.5.3).

use core::ops::DerefMut;

use crate::{regs, ApicPage, DeliveryMode, Lapic, Trigger};

/// A local interrupt source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LvtSource {
    /// The APIC timer.
    Timer,
    /// The thermal sensor.
    Thermal,
    /// Performance counter overflow.
    Pmc,
    /// Pin LINT0.
    Lint0,
    /// Pin LINT1.
    Lint1,
    /// An error of the APIC itself.
    Error,
}

impl LvtSource {
    /// The offset of the LVT entry.
    #[inline]
    pub const fn offset(self) -> u16 {
        match self {
            Self::Timer => regs::LVT_TIMER,
            Self::Thermal => regs::LVT_THERMAL,
            Self::Pmc => regs::LVT_PMC,
            Self::Lint0 => regs::LVT_LINT0,
            Self::Lint1 => regs::LVT_LINT1,
            Self::Error => regs::LVT_ERROR,
        }
    }
}

/// What a local interrupt becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LvtDelivery {
    /// The vector is in the IRR now.
    Fixed(u8),
    /// The processor gets an SMI.
    Smi,
    /// The processor gets an NMI.
    Nmi,
    /// The processor gets an INIT.
    Init,
    /// The processor takes an interrupt of which the external controller gives the vector.
    ExtInt,
}

impl<P: DerefMut<Target = ApicPage>> Lapic<P> {
    /// An edge or assertion at pin LINT0 (0) or LINT1 (1), which are INTR and NMI while the APIC
    /// is disabled (SDM 11.1).
    pub fn lint(&mut self, pin: u8) -> Option<LvtDelivery> {
        match pin {
            0 if !self.is_enabled() => Some(LvtDelivery::ExtInt),
            1 if !self.is_enabled() => Some(LvtDelivery::Nmi),
            0 => self.signal(LvtSource::Lint0),
            1 => self.signal(LvtSource::Lint1),
            _ => None,
        }
    }

    /// Delivers a local interrupt as its LVT entry says: into the IRR if it is fixed, else the
    /// caller has to do what the result tells. `None`: masked, or not to be delivered.
    pub fn signal(&mut self, source: LvtSource) -> Option<LvtDelivery> {
        let offset = source.offset();
        let lvt = self.page.get(offset);
        if !self.is_enabled() || lvt & regs::LVT_MASKED != 0 {
            return None;
        }
        // Timer and error entries have no delivery mode: those bits are zero, which is fixed.
        let delivery = match DeliveryMode::from_bits(lvt >> 8) {
            DeliveryMode::Fixed => {
                // LINT1 is always edge-triggered (SDM 11.5.1, "Trigger Mode").
                let level = source == LvtSource::Lint0 && lvt & regs::LVT_LEVEL != 0;
                if level && lvt & regs::LVT_REMOTE_IRR != 0 {
                    return None;
                }
                let trigger = if level { Trigger::Level } else { Trigger::Edge };
                let vector = lvt as u8;
                if !self.accept(vector, trigger) {
                    return None;
                }
                if level {
                    self.page.set(offset, lvt | regs::LVT_REMOTE_IRR);
                }
                LvtDelivery::Fixed(vector)
            }
            DeliveryMode::Smi => LvtDelivery::Smi,
            DeliveryMode::Nmi => LvtDelivery::Nmi,
            // Not for thermal sensor and performance counters (SDM figure 11-8).
            DeliveryMode::Init if matches!(source, LvtSource::Lint0 | LvtSource::Lint1) => {
                LvtDelivery::Init
            }
            DeliveryMode::ExtInt if matches!(source, LvtSource::Lint0 | LvtSource::Lint1) => {
                LvtDelivery::ExtInt
            }
            _ => return None,
        };
        if source == LvtSource::Pmc {
            // A performance-monitoring interrupt masks its entry (SDM 11.5.1, "Mask").
            let lvt = self.page.get(offset);
            self.page.set(offset, lvt | regs::LVT_MASKED);
        }
        Some(delivery)
    }

    /// The EOI of a level-triggered vector resets the remote IRR of LINT0.
    pub(crate) fn clear_remote_irr(&mut self, vector: u8) {
        let lvt = self.page.get(regs::LVT_LINT0);
        if lvt & regs::LVT_REMOTE_IRR != 0 && lvt as u8 == vector {
            self.page.set(regs::LVT_LINT0, lvt & !regs::LVT_REMOTE_IRR);
        }
    }

    /// Gathers an error for the next write of the ESR; the first one since the last write raises
    /// the error interrupt (SDM 11.5.3).
    #[cold]
    pub(crate) fn report_error(&mut self, error: u32) {
        self.errors |= error;
        // Disarmed first: an illegal vector in the LVT error entry comes back here.
        if core::mem::replace(&mut self.error_armed, false) {
            let _ = self.signal(LvtSource::Error);
        }
    }

    /// A write of the ESR shows the errors gathered since the one before.
    pub(crate) fn latch_errors(&mut self) {
        let errors = core::mem::take(&mut self.errors);
        self.page.set(regs::ESR, errors);
        self.error_armed = true;
    }

    /// Stores an LVT entry other than the timer's: read-only bits stay, and a software-disabled
    /// APIC keeps the mask bit set (SDM 11.4.7.2).
    pub(crate) fn write_lvt(&mut self, offset: u16, value: u32) {
        let mut lvt = value & regs::lvt_writable(offset, self.config.tsc_deadline_available);
        if !self.software_enabled {
            lvt |= regs::LVT_MASKED;
        }
        let remote_irr = self.page.get(offset) & regs::LVT_REMOTE_IRR;
        if offset == regs::LVT_LINT0 && lvt & regs::LVT_LEVEL != 0 {
            lvt |= remote_irr;
        }
        self.page.set(offset, lvt);
    }

    /// Software disable sets all mask bits.
    pub(crate) fn mask_lvts(&mut self) {
        for offset in regs::LVTS {
            let lvt = self.page.get(offset);
            self.page.set(offset, lvt | regs::LVT_MASKED);
        }
    }
}
