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

/// Fills the page; nothing in it is dirty then.
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
    page.write_shared(&contents);
}

/// Takes over what the VMM marked as dirty, and marks it clean.
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
    if dirty.contains(HvX64RegisterClass::XMM) {
        for (n, value) in contents.xmm_registers.into_iter().enumerate() {
            super::write_fp(core, super::XSAVE_XMM + 16 * n, value, cr::XCR0_SSE);
        }
    }
}
