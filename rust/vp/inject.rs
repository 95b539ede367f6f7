// SPDX-License-Identifier: GPL-2.0

//! Events into the guest: exceptions, NMIs, interrupts; one at each entry (SDM 27.6).

use super::core::{Activity, Injection, VpCore};
use super::setup::set_windows;
use super::shared::{event, VpShared};
use crate::vmx::vmcs::CurrentVmcs;
use hvdef::HvVpCounter;
use hvdef::{HV_X64_PENDING_INTERRUPT, HV_X64_PENDING_NMI};
use vapic::Trigger;
use vmxdef::events::{interruptibility, intr_type, IntrInfo};
use vmxdef::field::*;
use x86def::cr::{CR0_PE, RFLAGS_IF};
use x86def::vector::{self, Combined};

impl VpCore {
    /// Queues an exception. One that comes while another is being delivered becomes what SDM
    /// table 7-5 says; false: a triple fault.
    #[must_use]
    pub(super) fn raise(&mut self, vector: u8, error_code: u32) -> bool {
        let mut new = (vector, error_code);
        if let Some(first) = self.injection {
            if first.info.kind() == intr_type::HARD_EXCEPTION {
                match vector::combine(first.info.vector(), vector) {
                    Combined::Serial => {}
                    Combined::DoubleFault => new = (vector::DF, 0),
                    Combined::TripleFault => return false,
                }
            }
        }
        let info = IntrInfo::new(intr_type::HARD_EXCEPTION, new.0);
        self.injection = Some(Injection {
            info: if vector::has_error_code(new.0) {
                info.with_error_code()
            } else {
                info
            },
            error_code: new.1,
            instruction_length: 0,
        });
        self.check_events = true;
        true
    }

    /// An exit in the middle of delivering an event: it is delivered again (SDM 28.2.4).
    #[inline]
    pub(super) fn requeue(&mut self, vmcs: &CurrentVmcs<'_>) {
        let info = IntrInfo(vmcs.read(IDT_VECTORING_INFO_FIELD));
        if !info.is_valid() {
            return;
        }
        // Delivering an NMI blocked further ones; this one has not been delivered after all.
        if info.kind() == intr_type::NMI {
            vmcs.modify(GUEST_INTERRUPTIBILITY_INFO, interruptibility::NMI, 0);
        }
        self.injection = Some(Injection {
            info: info.for_reinjection(),
            error_code: if info.has_error_code() {
                vmcs.read(IDT_VECTORING_ERROR_CODE)
            } else {
                0
            },
            instruction_length: if info.needs_instruction_length() {
                vmcs.read(VM_EXIT_INSTRUCTION_LEN)
            } else {
                0
            },
        });
        self.check_events = true;
    }

    /// Takes over what others posted. INIT and SIPI remain in the result.
    #[inline]
    pub(super) fn harvest(&mut self, shared: &VpShared) -> u32 {
        let events = shared.take_events();
        if events & event::VECTOR != 0 {
            let (edge, level) = shared.take_posted();
            let _ = self.lapic.merge_irr(&edge, Trigger::Edge);
            if level != [0; 8] {
                let _ = self.lapic.merge_irr(&level, Trigger::Level);
            }
        }
        if events & event::NMI != 0 {
            self.nmi_pending = true;
        }
        if events & event::EXTINT != 0 {
            self.extint_pending = Some(shared.extint_vector());
        }
        self.check_events = true;
        let own = event::INIT | event::SIPI | event::PARTITION | event::START | event::MESSAGES;
        events & own
    }

    /// What could be delivered now, of that which the VMM waits for (`HV_X64_PENDING_*`).
    pub(super) fn deliverable(&self, vmcs: &CurrentVmcs<'_>) -> Option<u8> {
        let wanted = self.notifications;
        let blocking = vmcs.read(GUEST_INTERRUPTIBILITY_INFO);
        let shadow = interruptibility::STI | interruptibility::MOV_SS;
        if self.injection.is_some() || self.trap_pending || blocking & shadow != 0 {
            return None;
        }
        if wanted.nmi() && !self.nmi_pending && blocking & interruptibility::NMI == 0 {
            return Some(HV_X64_PENDING_NMI);
        }
        let interrupt = wanted.interrupt()
            && self.extint_pending.is_none()
            && !self.notice_waits_for_tpr()
            && vmcs.read(GUEST_RFLAGS) & RFLAGS_IF != 0;
        interrupt.then_some(HV_X64_PENDING_INTERRUPT)
    }

    /// The VMM waits until the TPR is below a priority, and it is not.
    fn notice_waits_for_tpr(&self) -> bool {
        let priority = self.notifications.interrupt_priority();
        priority != 0 && self.lapic.cr8() >= priority
    }

