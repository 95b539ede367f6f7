// SPDX-License-Identifier: GPL-2.0

//! VM exits. [`handle`] is the hot tier's dispatch: what needs only the VP's own state is done
//! there; for anything else a handler leaves the loop with the reason ([`Leave`]).

pub(crate) mod cpuid;
pub(super) mod cr;
pub(super) mod exception;
mod hypercall;
mod intercept;
pub(crate) mod ipi;
pub(crate) mod msr;
pub(super) mod npiep;

use super::core::{Activity, Deferred, VpCore, RAX, RCX, RDX};
use super::entry::Running;
use crate::partition::spin;
use crate::vmx::insn::rdtsc;
use crate::vmx::vmcs::CurrentVmcs;
use hv1::hypercall::{CallRow, Convention};
use hv1::OverlayKind;
use hvdef::HvVpCounter;
use vmxdef::events::{interruptibility, IntrInfo};
use vmxdef::exit::{EptViolation, EXIT_REASON_ENTRY_FAILURE};
use vmxdef::field::*;
use vmxdef::ExitReason;
use x86def::cr as creg;
use x86def::vector;

/// Why the inner loop ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leave {
    /// Nothing but something for the warm tier: go on in the same window.
    Again,
    /// The host has an interrupt or work.
    Host,
    /// The VP waits for an interrupt or a start-up IPI.
    Halt,
    /// The VMM waits for this: a kind of event (`HV_X64_PENDING_*`) can be delivered.
    Deliverable(u8),
    /// The VMM waits for this: these SINTs have room for a message.
    SintsDeliverable(u16),
    /// The partition's time is frozen: nothing executes.
    Frozen,
    /// The guest spins: let another thread run.
    Yield,
    /// An access to a control register: for the warm tier ([`cr`]).
    ControlRegister,
    /// An access to a debug register: likewise.
    DebugRegister,
    /// EPT violation.
    Memory {
        gpa: u64,
        gla: u64,
        qualification: EptViolation,
    },
    /// CPUID that the VMM intercepts, and what it would have given.
    Cpuid([u32; 4]),
    /// RDMSR or WRMSR that the VMM intercepts.
    Msr { number: u32, write: bool },
    /// An exception that the VMM intercepts.
    Exception(exception::Exception),
    /// VMCALL that the VMM intercepts.
    Hypercall,
    /// I/O instruction; the exit qualification.
    Io(u64),
    /// A synthetic MSR that is the partition's.
    ReadMsr(u32),
    /// A synthetic MSR that is the partition's.
    WriteMsr(u32, u64),
    /// An overlay page of the VP is to appear at this guest page, or nowhere.
    Overlay(OverlayKind, Option<u64>),
    /// The VP was reset: its synthetic registers are to be, too.
    Reset,
    /// A hypercall, by this convention, whose control word is right.
    Call(&'static CallRow, Convention),
    /// A message slot may be free for what waits in ports.
    Messages,
    /// The monitor pages are to be looked at.
    Monitors,
    /// Level-triggered interrupt ended: tell the VMM's IOAPIC.
    Eoi(u8),
    /// Triple fault.
    TripleFault,
    /// The VP has stopped before, with a message.
    Stopped,
    /// An exit that hvrs cannot handle.
    Unhandled(ExitReason, u64),
    /// VM entry failed: VM-instruction error, or the exit reason with its qualification.
    EntryFailed { code: u32, qualification: u64 },
}

/// In GUEST_PENDING_DBG_EXCEPTIONS: an enabled breakpoint was met (SDM table 25-4).
const PENDING_BREAKPOINT: u64 = 1 << 12;

