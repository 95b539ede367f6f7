// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Acceptance, priority and end of interrupts (SDM Vol. 3, 11.8).

use core::ops::DerefMut;

use crate::{regs, ApicPage, Lapic, Trigger};

/// An end of interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eoi {
    /// The vector that left the ISR.
    pub vector: u8,
    /// The TMR said level: the EOI is broadcast to the IOAPICs.
    pub level_triggered: bool,
}

impl<P: DerefMut<Target = ApicPage>> Lapic<P> {
    /// Accepts the interrupt `vector` into the IRR and tells whether it was accepted.
    ///
    /// A vector below 16 is an error of the ESR; an APIC that is disabled, also by its SVR, takes
    /// no interrupts.
    #[inline]
    pub fn accept(&mut self, vector: u8, trigger: Trigger) -> bool {
        if vector < 16 || !self.software_enabled {
            return self.refuse(vector);
        }
        self.page.set_bit(regs::IRR, vector, true);
        self.page
            .set_bit(regs::TMR, vector, matches!(trigger, Trigger::Level));
        self.irr_words |= 1 << (vector >> 5);
        true
    }

    /// The rare half of [`Self::accept`].
    #[cold]
    fn refuse(&mut self, vector: u8) -> bool {
        if self.software_enabled && vector < 16 {
            self.report_error(regs::ESR_RECEIVE_ILLEGAL_VECTOR);
        }
        false
    }

    /// Accepts all vectors of `posted` (bit 0 of word 0 is vector 0), the bits other threads
    /// posted for this processor, and tells whether there was one to accept.
    #[inline]
    pub fn merge_irr(&mut self, posted: &[u32; 8], trigger: Trigger) -> bool {
        if !self.software_enabled {
            return false;
        }
        if posted[0] & 0xFFFF != 0 {
            self.report_error(regs::ESR_RECEIVE_ILLEGAL_VECTOR);
        }
        let mut any = false;
        for (i, &bits) in (0u8..8).zip(posted) {
            let bits = if i == 0 { bits & !0xFFFF } else { bits };
            if bits == 0 {
                continue;
            }
            let irr = self.page.word(regs::IRR, i);
            self.page.set_word(regs::IRR, i, irr | bits);
            let tmr = self.page.word(regs::TMR, i);
            let tmr = match trigger {
                Trigger::Edge => tmr & !bits,
                Trigger::Level => tmr | bits,
            };
            self.page.set_word(regs::TMR, i, tmr);
            self.irr_words |= 1 << (i & 7);
            any = true;
        }
        any
    }

    /// The highest vector requested, whatever its priority: with virtual-interrupt delivery, the
    /// RVI.
    #[inline]
    pub fn highest_irr(&self) -> Option<u8> {
        self.page.highest(regs::IRR, self.irr_words)
    }

    /// The highest vector in service: with virtual-interrupt delivery, the SVI.
    #[inline]
    pub fn highest_isr(&self) -> Option<u8> {
        self.page.highest(regs::ISR, self.isr_words)
    }

    /// Whether `vector` is requested.
    #[inline]
    pub fn is_requested(&self, vector: u8) -> bool {
        self.page.bit(regs::IRR, vector)
    }

    /// Whether `vector` is in service.
    #[inline]
    pub fn is_in_service(&self, vector: u8) -> bool {
        self.page.bit(regs::ISR, vector)
    }

    /// Whether the last acceptance of `vector` was level-triggered.
    #[inline]
    pub fn is_level_triggered(&self, vector: u8) -> bool {
        self.page.bit(regs::TMR, vector)
    }

    /// The task priority register.
    #[inline]
    pub fn tpr(&self) -> u8 {
        self.page.get(regs::TPR) as u8
    }

    /// Stores the task priority register.
    #[inline]
    pub fn set_tpr(&mut self, tpr: u8) {
        self.page.set(regs::TPR, tpr.into());
        self.publish_ppr();
    }

    /// CR8: the priority class of the TPR.
    #[inline]
    pub fn cr8(&self) -> u8 {
        self.tpr() >> 4
    }

