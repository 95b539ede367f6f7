// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The architectural MSRs, one row each, in the order of their numbers.

use super::{Check, LoadedMsr, MsrKind, MsrRow, MtrrSlot, VmcsMsr};
use crate::Feature;
use x86def::msr::*;

/// IA32_FEATURE_CONTROL: locked, and VMX off.
const FEATURE_CONTROL: u64 = 1;
/// IA32_MTRRCAP: eight variable ranges, fixed ranges, write combining.
const MTRRCAP: u64 = 8 | (1 << 8) | (1 << 10);
/// IA32_MISC_ENABLE: fast strings; neither BTS nor PEBS.
const MISC_ENABLE: u64 = 1 | (1 << 11) | (1 << 12);
/// IA32_BIOS_SIGN_ID: the newest revision there can be, so no guest refuses a feature because of an old one.
const BIOS_SIGN_ID: u64 = 0x8fff_ffff << 32;

const fn constant(value: u64) -> MsrKind {
    MsrKind::Constant(value)
}

macro_rules! table {
    ($($first:tt $(to $last:tt)? $name:literal, [$($need:ident)*], $kind:expr, $check:expr, $reset:expr;)*) => {
        /// All rows.
        pub const TABLE: &[MsrRow] = &[
            $(MsrRow {
                first: $first,
                last: table!(@last $first $($last)?),
                name: $name,
                needs_any: &[$(Feature::$need),*],
                kind: $kind,
                check: $check,
                reset: $reset,
            },)*
        ];
    };
    (@last $first:tt $last:tt) => {
        $last
    };
    (@last $first:tt) => {
        $first
    };
}

/// What keeps memory type range register `slot`.
const fn mtrr(slot: u8) -> MsrKind {
    MsrKind::Mtrr(MtrrSlot::new(slot))
}

