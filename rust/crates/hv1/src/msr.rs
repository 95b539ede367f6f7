// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Synthetic MSRs (section 2 of the matrix): state, reads and writes. The rows are in [`TABLE`].

mod table;
mod vp;

pub use table::{row, Access, MsrRow, Scope, TABLE};
pub use vp::{read_vp_msr, write_vp_msr, VpEffect, VpRead, VpState};

use crate::{Overlay, OverlayKind, PartitionFeatures};
use hvdef::{
    HvPartitionPrivilege, HV_CRASH_CTL_MESSAGE, HV_CRASH_CTL_NOTIFY, HV_CRASH_MAXIMUM_MESSAGE_SIZE,
    HV_CRASH_PARAMETERS, HV_X64_MSR_APIC_FREQUENCY, HV_X64_MSR_HYPERCALL_ENABLE,
    HV_X64_MSR_HYPERCALL_LOCKED, HV_X64_MSR_PAGE_ENABLE, HV_X64_MSR_PAGE_GPN_SHIFT,
    HV_X64_MSR_RANGE, HV_X64_MSR_TIME_REF_COUNT, HV_X64_MSR_TSC_FREQUENCY, HV_X64_MSR_VP_INDEX,
    HV_X64_MSR_VP_RUNTIME,
};

/// Who accesses the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The guest, by RDMSR or WRMSR.
    Guest,
    /// The VMM, by HvCallGetVpRegisters or HvCallSetVpRegisters: it restores state in whatever order, so privileges,
    /// the hypercall register's lock and its dependence on the guest OS id do not bind it.
    Host,
}

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrError {
    /// #GP(0) for a guest; HV_STATUS_INVALID_PARAMETER for a VMM.
    GeneralProtection,
    /// No synthetic MSR.
    NotMine,
}

/// What the caller has to do after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrEffect {
    /// Nothing.
    None,
    /// Place an overlay page at page `gpn`, or take it away.
    Overlay {
        /// The page.
        overlay: Overlay,
        /// Where.
        gpn: Option<u64>,
    },
    /// The guest has crashed: tell (F-CR1).
    Crash(Crash),
    /// The guest wants the partition to be reset (F-RS1).
    Reset,
}

/// What a guest tells about its crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// HV_X64_MSR_CRASH_P0 to P4.
    pub parameters: [u64; HV_CRASH_PARAMETERS],
    /// Address and length of a text in guest memory.
    pub text: Option<(u64, u64)>,
}

/// Registers that a partition has once. The caller holds the partition's lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    guest_os_id: u64,
    hypercall: u64,
    reference_tsc: u64,
    /// Retail, internal.
    stats: [u64; 2],
    crash: [u64; HV_CRASH_PARAMETERS],
    tsc_invariant: bool,
}

/// What a read needs of the VP at hand. Nothing of it needs a lock.
pub trait VpEnv {
    /// Index of the VP.
    fn vp_index(&self) -> u32;
    /// The reference counter ([`crate::RefTime::now_100ns`]).
    fn reference_time_100ns(&self) -> u64;
    /// Time that the VP ran, and that the hypervisor worked for it (M-10).
    fn runtime_100ns(&self) -> u64;
}

/// Reads, without a lock, a register that changes often or never; `None`: [`read_msr`] has to say.
#[inline(always)]
pub fn read_msr_hot<E: VpEnv>(
    msr: u32,
    features: &PartitionFeatures,
    env: &E,
) -> Option<Result<u64, MsrError>> {
    let (privilege, value) = match msr {
        HV_X64_MSR_TIME_REF_COUNT => (
            HvPartitionPrivilege::ACCESS_PARTITION_REFERENCE_COUNTER,
            env.reference_time_100ns(),
        ),
        HV_X64_MSR_VP_INDEX => (
            HvPartitionPrivilege::ACCESS_VP_INDEX,
            u64::from(env.vp_index()),
        ),
        HV_X64_MSR_VP_RUNTIME => (
            HvPartitionPrivilege::ACCESS_VP_RUN_TIME_REG,
            env.runtime_100ns(),
        ),
        HV_X64_MSR_TSC_FREQUENCY => (
            HvPartitionPrivilege::ACCESS_FREQUENCY_REGS,
            features.limits.tsc_hz,
        ),
        HV_X64_MSR_APIC_FREQUENCY => (
            HvPartitionPrivilege::ACCESS_FREQUENCY_REGS,
            features.limits.apic_hz,
        ),
        _ => return None,
    };
    if features.privileges.contains(privilege) {
        Some(Ok(value))
    } else {
        Some(Err(MsrError::GeneralProtection))
    }
}