    /// Stores CR8, which sets the TPR's class and clears its sub-class (SDM 11.8.6).
    #[inline]
    pub fn set_cr8(&mut self, cr8: u8) {
        self.set_tpr(cr8 << 4);
    }

    /// The processor priority: the higher of TPR and class in service (SDM 11.8.3.1).
    #[inline]
    pub fn ppr(&self) -> u8 {
        let tpr = self.tpr();
        let isrv = self.highest_isr().unwrap_or(0);
        if tpr >> 4 >= isrv >> 4 {
            tpr
        } else {
            isrv & 0xF0
        }
    }

    /// Keeps the PPR in the page, where APIC-register virtualization lets the guest read it.
    #[inline]
    pub(crate) fn publish_ppr(&mut self) {
        let ppr = self.ppr();
        self.page.set(regs::PPR, ppr.into());
    }

    /// The vector that the processor would take now if it takes interrupts: the highest in the
    /// IRR, if its class is above the PPR's.
    ///
    /// Software disable takes nothing out of the IRR: "pending interrupts are held and require
    /// handling by the CPU" (SDM 11.4.7.2), which is what virtual-interrupt delivery does too.
    #[inline]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.highest_irr()?;
        (vector >> 4 > self.ppr() >> 4).then_some(vector)
    }

    /// Gives the processor the vector that [`Self::pending`] names and takes it from the IRR to
    /// the ISR.
    #[inline]
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.clear_irr(vector);
        self.page.set_bit(regs::ISR, vector, true);
        self.isr_words |= 1 << (vector >> 5);
        // It was above the PPR, so it is the highest in service and above the TPR.
        self.page.set(regs::PPR, (vector & 0xF0).into());
        Some(vector)
    }

    /// Ends the interrupt of highest priority in service, if there is one.
    #[inline]
    pub fn eoi(&mut self) -> Option<Eoi> {
        let vector = self.highest_isr()?;
        self.clear_isr(vector);
        Some(self.ended(vector))
    }

    /// Ends `vector` at its delivery, for a SINT with AutoEOI: after [`Self::acknowledge`] gave
    /// it, and without the broadcast of an EOI.
    #[inline]
    pub fn auto_eoi(&mut self, vector: u8) {
        self.clear_isr(vector);
    }

    /// What the caller must do after an EOI-induced VM exit: the processor has already cleared
    /// `vector` in the ISR.
    #[inline]
    pub fn eoi_exit(&mut self, vector: u8) -> Eoi {
        self.sync_from_page();
        self.ended(vector)
    }

    /// Whether the guest may skip the EOI of the interrupt just acknowledged: edge-triggered, with
    /// nothing else waiting for that EOI (TLFS, "EOI assist").
    #[inline]
    pub fn can_skip_eoi(&self) -> bool {
        match self.highest_isr() {
            Some(vector) => self.irr_words == 0 && !self.is_level_triggered(vector),
            None => false,
        }
    }

    /// Takes over what the processor changed in the page by virtual-interrupt delivery: to be
    /// called after each VM exit with that control on, before anything else here.
    #[inline]
    pub fn sync_from_page(&mut self) {
        self.irr_words = self.page.summary(regs::IRR);
        self.isr_words = self.page.summary(regs::ISR);
    }

    /// What follows from the end of `vector`.
    #[inline]
    fn ended(&mut self, vector: u8) -> Eoi {
        let level_triggered = self.is_level_triggered(vector);
        if level_triggered {
            self.clear_remote_irr(vector);
        }
        Eoi {
            vector,
            level_triggered,
        }
    }

    #[inline]
    fn clear_irr(&mut self, vector: u8) {
        self.page.set_bit(regs::IRR, vector, false);
        if self.page.word(regs::IRR, vector >> 5) == 0 {
            self.irr_words &= !(1 << (vector >> 5));
        }
    }

    #[inline]
    fn clear_isr(&mut self, vector: u8) {
        self.page.set_bit(regs::ISR, vector, false);
        if self.page.word(regs::ISR, vector >> 5) == 0 {
            self.isr_words &= !(1 << (vector >> 5));
        }
        self.publish_ppr();
    }
}
