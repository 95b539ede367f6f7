// SPDX-License-Identifier: GPL-2.0

//! MSHV_GET_VP_STATE and MSHV_SET_VP_STATE: what of a VP is no register.

use super::core::VpCore;
use super::shared::VpShared;
use super::Vp;
use crate::partition::{Config, Partition};
use crate::sys::bindings::*;
use crate::sys::pages::Pages;
use crate::sys::user;
use ::core::sync::atomic::Ordering;
use hv1::stimer::Stimers;
use hvdef::{HvLocalInterruptControllerState, HvSyntheticTimersState, Wire};
use kernel::ioctl::_IOWR;
use kernel::prelude::*;

pub(super) const GET_VP_STATE: u32 = _IOWR::<mshv_get_set_vp_state>(MSHV_IOCTL, 1);
pub(super) const SET_VP_STATE: u32 = _IOWR::<mshv_get_set_vp_state>(MSHV_IOCTL, 2);

const PAGE: usize = 4096;
/// Bits that MXCSR may have: an XRSTOR with others would be #GP.
const MXCSR_MASK: u32 = 0xffff;

/// Bytes of a component.
fn size(kind: u32, config: &Config) -> Result<usize> {
    Ok(match kind {
        // It is the VMM's.
        MSHV_VP_STATE_LAPIC if !config.lapic.present => return Err(EINVAL),
        // A page in Linux, whatever is used of it.
        MSHV_VP_STATE_LAPIC => PAGE,
        MSHV_VP_STATE_XSAVE => {
            let xsave = config.cpu.xsave();
            xsave.compacted_size(xsave.xcr0()) as usize
        }
        MSHV_VP_STATE_SIMP | MSHV_VP_STATE_SIEFP => PAGE,
        MSHV_VP_STATE_SYNTHETIC_TIMERS => HvSyntheticTimersState::SIZE,
        _ => return Err(EINVAL),
    })
}

/// A call, checked.
struct Request<'a> {
    config: &'a Config,
    kind: u32,
    /// Where the component is in the VMM's memory.
    addr: usize,
    /// As large as the component.
    bytes: KVec<u8>,
}

impl<'a> Request<'a> {
    /// Reads the argument, and writes the size of the component back.
    ///
    /// # Errors
    ///
    /// EINVAL: a malformed argument, or a buffer that is too small; EFAULT.
    fn read(partition: &'a Partition, arg: usize) -> Result<Self> {
        let mut state: mshv_get_set_vp_state = user::read(arg)?;
        if state.rsvd != [0; 3]
            || u32::from(state.type_) >= MSHV_VP_STATE_COUNT
            || state.buf_sz == 0
            || state.buf_sz as usize % PAGE != 0
            || state.buf_ptr as usize % PAGE != 0
        {
            return Err(EINVAL);
        }
        let config = partition.config()?;
        let kind = u32::from(state.type_);
        let size = size(kind, config)?;
        let capacity = state.buf_sz as usize;
        state.buf_sz = size as u32;
        user::write(arg, &state)?;
        if capacity < size {
            return Err(EINVAL);
        }
        Ok(Self {
            config,
            kind,
            addr: state.buf_ptr as usize,
            bytes: KVec::from_elem(0u8, size, GFP_KERNEL_ACCOUNT)?,
        })
    }
}

/// MSHV_GET_VP_STATE.
///
/// # Errors
///
/// As for [`Request::read`]; EINTR.
pub(super) fn get(partition: &Partition, vp: &Vp, arg: usize) -> Result {
    let mut request = Request::read(partition, arg)?;
    let (config, bytes) = (request.config, &mut request.bytes);
    vp.with_core(|core| {
        core.follow(&config.time);
        match request.kind {
            MSHV_VP_STATE_LAPIC => {
                core.signals |= core.harvest(&vp.shared);
                let now = core.guest_now();
                let state = core.lapic.save(now);
                let state = state.with_nmi_pending(core.nmi_pending);
                state.write(bytes).ok_or(EINVAL)
            }
            MSHV_VP_STATE_SIMP => read_page(&vp.shared.simp, bytes),
            MSHV_VP_STATE_SIEFP => read_page(&vp.shared.siefp, bytes),
            MSHV_VP_STATE_SYNTHETIC_TIMERS => {
                let timers = core.synthetic.stimers.save();
                timers.write(bytes).ok_or(EINVAL)
            }
            _ => {
                let xsave = config.cpu.xsave();
                let area = core.guest.xsave.bytes();
                let written = xsave.compact(area, bytes).map_err(|_| EINVAL)?;
                debug_assert!(written == bytes.len());
                Ok(())
            }
        }
    })??;
    user::write_bytes(request.addr, bytes)
}

