// SPDX-License-Identifier: GPL-2.0

//! What this machine's VMX can do, read once at load; refusals name what is missing.

use super::controls::{self, Controls};
use super::insn::{cpuid, rdmsr_safe};
use crate::sys::host;
use kernel::fmt;
use vmxdef::caps::{self as msr, ept_vpid};
use vmxdef::controls::{pin, secondary};
use x86def::msr::IA32_ARCH_CAPABILITIES;

/// The machine's capabilities and the controls that follow from them.
#[derive(Clone)]
pub(crate) struct Capabilities {
    /// IA32_VMX_BASIC bits 30:0: first word of VMXON regions and VMCSs.
    pub(crate) revision: u32,
    /// Controls of every VP.
    pub(crate) controls: Controls,
    /// CR4 bits that may be 1.
    pub(crate) cr4_fixed1: u64,
    /// IA32_VMX_EPT_VPID_CAP.
    pub(crate) ept_vpid: u64,
    /// The preemption timer counts once in `1 << shift` TSC ticks; None: no timer.
    pub(crate) preemption_timer_shift: Option<u32>,
    /// CR4.PKE is on: PKRU is saved and restored.
    pub(crate) pku: bool,
    /// IA32_TSC_AUX exists.
    pub(crate) tsc_aux: bool,
    /// IA32_PERF_GLOBAL_CTRL is switched: host counters, and PEBS records, stop in the guest.
    pub(crate) perf_global_ctrl: bool,
    /// VMXON faults while Intel PT traces (SDM 33.5.1): look before each window.
    pub(crate) pt_excludes_vmx: bool,
    /// IA32_SPEC_CTRL exists.
    pub(crate) spec_ctrl: bool,
    /// IA32_ARCH_CAPABILITIES, what of it is true for guests too; None: no such MSR.
    pub(crate) arch_capabilities: Option<u64>,
    /// IBPB between guests.
    pub(crate) ibpb: bool,
    /// L1D flush at each window.
    pub(crate) l1d_flush: bool,
}

/// Bits of IA32_ARCH_CAPABILITIES that say "not affected" or that a microcode clears buffers: RDCL_NO,
/// IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO,
/// PSDP_NO, FB_CLEAR, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, RFDS_CLEAR, ITS_NO. The rest announces MSRs
/// that guests do not get.
const ARCH_CAPABILITIES_FOR_GUESTS: u64 = 1 << 0
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 17
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 28
    | 1 << 62;

/// Why hvrs cannot run here.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// No VMX.
    NoVmx,
    /// The firmware locked it off.
    FirmwareDisabled,
    /// No XSAVE.
    NoXsave,
    /// FRED event delivery.
    Fred,
    /// PREEMPT_RT.
    PreemptRt,
    /// A control of this kind is missing.
    Control(&'static str),
    /// An EPT or VPID capability is missing.
    Ept(&'static str),
    /// An old form of VMX.
    Old(&'static str),
    /// No known TSC frequency.
    NoTsc,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVmx => f.write_str("this CPU has no VT-x (VMX); hvrs needs an Intel CPU of 2011 or later"),
            Self::FirmwareDisabled => f.write_str(
                "VT-x is switched off by the firmware; enable \"Intel Virtualization Technology\" in its set-up",
            ),
            Self::NoXsave => f.write_str("this CPU, or the kernel's command line (noxsave), has no XSAVE"),
            Self::Fred => f.write_str("FRED event delivery is on; boot with fred=off"),
            Self::PreemptRt => f.write_str("this kernel is PREEMPT_RT, which hvrs does not support"),
            Self::Control(name) => write!(f, "this CPU's VMX has no {name}"),
            Self::Ept(name) => write!(f, "this CPU's EPT has no {name}"),
            Self::Old(name) => write!(f, "this CPU's VMX is too old: no {name}"),
            Self::NoTsc => f.write_str("the kernel knows no TSC frequency"),
        }
    }
}