table! {
    IA32_TIME_STAMP_COUNTER "IA32_TIME_STAMP_COUNTER", [Tsc], MsrKind::Tsc, Check::Any, 0;
    IA32_PLATFORM_ID "IA32_PLATFORM_ID", [], constant(0), Check::Ignored, 0;
    IA32_APIC_BASE "IA32_APIC_BASE", [Apic], MsrKind::Apic, Check::Apic, 0xfee0_0000;
    IA32_FEATURE_CONTROL "IA32_FEATURE_CONTROL", [], constant(FEATURE_CONTROL), Check::ReadOnly, FEATURE_CONTROL;
    IA32_TSC_ADJUST "IA32_TSC_ADJUST", [TscAdjust], MsrKind::TscAdjust, Check::Any, 0;
    IA32_SPEC_CTRL "IA32_SPEC_CTRL", [SpecCtrl], MsrKind::Loaded(LoadedMsr::SpecCtrl), Check::SpecCtrl, 0;
    IA32_PRED_CMD "IA32_PRED_CMD", [SpecCtrl], MsrKind::Command, Check::Bits(1), 0;
    IA32_BIOS_UPDT_TRIG "IA32_BIOS_UPDT_TRIG", [], constant(0), Check::Ignored, 0;
    IA32_BIOS_SIGN_ID "IA32_BIOS_SIGN_ID", [], constant(BIOS_SIGN_ID), Check::Ignored, BIOS_SIGN_ID;
    IA32_MTRRCAP "IA32_MTRRCAP", [Mtrr], constant(MTRRCAP), Check::ReadOnly, MTRRCAP;
    IA32_ARCH_CAPABILITIES "IA32_ARCH_CAPABILITIES", [ArchCapabilities], MsrKind::ArchCapabilities, Check::ReadOnly, 0;
    IA32_FLUSH_CMD "IA32_FLUSH_CMD", [L1dFlush], MsrKind::Command, Check::Bits(1), 0;
    IA32_SYSENTER_CS "IA32_SYSENTER_CS", [Sep], MsrKind::Vmcs(VmcsMsr::SysenterCs), Check::Low32, 0;
    IA32_SYSENTER_ESP "IA32_SYSENTER_ESP", [Sep], MsrKind::Vmcs(VmcsMsr::SysenterEsp), Check::Canonical, 0;
    IA32_SYSENTER_EIP "IA32_SYSENTER_EIP", [Sep], MsrKind::Vmcs(VmcsMsr::SysenterEip), Check::Canonical, 0;
    IA32_MCG_CAP "IA32_MCG_CAP", [Mca], constant(0), Check::ReadOnly, 0;
    IA32_MCG_STATUS "IA32_MCG_STATUS", [Mca], constant(0), Check::Bits(0), 0;
    IA32_MISC_ENABLE "IA32_MISC_ENABLE", [], constant(MISC_ENABLE), Check::Ignored, MISC_ENABLE;
    IA32_DEBUGCTL "IA32_DEBUGCTL", [], MsrKind::Vmcs(VmcsMsr::Debugctl), Check::Debugctl, 0;
    0x200 "IA32_MTRR_PHYSBASE0", [Mtrr], mtrr(1), Check::Mtrr(MtrrSlot::new(1)), 0;
    0x201 "IA32_MTRR_PHYSMASK0", [Mtrr], mtrr(2), Check::Mtrr(MtrrSlot::new(2)), 0;
    0x202 "IA32_MTRR_PHYSBASE1", [Mtrr], mtrr(3), Check::Mtrr(MtrrSlot::new(3)), 0;
    0x203 "IA32_MTRR_PHYSMASK1", [Mtrr], mtrr(4), Check::Mtrr(MtrrSlot::new(4)), 0;
    0x204 "IA32_MTRR_PHYSBASE2", [Mtrr], mtrr(5), Check::Mtrr(MtrrSlot::new(5)), 0;
    0x205 "IA32_MTRR_PHYSMASK2", [Mtrr], mtrr(6), Check::Mtrr(MtrrSlot::new(6)), 0;
    0x206 "IA32_MTRR_PHYSBASE3", [Mtrr], mtrr(7), Check::Mtrr(MtrrSlot::new(7)), 0;
    0x207 "IA32_MTRR_PHYSMASK3", [Mtrr], mtrr(8), Check::Mtrr(MtrrSlot::new(8)), 0;
    0x208 "IA32_MTRR_PHYSBASE4", [Mtrr], mtrr(9), Check::Mtrr(MtrrSlot::new(9)), 0;
    0x209 "IA32_MTRR_PHYSMASK4", [Mtrr], mtrr(10), Check::Mtrr(MtrrSlot::new(10)), 0;
    0x20a "IA32_MTRR_PHYSBASE5", [Mtrr], mtrr(11), Check::Mtrr(MtrrSlot::new(11)), 0;
    0x20b "IA32_MTRR_PHYSMASK5", [Mtrr], mtrr(12), Check::Mtrr(MtrrSlot::new(12)), 0;
    0x20c "IA32_MTRR_PHYSBASE6", [Mtrr], mtrr(13), Check::Mtrr(MtrrSlot::new(13)), 0;
    0x20d "IA32_MTRR_PHYSMASK6", [Mtrr], mtrr(14), Check::Mtrr(MtrrSlot::new(14)), 0;
    0x20e "IA32_MTRR_PHYSBASE7", [Mtrr], mtrr(15), Check::Mtrr(MtrrSlot::new(15)), 0;
    0x20f "IA32_MTRR_PHYSMASK7", [Mtrr], mtrr(16), Check::Mtrr(MtrrSlot::new(16)), 0;
    0x250 "IA32_MTRR_FIX64K_00000", [Mtrr], mtrr(17), Check::Mtrr(MtrrSlot::new(17)), 0;
    0x258 "IA32_MTRR_FIX16K_80000", [Mtrr], mtrr(18), Check::Mtrr(MtrrSlot::new(18)), 0;
    0x259 "IA32_MTRR_FIX16K_A0000", [Mtrr], mtrr(19), Check::Mtrr(MtrrSlot::new(19)), 0;
    0x268 "IA32_MTRR_FIX4K_C0000", [Mtrr], mtrr(20), Check::Mtrr(MtrrSlot::new(20)), 0;
    0x269 "IA32_MTRR_FIX4K_C8000", [Mtrr], mtrr(21), Check::Mtrr(MtrrSlot::new(21)), 0;
    0x26a "IA32_MTRR_FIX4K_D0000", [Mtrr], mtrr(22), Check::Mtrr(MtrrSlot::new(22)), 0;
    0x26b "IA32_MTRR_FIX4K_D8000", [Mtrr], mtrr(23), Check::Mtrr(MtrrSlot::new(23)), 0;
    0x26c "IA32_MTRR_FIX4K_E0000", [Mtrr], mtrr(24), Check::Mtrr(MtrrSlot::new(24)), 0;
    0x26d "IA32_MTRR_FIX4K_E8000", [Mtrr], mtrr(25), Check::Mtrr(MtrrSlot::new(25)), 0;
    0x26e "IA32_MTRR_FIX4K_F0000", [Mtrr], mtrr(26), Check::Mtrr(MtrrSlot::new(26)), 0;
    0x26f "IA32_MTRR_FIX4K_F8000", [Mtrr], mtrr(27), Check::Mtrr(MtrrSlot::new(27)), 0;
    IA32_PAT "IA32_PAT", [Pat], MsrKind::Vmcs(VmcsMsr::Pat), Check::Pat, IA32_PAT_RESET;
    IA32_MTRR_DEF_TYPE "IA32_MTRR_DEF_TYPE", [Mtrr], mtrr(0), Check::Mtrr(MtrrSlot::new(0)), 0;
    IA32_TSC_DEADLINE "IA32_TSC_DEADLINE", [TscDeadline], MsrKind::Apic, Check::Apic, 0;
    IA32_X2APIC_FIRST to IA32_X2APIC_LAST "x2APIC", [X2apic], MsrKind::Apic, Check::Apic, 0;
    IA32_EFER "IA32_EFER", [Syscall Lm Nx], MsrKind::Vmcs(VmcsMsr::Efer), Check::Efer, 0;
    IA32_STAR "IA32_STAR", [Syscall], MsrKind::Loaded(LoadedMsr::Star), Check::Any, 0;
    IA32_LSTAR "IA32_LSTAR", [Syscall], MsrKind::Loaded(LoadedMsr::Lstar), Check::Canonical, 0;
    IA32_CSTAR "IA32_CSTAR", [Syscall], MsrKind::Loaded(LoadedMsr::Cstar), Check::Canonical, 0;
    IA32_FMASK "IA32_FMASK", [Syscall], MsrKind::Loaded(LoadedMsr::Fmask), Check::Bits(0xffff_ffff), 0;
    IA32_FS_BASE "IA32_FS_BASE", [Lm], MsrKind::Vmcs(VmcsMsr::FsBase), Check::Canonical, 0;
    IA32_GS_BASE "IA32_GS_BASE", [Lm], MsrKind::Vmcs(VmcsMsr::GsBase), Check::Canonical, 0;
    IA32_KERNEL_GS_BASE "IA32_KERNEL_GS_BASE", [Lm], MsrKind::Loaded(LoadedMsr::KernelGsBase), Check::Canonical, 0;
    IA32_TSC_AUX "IA32_TSC_AUX", [Rdtscp Rdpid], MsrKind::Loaded(LoadedMsr::TscAux), Check::Bits(0xffff_ffff), 0;
}

/// The row of an MSR.
#[inline]
pub fn row(msr: u32) -> Option<&'static MsrRow> {
    let at = TABLE.partition_point(|row| row.last < msr);
    TABLE.get(at).filter(|row| row.first <= msr)
}