/// Finds the row and checks what holds for reads and writes alike.
#[inline(always)]
fn find(
    msr: u32,
    origin: Origin,
    features: &PartitionFeatures,
) -> Result<&'static MsrRow, MsrError> {
    if !HV_X64_MSR_RANGE.contains(&msr) {
        return Err(MsrError::NotMine);
    }
    // An unknown number in the range is #GP, and so is a register without the privilege (C-R8).
    let row = row(msr).ok_or(MsrError::GeneralProtection)?;
    if origin == Origin::Guest && !(features.hv1() && features.privileges.contains(row.privilege)) {
        return Err(MsrError::GeneralProtection);
    }
    Ok(row)
}

/// Whether the guest would get #GP for each access to `msr` because it has not the privilege.
pub fn is_withheld(msr: u32, features: &PartitionFeatures) -> bool {
    row(msr).is_some() && find(msr, Origin::Guest, features).is_err()
}

/// Reads a synthetic MSR, other than those of [`read_vp_msr`].
pub fn read_msr<E: VpEnv>(
    msr: u32,
    origin: Origin,
    features: &PartitionFeatures,
    state: &PartitionState,
    env: &E,
) -> Result<u64, MsrError> {
    let row = find(msr, origin, features)?;
    Ok(match row.access {
        Access::GuestOsId => state.guest_os_id,
        Access::Hypercall => state.hypercall,
        Access::ReferenceTsc => state.reference_tsc,
        Access::StatsPartition(internal) => state.stats[usize::from(internal)],
        Access::VpIndex => u64::from(env.vp_index()),
        Access::Reset => 0,
        Access::VpRuntime => env.runtime_100ns(),
        Access::TimeRefCount => env.reference_time_100ns(),
        Access::TscFrequency => features.limits.tsc_hz,
        Access::ApicFrequency => features.limits.apic_hz,
        Access::CrashParameter(n) => state.crash.get(usize::from(n)).copied().unwrap_or(0),
        // M-105: what it can do.
        Access::CrashControl => HV_CRASH_CTL_NOTIFY | HV_CRASH_CTL_MESSAGE,
        Access::TscInvariantControl => state.tsc_invariant.into(),
        // The VP's own.
        _ => return Err(MsrError::GeneralProtection),
    })
}

/// Writes a synthetic MSR, other than those of [`write_vp_msr`].
pub fn write_msr(
    msr: u32,
    value: u64,
    origin: Origin,
    features: &PartitionFeatures,
    state: &mut PartitionState,
) -> Result<MsrEffect, MsrError> {
    let row = find(msr, origin, features)?;
    match row.access {
        Access::GuestOsId => Ok(state.write_guest_os_id(value, origin)),
        Access::Hypercall => state.write_hypercall(value, origin, features),
        Access::ReferenceTsc => Ok(state.write_reference_tsc(value, features)),
        Access::StatsPartition(internal) => {
            state.stats[usize::from(internal)] = value;
            Ok(MsrEffect::Overlay {
                overlay: Overlay::partition(OverlayKind::stats(internal)),
                gpn: page_of(value, features),
            })
        }
        Access::CrashParameter(n) => {
            if let Some(p) = state.crash.get_mut(usize::from(n)) {
                *p = value;
            }
            Ok(MsrEffect::None)
        }
        // M-03: bits 63:1 are reserved. A VMM does not ask itself.
        Access::Reset if value == 0 => Ok(MsrEffect::None),
        Access::Reset if value == 1 && origin == Origin::Guest => Ok(MsrEffect::Reset),
        // A VMM writes back what it read; it has nothing to report.
        Access::CrashControl if origin == Origin::Guest => Ok(state.crash_effect(value)),
        Access::CrashControl => Ok(MsrEffect::None),
        // M-118: a guest cannot take it back.
        Access::TscInvariantControl
            if value <= 1 && (value == 1 || !state.tsc_invariant || origin == Origin::Host) =>
        {
            state.tsc_invariant = value == 1;
            Ok(MsrEffect::None)
        }
        // Read-only, or the VP's own.
        _ => Err(MsrError::GeneralProtection),
    }
}

