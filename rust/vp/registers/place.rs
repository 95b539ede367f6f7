// SPDX-License-Identifier: GPL-2.0

//! The names of registers, and where each register lives.

use hvdef::*;
use vmxdef::field::*;
use x86def::segment::Segment as Seg;

/// Where a register lives.
pub(super) enum Place {
    Gpr(usize),
    Segment(Seg),
    Table(FieldNatural, Field32),
    Natural(FieldNatural),
    /// The VP's TSC, which is mostly the partition's.
    Tsc,
    /// An MSR of the architecture, whether the partition's processors have it or not.
    Msr(u32),
    /// A synthetic MSR.
    Synthetic(u32),
    /// A register that no processor here has: it is 0 and stays so.
    Absent,
    /// What CPUID tells in a leaf of the hypervisor.
    Leaf(u32),
    Other(Special),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    Cr0,
    Cr2,
    Cr4,
    Cr8,
    Xfem,
    Efer,
    ApicBase,
    Dr(usize),
    Dr6,
    Dr7,
    PendingInterruption,
    InterruptState,
    PendingEvent0,
    PendingEvent1,
    DeliverabilityNotifications,
    ExplicitSuspend,
    InterceptSuspend,
    ActivityState,
    InitialApicId,
    Xmm(usize),
    FpMmx(usize),
    FpControl,
    XmmControl,
}

