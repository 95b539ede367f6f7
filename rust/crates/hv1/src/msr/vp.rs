// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Synthetic MSRs that each VP has for itself: the local APIC's most used registers and the VP assist page (M-70 to
//! M-73), SynIC and synthetic timers (M-80 to M-B1), GUEST_IDLE (M-F0). Only the VP's own thread uses them, so they
//! need no lock.
//!
//! A caller that has them asks here first, and [`super::read_msr`] or [`super::write_msr`] where this says `None`.

use super::{find, page_of, Access, MsrError, Origin};
use crate::{Overlay, OverlayKind, PartitionFeatures, Stimers, Synic, UnhaltedTimer};
use hvdef::{
    HvFeaturesEdx, HV_NPIEP_PREVENT_SGDT, HV_NPIEP_PREVENT_SIDT, HV_NPIEP_PREVENT_SLDT,
    HV_NPIEP_PREVENT_STR, HV_SYNIC_VERSION_1,
};

/// Registers that are kept here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VpState {
    vp_assist_page: u64,
    /// Statistics pages: retail, internal.
    stats: [u64; 2],
    npiep: u64,
    /// Synthetic interrupt controller.
    pub synic: Synic,
    /// Synthetic timers.
    pub stimers: Stimers,
    /// Time-unhalted timer.
    pub unhalted: UnhaltedTimer,
}

/// What a read gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VpRead {
    /// This value.
    Value(u64),
    /// The local APIC's interrupt command register: the high word as in xAPIC mode, with the destination in bits 63:56.
    Icr,
    /// The local APIC's task priority register.
    Tpr,
    /// What the VMM says.
    Vmm,
    /// Zero, after the VP has slept until an interrupt came, whatever RFLAGS.IF (F-ID1).
    Idle,
}

/// What the caller has to do after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VpEffect {
    /// Nothing.
    None,
    /// The VMM carries it out.
    Vmm,
    /// Timers may have started, a message slot may be free: [`Stimers::run`] is due.
    Timers,
    /// [`UnhaltedTimer::due`] changed.
    UnhaltedTimer,
    /// [`crate::synic::SynicShared::publish`] is due, and then [`Stimers::run`]: messages may be deliverable.
    Synic,
    /// Place an overlay page of the VP at page `gpn`, or take it away; then as after [`Self::Synic`].
    Overlay {
        /// The page.
        overlay: Overlay,
        /// Where.
        gpn: Option<u64>,
    },
    /// [`VpState::npiep`] changed.
    Npiep,
    /// End of interrupt.
    Eoi,
    /// Write the local APIC's interrupt command register; format as in [`VpRead::Icr`].
    Icr(u64),
    /// Write the local APIC's task priority register.
    Tpr(u8),
}

/// Reads a register of the VP; `None` if `msr` is none.
#[inline(always)]
pub fn read_vp_msr(
    msr: u32,
    origin: Origin,
    features: &PartitionFeatures,
    state: &VpState,
) -> Option<Result<VpRead, MsrError>> {
    let access = match find(msr, origin, features) {
        Ok(row) => row.access,
        Err(e) => return Some(Err(e)),
    };
    Some(match access {
        // Write-only.
        Access::Eoi => Err(MsrError::GeneralProtection),
        Access::Icr => Ok(VpRead::Icr),
        Access::Tpr => Ok(VpRead::Tpr),
        Access::VpAssistPage => Ok(VpRead::Value(state.vp_assist_page)),
        Access::StatsVp(internal) => Ok(VpRead::Value(state.stats[usize::from(internal)])),
        Access::NpiepConfig if has_npiep(features) => Ok(VpRead::Value(state.npiep)),
        Access::NpiepConfig => Err(MsrError::GeneralProtection),
        Access::UnhaltedTimerConfig if has_unhalted_timer(features) => {
            Ok(VpRead::Value(state.unhalted.config()))
        }
        Access::UnhaltedTimerCount if has_unhalted_timer(features) => {
            Ok(VpRead::Value(state.unhalted.count()))
        }
        Access::UnhaltedTimerConfig | Access::UnhaltedTimerCount => {
            Err(MsrError::GeneralProtection)
        }
        Access::GuestIdle if origin == Origin::Guest => Ok(VpRead::Idle),
        Access::Debugger if origin == Origin::Guest => Ok(VpRead::Vmm),
        access => return read_synic(access, state).map(|value| Ok(VpRead::Value(value))),
    })
}

