// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `IA32_APIC_BASE`: place and mode of the APIC (SDM Vol. 3, 11.4.4 and 11.12.5).

use core::ops::DerefMut;

use crate::{destination, regs, ApicPage, Effect, GeneralProtection, Lapic};

/// Mode of the APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Disabled: the processor has no local APIC.
    Disabled,
    /// xAPIC: registers in a page at [`Lapic::base`].
    XApic,
    /// x2APIC: registers are MSRs 800H to 8FFH.
    X2Apic,
}

impl<P: DerefMut<Target = ApicPage>> Lapic<P> {
    /// The mode.
    #[inline]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Enabled in `IA32_APIC_BASE`.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.mode != Mode::Disabled
    }

    /// In x2APIC mode.
    #[inline]
    pub fn is_x2apic(&self) -> bool {
        self.mode == Mode::X2Apic
    }

    /// Guest-physical address of the register page; it is an APIC page in xAPIC mode only.
    #[inline]
    pub fn base(&self) -> u64 {
        self.apic_base & !0xFFF
    }

    /// Reads `IA32_APIC_BASE`.
    #[inline]
    pub fn apic_base(&self) -> u64 {
        self.apic_base
    }

    /// The guest writes `IA32_APIC_BASE`. The BSP flag stays what it is.
    ///
    /// Faults on reserved bits and on the transitions that SDM figure 11-27 does not have: to
    /// EXTD without EN, from disabled to x2APIC, and from x2APIC to xAPIC.
    pub fn write_apic_base(&mut self, value: u64) -> Result<Effect, GeneralProtection> {
        if !self.config.present {
            return Err(GeneralProtection);
        }
        let mode = self.decode(value)?;
        if matches!(
            (self.mode, mode),
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic)
        ) {
            return Err(GeneralProtection);
        }
        self.change_base(value, mode);
        Ok(Effect::BaseChanged)
    }

    /// The VMM sets `IA32_APIC_BASE`: any valid value, whatever the mode is now. Where the APIC is the VMM's, the BSP flag is, too.
    pub fn set_apic_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let mode = self.decode(value)?;
        self.change_base(value, mode);
        if !self.config.present {
            self.apic_base = value;
        }
        Ok(())
    }

    /// The mode that `value` asks for.
    fn decode(&self, value: u64) -> Result<Mode, GeneralProtection> {
        let address = (1u64 << self.config.maxphyaddr.clamp(36, 52)) - 0x1000;
        if value & !(address | regs::BASE_BSP | regs::BASE_EXTD | regs::BASE_EN) != 0 {
            return Err(GeneralProtection);
        }
        if !self.config.present {
            return Ok(Mode::Disabled);
        }
        match (value & regs::BASE_EN != 0, value & regs::BASE_EXTD != 0) {
            (false, false) => Ok(Mode::Disabled),
            (true, false) => Ok(Mode::XApic),
            (true, true) if self.config.x2apic_available => Ok(Mode::X2Apic),
            _ => Err(GeneralProtection),
        }
    }

    fn change_base(&mut self, value: u64, mode: Mode) {
        self.apic_base = value & !regs::BASE_BSP | self.apic_base & regs::BASE_BSP;
        if mode == self.mode {
            return;
        }
        let old = core::mem::replace(&mut self.mode, mode);
        if old == Mode::XApic && mode == Mode::X2Apic {
            // All registers stay but ID, LDR and the high half of the ICR (SDM 11.12.5.1), which is
            // at another place in x2APIC mode, where it is still zero.
            self.publish_ids();
        } else {
            // A disabled APIC comes back as after RESET (SDM 11.4.3).
            self.reset_registers();
        }
    }

    /// Puts ID and, in x2APIC mode, LDR into the page.
    pub(crate) fn publish_ids(&mut self) {
        if self.is_x2apic() {
            self.page.set(regs::ID, self.apic_id);
            self.page
                .set(regs::LDR, destination::x2apic_ldr(self.apic_id));
        } else {
            self.page.set(regs::ID, self.apic_id << 24);
        }
    }
}
