// SPDX-License-Identifier: GPL-2.0

//! Exits while the VMM intercepts something that exits in any case (HvCallInstallIntercept).

use super::{count, cpuid, hypercall, leave, Leave};
use crate::machine::Machine;
use crate::vp::core::{RAX, RCX};
use crate::vp::entry::Running;
use hv1::msr::is_withheld;
use hvdef::HvVpCounter;
use vmxdef::ExitReason;

/// Gives the exit to the VMM if it is the VMM's. `None`: it is not.
#[cold]
pub(super) fn handle(r: &mut Running<'_>, reason: ExitReason) -> Option<bool> {
    let intercepts = &r.partition.intercepts;
    match reason {
        ExitReason::CPUID => {
            if !intercepts.cpuid(r.core.gprs[RAX] as u32) {
                return None;
            }
            count(r, HvVpCounter::CpuidInstructionsCount);
            let result = cpuid::result(r);
            Some(leave(r, Leave::Cpuid(result)))
        }
        ExitReason::MSR_READ | ExitReason::MSR_WRITE => {
            let number = r.core.gprs[RCX] as u32;
            let write = reason == ExitReason::MSR_WRITE;
            // What the guest has no right to is #GP for it, and nobody's to answer.
            if intercepts.msr(number, write) && !is_withheld(number, &r.config.features) {
                count(r, HvVpCounter::MsrAccessesCount);
                return Some(leave(r, Leave::Msr { number, write }));
            }
            // One that the CPU gives to the guest was the VMM's until a moment ago.
            Machine::passes_through(number, write).then(|| {
                count(r, HvVpCounter::MsrAccessesCount);
                leave(r, Leave::Again)
            })
        }
        ExitReason::VMCALL if hypercall::is_unknown(r, |code| intercepts.call(code)) => {
            count(r, HvVpCounter::HypercallsCount);
            Some(leave(r, Leave::Hypercall))
        }
        _ => None,
    }
}