const NPIEP_BITS: u64 =
    HV_NPIEP_PREVENT_SGDT | HV_NPIEP_PREVENT_SIDT | HV_NPIEP_PREVENT_SLDT | HV_NPIEP_PREVENT_STR;

/// No privilege opens the register: a bit of leaf 0x40000003 EDX does.
const fn has_npiep(features: &PartitionFeatures) -> bool {
    features.edx.contains(HvFeaturesEdx::NPIEP1_AVAILABLE)
}

/// Nor does the timers' privilege alone.
const fn has_unhalted_timer(features: &PartitionFeatures) -> bool {
    features
        .edx
        .contains(HvFeaturesEdx::SYNTHETIC_TIME_UNHALTED_TIMER_AVAILABLE)
}

fn read_synic(access: Access, state: &VpState) -> Option<u64> {
    let synic = &state.synic;
    Some(match access {
        Access::Scontrol => synic.scontrol,
        Access::Sversion => HV_SYNIC_VERSION_1,
        Access::Siefp => synic.siefp,
        Access::Simp => synic.simp,
        // M-84: it can be read.
        Access::Eom | Access::GuestIdle | Access::Debugger => 0,
        Access::Sint(n) => synic.sint(n),
        Access::StimerConfig(n) => state.stimers.config(n),
        Access::StimerCount(n) => state.stimers.count(n),
        _ => return None,
    })
}

/// Writes a register of the VP with index `vp_index`; `None` if `msr` is none.
#[inline(always)]
pub fn write_vp_msr(
    msr: u32,
    value: u64,
    origin: Origin,
    features: &PartitionFeatures,
    vp_index: u32,
    state: &mut VpState,
) -> Option<Result<VpEffect, MsrError>> {
    let access = match find(msr, origin, features) {
        Ok(row) => row.access,
        Err(e) => return Some(Err(e)),
    };
    let guest = origin == Origin::Guest;
    Some(match access {
        // A VMM restores the local APIC as a whole; a command is no state.
        Access::Eoi if guest && value >> 32 == 0 => Ok(VpEffect::Eoi),
        Access::Icr if guest => Ok(VpEffect::Icr(value)),
        Access::Tpr if value >> 8 == 0 => Ok(VpEffect::Tpr(value as u8)),
        Access::Eoi | Access::Icr | Access::Tpr => Err(MsrError::GeneralProtection),
        Access::Debugger if guest => Ok(VpEffect::Vmm),
        Access::VpAssistPage => {
            state.vp_assist_page = value;
            Ok(overlay(
                OverlayKind::VpAssistPage,
                value,
                features,
                vp_index,
            ))
        }
        Access::StatsVp(internal) => {
            state.stats[usize::from(internal)] = value;
            let kind = OverlayKind::stats(internal);
            Ok(overlay(kind, value, features, vp_index))
        }
        // M-40: what is reserved is not ignored.
        Access::NpiepConfig if has_npiep(features) && value & !NPIEP_BITS == 0 => {
            state.npiep = value;
            Ok(VpEffect::Npiep)
        }
        Access::NpiepConfig => Err(MsrError::GeneralProtection),
        Access::UnhaltedTimerConfig if has_unhalted_timer(features) => state
            .unhalted
            .write_config(value)
            .map(|()| VpEffect::UnhaltedTimer),
        Access::UnhaltedTimerCount if has_unhalted_timer(features) => {
            state.unhalted.write_count(value);
            Ok(VpEffect::UnhaltedTimer)
        }
        Access::UnhaltedTimerConfig | Access::UnhaltedTimerCount => {
            Err(MsrError::GeneralProtection)
        }
        Access::StimerConfig(n) => state
            .stimers
            .write_config(n, value)
            .map(|()| VpEffect::Timers),
        Access::StimerCount(n) => {
            state.stimers.write_count(n, value);
            Ok(VpEffect::Timers)
        }
        access => return write_synic(access, value, origin, features, vp_index, state),
    })
}

