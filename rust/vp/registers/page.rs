// SPDX-License-Identifier: GPL-2.0

//! The register page: a VP's registers in memory that the VMM maps, so that an intercept costs it
//! no call to read or set them.

use super::{guest_cr0, guest_cr4, interrupt_state, pending_interruption, segment};
use crate::sys::pages::Pages;
use crate::vmx::vmcs::CurrentVmcs;
use crate::vp::core::{VpCore, RSP};
use crate::vp::setup::write_segment;
use hvdef::*;
use vmxdef::field::*;
use x86def::cr;
use x86def::segment::{rights_from_attributes, Segment};

const SEGMENTS: [Segment; 6] = [
    Segment::Es,
    Segment::Cs,
    Segment::Ss,
    Segment::Ds,
    Segment::Fs,
    Segment::Gs,
];

/// Fills the page but for XMM registers; nothing in it is dirty then.
pub(crate) fn fill(page: &Pages, core: &VpCore, vmcs: &CurrentVmcs<'_>) {
    let mut gprs = core.gprs;
    gprs[RSP] = vmcs.read(GUEST_RSP);
    let contents = HvVpRegisterPage {
        version: HV_VP_REGISTER_PAGE_VERSION_1,
        isvalid: 1,
        gp_registers: gprs,
        rip: vmcs.read(GUEST_RIP),
        rflags: vmcs.read(GUEST_RFLAGS),
        segment_registers: SEGMENTS.map(|s| segment(vmcs, s)),
        cr0: guest_cr0(vmcs),
        cr3: vmcs.read(GUEST_CR3),
        cr4: guest_cr4(vmcs),
        cr8: u64::from(core.lapic.cr8()),
        efer: vmcs.read(GUEST_IA32_EFER),
        dr7: vmcs.read(GUEST_DR7),
        pending_interruption: pending_interruption(core).0,
        interrupt_state: interrupt_state(vmcs),
        xfem: core.guest.xcr0,
        ..Wire::ZERO
    };
    page.write_shared(0, &contents);
}

/// Fills in XMM0 to XMM5, which the window's end has saved.
pub(crate) fn fill_xmm(page: &Pages, core: &VpCore) {
    let area = core.guest.xsave.bytes();
    let saved = area.get(super::XSAVE_XMM..).and_then(<[HvU128; 6]>::read);
    let offset = core::mem::offset_of!(HvVpRegisterPage, xmm_registers);
    page.write_shared(offset, &saved.unwrap_or(Wire::ZERO));
}

/// Takes over what the VMM marked as dirty but for XMM registers, and marks all of it clean.
pub(crate) fn take(page: &Pages, core: &mut VpCore, vmcs: &CurrentVmcs<'_>) {
    let dirty =
        HvX64RegisterClass(page.take_shared_u32(core::mem::offset_of!(HvVpRegisterPage, dirty)));
    if dirty.bits() == 0 {
        return;
    }
    // Once: the VMM may write to it at any time.
    let Some(contents) = page.read_shared::<HvVpRegisterPage>() else {
        return;
    };
    if dirty.contains(HvX64RegisterClass::GENERAL) {
        core.gprs = contents.gp_registers;
        vmcs.write(GUEST_RSP, contents.gp_registers[RSP]);
    }
    if dirty.contains(HvX64RegisterClass::IP) {
        vmcs.write(GUEST_RIP, contents.rip);
    }
    if dirty.contains(HvX64RegisterClass::FLAGS) {
        vmcs.write(
            GUEST_RFLAGS,
            contents.rflags & super::RFLAGS_BITS | cr::RFLAGS_FIXED,
        );
        core.check_events = true;
    }
    if dirty.contains(HvX64RegisterClass::SEGMENT) {
        for (s, v) in SEGMENTS.into_iter().zip(contents.segment_registers) {
            let rights = rights_from_attributes(v.attributes);
            write_segment(vmcs, s, v.selector, v.base, v.limit, rights);
        }
    }
}

/// Takes over XMM registers that the VMM marked as dirty, before [`take`] and before the window
/// that loads them.
pub(crate) fn take_xmm(page: &Pages, core: &mut VpCore) {
    let Some(contents) = page.read_shared::<HvVpRegisterPage>() else {
        return;
    };
    if !HvX64RegisterClass(contents.dirty).contains(HvX64RegisterClass::XMM) {
        return;
    }
    for (n, value) in contents.xmm_registers.into_iter().enumerate() {
        super::write_fp(core, super::XSAVE_XMM + 16 * n, value, cr::XCR0_SSE);
    }
}