impl PartitionState {
    /// State after creation and reset.
    pub const fn new() -> Self {
        Self {
            guest_os_id: 0,
            hypercall: 0,
            reference_tsc: 0,
            stats: [0; 2],
            crash: [0; HV_CRASH_PARAMETERS],
            tsc_invariant: false,
        }
    }

    /// CPUID may show that the TSC is invariant (F-TM15).
    #[inline]
    pub const fn tsc_invariant(&self) -> bool {
        self.tsc_invariant
    }

    /// M-105.
    fn crash_effect(&self, control: u64) -> MsrEffect {
        if control & HV_CRASH_CTL_NOTIFY == 0 {
            return MsrEffect::None;
        }
        let [.., address, length] = self.crash;
        let has_text = control & HV_CRASH_CTL_MESSAGE != 0 && length != 0;
        MsrEffect::Crash(Crash {
            parameters: self.crash,
            text: has_text.then_some((address, length.min(HV_CRASH_MAXIMUM_MESSAGE_SIZE))),
        })
    }

    /// HV_X64_MSR_GUEST_OS_ID; hypercalls are there once it is not 0.
    #[inline]
    pub const fn guest_os_id(&self) -> u64 {
        self.guest_os_id
    }

    /// M-00: without an identity there is no hypercall page.
    fn write_guest_os_id(&mut self, value: u64, origin: Origin) -> MsrEffect {
        self.guest_os_id = value;
        let enabled = self.hypercall & HV_X64_MSR_HYPERCALL_ENABLE != 0;
        if value == 0 && enabled && origin == Origin::Guest {
            self.hypercall &= !HV_X64_MSR_HYPERCALL_ENABLE;
            return HYPERCALL_PAGE_OFF;
        }
        MsrEffect::None
    }

    /// M-01.
    fn write_hypercall(
        &mut self,
        mut value: u64,
        origin: Origin,
        features: &PartitionFeatures,
    ) -> Result<MsrEffect, MsrError> {
        if !features.gpn_in_range(value >> HV_X64_MSR_PAGE_GPN_SHIFT) {
            return Err(MsrError::GeneralProtection);
        }
        if origin == Origin::Guest {
            if self.hypercall & HV_X64_MSR_HYPERCALL_LOCKED != 0 {
                return Err(MsrError::GeneralProtection);
            }
            if self.guest_os_id == 0 {
                value &= !HV_X64_MSR_HYPERCALL_ENABLE;
            }
        }
        self.hypercall = value;
        Ok(self.hypercall_effect())
    }

    /// M-21.
    fn write_reference_tsc(&mut self, value: u64, features: &PartitionFeatures) -> MsrEffect {
        self.reference_tsc = value;
        self.reference_tsc_effect(features)
    }

    fn hypercall_effect(&self) -> MsrEffect {
        if self.hypercall & HV_X64_MSR_HYPERCALL_ENABLE == 0 {
            return HYPERCALL_PAGE_OFF;
        }
        MsrEffect::Overlay {
            overlay: HYPERCALL_PAGE,
            gpn: Some(self.hypercall >> HV_X64_MSR_PAGE_GPN_SHIFT),
        }
    }

    fn reference_tsc_effect(&self, features: &PartitionFeatures) -> MsrEffect {
        MsrEffect::Overlay {
            overlay: Overlay::partition(OverlayKind::ReferenceTsc),
            gpn: page_of(self.reference_tsc, features),
        }
    }
}

/// The page that a register other than HYPERCALL places: a page number out of range is no fault, the page just cannot be
/// reached (F-OV5).
fn page_of(value: u64, features: &PartitionFeatures) -> Option<u64> {
    let gpn = value >> HV_X64_MSR_PAGE_GPN_SHIFT;
    let enabled = value & HV_X64_MSR_PAGE_ENABLE != 0;
    (enabled && features.gpn_in_range(gpn)).then_some(gpn)
}

const HYPERCALL_PAGE: Overlay = Overlay::partition(OverlayKind::HypercallPage);
const HYPERCALL_PAGE_OFF: MsrEffect = MsrEffect::Overlay {
    overlay: HYPERCALL_PAGE,
    gpn: None,
};

#[cfg(test)]
mod tests;