/// Handles the exit whose VMCS is current. True: enter the guest again.
#[inline(always)]
pub(super) fn handle(r: &mut Running<'_>) -> bool {
    let full_reason = r.window.vmcs.read(VM_EXIT_REASON);
    let reason = ExitReason(full_reason as u16);
    if r.core.intercepts {
        if let Some(enter) = intercept::handle(r, reason) {
            return enter;
        }
    }
    match reason {
        ExitReason::CPUID => {
            count(r, HvVpCounter::CpuidInstructionsCount);
            cpuid::handle(r)
        }
        ExitReason::MSR_WRITE => {
            count(r, HvVpCounter::MsrAccessesCount);
            msr::write(r)
        }
        ExitReason::MSR_READ => {
            count(r, HvVpCounter::MsrAccessesCount);
            msr::read(r)
        }
        ExitReason::VMCALL => {
            count(r, HvVpCounter::HypercallsCount);
            hypercall::handle(r)
        }
        ExitReason::EXTERNAL_INTERRUPT => {
            count(r, HvVpCounter::ExternalInterruptsCount);
            leave(r, Leave::Host)
        }
        ExitReason::INTERRUPT_WINDOW | ExitReason::NMI_WINDOW => {
            count(r, HvVpCounter::PendingInterruptsCount);
            r.core.check_events = true;
            true
        }
        ExitReason::TPR_BELOW_THRESHOLD => {
            count(r, HvVpCounter::PendingInterruptsCount);
            // It comes behind the instruction, whose single-step trap may still be owed.
            let owed = r.window.vmcs.read(GUEST_PENDING_DBG_EXCEPTIONS);
            r.core.trap_pending = owed & (creg::DR6_BS | PENDING_BREAKPOINT) != 0;
            r.core.check_events = true;
            true
        }
        ExitReason::HLT => {
            count(r, HvVpCounter::HltInstructionsCount);
            halt(r)
        }
        ExitReason::IO_INSTRUCTION => {
            count(r, HvVpCounter::IoInstructionsCount);
            let qualification = r.window.vmcs.read(EXIT_QUALIFICATION);
            leave(r, Leave::Io(qualification))
        }
        ExitReason::EPT_VIOLATION => {
            count(r, HvVpCounter::NestedPageFaultInterceptsCount);
            ept_violation(r)
        }
        ExitReason::CR_ACCESS => {
            count(r, HvVpCounter::ControlRegisterAccessesCount);
            leave(r, Leave::ControlRegister)
        }
        ExitReason::DR_ACCESS => {
            count(r, HvVpCounter::DebugRegisterAccessesCount);
            leave(r, Leave::DebugRegister)
        }
        ExitReason::MONITOR | ExitReason::MWAIT => {
            count(r, HvVpCounter::MwaitInstructionsCount);
            // CPUID does not show them.
            fault(r, vector::UD, 0)
        }
        _ => {
            count(r, HvVpCounter::OtherInterceptsCount);
            handle_other(r, reason, full_reason)
        }
    }
}

/// Counts an exit, or what it was about.
#[inline(always)]
pub(super) fn count(r: &Running<'_>, counter: HvVpCounter) {
    r.core.stats.count(counter);
}

/// [`handle`] for what has no counter of its own.
#[inline(always)]
fn handle_other(r: &mut Running<'_>, reason: ExitReason, full_reason: u32) -> bool {
    match reason {
        ExitReason::PREEMPTION_TIMER => preemption_timer(r),
        ExitReason::EXCEPTION_NMI => exception::handle(r),
        ExitReason::PAUSE => pause_loop(r),
        ExitReason::XSETBV => xsetbv(r),
        // Caches are coherent for what a guest can reach; INVD without write-back would lose the
        // host's data.
        ExitReason::WBINVD | ExitReason::INVD => skip(r),
        ExitReason::TRIPLE_FAULT => {
            r.core.activity = Activity::Shutdown;
            leave(r, Leave::TripleFault)
        }
        ExitReason::GDTR_IDTR | ExitReason::LDTR_TR => npiep::handle(r, reason),
        ExitReason::MONITOR_TRAP_FLAG => npiep::stepped(r),
        // CPUID shows none of these.
        ExitReason::VMCLEAR
        | ExitReason::VMLAUNCH
        | ExitReason::VMPTRLD
        | ExitReason::VMPTRST
        | ExitReason::VMREAD
        | ExitReason::VMRESUME
        | ExitReason::VMWRITE
        | ExitReason::VMXOFF
        | ExitReason::VMXON
        | ExitReason::INVEPT
        | ExitReason::INVVPID
        | ExitReason::GETSEC => fault(r, vector::UD, 0),
        ExitReason::RDPMC => fault(r, vector::GP, 0),
        _ => {
            let qualification = r.window.vmcs.read(EXIT_QUALIFICATION);
            // Its reasons (33, 34 and 41) are no exit's.
            let why = if full_reason & EXIT_REASON_ENTRY_FAILURE != 0 {
                Leave::EntryFailed {
                    code: full_reason,
                    qualification,
                }
            } else {
                Leave::Unhandled(reason, qualification)
            };
            leave(r, why)
        }
    }
}

