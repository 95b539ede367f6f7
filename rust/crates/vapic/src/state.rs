// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saving and restoring, in the layout of the TLFS.
//!
//! `IA32_APIC_BASE`, the TPR (CR8) and `IA32_TSC_DEADLINE` are not part of it: they are registers
//! of the virtual processor.

use core::ops::DerefMut;

use hvdef::HvLocalInterruptControllerState;

use crate::{regs, ApicPage, Icr, Lapic};

impl<P: DerefMut<Target = ApicPage>> Lapic<P> {
    /// The registers, each as the guest would read it. A timer interrupt that is due is delivered
    /// first, so that it is in the IRR.
    pub fn save(&mut self, now_tsc: u64) -> HvLocalInterruptControllerState {
        let apic_counter_value = self.current_count(now_tsc);
        let page = &*self.page;
        let words = |base: u16| core::array::from_fn(|i| page.word(base, i as u8));
        HvLocalInterruptControllerState {
            apic_id: page.get(regs::ID),
            apic_version: page.get(regs::VERSION),
            apic_ldr: page.get(regs::LDR),
            apic_dfr: page.get(regs::DFR),
            apic_spurious: page.get(regs::SVR),
            apic_isr: words(regs::ISR),
            apic_tmr: words(regs::TMR),
            apic_irr: words(regs::IRR),
            apic_esr: page.get(regs::ESR),
            apic_icr_high: page.get(self.icr_high()),
            apic_icr_low: page.get(regs::ICR_LOW),
            apic_lvt_timer: page.get(regs::LVT_TIMER),
            apic_lvt_thermal: page.get(regs::LVT_THERMAL),
            apic_lvt_perfmon: page.get(regs::LVT_PMC),
            apic_lvt_lint0: page.get(regs::LVT_LINT0),
            apic_lvt_lint1: page.get(regs::LVT_LINT1),
            apic_lvt_error: page.get(regs::LVT_ERROR),
            // Absent: see `regs::LVT_CMCI`.
            apic_lvt_cmci: 0,
            apic_error_status: self.errors,
            apic_initial_count: page.get(regs::TIMER_ICR),
            apic_counter_value,
            apic_divide_configuration: page.get(regs::TIMER_DCR),
            apic_remote_read: page.get(regs::RRD),
        }
    }

    /// Sets the registers. APIC ID, version and, in x2APIC mode, LDR are given and not set;
    /// reserved bits are dropped. Destination view, pending interrupt and timer are new then.
    pub fn restore(&mut self, state: &HvLocalInterruptControllerState, now_tsc: u64) {
        if !self.is_enabled() {
            return;
        }
        // Software-enabled while the entries are stored, or their mask bits would stick.
        self.software_enabled = true;
        for (offset, value) in [
            (regs::LVT_TIMER, state.apic_lvt_timer),
            (regs::LVT_THERMAL, state.apic_lvt_thermal),
            (regs::LVT_PMC, state.apic_lvt_perfmon),
            (regs::LVT_LINT0, state.apic_lvt_lint0),
            (regs::LVT_LINT1, state.apic_lvt_lint1),
            (regs::LVT_ERROR, state.apic_lvt_error),
        ] {
            self.write_lvt(offset, value);
        }
        if state.apic_lvt_lint0 & regs::LVT_LEVEL != 0 {
            let lvt = self.page.get(regs::LVT_LINT0) & !regs::LVT_REMOTE_IRR;
            let remote_irr = state.apic_lvt_lint0 & regs::LVT_REMOTE_IRR;
            self.page.set(regs::LVT_LINT0, lvt | remote_irr);
        }
        self.page
            .set(regs::SVR, state.apic_spurious & regs::SVR_MASK);
        self.software_enabled = state.apic_spurious & regs::SVR_ENABLE != 0;
        if !self.software_enabled {
            self.mask_lvts();
        }

        if !self.is_x2apic() {
            self.page.set(regs::LDR, state.apic_ldr & 0xFF00_0000);
            self.page.set(regs::DFR, state.apic_dfr | 0x0FFF_FFFF);
        }
        let high_mask = if self.is_x2apic() {
            u32::MAX
        } else {
            0xFF00_0000
        };
        let icr_high = self.icr_high();
        self.page.set(icr_high, state.apic_icr_high & high_mask);
        self.page
            .set(regs::ICR_LOW, state.apic_icr_low & Icr::LOW_MASK);

        for i in 0..8 {
            // There are no vectors below 16.
            let mask = if i == 0 { !0xFFFF } else { !0 };
            let word = usize::from(i);
            for (base, words) in [
                (regs::ISR, &state.apic_isr),
                (regs::TMR, &state.apic_tmr),
                (regs::IRR, &state.apic_irr),
            ] {
                let value = words.get(word).copied().unwrap_or(0);
                self.page.set_word(base, i, value & mask);
            }
        }
        self.sync_from_page();
        self.publish_ppr();

        self.page.set(regs::ESR, state.apic_esr & regs::ESR_MASK);
        self.errors = state.apic_error_status & regs::ESR_MASK;
        self.error_armed = self.errors == 0;

        self.page.set(regs::TIMER_ICR, state.apic_initial_count);
        self.page
            .set(regs::TIMER_DCR, state.apic_divide_configuration & 0xB);
        self.restore_timer(state.apic_counter_value, now_tsc);
    }

    /// Where the page holds bits 63:32 of the ICR.
    fn icr_high(&self) -> u16 {
        if self.is_x2apic() {
            regs::ICR_LOW + 4
        } else {
            regs::ICR_HIGH
        }
    }
}
