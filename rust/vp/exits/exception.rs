// SPDX-License-Identifier: GPL-2.0

//! Exceptions and NMIs that exit: the host's NMIs and machine checks, and the guest's #DB and #AC,
//! which are given back to it.

use super::{fault, leave, Leave};
use crate::vmx::insn;
use crate::vp::entry::Running;
use vmxdef::events::{interruptibility, intr_type, IntrInfo};
use vmxdef::field::*;
use vmxdef::ExitReason;
use x86def::cr::{DR6_RESET, DR7_GD};
use x86def::vector;

/// An exception that the guest has not got yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exception {
    pub(crate) info: IntrInfo,
    pub(crate) error_code: u32,
    /// The linear address of a #PF, DR6 of a #DB.
    pub(crate) parameter: u64,
}

pub(super) fn handle(r: &mut Running<'_>) -> bool {
    let vmcs = &r.window.vmcs;
    let info = IntrInfo(vmcs.read(VM_EXIT_INTR_INFO));
    let error_code = if info.has_error_code() {
        vmcs.read(VM_EXIT_INTR_ERROR_CODE)
    } else {
        0
    };
    if info.kind() == intr_type::NMI {
        // NMIs stay blocked until the handler's IRET.
        insn::int_nmi();
        return leave(r, Leave::Host);
    }
    // IRET unblocked NMIs before it faulted (SDM 28.2.3).
    if info.nmi_unblocking()
        && info.vector() != vector::DF
        && !IntrInfo(vmcs.read(IDT_VECTORING_INFO_FIELD)).is_valid()
    {
        vmcs.modify(GUEST_INTERRUPTIBILITY_INFO, 0, interruptibility::NMI);
    }
    // ICEBP is none for the VMM (H-P13). INT3 is, other than there: debuggers in VMMs work by it.
    let intercepted = r.partition.intercepts.exceptions() >> (info.vector() & 31) & 1 != 0
        && info.kind() != intr_type::PRIVILEGED_SOFT_EXCEPTION;
    if intercepted && info.vector() != vector::MC {
        r.core.requeue(vmcs);
        let qualification = vmcs.read(EXIT_QUALIFICATION);
        let parameter = match info.vector() {
            vector::PF => qualification,
            vector::DB => dr6(r.core.guest.dr6, qualification),
            _ => 0,
        };
        let exception = Exception {
            info,
            error_code,
            parameter,
        };
        return leave(r, Leave::Exception(exception));
    }
    match info.vector() {
        vector::MC => {
            insn::int_machine_check();
            leave(r, Leave::Host)
        }
        vector::DB => {
            r.core.requeue(vmcs);
            r.core.guest.dr6 = dr6(r.core.guest.dr6, vmcs.read(EXIT_QUALIFICATION));
            let dr7 = vmcs.read(GUEST_DR7);
            vmcs.write(GUEST_DR7, dr7 & !DR7_GD);
            if info.kind() == intr_type::PRIVILEGED_SOFT_EXCEPTION {
                return icebp(r, info);
            }
            fault_through_host(r, vector::DB, 0)
        }
        vector::AC => {
            r.core.requeue(vmcs);
            fault_through_host(r, vector::AC, error_code)
        }
        // The VMM's until a moment ago: it comes again, or the guest gets it.
        _ if r.core.exception_bitmap >> (info.vector() & 31) & 1 != 0 => {
            r.core.requeue(vmcs);
            leave(r, Leave::Again)
        }
        other => leave(
            r,
            Leave::Unhandled(ExitReason::EXCEPTION_NMI, u64::from(other)),
        ),
    }
}

/// DR6 after a #DB. The qualification has the new bits (SDM table 28-1); RTM is inverted and unused.
fn dr6(old: u64, qualification: u64) -> u64 {
    old & !0xf | qualification & 0xe00f | DR6_RESET
}

/// [`fault`], by way of the host. An exception that the delivery of the last one raised comes before the CPU looks at
/// the host's interrupts, so that a guest could stay in this window for ever (CVE-2015-5307, CVE-2015-8104).
fn fault_through_host(r: &mut Running<'_>, vector: u8, error_code: u32) -> bool {
    fault(r, vector, error_code) && leave(r, Leave::Host)
}

/// INT1 is delivered as what it is: RIP behind it, DPL not checked.
fn icebp(r: &mut Running<'_>, info: IntrInfo) -> bool {
    r.core.injection = Some(crate::vp::core::Injection {
        info: info.for_reinjection(),
        error_code: 0,
        instruction_length: r.window.vmcs.read(VM_EXIT_INSTRUCTION_LEN),
    });
    r.core.check_events = true;
    true
}
