// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The x2APIC MSRs (SDM Vol. 3, 11.12.1).

use core::ops::DerefMut;

use crate::{regs, ApicPage, Effect, GeneralProtection, Icr, Lapic};

/// ICR as an MSR.
const MSR_ICR: u32 = msr(regs::ICR_LOW);
/// SELF IPI as an MSR.
const MSR_SELF_IPI: u32 = msr(regs::SELF_IPI);
/// EOI as an MSR.
const MSR_EOI: u32 = msr(regs::EOI);

const fn msr(offset: u16) -> u32 {
    regs::MSR_X2APIC_FIRST + (offset >> 4) as u32
}

impl<P: DerefMut<Target = ApicPage>> Lapic<P> {
    /// RDMSR of an x2APIC register, or of `IA32_TSC_DEADLINE`. Faults outside x2APIC mode, and for
    /// reserved and write-only registers.
    pub fn msr_read(&mut self, msr: u32, now_tsc: u64) -> Result<u64, GeneralProtection> {
        if msr == regs::MSR_TSC_DEADLINE && self.config.tsc_deadline_available {
            return Ok(self.tsc_deadline(now_tsc));
        }
        let offset = self.offset_of(msr)?;
        match offset {
            regs::ICR_LOW => {
                let low = self.page.get(regs::ICR_LOW);
                let high = self.page.get(regs::ICR_LOW + 4);
                Ok((u64::from(high) << 32) | u64::from(low))
            }
            regs::ID
            | regs::VERSION
            | regs::TPR
            | regs::PPR
            | regs::LDR
            | regs::SVR
            | 0x100..=0x280
            | 0x320..=0x390
            | regs::TIMER_DCR => Ok(self.read(offset, now_tsc).into()),
            _ => Err(GeneralProtection),
        }
    }

    /// WRMSR of an x2APIC register, or of `IA32_TSC_DEADLINE`. Faults outside x2APIC mode, for
    /// reserved and read-only registers, and for reserved bits.
    #[inline]
    pub fn msr_write(
        &mut self,
        msr: u32,
        value: u64,
        now_tsc: u64,
    ) -> Result<Effect, GeneralProtection> {
        match msr {
            MSR_EOI if self.is_x2apic() && value == 0 => Ok(self.write(regs::EOI, 0, now_tsc)),
            MSR_ICR if self.is_x2apic() && value & Icr::X2APIC_RESERVED == 0 => {
                let value = value & !(1 << 12);
                // One 64-bit field in the page, as virtualized RDMSR reads it.
                self.page.set(regs::ICR_LOW, value as u32);
                self.page.set(regs::ICR_LOW + 4, (value >> 32) as u32);
                Ok(self.send(Icr::new(value, true)))
            }
            MSR_SELF_IPI if self.is_x2apic() && value <= 0xFF => {
                if value < 16 {
                    self.report_error(regs::ESR_SEND_ILLEGAL_VECTOR);
                }
                Ok(self.self_ipi(value as u8))
            }
            regs::MSR_TSC_DEADLINE if self.config.tsc_deadline_available => {
                Ok(self.write_tsc_deadline(value, now_tsc))
            }
            _ => self.msr_write_checked(msr, value, now_tsc),
        }
    }

    /// The registers that are not worth inlining.
    fn msr_write_checked(
        &mut self,
        msr: u32,
        value: u64,
        now_tsc: u64,
    ) -> Result<Effect, GeneralProtection> {
        let offset = self.offset_of(msr)?;
        let allowed = match offset {
            regs::TPR => 0xFF,
            regs::SVR => regs::SVR_MASK,
            regs::ESR => 0,
            regs::LVT_TIMER
            | regs::LVT_THERMAL
            | regs::LVT_PMC
            | regs::LVT_LINT0
            | regs::LVT_LINT1
            | regs::LVT_ERROR => {
                regs::lvt_writable(offset, self.config.tsc_deadline_available)
                    | regs::lvt_read_only(offset)
            }
            regs::TIMER_ICR => u32::MAX,
            regs::TIMER_DCR => 0xB,
            // ICR, EOI and SELF IPI come here only with reserved bits set.
            _ => return Err(GeneralProtection),
        };
        let reserved_mode = offset == regs::LVT_TIMER && (value >> 17) & 3 == 3;
        if value & !u64::from(allowed) != 0 || reserved_mode {
            return Err(GeneralProtection);
        }
        Ok(self.write(offset, value as u32, now_tsc))
    }

    /// The offset of the register behind `msr`; faults outside the range and outside x2APIC mode.
    #[inline]
    fn offset_of(&self, msr: u32) -> Result<u16, GeneralProtection> {
        let i = msr.wrapping_sub(regs::MSR_X2APIC_FIRST);
        // The range has 256 MSRs, of which those from 840H on are reserved.
        if self.is_x2apic() && i < 0x40 {
            Ok((i as u16) << 4)
        } else {
            Err(GeneralProtection)
        }
    }
}