fn write_synic(
    access: Access,
    value: u64,
    origin: Origin,
    features: &PartitionFeatures,
    vp_index: u32,
    state: &mut VpState,
) -> Option<Result<VpEffect, MsrError>> {
    let synic = &mut state.synic;
    Some(match access {
        Access::Scontrol => {
            synic.scontrol = value;
            Ok(VpEffect::Synic)
        }
        Access::Siefp => {
            synic.siefp = value;
            Ok(overlay(OverlayKind::Siefp, value, features, vp_index))
        }
        Access::Simp => {
            synic.simp = value;
            Ok(overlay(OverlayKind::Simp, value, features, vp_index))
        }
        Access::Eom => Ok(VpEffect::Timers),
        Access::Sint(n) => synic.write_sint(n, value).map(|()| VpEffect::Synic),
        // A VMM writes back what it read.
        Access::Sversion if origin == Origin::Host && value == HV_SYNIC_VERSION_1 => {
            Ok(VpEffect::None)
        }
        Access::GuestIdle | Access::Debugger if origin == Origin::Host && value == 0 => {
            Ok(VpEffect::None)
        }
        Access::Sversion | Access::GuestIdle | Access::Debugger => Err(MsrError::GeneralProtection),
        _ => return None,
    })
}

/// M-73, M-82, M-83, M-E2, M-E3.
fn overlay(kind: OverlayKind, value: u64, features: &PartitionFeatures, vp_index: u32) -> VpEffect {
    VpEffect::Overlay {
        overlay: Overlay::vp(kind, vp_index),
        gpn: page_of(value, features),
    }
}

impl VpState {
    /// Whether the guest has enabled its VP assist page.
    #[inline]
    pub const fn has_assist_page(&self) -> bool {
        self.vp_assist_page & hvdef::HV_X64_MSR_PAGE_ENABLE != 0
    }

    /// Bits `HV_NPIEP_PREVENT_*` of instructions that are #GP outside of CPL 0 (F-NP1).
    #[inline]
    pub const fn npiep(&self) -> u64 {
        self.npiep
    }