/// MSHV_SET_VP_STATE. Errors as for [`get`]; EINVAL also for contents that no processor could have.
pub(super) fn set(partition: &Partition, vp: &Vp, arg: usize) -> Result {
    let mut request = Request::read(partition, arg)?;
    let (config, bytes) = (request.config, &mut request.bytes);
    user::read_bytes(request.addr, bytes)?;
    vp.with_core(|core| {
        core.follow(&config.time);
        match request.kind {
            MSHV_VP_STATE_LAPIC => set_lapic(vp, core, bytes),
            MSHV_VP_STATE_SIMP => write_page(core, &vp.shared.simp, bytes),
            MSHV_VP_STATE_SIEFP => write_page(core, &vp.shared.siefp, bytes),
            MSHV_VP_STATE_SYNTHETIC_TIMERS => {
                let timers = HvSyntheticTimersState::read(bytes).ok_or(EINVAL)?;
                core.synthetic.stimers = Stimers::restore(&timers).map_err(|_| EINVAL)?;
                core.run_stimers_soon();
                Ok(())
            }
            _ => set_xsave(config, core, bytes),
        }
    })?
}

/// Reads an overlay page, to which other VPs may write meanwhile.
fn read_page(page: &Pages, bytes: &mut [u8]) -> Result {
    for (to, word) in bytes.chunks_exact_mut(4).zip(page.words()) {
        to.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
    }
    Ok(())
}

/// Writes an overlay page; a message slot may be free then.
fn write_page(core: &mut VpCore, page: &Pages, bytes: &[u8]) -> Result {
    for (word, from) in page.words().iter().zip(bytes.chunks_exact(4)) {
        word.store(u32::read(from).ok_or(EINVAL)?, Ordering::Relaxed);
    }
    core.run_stimers_soon();
    Ok(())
}

impl VpCore {
    /// The local APIC as after RESET, but for its base and the task priority, which are registers that the VMM stores.
    pub(super) fn reset_lapic(&mut self, shared: &VpShared) {
        // What was posted before goes, too.
        self.signals |= self.harvest(shared);
        let tpr = self.lapic.tpr();
        self.lapic.init();
        self.lapic.set_tpr(tpr);
        self.update_timer();
        shared.set_destination(self.lapic.view());
    }
}

fn set_lapic(vp: &Vp, core: &mut VpCore, bytes: &[u8]) -> Result {
    let state = HvLocalInterruptControllerState::read(bytes).ok_or(EINVAL)?;
    // What was posted before belongs to the state that goes.
    core.signals |= core.harvest(&vp.shared);
    let now = core.guest_now();
    core.lapic.restore(&state, now);
    core.lapic_reset_due = false;
    core.nmi_pending = state.nmi_pending();
    core.update_timer();
    core.check_events = true;
    vp.shared.set_destination(core.lapic.view());
    Ok(())
}

fn set_xsave(config: &Config, core: &mut VpCore, bytes: &[u8]) -> Result {
    let xsave = config.cpu.xsave();
    let area = core.guest.xsave.bytes_mut();
    // Not in place: what is refused changes nothing.
    let mut new = KVec::from_elem(0u8, area.len(), GFP_KERNEL_ACCOUNT)?;
    xsave
        .expand(bytes, &mut new, MXCSR_MASK)
        .map_err(|_| EINVAL)?;
    area.copy_from_slice(&new);
    Ok(())
}
