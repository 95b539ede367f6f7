// SPDX-License-Identifier: GPL-2.0

//! NPIEP (F-NP1): while a guest forbids some of SGDT, SIDT, SLDT and STR outside of CPL 0, these and their relatives that
//! load the registers exit. What is allowed is executed by the CPU, in a single step without the exits.

use super::{cpl, fault};
use crate::vmx::vmcs::CurrentVmcs;
use crate::vp::core::VpCore;
use crate::vp::entry::Running;
use hvdef::{
    HV_NPIEP_PREVENT_SGDT, HV_NPIEP_PREVENT_SIDT, HV_NPIEP_PREVENT_SLDT, HV_NPIEP_PREVENT_STR,
};
use vmxdef::controls::{primary, secondary};
use vmxdef::field::*;
use vmxdef::ExitReason;
use x86def::vector;

/// An access of a descriptor-table register.
#[cold]
pub(super) fn handle(r: &mut Running<'_>, reason: ExitReason) -> bool {
    // SDM tables 28-11 and 28-12.
    let instruction = r.window.vmcs.read(VMX_INSTRUCTION_INFO) >> 28 & 3;
    let bit = match (reason, instruction) {
        (ExitReason::GDTR_IDTR, 0) => HV_NPIEP_PREVENT_SGDT,
        (ExitReason::GDTR_IDTR, 1) => HV_NPIEP_PREVENT_SIDT,
        (ExitReason::LDTR_TR, 0) => HV_NPIEP_PREVENT_SLDT,
        (ExitReason::LDTR_TR, 1) => HV_NPIEP_PREVENT_STR,
        // LGDT, LIDT, LLDT, LTR: the CPU has looked at the CPL.
        _ => 0,
    };
    if cpl(r) != 0 && r.core.synthetic.npiep() & bit != 0 {
        return fault(r, vector::GP, 0);
    }
    step(r.core, &r.window.vmcs);
    true
}

/// The step is done, or an event came first, behind which the instruction exits again.
#[cold]
pub(super) fn stepped(r: &mut Running<'_>) -> bool {
    follow(r.core, &r.window.vmcs);
    true
}

fn step(core: &mut VpCore, vmcs: &CurrentVmcs<'_>) {
    vmcs.modify(
        SECONDARY_VM_EXEC_CONTROL,
        secondary::DESCRIPTOR_TABLE_EXITING,
        0,
    );
    core.primary |= primary::MONITOR_TRAP_FLAG;
    vmcs.write(CPU_BASED_VM_EXEC_CONTROL, core.primary);
}

/// Makes the instructions exit if some of them are forbidden.
#[cold]
pub(in crate::vp) fn follow(core: &mut VpCore, vmcs: &CurrentVmcs<'_>) {
    core.npiep_changed = false;
    let bit = secondary::DESCRIPTOR_TABLE_EXITING;
    let set = if core.synthetic.npiep() != 0 { bit } else { 0 };
    vmcs.modify(SECONDARY_VM_EXEC_CONTROL, bit, set);
    core.primary &= !primary::MONITOR_TRAP_FLAG;
    vmcs.write(CPU_BASED_VM_EXEC_CONTROL, core.primary);
}