    /// Whether a halted VP wakes.
    pub(super) fn wakes(&self, interrupts_enabled: bool) -> bool {
        self.nmi_pending
            || self.injection.is_some()
            || interrupts_enabled
                && (self.lapic.pending().is_some() || self.extint_pending.is_some())
    }

    /// Writes what the next entry injects, and opens windows for what it cannot.
    pub(super) fn inject(&mut self, vmcs: &CurrentVmcs<'_>, shared: &VpShared) {
        self.check_events = false;
        self.withdraw_no_eoi();
        let trap = core::mem::take(&mut self.trap_pending);
        if let Some(mut event) = self.injection.take() {
            // Real mode has no error codes, and VM entry would fail (SDM 27.2.1.3).
            if event.info.has_error_code() && vmcs.read(GUEST_CR0) & CR0_PE == 0 {
                event.info = event.info.without_error_code();
            }
            vmcs.write(VM_ENTRY_INTR_INFO_FIELD, event.info.0);
            if event.info.has_error_code() {
                vmcs.write(VM_ENTRY_EXCEPTION_ERROR_CODE, event.error_code);
            }
            if event.info.needs_instruction_length() {
                vmcs.write(VM_ENTRY_INSTRUCTION_LEN, event.instruction_length);
            }
            let interrupt = self.lapic.pending().is_some() || self.extint_pending.is_some();
            self.open_windows(vmcs, interrupt, self.nmi_pending);
            return;
        }
        let interrupt = self.lapic.pending();
        if !self.nmi_pending && interrupt.is_none() && self.extint_pending.is_none() {
            self.open_windows(vmcs, false, false);
            self.offer_no_eoi();
            return;
        }
        let blocking = vmcs.read(GUEST_INTERRUPTIBILITY_INFO);
        let shadow = trap || blocking & (interruptibility::STI | interruptibility::MOV_SS) != 0;
        let mut injected = false;
        if self.nmi_pending && !shadow && blocking & interruptibility::NMI == 0 {
            self.nmi_pending = false;
            injected = true;
            self.write_event(vmcs, IntrInfo::new(intr_type::NMI, vector::NMI));
        } else if !shadow && vmcs.read(GUEST_RFLAGS) & RFLAGS_IF != 0 {
            let vector = match self.extint_pending.take() {
                None => self.acknowledge(),
                extint => {
                    shared.acknowledge_extint();
                    extint
                }
            };
            if let Some(vector) = vector {
                injected = true;
                self.stats.count(HvVpCounter::VirtualInterrupts);
                self.write_event(vmcs, IntrInfo::new(intr_type::EXTERNAL, vector));
            }
        }
        let more = self.extint_pending.is_some()
            || if injected {
                self.lapic.pending().is_some()
            } else {
                interrupt.is_some()
            };
        self.open_windows(vmcs, more, self.nmi_pending);
        self.offer_no_eoi();
    }

    /// Exits for what the next entry does not inject, and for what the VMM waits for.
    #[inline]
    fn open_windows(&mut self, vmcs: &CurrentVmcs<'_>, mut interrupt: bool, mut nmi: bool) {
        if !self.notifications.is_empty() {
            interrupt |= self.notifications.interrupt() && !self.notice_waits_for_tpr();
            nmi |= self.notifications.nmi();
        }
        set_windows(vmcs, self, interrupt, nmi);
        self.update_tpr_threshold(vmcs);
    }

    /// Takes the LAPIC's interrupt; that of a SINT with AutoEOI ends with this.
    #[inline]
    fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.lapic.acknowledge()?;
        if self.synthetic.synic.ends_by_itself(vector) {
            self.lapic.auto_eoi(vector);
        }
        Some(vector)
    }

    fn write_event(&mut self, vmcs: &CurrentVmcs<'_>, info: IntrInfo) {
        vmcs.write(VM_ENTRY_INTR_INFO_FIELD, info.0);
        if matches!(self.activity, Activity::Halted | Activity::Idle) {
            self.activity = Activity::Running;
        }
    }

    /// An exit when the guest lowers its TPR far enough for the highest interrupt that it holds
    /// back (SDM 30.1.2).
    pub(super) fn update_tpr_threshold(&mut self, vmcs: &CurrentVmcs<'_>) {
        let mut threshold = match self.lapic.highest_irr() {
            Some(vector) if vector >> 4 <= self.lapic.tpr() >> 4 => u32::from(vector >> 4),
            _ => 0,
        };
        if self.notifications.interrupt() && self.notice_waits_for_tpr() {
            threshold = threshold.max(self.notifications.interrupt_priority().into());
        }
        if threshold != self.tpr_threshold {
            self.tpr_threshold = threshold;
            vmcs.write(TPR_THRESHOLD, threshold);
        }
    }
}
