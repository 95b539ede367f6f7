// SPDX-License-Identifier: GPL-2.0

//! A run window: from the VP's thread into the guest and back, until something is left to do
//! that needs the window closed.
//!
//! Three tiers. *Hot*: [`Running::exit`] and what it calls, in guest context: no kernel call, no
//! lock, no print. *Warm*: the loop in [`run`], out of guest context but still in root mode with
//! interrupts off: kicks, and what `exits::cr` and `io` serve. *Cold*: everything after `run` has returned.

use super::core::{Activity, VpCore};
use super::exits::{self, Leave};
use super::gva::Code;
use super::setup;
use super::shared::{event, VpShared};
use super::{io, Own, Vp};
use crate::partition::space::Space;
use crate::partition::{Config, Partition};
use crate::sys::host;
use crate::sys::window::{work_pending, RunWindow};
use crate::vmx::entry::{enter, handles_exits, ExitHandler};
use crate::vmx::insn::rdtsc;
use crate::vmx::root::OpenWindow;
use ept::GuestMode;
use hv1::VpMask;
use hvdef::HvVpCounter;
use kernel::error::Result;
use vmxdef::caps::ept_vpid;
use vmxdef::field::*;
use x86def::cr::RFLAGS_IF;

/// See [`Running::longest_stay_ticks`].
const LONGEST_STAY_MS: u64 = 10;

/// What the hot tier sees.
pub(crate) struct Running<'a> {
    pub(crate) core: &'a mut VpCore,
    pub(crate) window: OpenWindow<'a>,
    pub(crate) shared: &'a VpShared,
    pub(crate) partition: &'a Partition,
    pub(crate) config: &'a Config,
    /// Why the loop ended.
    pub(crate) leave: Leave,
    /// The instruction behind it, where it was looked at.
    pub(super) code: Option<Code>,
    preemption_timer_shift: Option<u32>,
    /// INVVPID can forget one page.
    pub(crate) has_invvpid_address: bool,
    /// TSC ticks after which a guest that does not exit is left for a moment: without a tick
    /// (nohz_full) nothing else would let RCU see the CPU, and nothing may depend on a kick alone.
    longest_stay_ticks: u64,
    /// VPs to kick as soon as guest context is left.
    pub(crate) kicks: VpMask,
    /// VPs in guest mode that were asked to flush: to be waited for before the next entry.
    pub(crate) flushes: VpMask,
}

handles_exits!(Running<'_>);

impl ExitHandler for Running<'_> {
    #[inline(always)]
    fn exit(&mut self) -> bool {
        // Before the first RET.
        self.core.spec_ctrl.leave_guest();
        if self.core.eoi_offered {
            self.core.take_no_eoi(self.shared);
        }
        if !exits::handle(self) {
            return false;
        }
        flush_linear(self);
        if self.shared.has_events() {
            self.core.signals |= self.core.harvest(self.shared);
            if self.core.signals != 0 {
                return false;
            }
        }
        if self.core.timer_tsc != u64::MAX {
            self.core
                .run_timers(rdtsc(), &self.config.time, self.shared);
        }
        if self.core.timer_changed {
            arm_preemption_timer(self);
        }
        if self.core.check_events {
            if !self.core.notifications.is_empty() || self.core.monitors_due {
                // `prepare` looks at them.
                return false;
            }
            self.core.inject(&self.window.vmcs, self.shared);
        }
        self.core.spec_ctrl.enter_guest();
        true
    }

    #[inline]
    fn guest(&mut self) -> (&OpenWindow<'_>, &mut [u64; 16]) {
        (&self.window, &mut self.core.gprs)
    }
}

