// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The xAPIC register page (SDM Vol. 3, 11.4.1), and what both modes do with a register.

use core::ops::DerefMut;

use crate::{regs, ApicPage, Effect, Icr, Lapic, Mode, Shorthand, Trigger};

impl<P: DerefMut<Target = ApicPage>> Lapic<P> {
    /// A load of `len` bytes at `offset` of the APIC page, in xAPIC mode.
    ///
    /// Loads within a 32-bit register are served; what lies beside one reads zero (undefined by
    /// the SDM). A reserved register also counts as an error.
    pub fn mmio_read(&mut self, offset: u16, len: u8, now_tsc: u64) -> u64 {
        let register = offset & 0xFF0;
        let byte = offset & 0xF;
        let len = len.min(8);
        if byte + u16::from(len) > 4 || self.mode != Mode::XApic {
            return 0;
        }
        if !is_xapic_register(register) {
            self.report_error(regs::ESR_ILLEGAL_REGISTER_ADDRESS);
            return 0;
        }
        let value = u64::from(self.read(register, now_tsc)) >> (byte * 8);
        value & 1u64.wrapping_shl(u32::from(len) * 8).wrapping_sub(1)
    }

    /// A store of `len` bytes at `offset` of the APIC page, in xAPIC mode. Only aligned 32-bit
    /// stores have an effect (SDM 11.4.1.1: others are undefined).
    #[inline]
    pub fn mmio_write(&mut self, offset: u16, len: u8, value: u32, now_tsc: u64) -> Effect {
        if offset & 0xF != 0 || len != 4 || self.mode != Mode::XApic {
            return Effect::None;
        }
        match offset & 0xFF0 {
            regs::ICR_LOW => {
                let low = value & Icr::LOW_MASK;
                self.page.set(regs::ICR_LOW, low);
                let high = self.page.get(regs::ICR_HIGH);
                let value = (u64::from(high) << 32) | u64::from(low);
                self.send(Icr::new(value, false))
            }
            offset => self.write_xapic(offset, value, now_tsc),
        }
    }

    /// An APIC-write VM exit: the processor has already put the value into the page.
    #[inline]
    pub fn apic_write_exit(&mut self, offset: u16, now_tsc: u64) -> Effect {
        let offset = offset & 0xFF0;
        let value = self.page.get(offset);
        self.mmio_write(offset, 4, value, now_tsc)
    }

    /// Registers that only xAPIC mode has or treats its own way.
    fn write_xapic(&mut self, offset: u16, value: u32, now_tsc: u64) -> Effect {
        match offset {
            // Read-only, but an APIC-write exit comes after the store.
            regs::ID => self.publish_ids(),
            regs::LDR => {
                self.page.set(regs::LDR, value & 0xFF00_0000);
                return Effect::DestinationChanged;
            }
            regs::DFR => {
                self.page.set(regs::DFR, value | 0x0FFF_FFFF);
                return Effect::DestinationChanged;
            }
            regs::ICR_HIGH => self.page.set(regs::ICR_HIGH, value & 0xFF00_0000),
            _ if is_xapic_register(offset) => return self.write(offset, value, now_tsc),
            _ => self.report_error(regs::ESR_ILLEGAL_REGISTER_ADDRESS),
        }
        Effect::None
    }

    /// Reads a register.
    #[inline]
    pub(crate) fn read(&mut self, offset: u16, now_tsc: u64) -> u32 {
        match offset {
            // With a TPR shadow the guest changes the TPR by itself.
            regs::PPR => self.ppr().into(),
            regs::TIMER_CCR => self.current_count(now_tsc),
            // Write-only, and never set in the page except by the processor.
            regs::EOI => 0,
            _ => self.page.get(offset),
        }
    }

