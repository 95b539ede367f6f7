// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Architectural MSRs: which there are, what keeps them, and what a write may put there (SDM volume 4).
//!
//! A number without a row is not there: #GP, or what property `HV_PARTITION_PROPERTY_UNIMPLEMENTED_MSR_ACTION` says.

mod check;
mod mtrr;
mod table;

pub use check::{check_read, check_write, is_implemented, GeneralProtection, MsrContext};
pub use mtrr::{MtrrSlot, MTRR_SLOTS};
pub use table::{row, TABLE};

use crate::Feature;

/// What keeps a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrKind {
    /// A guest-state field of the VMCS.
    Vmcs(VmcsMsr),
    /// The processor's own register, loaded for the guest and saved after it.
    Loaded(LoadedMsr),
    /// IA32_TIME_STAMP_COUNTER.
    Tsc,
    /// IA32_TSC_ADJUST.
    TscAdjust,
    /// The local APIC: IA32_APIC_BASE, IA32_TSC_DEADLINE, the x2APIC registers. It judges writes itself.
    Apic,
    /// A memory type range register: kept, without effect on memory types.
    Mtrr(MtrrSlot),
    /// Always this value; writes that are legal change nothing.
    Constant(u64),
    /// IA32_ARCH_CAPABILITIES: [`crate::CpuModel::arch_capabilities`].
    ArchCapabilities,
    /// A command: a legal write is carried out on the processor; there is nothing to read.
    Command,
}

/// MSRs that have a guest-state field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum VmcsMsr {
    Efer,
    Pat,
    Debugctl,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    FsBase,
    GsBase,
}

/// MSRs that are loaded for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LoadedMsr {
    Star,
    Lstar,
    Cstar,
    Fmask,
    KernelGsBase,
    TscAux,
    SpecCtrl,
}

/// Which values may be written; any other is #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every value.
    Any,
    /// No value: the register is read-only.
    ReadOnly,
    /// Every value, and it is dropped.
    Ignored,
    /// Values with no other bits than these.
    Bits(u64),
    /// Every value; the upper half is dropped.
    Low32,
    /// Canonical addresses.
    Canonical,
    /// IA32_EFER.
    Efer,
    /// IA32_PAT.
    Pat,
    /// IA32_DEBUGCTL.
    Debugctl,
    /// IA32_SPEC_CTRL.
    SpecCtrl,
    /// A memory type range register.
    Mtrr(MtrrSlot),
    /// Left to the local APIC.
    Apic,
}

/// One MSR, or a run of them.
#[derive(Clone, Copy, Debug)]
pub struct MsrRow {
    /// First number.
    pub first: u32,
    /// Last number.
    pub last: u32,
    /// Name.
    pub name: &'static str,
    /// Without any of these features it is not there; empty: always there.
    pub needs_any: &'static [Feature],
    /// What keeps it.
    pub kind: MsrKind,
    /// Which values may be written.
    pub check: Check,
    /// Value after RESET.
    pub reset: u64,
}

#[cfg(test)]
mod tests;
