// SPDX-License-Identifier: GPL-2.0

//! The register page: a VP's registers in memory that the VMM maps, so that an intercept costs it
//! no call to read or set them.

use super::{pending_interruption, segment, Stale};
use crate::sys::pages::Pages;
use crate::vmx::vmcs::CurrentVmcs;
use crate::vp::core::{VpCore, RSP};
use crate::vp::message::Capture;
use crate::vp::setup::write_segment;
use ::core::mem::offset_of;
use hvdef::*;
use vmxdef::field::*;
use x86def::cr;
use x86def::segment::{rights_from_attributes, Segment};

/// The order of `segment_registers`.
const SEGMENTS: [Segment; 6] = [
    Segment::Es,
    Segment::Cs,
    Segment::Ss,
    Segment::Ds,
    Segment::Fs,
    Segment::Gs,
];

/// Reads a field, which the VMM may write to at any time: once.
macro_rules! get {
    ($page:ident, $field:ident) => {
        $page
            .read_shared(offset_of!(HvVpRegisterPage, $field))
            .unwrap_or(Wire::ZERO)
    };
}

/// Writes fields: a whole page made up first would be copied.
macro_rules! put {
    ($page:ident, $($field:ident $([$index:expr])?: $value:expr),+ $(,)?) => {{
        $($page.write_shared(offset_of!(HvVpRegisterPage, $field) $(+ 8 * $index)?, &$value);)+
    }};
}

/// Fills the page but for XMM registers; nothing in it is dirty then.
pub(in crate::vp) fn fill(page: &Pages, core: &VpCore, vmcs: &CurrentVmcs<'_>, c: &Capture) {
    let (fs, gs) = (segment(vmcs, Segment::Fs), segment(vmcs, Segment::Gs));
    put! {
        page,
        version: HV_VP_REGISTER_PAGE_VERSION_1,
        isvalid: 1u8,
        dirty: 0u32,
        gp_registers: core.gprs,
        gp_registers[RSP]: c.rsp,
        rip: c.context.rip,
        rflags: c.context.rflags,
        segment_registers: [c.es, c.context.cs, c.ss, c.ds, fs, gs],
        cr0: c.context.cr0,
        cr3: c.context.cr3,
        cr4: c.context.cr4,
        cr8: u64::from(c.cr8),
        efer: c.context.efer,
        dr7: vmcs.read(GUEST_DR7),
        pending_interruption: pending_interruption(core).0,
        interrupt_state: c.interrupt_state,
        xfem: core.guest.xcr0,
    }
}

/// Fills in what the VMM has set, between runs. A page that was not valid becomes so.
pub(in crate::vp) fn refill(page: &Pages, core: &VpCore, vmcs: &CurrentVmcs<'_>, stale: Stale) {
    let valid: u8 = get!(page, isvalid);
    match stale {
        Stale::No => {}
        Stale::General if valid != 0 => put! {
            page,
            gp_registers: core.gprs,
            gp_registers[RSP]: vmcs.read(GUEST_RSP),
            rip: vmcs.read(GUEST_RIP),
            rflags: vmcs.read(GUEST_RFLAGS),
        },
        Stale::General | Stale::All => {
            fill(page, core, vmcs, &Capture::new(core, vmcs, None));
            fill_xmm(page, core);
        }
    }
}

/// Fills in XMM0 to XMM5, which the window's end has saved.
pub(in crate::vp) fn fill_xmm(page: &Pages, core: &VpCore) {
    let offset = offset_of!(HvVpRegisterPage, xmm_registers);
    page.write_shared(offset, &super::xmm_0_to_5(core));
}

/// The page is not what the VP has any more: until it is filled, the VMM asks by hypercall.
pub(in crate::vp) fn invalidate(page: &Pages) {
    page.write_shared(offset_of!(HvVpRegisterPage, isvalid), &0u8);
}

/// Whether the VMM has written to it.
pub(in crate::vp) fn is_dirty(page: &Pages) -> bool {
    let dirty: u32 = get!(page, dirty);
    dirty != 0
}

/// Takes over what the VMM marked as dirty but for XMM registers, and marks all of it clean.
pub(in crate::vp) fn take(page: &Pages, core: &mut VpCore, vmcs: &CurrentVmcs<'_>) {
    let dirty = HvX64RegisterClass(page.take_shared_u32(offset_of!(HvVpRegisterPage, dirty)));
    if dirty.contains(HvX64RegisterClass::GENERAL) {
        core.gprs = get!(page, gp_registers);
        vmcs.write(GUEST_RSP, core.gprs[RSP]);
    }
    if dirty.contains(HvX64RegisterClass::IP) {
        super::set_rip(core, vmcs, get!(page, rip));
    }
    if dirty.contains(HvX64RegisterClass::FLAGS) {
        let rflags: u64 = get!(page, rflags);
        vmcs.write(GUEST_RFLAGS, rflags & super::RFLAGS_BITS | cr::RFLAGS_FIXED);
        core.check_events = true;
    }
    if dirty.contains(HvX64RegisterClass::SEGMENT) {
        let segments: [HvX64SegmentRegister; 6] = get!(page, segment_registers);
        for (s, v) in SEGMENTS.into_iter().zip(segments) {
            let rights = rights_from_attributes(v.attributes);
            write_segment(vmcs, s, v.selector, v.base, v.limit, rights);
        }
    }
}

/// Takes over XMM registers that the VMM marked as dirty, before [`take`] and before the window
/// that loads them.
pub(in crate::vp) fn take_xmm(page: &Pages, core: &mut VpCore) {
    if !HvX64RegisterClass(get!(page, dirty)).contains(HvX64RegisterClass::XMM) {
        return;
    }
    let xmm: [HvU128; 6] = get!(page, xmm_registers);
    for (n, value) in xmm.into_iter().enumerate() {
        super::write_fp(core, super::XSAVE_XMM + 16 * n, value, cr::XCR0_SSE);
    }
}