/// Ends the loop.
#[inline(always)]
pub(super) fn leave(r: &mut Running<'_>, why: Leave) -> bool {
    r.leave = why;
    false
}

/// Goes on behind the intercepted instruction: RIP, the interrupt shadow that ends with it, and
/// the single-step trap that it owes (SDM 28.2.1).
#[inline(always)]
pub(super) fn advance(r: &mut Running<'_>) {
    let length = r.window.vmcs.read(VM_EXIT_INSTRUCTION_LEN);
    advance_by(r.core, &r.window.vmcs, u64::from(length));
}

/// Does to the VMCS what was decided while it was not current: before the guest is entered again,
/// or the VMM looks.
pub(super) fn finish(core: &mut VpCore, vmcs: &CurrentVmcs<'_>) {
    match ::core::mem::replace(&mut core.deferred, Deferred::Nothing) {
        Deferred::Nothing => {}
        Deferred::Advance => {
            let length = vmcs.read(VM_EXIT_INSTRUCTION_LEN);
            advance_by(core, vmcs, u64::from(length));
        }
        Deferred::Exception(vector) => raise(core, vector, 0),
        Deferred::PageFault { gla, code } => {
            core.guest.cr2 = gla;
            raise(core, vector::PF, code);
        }
    }
}

/// The registers after an instruction of `length` bytes that hvrs has executed, and on.
pub(super) fn emulated(r: &mut Running<'_>, length: u8, gprs: &[u64; 16], rflags: u64) {
    let vmcs = &r.window.vmcs;
    r.core.gprs = *gprs;
    vmcs.write(GUEST_RSP, gprs[super::core::RSP]);
    vmcs.write(GUEST_RFLAGS, rflags);
    advance_by(r.core, vmcs, u64::from(length));
}

/// [`advance`] for an instruction whose length the CPU did not tell.
#[inline(always)]
fn advance_by(core: &mut VpCore, vmcs: &CurrentVmcs<'_>, length: u64) {
    let mut rip = vmcs.read(GUEST_RIP).wrapping_add(length);
    // Outside 64-bit mode RIP does not go beyond 4 GiB.
    if rip >> 32 == 1 && vmcs.read(VM_ENTRY_CONTROLS) & IA32E == 0 {
        rip = u64::from(rip as u32);
    }
    vmcs.write(GUEST_RIP, rip);
    instruction_done(core, vmcs);
}

/// What the end of an instruction brings that the CPU did not execute: the interrupt shadow ends,
/// and a single step traps.
#[inline(always)]
pub(super) fn instruction_done(core: &mut VpCore, vmcs: &CurrentVmcs<'_>) {
    let blocking = vmcs.read(GUEST_INTERRUPTIBILITY_INFO);
    let shadow = interruptibility::STI | interruptibility::MOV_SS;
    if blocking & shadow != 0 {
        vmcs.write(GUEST_INTERRUPTIBILITY_INFO, blocking & !shadow);
        core.check_events = true;
    }
    if vmcs.read(GUEST_RFLAGS) & creg::RFLAGS_TF != 0 {
        vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, creg::DR6_BS);
        core.trap_pending = true;
    }
}

const IA32E: u32 = vmxdef::controls::entry::IA32E_MODE_GUEST;

/// [`advance`], and enter again.
#[inline(always)]
pub(super) fn skip(r: &mut Running<'_>) -> bool {
    advance(r);
    true
}

/// Queues an exception; a triple fault shuts the VP down.
fn raise(core: &mut VpCore, vector: u8, error_code: u32) {
    if !core.raise(vector, error_code) {
        core.activity = Activity::Shutdown;
    }
}

