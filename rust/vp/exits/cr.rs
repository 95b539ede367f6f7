// SPDX-License-Identifier: GPL-2.0

//! Accesses to control and debug registers, in the warm tier: their operand is any general register, and the loop keeps
//! some of those in the CPU until it ends (`shim/vmenter.S`).
//!
//! The guest owns CR0 and CR4 but for a few bits: a write that changes none of those does not
//! exit, and the CPU does what it implies (EFER.LMA, PDPTEs). A legal write that does exit is
//! executed again after the owned bits' read shadow has got the new value, so that the CPU does
//! all of it then.

use super::{fault, leave, skip, Leave};
use crate::vp::core::RSP;
use crate::vp::entry::Running;
use crate::vp::setup::CR0_OWNED;
use vmxdef::exit::{CrAccess, DrAccess};
use vmxdef::field::*;
use vmxdef::ExitReason;
use x86def::cr::*;
use x86def::vector;

/// Does what the guest was about to do, if the loop ended for that; then the loop goes on.
pub(in crate::vp) fn serve(r: &mut Running<'_>) {
    let done = match r.leave {
        Leave::ControlRegister => control(r),
        Leave::DebugRegister => debug(r),
        _ => return,
    };
    if done {
        r.leave = Leave::Again;
    }
}

fn control(r: &mut Running<'_>) -> bool {
    let qualification = r.window.vmcs.read(EXIT_QUALIFICATION);
    let access = CrAccess(qualification);
    match (access.register(), access.access_type()) {
        (0, 0) => write_cr0(r, gpr(r, access.gpr())),
        (4, 0) => write_cr4(r, gpr(r, access.gpr())),
        _ => leave(r, Leave::Unhandled(ExitReason::CR_ACCESS, qualification)),
    }
}

fn write_cr0(r: &mut Running<'_>, value: u64) -> bool {
    // Without long mode only the low half is written.
    let value = if r.window.vmcs.read(VM_ENTRY_CONTROLS) & super::IA32E == 0 {
        u64::from(value as u32)
    } else {
        value
    };
    let not_through_uncached = value & (CR0_NW | CR0_CD) == CR0_NW;
    let paging_unprotected = value & (CR0_PG | CR0_PE) == CR0_PG;
    if value >> 32 != 0 || not_through_uncached || paging_unprotected {
        return fault(r, vector::GP, 0);
    }
    r.window.vmcs.write(CR0_READ_SHADOW, value & CR0_OWNED);
    true
}

fn write_cr4(r: &mut Running<'_>, value: u64) -> bool {
    // Every owned bit of CR4 is one that this guest's CPUID does not have, or VMXE.
    if value & !r.config.cr4_allowed != 0 {
        return fault(r, vector::GP, 0);
    }
    leave(r, Leave::Unhandled(ExitReason::CR_ACCESS, value))
}

fn debug(r: &mut Running<'_>) -> bool {
    let access = DrAccess(r.window.vmcs.read(EXIT_QUALIFICATION));
    if super::cpl(r) != 0 {
        return fault(r, vector::GP, 0);
    }
    let cr4 = r.window.vmcs.read(GUEST_CR4);
    let register = match access.register() {
        4 | 5 if cr4 & CR4_DE != 0 => return fault(r, vector::UD, 0),
        n @ (4 | 5) => n + 2,
        n => n,
    };
    let dr7 = r.window.vmcs.read(GUEST_DR7);
    if dr7 & DR7_GD != 0 {
        // General detect: #DB before the access; DR6.BD tells why, DR7.GD is cleared.
        r.core.guest.dr6 |= DR6_BD;
        r.window.vmcs.write(GUEST_DR7, dr7 & !DR7_GD);
        return fault(r, vector::DB, 0);
    }
    if access.is_read() {
        let value = match register {
            6 => r.core.guest.dr6,
            7 => dr7,
            n => r.core.guest.dr.get(n as usize).copied().unwrap_or(0),
        };
        set_gpr(r, access.gpr(), value);
        return skip(r);
    }
    let value = gpr(r, access.gpr());
    match register {
        6 | 7 if value >> 32 != 0 => return fault(r, vector::GP, 0),
        6 => r.core.guest.dr6 = value & 0xe00f | DR6_RESET,
        7 => {
            r.window
                .vmcs
                .write(GUEST_DR7, value & 0xffff_2bff | DR7_RESET);
            r.core.guest.dr_loaded = value & DR7_ENABLES != 0;
        }
        n => {
            if let Some(dr) = r.core.guest.dr.get_mut(n as usize) {
                *dr = value;
            }
        }
    }
    load_debug_registers(r);
    skip(r)
}

/// Keeps the hardware's registers the guest's while it has breakpoints.
fn load_debug_registers(r: &mut Running<'_>) {
    if r.core.guest.dr_loaded {
        if let Some(host) = r.window.host() {
            host.load_debug_registers(&r.core.guest.dr);
        }
    }
}

/// A general register by its number; RSP is in the VMCS.
fn gpr(r: &Running<'_>, number: u8) -> u64 {
    match usize::from(number) {
        RSP => r.window.vmcs.read(GUEST_RSP),
        n => r.core.gprs.get(n).copied().unwrap_or(0),
    }
}

/// Sets a general register by its number.
fn set_gpr(r: &mut Running<'_>, number: u8, value: u64) {
    match usize::from(number) {
        RSP => r.window.vmcs.write(GUEST_RSP, value),
        n => {
            if let Some(gpr) = r.core.gprs.get_mut(n) {
                *gpr = value;
            }
        }
    }
}