/// Runs the VP until something needs the cold tier, and `after` with the VMCS still current.
///
/// # Errors
///
/// EIO: VMX operation could not be entered.
pub(super) fn run(
    vp: &Vp,
    partition: &Partition,
    config: &Config,
    own: &mut Own,
    before: impl FnOnce(&mut Running<'_>),
    after: impl FnOnce(&mut Running<'_>),
) -> Result<Leave> {
    let window = RunWindow::begin();
    let leave = run_in(&window, vp, partition, config, own, before, after);
    window.end();
    leave
}

#[inline(always)]
fn run_in(
    window: &RunWindow,
    vp: &Vp,
    partition: &Partition,
    config: &Config,
    Own { vmcs, core }: &mut Own,
    before: impl FnOnce(&mut Running<'_>),
    after: impl FnOnce(&mut Running<'_>),
) -> Result<Leave> {
    let (machine, shared) = (&*vp.machine, &vp.shared);
    let caps = &machine.root.caps;
    core.window_tsc = rdtsc();
    if core.synthetic.unhalted.runs() {
        core.follow_unhalted_timer(core.window_tsc, &config.time);
    }
    let cpu = window.cpu();
    let moved = core.placement.needs(cpu).flush_vpid;
    let mut this_cpu = machine.root.this_cpu(window.irq_off())?;
    let open = OpenWindow::open(&mut this_cpu, caps, window, vmcs, &core.guest, !moved)?;
    let mut running = Running {
        core,
        window: open,
        shared,
        partition,
        config,
        leave: Leave::Again,
        code: None,
        preemption_timer_shift: caps.preemption_timer_shift,
        has_invvpid_address: caps.ept_vpid & ept_vpid::INVVPID_ADDRESS != 0,
        longest_stay_ticks: u64::from(host::tsc_khz()) * LONGEST_STAY_MS,
        kicks: VpMask::EMPTY,
        flushes: VpMask::EMPTY,
    };
    running.core.spec_ctrl.open(caps);
    if !running.core.vmcs_ready {
        setup::initialize(
            &running.window.vmcs,
            running.core,
            machine,
            partition,
            config,
        );
    }
    if moved {
        running.window.vmcs.invvpid(running.core.vpid);
        let stats = &running.core.stats;
        stats.count(HvVpCounter::LogicalProcessorMigrations);
    }
    running.core.placement.loaded(cpu);
    before(&mut running);
    enter_while_possible(&mut running, window, vp.index);
    if let Leave::EntryFailed { .. } = running.leave {
        // Only an exit clears it: the event would make later entries fail, too.
        running.window.vmcs.write(VM_ENTRY_INTR_INFO_FIELD, 0);
    }
    after(&mut running);
    let leave = running.leave;
    let Running {
        core, window: open, ..
    } = running;
    open.close(&mut core.guest);
    core.placement.cleared();
    core.runtime_ticks = core.runtime_at(rdtsc());
    core.window_tsc = 0;
    if core.unhalted_tsc != u64::MAX {
        core.unhalted_tsc = u64::MAX;
        core.update_timer();
    }
    let runtime_100ns = config.time.ticks_100ns(core.runtime_ticks);
    core.stats.set(HvVpCounter::TotalRunTime, runtime_100ns);
    core.stats.count(HvVpCounter::LogicalProcessorDispatches);
    Ok(leave)
}

fn enter_while_possible(running: &mut Running<'_>, window: &RunWindow, index: u32) {
    let space = &running.partition.memory.space;
    let Some(guest_mode) = space.guest_mode(index) else {
        return;
    };
    let mut launched = false;
    loop {
        exits::finish(running.core, &running.window.vmcs);
        // Guest mode is announced first: who changes translations or posts events afterwards
        // kicks this CPU, what was done before is seen below.
        enter_guest_mode(running, window, guest_mode, space);
        flush_linear(running);
        let ready = prepare(running);
        if let Err(leave) = ready {
            guest_mode.leave();
            running.leave = leave;
            return;
        }
        arm_preemption_timer(running);
        running.leave = Leave::Again;
        running.core.spec_ctrl.enter_guest();
        let entered = enter(running, launched);
        launched = true;
        if entered.is_ok() {
            running.code = io::code(running);
        }
        guest_mode.leave();
        if entered.is_err() {
            running.core.spec_ctrl.leave_guest();
            running.leave = Leave::EntryFailed {
                code: running.window.vmcs.read(VM_INSTRUCTION_ERROR),
                qualification: 0,
            };
            return;
        }
        exits::cr::serve(running);
        io::serve(running);
        if !running.kicks.is_empty() {
            running.partition.kick_all(&running.kicks);
            running.kicks = VpMask::EMPTY;
        }
        if !running.flushes.is_empty() {
            running.partition.finish_flushes(&running.flushes);
            running.flushes = VpMask::EMPTY;
        }
        if !matches!(running.leave, Leave::Again) {
            return;
        }
    }
}

/// Announces guest mode, with this CPU's translations of the EPT root flushed as far as needed.
fn enter_guest_mode(
    running: &Running<'_>,
    window: &RunWindow,
    guest_mode: &GuestMode,
    space: &Space,
) {
    loop {
        let generation = space.generation.current();
        running
            .window
            .flush_stale_root(&space.generation, space.eptp);
        if guest_mode.enter(window.cpu(), &space.generation, generation) {
            return;
        }
    }
}

/// Forgets the linear translations that other VPs, or this one, asked it to forget. After guest
/// mode was announced, before each entry.
#[inline(always)]
fn flush_linear(running: &mut Running<'_>) {
    if running.shared.linear_flush.is_pending() {
        flush_linear_now(running);
    }
}

#[inline(never)]
fn flush_linear_now(running: &mut Running<'_>) {
    let (vmcs, vpid) = (&running.window.vmcs, running.core.vpid);
    running.shared.linear_flush.take(|page| match page {
        Some(gva) => vmcs.invvpid_address(vpid, gva),
        None => vmcs.invvpid(vpid),
    });
}

/// Brings the VP to where it can enter the guest, or says why it cannot.
fn prepare(running: &mut Running<'_>) -> Result<(), Leave> {
    if work_pending() {
        return Err(Leave::Host);
    }
    let core = &mut *running.core;
    let vmcs = &running.window.vmcs;
    let mut events = core::mem::take(&mut core.signals);
    if running.shared.has_events() {
        events |= core.harvest(running.shared);
    }
    if events != 0 {
        if events & event::INIT != 0 {
            setup::init(vmcs, core);
        }
        if events & event::PARTITION != 0 {
            let partition = running.partition;
            setup::follow_intercepts(vmcs, core, partition, &partition.machine);
            core.watch_monitors(partition.monitors.due());
        }
    }
    let start = &running.shared.start;
    if core.activity == Activity::WaitForSipi {
        start.wait();
        if events & event::SIPI != 0 && start.take_sipi() {
            setup::start(vmcs, core, running.shared.sipi_vector());
        } else if let Some(context) = start.take() {
            setup::start_in(vmcs, core, &context);
        }
    }
    if core.npiep_changed {
        exits::npiep::follow(core, vmcs);
    }
    if core.synthetic_reset_due {
        core.synthetic_reset_due = false;
        if core.partition_reset_due || core.synthetic != Default::default() {
            return Err(Leave::Reset);
        }
    }
    if events & event::MESSAGES != 0 {
        return Err(Leave::Messages);
    }
    if !core.follow(&running.config.time) {
        return Err(Leave::Frozen);
    }
    if core.tsc_moved {
        core.tsc_moved = false;
        vmcs.write(TSC_OFFSET, core.tsc_offset);
    }
    core.run_timers(rdtsc(), &running.config.time, running.shared);
    if core.monitors_due {
        return Err(Leave::Monitors);
    }
    if !core.notifications.is_empty() {
        if let Some(kind) = core.deliverable(vmcs) {
            return Err(Leave::Deliverable(kind));
        }
        let (synic, wanted) = (&running.shared.synic, core.notifications.sints());
        let sints = synic.free_slots(running.shared.simp.words(), wanted);
        if sints != 0 {
            return Err(Leave::SintsDeliverable(sints));
        }
    }
    match core.activity {
        Activity::Running => {}
        Activity::WaitForSipi => return Err(Leave::Halt),
        Activity::Shutdown => return Err(Leave::Stopped),
        Activity::Halted => {
            if !core.wakes(vmcs.read(GUEST_RFLAGS) & RFLAGS_IF != 0) {
                return Err(Leave::Halt);
            }
            core.activity = Activity::Running;
        }
        // F-ID1: whatever RFLAGS.IF.
        Activity::Idle => {
            if !core.wakes(true) {
                return Err(Leave::Halt);
            }
            core.activity = Activity::Running;
        }
    }
    if core.check_events {
        core.inject(vmcs, running.shared);
    }
    Ok(())
}

/// An exit when a timer is due. Exits do not stop the timers' clock but this one's, so that
/// each exit looks at the clock too.
fn arm_preemption_timer(running: &mut Running<'_>) {
    running.core.timer_changed = false;
    let Some(shift) = running.preemption_timer_shift else {
        return;
    };
    // Rounded up: an exit before the time would find nothing due.
    let due = (running.core.timer_tsc.saturating_sub(rdtsc()) >> shift) + 1;
    let ticks = due
        .min(running.longest_stay_ticks >> shift)
        .min(u64::from(u32::MAX));
    running
        .window
        .vmcs
        .write(VMX_PREEMPTION_TIMER_VALUE, ticks as u32);
}