/// The one table of names.
pub(super) fn place(name: u32) -> Option<Place> {
    use self::Special as S;
    use Place::*;
    Some(match name {
        HV_X64_REGISTER_RSP => Natural(GUEST_RSP),
        HV_X64_REGISTER_RAX..=HV_X64_REGISTER_R15 => Gpr((name - HV_X64_REGISTER_RAX) as usize),
        HV_X64_REGISTER_RIP => Natural(GUEST_RIP),
        HV_X64_REGISTER_RFLAGS => Natural(GUEST_RFLAGS),
        HV_X64_REGISTER_ES => Segment(Seg::Es),
        HV_X64_REGISTER_CS => Segment(Seg::Cs),
        HV_X64_REGISTER_SS => Segment(Seg::Ss),
        HV_X64_REGISTER_DS => Segment(Seg::Ds),
        HV_X64_REGISTER_FS => Segment(Seg::Fs),
        HV_X64_REGISTER_GS => Segment(Seg::Gs),
        HV_X64_REGISTER_LDTR => Segment(Seg::Ldtr),
        HV_X64_REGISTER_TR => Segment(Seg::Tr),
        HV_X64_REGISTER_IDTR => Table(GUEST_IDTR_BASE, GUEST_IDTR_LIMIT),
        HV_X64_REGISTER_GDTR => Table(GUEST_GDTR_BASE, GUEST_GDTR_LIMIT),
        HV_X64_REGISTER_CR0 | HV_X64_REGISTER_INTERMEDIATE_CR0 => Other(S::Cr0),
        HV_X64_REGISTER_CR2 => Other(S::Cr2),
        HV_X64_REGISTER_CR3 | HV_X64_REGISTER_INTERMEDIATE_CR3 => Natural(GUEST_CR3),
        HV_X64_REGISTER_CR4 | HV_X64_REGISTER_INTERMEDIATE_CR4 => Other(S::Cr4),
        HV_X64_REGISTER_CR8 | HV_X64_REGISTER_INTERMEDIATE_CR8 => Other(S::Cr8),
        HV_X64_REGISTER_XFEM => Other(S::Xfem),
        HV_X64_REGISTER_DR0..=HV_X64_REGISTER_DR3 => {
            Other(S::Dr((name - HV_X64_REGISTER_DR0) as usize))
        }
        HV_X64_REGISTER_DR6 => Other(S::Dr6),
        HV_X64_REGISTER_DR7 => Other(S::Dr7),
        HV_X64_REGISTER_EFER => Other(S::Efer),
        HV_X64_REGISTER_APIC_BASE => Other(S::ApicBase),
        HV_REGISTER_PENDING_INTERRUPTION => Other(S::PendingInterruption),
        HV_REGISTER_INTERRUPT_STATE => Other(S::InterruptState),
        HV_REGISTER_PENDING_EVENT0 => Other(S::PendingEvent0),
        HV_REGISTER_PENDING_EVENT1 => Other(S::PendingEvent1),
        HV_REGISTER_DELIVERABILITY_NOTIFICATIONS => Other(S::DeliverabilityNotifications),
        HV_REGISTER_EXPLICIT_SUSPEND => Other(S::ExplicitSuspend),
        HV_REGISTER_INTERCEPT_SUSPEND => Other(S::InterceptSuspend),
        HV_REGISTER_INTERNAL_ACTIVITY_STATE => Other(S::ActivityState),
        HV_X64_REGISTER_INITIAL_APIC_ID | HV_X64_REGISTER_APIC_ID => Other(S::InitialApicId),
        HV_X64_REGISTER_XMM0..=HV_X64_REGISTER_XMM15 => {
            Other(S::Xmm((name - HV_X64_REGISTER_XMM0) as usize))
        }
        HV_X64_REGISTER_FP_MMX0..=HV_X64_REGISTER_FP_MMX7 => {
            Other(S::FpMmx((name - HV_X64_REGISTER_FP_MMX0) as usize))
        }
        HV_X64_REGISTER_FP_CONTROL_STATUS => Other(S::FpControl),
        HV_X64_REGISTER_XMM_CONTROL_STATUS => Other(S::XmmControl),
        HV_X64_REGISTER_TSC => Tsc,
        HV_REGISTER_HYPERVISOR_VERSION => Leaf(HYPERV_CPUID_VERSION),
        HV_REGISTER_PRIVILEGES_AND_FEATURES_INFO => Leaf(HYPERV_CPUID_FEATURES),
        HV_REGISTER_FEATURES_INFO => Leaf(HYPERV_CPUID_ENLIGHTMENT_INFO),
        HV_REGISTER_IMPLEMENTATION_LIMITS_INFO => Leaf(HYPERV_CPUID_IMPLEMENT_LIMITS),
        HV_REGISTER_HARDWARE_FEATURES_INFO => Leaf(HYPERV_CPUID_HARDWARE_FEATURES),
        // MPX, MPERF and APERF, SGX, AMD's SSBD, CET, PASID, UMWAIT, AMX.
        HV_X64_REGISTER_BNDCFGS
        | HV_X64_REGISTER_MCOUNT
        | HV_X64_REGISTER_ACOUNT
        | HV_X64_REGISTER_SGX_LAUNCH_CONTROL0..=HV_X64_REGISTER_SGX_LAUNCH_CONTROL3
        | HV_X64_REGISTER_VIRT_SPEC_CTRL
        | HV_X64_REGISTER_U_CET..=HV_X64_REGISTER_INTERRUPT_SSP_TABLE_ADDR
        | HV_X64_REGISTER_PASID
        | HV_X64_REGISTER_UMWAIT_CONTROL
        | HV_X64_REGISTER_XFD
        | HV_X64_REGISTER_XFD_ERR => Absent,
        _ => match cpumodel::register::msr(name)? {
            msr if HV_X64_MSR_RANGE.contains(&msr) => Synthetic(msr),
            msr => Msr(msr),
        },
    })
}

impl Place {
    /// Whether it is one of those that the register page has as its general registers, RIP and RFLAGS.
    pub(super) fn is_general(&self) -> bool {
        matches!(
            self,
            Place::Gpr(_) | Place::Natural(GUEST_RSP | GUEST_RIP | GUEST_RFLAGS)
        )
    }

    /// Whether it is reached without the VMCS.
    pub(super) fn is_outside(&self) -> bool {
        matches!(self, Place::Synthetic(_) | Place::Tsc | Place::Leaf(_))
    }
}