impl Capabilities {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// What hvrs cannot do without.
    pub(crate) fn read() -> Result<Self, Refusal> {
        if cpuid(1, 0)[2] & 1 << 5 == 0 {
            return Err(Refusal::NoVmx);
        }
        let wanted = msr::FEATURE_CONTROL_LOCKED | msr::FEATURE_CONTROL_VMXON_OUTSIDE_SMX;
        if rdmsr_safe(msr::IA32_FEATURE_CONTROL).unwrap_or(0) & wanted != wanted {
            return Err(Refusal::FirmwareDisabled);
        }
        // CPUID.1:ECX.OSXSAVE: the kernel uses XSAVE.
        if cpuid(1, 0)[2] & 1 << 27 == 0 {
            return Err(Refusal::NoXsave);
        }
        if host::fred_enabled() {
            return Err(Refusal::Fred);
        }
        if host::preempt_rt() {
            return Err(Refusal::PreemptRt);
        }
        if host::tsc_khz() == 0 {
            return Err(Refusal::NoTsc);
        }
        let read = |number| rdmsr_safe(number).unwrap_or(0);
        let basic = read(msr::IA32_VMX_BASIC);
        if basic & msr::BASIC_TRUE_CTLS == 0 {
            return Err(Refusal::Old("TRUE capability MSRs"));
        }
        let misc = read(msr::IA32_VMX_MISC);
        let mut controls = Controls::choose(&controls::CapabilityMsrs {
            pin: read(msr::IA32_VMX_TRUE_PINBASED_CTLS),
            primary: read(msr::IA32_VMX_TRUE_PROCBASED_CTLS),
            secondary: read(msr::IA32_VMX_PROCBASED_CTLS2),
            exit: read(msr::IA32_VMX_TRUE_EXIT_CTLS),
            entry: read(msr::IA32_VMX_TRUE_ENTRY_CTLS),
        })
        .map_err(Refusal::Control)?;
        if misc & msr::MISC_STORE_LMA == 0 {
            return Err(Refusal::Old(
                "storing of EFER.LMA into the VM-entry controls",
            ));
        }
        let ept = read(msr::IA32_VMX_EPT_VPID_CAP);
        for (bit, name) in [
            (ept_vpid::WALK_LENGTH_4, "4-level page walk"),
            (ept_vpid::MEMORY_TYPE_WB, "write-back paging structures"),
            (ept_vpid::INVEPT, "INVEPT"),
            (ept_vpid::INVEPT_SINGLE, "single-context INVEPT"),
            (ept_vpid::INVVPID, "INVVPID"),
            (ept_vpid::INVVPID_SINGLE, "single-context INVVPID"),
        ] {
            if ept & bit == 0 {
                return Err(Refusal::Ept(name));
            }
        }
        // Architectural performance monitoring version 2 brought IA32_PERF_GLOBAL_CTRL.
        let has_perf = cpuid(0, 0)[0] >= 0xa && cpuid(0xa, 0)[0] & 0xff >= 2;
        let perf_global_ctrl = controls.switch_perf_global_ctrl(has_perf);
        let leaf7 = if cpuid(0, 0)[0] >= 7 {
            cpuid(7, 0)
        } else {
            [0; 4]
        };
        let (has_pt, leaf7_edx) = (leaf7[1] & 1 << 25 != 0, leaf7[3]);
        Ok(Self {
            revision: basic as u32 & 0x7fff_ffff,
            cr4_fixed1: read(msr::IA32_VMX_CR4_FIXED1),
            ept_vpid: ept,
            preemption_timer_shift: (controls.pin & pin::PREEMPTION_TIMER != 0)
                .then_some((misc & msr::MISC_PREEMPTION_TIMER_SHIFT) as u32),
            pku: super::insn::read_cr4() & x86def::cr::CR4_PKE != 0,
            tsc_aux: controls.secondary & secondary::ENABLE_RDTSCP != 0
                && cpuid(0x8000_0001, 0)[3] & 1 << 27 != 0,
            perf_global_ctrl,
            pt_excludes_vmx: has_pt && misc & msr::MISC_PT_IN_VMX == 0,
            // CPUID.7.0:EDX: IBRS and IBPB, STIBP, SSBD.
            spec_ctrl: leaf7_edx & (1 << 26 | 1 << 27 | 1 << 31) != 0,
            arch_capabilities: (leaf7_edx & 1 << 29 != 0)
                .then(|| read(IA32_ARCH_CAPABILITIES) & ARCH_CAPABILITIES_FOR_GUESTS),
            ibpb: host::spectre_v2(),
            l1d_flush: host::l1tf(),
            controls,
        })
    }

    /// Whether a secondary control is in use.
    pub(crate) fn has(&self, control: u32) -> bool {
        self.controls.secondary & control != 0
    }

    /// HVRS_GET_INFO's `capabilities` word, see include/uapi/linux/hvrs.h.
    pub(crate) fn uapi_bits(&self) -> u64 {
        let c = &self.controls;
        let bits = [
            c.secondary & secondary::ENABLE_VPID != 0,
            c.secondary & secondary::UNRESTRICTED_GUEST != 0,
            self.ept_vpid & ept_vpid::PAGE_2M != 0,
            self.ept_vpid & ept_vpid::PAGE_1G != 0,
            self.ept_vpid & ept_vpid::ACCESSED_DIRTY != 0,
            c.primary & vmxdef::controls::primary::USE_TPR_SHADOW != 0,
            c.secondary & secondary::APIC_REGISTER_VIRTUALIZATION != 0,
            c.secondary & secondary::VIRTUAL_INTERRUPT_DELIVERY != 0,
            c.secondary & secondary::ENABLE_PML != 0,
            c.secondary & secondary::VMCS_SHADOWING != 0,
            c.secondary & secondary::MODE_BASED_EXECUTE_CONTROL != 0,
            c.secondary & secondary::USE_TSC_SCALING != 0,
            self.preemption_timer_shift.is_some(),
        ];
        let mut word = 0;
        for (i, set) in bits.into_iter().enumerate() {
            word |= u64::from(set) << i;
        }
        word
    }
}