/// [`raise`], and enter again.
pub(super) fn fault(r: &mut Running<'_>, vector: u8, error_code: u32) -> bool {
    raise(r.core, vector, error_code);
    if r.core.activity == Activity::Shutdown {
        return leave(r, Leave::TripleFault);
    }
    true
}

/// The privilege level: SS's DPL (SDM 25.4.1).
#[inline]
pub(super) fn cpl(r: &Running<'_>) -> u8 {
    x86def::segment::ar::dpl(r.window.vmcs.read(GUEST_SS_AR_BYTES))
}

/// A timer is due, at which each entry looks anyway, or the stay was long enough.
fn preemption_timer(r: &mut Running<'_>) -> bool {
    // It keeps 0 and would fire again at once.
    r.core.timer_changed = true;
    if rdtsc() >= r.core.timer_tsc {
        return true;
    }
    leave(r, Leave::Host)
}

/// Where spinning VPs hinder nobody they exit more and more rarely, up to once in so many ticks.
const WIDEST_PLE_WINDOW: u32 = 1 << 18;

/// A loop with PAUSE that was longer than PLE_WINDOW (SDM 26.1.3).
fn pause_loop(r: &mut Running<'_>) -> bool {
    let narrowest = r.partition.machine.options.ple_window;
    let goes_on = spin(r);
    let window = if goes_on {
        let wider = r.core.ple_window.saturating_mul(2);
        wider.min(WIDEST_PLE_WINDOW).max(narrowest)
    } else {
        narrowest
    };
    if window != r.core.ple_window {
        r.core.ple_window = window;
        r.window.vmcs.write(PLE_WINDOW, window);
    }
    goes_on
}

/// The guest spins.
pub(super) fn spin(r: &mut Running<'_>) -> bool {
    if spin::somebody_waits(r.partition, r.shared) {
        return leave(r, Leave::Yield);
    }
    true
}

fn halt(r: &mut Running<'_>) -> bool {
    advance(r);
    let enabled = r.window.vmcs.read(GUEST_RFLAGS) & creg::RFLAGS_IF != 0;
    if r.core.wakes(enabled) {
        r.core.check_events = true;
        return true;
    }
    r.core.activity = Activity::Halted;
    if !r.core.notifications.is_empty() {
        // There may be something to tell before it sleeps.
        return leave(r, Leave::Again);
    }
    leave(r, Leave::Halt)
}

/// A read of HV_X64_MSR_GUEST_IDLE, behind which RIP is already (M-F0, F-ID1).
pub(super) fn idle(r: &mut Running<'_>) -> bool {
    if r.core.wakes(true) {
        return true;
    }
    r.core.activity = Activity::Idle;
    leave(r, Leave::Halt)
}

fn ept_violation(r: &mut Running<'_>) -> bool {
    let vmcs = &r.window.vmcs;
    let qualification = EptViolation(vmcs.read(EXIT_QUALIFICATION));
    let gpa = vmcs.read(GUEST_PHYSICAL_ADDRESS);
    let gla = vmcs.read(GUEST_LINEAR_ADDRESS);
    r.core.requeue(vmcs);
    // IRET unblocked NMIs before it faulted (SDM 28.2.3).
    if qualification.nmi_unblocking() && !IntrInfo(vmcs.read(IDT_VECTORING_INFO_FIELD)).is_valid() {
        vmcs.modify(GUEST_INTERRUPTIBILITY_INFO, 0, interruptibility::NMI);
    }
    leave(
        r,
        Leave::Memory {
            gpa,
            gla,
            qualification,
        },
    )
}

/// XSETBV (SDM volume 2): XCR0 only, what the guest's CPUID shows, in legal combinations.
fn xsetbv(r: &mut Running<'_>) -> bool {
    let value = r.core.gprs[RDX] << 32 | u64::from(r.core.gprs[RAX] as u32);
    if r.core.gprs[RCX] as u32 != 0 || cpl(r) != 0 || !r.config.xcr0_is_legal(value) {
        return fault(r, vector::GP, 0);
    }
    r.core.guest.xcr0 = value;
    if let Some(host) = r.window.host() {
        host.load_xcr0(value);
    }
    skip(r)
}
