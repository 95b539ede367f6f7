// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which MSR a register name of the TLFS stands for, so that HvCallGetVpRegisters and HvCallSetVpRegisters reach MSRs
//! by the same tables as the guest's RDMSR and WRMSR.

use hvdef::*;
use x86def::msr::*;

/// Names of the memory type range registers that there are: fixed ranges in order.
const FIXED_MTRRS: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];

/// The MSR, architectural or synthetic, of register `name`; `None` if the register is no MSR.
pub fn msr(name: u32) -> Option<u32> {
    Some(match name {
        HV_X64_REGISTER_TSC => IA32_TIME_STAMP_COUNTER,
        HV_X64_REGISTER_EFER => IA32_EFER,
        HV_X64_REGISTER_KERNEL_GS_BASE => IA32_KERNEL_GS_BASE,
        HV_X64_REGISTER_APIC_BASE => IA32_APIC_BASE,
        HV_X64_REGISTER_PAT => IA32_PAT,
        HV_X64_REGISTER_SYSENTER_CS => IA32_SYSENTER_CS,
        HV_X64_REGISTER_SYSENTER_EIP => IA32_SYSENTER_EIP,
        HV_X64_REGISTER_SYSENTER_ESP => IA32_SYSENTER_ESP,
        HV_X64_REGISTER_STAR => IA32_STAR,
        HV_X64_REGISTER_LSTAR => IA32_LSTAR,
        HV_X64_REGISTER_CSTAR => IA32_CSTAR,
        HV_X64_REGISTER_SFMASK => IA32_FMASK,
        HV_X64_REGISTER_MSR_MTRR_CAP => IA32_MTRRCAP,
        HV_X64_REGISTER_MSR_MTRR_DEF_TYPE => IA32_MTRR_DEF_TYPE,
        HV_X64_REGISTER_MSR_MTRR_PHYS_BASE0..=HV_X64_REGISTER_MSR_MTRR_PHYS_BASEF => {
            IA32_MTRR_PHYSBASE0 + 2 * (name - HV_X64_REGISTER_MSR_MTRR_PHYS_BASE0)
        }
        HV_X64_REGISTER_MSR_MTRR_PHYS_MASK0..=HV_X64_REGISTER_MSR_MTRR_PHYS_MASKF => {
            IA32_MTRR_PHYSBASE0 + 1 + 2 * (name - HV_X64_REGISTER_MSR_MTRR_PHYS_MASK0)
        }
        HV_X64_REGISTER_MSR_MTRR_FIX64K00000..=HV_X64_REGISTER_MSR_MTRR_FIX4KF8000 => {
            let i = name - HV_X64_REGISTER_MSR_MTRR_FIX64K00000;
            *FIXED_MTRRS.get(i as usize)?
        }
        HV_X64_REGISTER_TSC_AUX => IA32_TSC_AUX,
        HV_X64_REGISTER_DEBUG_CTL => IA32_DEBUGCTL,
        HV_X64_REGISTER_SPEC_CTRL => IA32_SPEC_CTRL,
        HV_X64_REGISTER_PRED_CMD => IA32_PRED_CMD,
        HV_X64_REGISTER_TSX_CTRL => IA32_TSX_CTRL,
        HV_X64_REGISTER_U_XSS => IA32_XSS,
        HV_X64_REGISTER_TSC_DEADLINE => IA32_TSC_DEADLINE,
        HV_X64_REGISTER_TSC_ADJUST => IA32_TSC_ADJUST,
        HV_X64_REGISTER_MSR_IA32_MISC_ENABLE => IA32_MISC_ENABLE,
        HV_X64_REGISTER_IA32_FEATURE_CONTROL => IA32_FEATURE_CONTROL,
        HV_REGISTER_VP_RUNTIME => HV_X64_MSR_VP_RUNTIME,
        HV_X64_REGISTER_HYPERCALL => HV_X64_MSR_HYPERCALL,
        HV_REGISTER_GUEST_OS_ID => HV_X64_MSR_GUEST_OS_ID,
        HV_REGISTER_VP_INDEX => HV_X64_MSR_VP_INDEX,
        HV_REGISTER_TIME_REF_COUNT => HV_X64_MSR_TIME_REF_COUNT,
        HV_REGISTER_PROCESSOR_CLOCK_FREQUENCY => HV_X64_MSR_TSC_FREQUENCY,
        HV_REGISTER_INTERRUPT_CLOCK_FREQUENCY => HV_X64_MSR_APIC_FREQUENCY,
        HV_REGISTER_REFERENCE_TSC => HV_X64_MSR_REFERENCE_TSC,
        HV_X64_REGISTER_SYNTHETIC_EOI => HV_X64_MSR_EOI,
        HV_X64_REGISTER_SYNTHETIC_ICR => HV_X64_MSR_ICR,
        HV_X64_REGISTER_SYNTHETIC_TPR => HV_X64_MSR_TPR,
        HV_REGISTER_VP_ASSIST_PAGE => HV_X64_MSR_VP_ASSIST_PAGE,
        HV_REGISTER_GUEST_IDLE => HV_X64_MSR_GUEST_IDLE,
        HV_REGISTER_SINT0..=HV_REGISTER_SINT15 => HV_X64_MSR_SINT0 + (name - HV_REGISTER_SINT0),
        HV_REGISTER_SCONTROL => HV_X64_MSR_SCONTROL,
        HV_REGISTER_SVERSION => HV_X64_MSR_SVERSION,
        HV_REGISTER_SIEFP => HV_X64_MSR_SIEFP,
        HV_REGISTER_SIMP => HV_X64_MSR_SIMP,
        HV_REGISTER_EOM => HV_X64_MSR_EOM,
        HV_REGISTER_STIMER0_CONFIG..=HV_REGISTER_STIMER3_COUNT => {
            HV_X64_MSR_STIMER0_CONFIG + (name - HV_REGISTER_STIMER0_CONFIG)
        }
        HV_REGISTER_STIME_UNHALTED_TIMER_CONFIG => HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG,
        HV_REGISTER_STIME_UNHALTED_TIMER_COUNT => HV_X64_MSR_STIME_UNHALTED_TIMER_COUNT,
        HV_REGISTER_GUEST_CRASH_P0..=HV_REGISTER_GUEST_CRASH_CTL => {
            HV_X64_MSR_CRASH_P0 + (name - HV_REGISTER_GUEST_CRASH_P0)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msr::row;

    /// The names in QEMU's one call for MSRs: all have a row here or are the interface's.
    #[test]
    fn what_vmms_name_is_there() {
        let single = [
            HV_X64_REGISTER_EFER,
            HV_X64_REGISTER_PAT,
            HV_X64_REGISTER_SYSENTER_CS,
            HV_X64_REGISTER_SYSENTER_ESP,
            HV_X64_REGISTER_SYSENTER_EIP,
            HV_X64_REGISTER_STAR,
            HV_X64_REGISTER_LSTAR,
            HV_X64_REGISTER_CSTAR,
            HV_X64_REGISTER_SFMASK,
            HV_X64_REGISTER_KERNEL_GS_BASE,
            HV_X64_REGISTER_TSC,
            HV_X64_REGISTER_TSC_AUX,
            HV_X64_REGISTER_TSC_ADJUST,
            HV_X64_REGISTER_MSR_MTRR_DEF_TYPE,
            HV_X64_REGISTER_SPEC_CTRL,
            HV_X64_REGISTER_DEBUG_CTL,
            HV_X64_REGISTER_MSR_IA32_MISC_ENABLE,
        ];
        let ranges = (HV_X64_REGISTER_MSR_MTRR_PHYS_BASE0..=HV_X64_REGISTER_MSR_MTRR_PHYS_BASE7)
            .chain(HV_X64_REGISTER_MSR_MTRR_PHYS_MASK0..=HV_X64_REGISTER_MSR_MTRR_PHYS_MASK7)
            .chain(HV_X64_REGISTER_MSR_MTRR_FIX64K00000..=HV_X64_REGISTER_MSR_MTRR_FIX4KF8000);
        for name in single.into_iter().chain(ranges) {
            let number = msr(name).unwrap();
            assert!(row(number).is_some(), "{name:x} is {number:x}");
        }
        for name in [
            HV_X64_REGISTER_HYPERCALL,
            HV_REGISTER_GUEST_OS_ID,
            HV_REGISTER_REFERENCE_TSC,
            HV_REGISTER_SCONTROL,
            HV_REGISTER_SIEFP,
            HV_REGISTER_SIMP,
        ] {
            assert!(HV_X64_MSR_RANGE.contains(&msr(name).unwrap()));
        }
    }

    #[test]
    fn runs() {
        assert_eq!(msr(HV_X64_REGISTER_MSR_MTRR_PHYS_MASK7), Some(0x20f));
        assert_eq!(msr(HV_X64_REGISTER_MSR_MTRR_FIX4KF8000), Some(0x26f));
        assert_eq!(msr(HV_REGISTER_SINT15), Some(0x4000_009f));
        assert_eq!(msr(HV_REGISTER_STIMER3_COUNT), Some(0x4000_00b7));
        assert_eq!(msr(HV_REGISTER_GUEST_CRASH_CTL), Some(0x4000_0105));
        assert_eq!(msr(HV_X64_REGISTER_RAX), None);
    }

    /// No two names for one MSR.
    #[test]
    fn distinct() {
        let mut seen = std::collections::BTreeSet::new();
        for number in (0..0x10_0000).filter_map(msr) {
            assert!(seen.insert(number), "{number:x}");
        }
    }
}