    /// Writes a register that works alike in both modes; read-only ones are left alone.
    #[inline]
    pub(crate) fn write(&mut self, offset: u16, value: u32, now_tsc: u64) -> Effect {
        match offset {
            regs::EOI => match self.eoi() {
                Some(eoi) => Effect::Eoi(eoi),
                None => Effect::None,
            },
            regs::TPR => {
                self.set_tpr(value as u8);
                Effect::InterruptPending
            }
            regs::TIMER_ICR => self.write_initial_count(value, now_tsc),
            regs::TIMER_DCR => self.write_divide(value, now_tsc),
            regs::LVT_TIMER => self.write_lvt_timer(value, now_tsc),
            regs::LVT_THERMAL
            | regs::LVT_PMC
            | regs::LVT_LINT0
            | regs::LVT_LINT1
            | regs::LVT_ERROR => {
                self.write_lvt(offset, value);
                Effect::None
            }
            regs::SVR => self.write_svr(value, now_tsc),
            regs::ESR => {
                self.latch_errors();
                Effect::None
            }
            _ => Effect::None,
        }
    }

    /// Spurious interrupt vector register: software enable and disable (SDM 11.4.7.2).
    fn write_svr(&mut self, value: u32, now_tsc: u64) -> Effect {
        self.page.set(regs::SVR, value & regs::SVR_MASK);
        let enable = value & regs::SVR_ENABLE != 0;
        if enable == self.software_enabled {
            return Effect::None;
        }
        if !enable {
            self.mask_timer(now_tsc);
            self.mask_lvts();
        }
        self.software_enabled = enable;
        Effect::DestinationChanged
    }

    /// The ICR in xAPIC format, destination in bits 63:56, in whatever mode (TLFS, HV_X64_MSR_ICR).
    pub fn icr(&self) -> u64 {
        let low = u64::from(self.page.get(regs::ICR_LOW));
        if self.is_x2apic() {
            (u64::from(self.page.get(regs::ICR_LOW + 4)) << 56) | low
        } else {
            (u64::from(self.page.get(regs::ICR_HIGH)) << 32) | low
        }
    }

    /// Writes the ICR, in the format of [`Self::icr`]; reserved bits do nothing.
    pub fn write_icr(&mut self, value: u64) -> Effect {
        let low = value as u32 & !(1 << 12);
        let destination = (value >> 56) as u32;
        self.page.set(regs::ICR_LOW, low);
        if self.is_x2apic() {
            self.page.set(regs::ICR_LOW + 4, destination);
        } else {
            self.page.set(regs::ICR_HIGH, destination << 24);
        }
        self.send(Icr::new(value & !(1 << 12), false))
    }

    /// Sends the message of a write of the ICR. A fixed self IPI is in the IRR at the return.
    #[inline]
    pub(crate) fn send(&mut self, icr: Icr) -> Effect {
        if icr.delivery_mode().has_vector() && icr.vector() < 16 {
            self.report_error(regs::ESR_SEND_ILLEGAL_VECTOR);
        }
        if !icr.is_sent() {
            return Effect::None;
        }
        if icr.shorthand() == Shorthand::ToSelf {
            return self.self_ipi(icr.vector());
        }
        Effect::SendIpi(icr)
    }

    /// A fixed interrupt to the processor itself.
    #[inline]
    pub(crate) fn self_ipi(&mut self, vector: u8) -> Effect {
        if self.accept(vector, Trigger::Edge) {
            Effect::InterruptPending
        } else {
            Effect::None
        }
    }
}

/// Whether the xAPIC page has a register at `offset` (SDM table 11-1). Without CMCI and with EOI
/// broadcasts only, 2F0H and 3F0H are reserved.
fn is_xapic_register(offset: u16) -> bool {
    matches!(
        offset,
        regs::ID
            | regs::VERSION
            | regs::TPR
            | regs::APR
            | regs::PPR
            | regs::EOI
            | regs::RRD
            | regs::LDR
            | regs::DFR
            | regs::SVR
            | 0x100..=0x280
            | regs::ICR_LOW
            | regs::ICR_HIGH
            | 0x320..=0x390
            | regs::TIMER_DCR
    )
}