    /// State after creation and reset.
    pub const fn new() -> Self {
        Self {
            vp_assist_page: 0,
            stats: [0; 2],
            npiep: 0,
            synic: Synic::new(),
            stimers: Stimers::new(),
            unhalted: UnhaltedTimer::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{all, limits};
    use hvdef::*;

    fn granted() -> PartitionFeatures {
        let mut f = all();
        f.privileges |= HvPartitionPrivilege::ACCESS_INTR_CTRL_REGS;
        f
    }

    fn get(msr: u32, state: &VpState) -> Option<Result<VpRead, MsrError>> {
        read_vp_msr(msr, Origin::Guest, &granted(), state)
    }

    fn set(msr: u32, value: u64, state: &mut VpState) -> Option<Result<VpEffect, MsrError>> {
        write_vp_msr(msr, value, Origin::Guest, &granted(), 3, state)
    }

    const GP: MsrError = MsrError::GeneralProtection;

    /// M-73.
    #[test]
    fn assist_page() {
        let mut s = VpState::new();
        let at = |gpn| {
            let overlay = Overlay::vp(OverlayKind::VpAssistPage, 3);
            Some(Ok(VpEffect::Overlay { overlay, gpn }))
        };
        assert_eq!(set(HV_X64_MSR_VP_ASSIST_PAGE, 0x9001, &mut s), at(Some(9)));
        assert_eq!(
            get(HV_X64_MSR_VP_ASSIST_PAGE, &s),
            Some(Ok(VpRead::Value(0x9001)))
        );
        assert_eq!(set(HV_X64_MSR_VP_ASSIST_PAGE, 0x9000, &mut s), at(None));
        assert_eq!(
            set(HV_X64_MSR_VP_ASSIST_PAGE, (1 << 39) | 1, &mut s),
            at(None)
        );
        assert_eq!(
            get(HV_X64_MSR_VP_ASSIST_PAGE, &s),
            Some(Ok(VpRead::Value((1 << 39) | 1)))
        );
    }

    /// M-E2, M-E3.
    #[test]
    fn statistics_pages() {
        let mut s = VpState::new();
        for (msr, kind) in [
            (HV_X64_MSR_STATS_VP_RETAIL_PAGE, OverlayKind::Stats),
            (
                HV_X64_MSR_STATS_VP_INTERNAL_PAGE,
                OverlayKind::InternalStats,
            ),
        ] {
            let at = |gpn| {
                let overlay = Overlay::vp(kind, 3);
                Some(Ok(VpEffect::Overlay { overlay, gpn }))
            };
            assert_eq!(set(msr, 0x9ff1, &mut s), at(Some(9)));
            assert_eq!(get(msr, &s), Some(Ok(VpRead::Value(0x9ff1))));
            assert_eq!(set(msr, 0, &mut s), at(None));
        }
    }

    /// M-70 to M-72: reserved bits, and which of them can be read.
    #[test]
    fn apic_registers() {
        let mut s = VpState::new();
        assert_eq!(
            set(HV_X64_MSR_EOI, 0xffff_ffff, &mut s),
            Some(Ok(VpEffect::Eoi))
        );
        assert_eq!(set(HV_X64_MSR_EOI, 1 << 32, &mut s), Some(Err(GP)));
        assert_eq!(get(HV_X64_MSR_EOI, &s), Some(Err(GP)));
        assert_eq!(set(HV_X64_MSR_ICR, !0, &mut s), Some(Ok(VpEffect::Icr(!0))));
        assert_eq!(get(HV_X64_MSR_ICR, &s), Some(Ok(VpRead::Icr)));
        assert_eq!(
            set(HV_X64_MSR_TPR, 0xff, &mut s),
            Some(Ok(VpEffect::Tpr(0xff)))
        );
        assert_eq!(set(HV_X64_MSR_TPR, 0x100, &mut s), Some(Err(GP)));
        assert_eq!(get(HV_X64_MSR_TPR, &s), Some(Ok(VpRead::Tpr)));
    }

    /// C-R8: without the privilege there is nothing; other registers are somebody else's.
    #[test]
    fn privilege() {
        let f = PartitionFeatures::new(HvSyntheticProcessorFeatures(3), limits());
        let mut s = VpState::new();
        for msr in HV_X64_MSR_EOI..=HV_X64_MSR_VP_ASSIST_PAGE {
            assert_eq!(read_vp_msr(msr, Origin::Guest, &f, &s), Some(Err(GP)));
            let w = write_vp_msr(msr, 0, Origin::Guest, &f, 0, &mut s);
            assert_eq!(w, Some(Err(GP)));
        }
        assert_eq!(get(HV_X64_MSR_VP_INDEX, &s), None);
        assert_eq!(set(HV_X64_MSR_REFERENCE_TSC, 0, &mut s), None);
        assert_eq!(get(0x10, &s), Some(Err(MsrError::NotMine)));
    }

    /// M-80 to M-B1: reset values, what sticks, what the caller is told.
    #[test]
    fn synic_registers() {
        let mut s = VpState::new();
        let place = |kind, gpn| {
            let overlay = Overlay::vp(kind, 3);
            Some(Ok(VpEffect::Overlay { overlay, gpn }))
        };
        let synic = Some(Ok(VpEffect::Synic));
        let value = |v| Some(Ok(VpRead::Value(v)));
        let registers = (HV_X64_MSR_SCONTROL..=HV_X64_MSR_EOM)
            .chain(HV_X64_MSR_SINT0..=HV_X64_MSR_SINT15)
            .chain(HV_X64_MSR_STIMER0_CONFIG..=HV_X64_MSR_STIMER3_COUNT);
        for msr in registers {
            let reset = match msr {
                HV_X64_MSR_SVERSION => 1,
                HV_X64_MSR_SINT0..=HV_X64_MSR_SINT15 => 0x1_0000,
                _ => 0,
            };
            assert_eq!(get(msr, &s), value(reset), "{msr:x}");
        }
        assert_eq!(set(HV_X64_MSR_SVERSION, 1, &mut s), Some(Err(GP)));
        assert_eq!(set(HV_X64_MSR_SCONTROL, 1, &mut s), synic);
        assert_eq!(get(HV_X64_MSR_SCONTROL, &s), value(1));
        let timers = Some(Ok(VpEffect::Timers));
        assert_eq!(set(HV_X64_MSR_EOM, 0, &mut s), timers);
        for (msr, kind) in [
            (HV_X64_MSR_SIMP, OverlayKind::Simp),
            (HV_X64_MSR_SIEFP, OverlayKind::Siefp),
        ] {
            assert_eq!(set(msr, 0x7001, &mut s), place(kind, Some(7)));
            assert_eq!(get(msr, &s), value(0x7001));
            assert_eq!(set(msr, (1 << 39) | 1, &mut s), place(kind, None));
            assert_eq!(set(msr, 0x7000, &mut s), place(kind, None));
        }
        for sint in HV_X64_MSR_SINT0..=HV_X64_MSR_SINT15 {
            assert_eq!(set(sint, 15, &mut s), Some(Err(GP)));
            assert_eq!(get(sint, &s), value(0x1_0000));
            assert_eq!(set(sint, u64::from(sint & 15) | 0x30, &mut s), synic);
            assert_eq!(get(sint, &s), value(u64::from(sint & 15) | 0x30));
        }
        for n in 0..4 {
            let (config, count) = (
                HV_X64_MSR_STIMER0_CONFIG + 2 * n,
                HV_X64_MSR_STIMER0_COUNT + 2 * n,
            );
            assert_eq!(set(config, 1 << 20, &mut s), Some(Err(GP)));
            assert_eq!(set(config, 0x1408, &mut s), timers);
            assert_eq!(set(count, u64::from(n) + 9, &mut s), timers);
            assert_eq!(get(config, &s), value(0x1409));
            assert_eq!(get(count, &s), value(u64::from(n) + 9));
        }
    }

    /// M-40: four bits, and only where leaf 0x40000003 shows it.
    #[test]
    fn npiep() {
        let mut s = VpState::new();
        const MSR: u32 = HV_X64_MSR_NPIEP_CONFIG;
        assert_eq!(get(MSR, &s), Some(Err(GP)));
        assert_eq!(set(MSR, 0, &mut s), Some(Err(GP)));
        let mut f = granted();
        f.grant_npiep();
        for value in 0..16 {
            let w = write_vp_msr(MSR, value, Origin::Guest, &f, 0, &mut s);
            assert_eq!(w, Some(Ok(VpEffect::Npiep)));
            let r = read_vp_msr(MSR, Origin::Guest, &f, &s);
            assert_eq!((r, s.npiep()), (Some(Ok(VpRead::Value(value))), value));
        }
        for bit in 4..64 {
            let w = write_vp_msr(MSR, 1 << bit, Origin::Host, &f, 0, &mut s);
            assert_eq!((w, s.npiep()), (Some(Err(GP)), 15));
        }
        let mut none = PartitionFeatures::new(HvSyntheticProcessorFeatures(1), limits());
        none.grant_npiep();
        assert_eq!(none.edx, HvFeaturesEdx::empty());
    }

    /// M-F0.
    #[test]
    fn guest_idle() {
        let mut s = VpState::new();
        assert_eq!(get(HV_X64_MSR_GUEST_IDLE, &s), Some(Ok(VpRead::Idle)));
        assert_eq!(set(HV_X64_MSR_GUEST_IDLE, 0, &mut s), Some(Err(GP)));
        let host = read_vp_msr(HV_X64_MSR_GUEST_IDLE, Origin::Host, &granted(), &s);
        assert_eq!(host, Some(Ok(VpRead::Value(0))));
    }

    /// M-F1, M-FF: the VMM's, which has them itself.
    #[test]
    fn debugger() {
        let mut s = VpState::new();
        for msr in [
            HV_X64_MSR_SYNTH_DEBUG_CONTROL,
            HV_X64_MSR_SYNTH_DEBUG_PENDING_BUFFER,
            HV_X64_MSR_DEBUG_DEVICE_OPTIONS,
        ] {
            assert_eq!(get(msr, &s), Some(Ok(VpRead::Vmm)));
            assert_eq!(set(msr, 5, &mut s), Some(Ok(VpEffect::Vmm)));
            let host = read_vp_msr(msr, Origin::Host, &granted(), &s);
            assert_eq!(host, Some(Ok(VpRead::Value(0))));
            let host = write_vp_msr(msr, 5, Origin::Host, &granted(), 0, &mut s);
            assert_eq!(host, Some(Err(GP)));
        }
    }

    /// A VMM can restore state, not give commands.
    #[test]
    fn host() {
        let mut s = VpState::new();
        let mut go = |msr, value| write_vp_msr(msr, value, Origin::Host, &granted(), 0, &mut s);
        assert!(go(HV_X64_MSR_VP_ASSIST_PAGE, 0x5001).unwrap().is_ok());
        assert_eq!(go(HV_X64_MSR_TPR, 0x20), Some(Ok(VpEffect::Tpr(0x20))));
        assert_eq!(go(HV_X64_MSR_EOI, 0), Some(Err(GP)));
        assert_eq!(go(HV_X64_MSR_ICR, 0), Some(Err(GP)));
    }
}
