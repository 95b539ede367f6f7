// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Synthetic MSRs that each VP has for itself, opened by AccessIntrCtrlRegs: the local APIC's most used registers and
//! the VP assist page (M-70 to M-73). Only the VP's own thread uses them, so they need no lock.
//!
//! A caller that has them asks here first, and [`super::read_msr`] or [`super::write_msr`] where this says `None`.

use super::{find, Access, MsrError, Origin};
use crate::{Overlay, OverlayKind, PartitionFeatures};
use hvdef::{HV_X64_MSR_PAGE_ENABLE, HV_X64_MSR_PAGE_GPN_SHIFT};

/// Registers that are kept here. Zero after creation, reset and INIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VpState {
    vp_assist_page: u64,
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
}

/// What the caller has to do after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VpEffect {
    /// Place the VP's assist page at page `gpn`, or take it away.
    Overlay {
        /// The page.
        overlay: Overlay,
        /// Where.
        gpn: Option<u64>,
    },
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
        Access::VpAssistPage => {
            state.vp_assist_page = value;
            Ok(state.assist_effect(features, vp_index))
        }
        _ => return None,
    })
}

impl VpState {
    /// State after creation and reset.
    pub const fn new() -> Self {
        Self { vp_assist_page: 0 }
    }

    /// M-73: a page number out of range is no fault, the page just cannot be reached.
    fn assist_effect(&self, features: &PartitionFeatures, vp_index: u32) -> VpEffect {
        let gpn = self.vp_assist_page >> HV_X64_MSR_PAGE_GPN_SHIFT;
        let enabled = self.vp_assist_page & HV_X64_MSR_PAGE_ENABLE != 0;
        VpEffect::Overlay {
            overlay: Overlay::vp(OverlayKind::VpAssistPage, vp_index),
            gpn: (enabled && features.gpn_in_range(gpn)).then_some(gpn),
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
