// SPDX-License-Identifier: GPL-2.0

//! The partition's time: its TSC, and the reference counter that runs by it. Both stand still while
//! the VMM has frozen them (HV_PARTITION_PROPERTY_TIME_FREEZE), and no VP executes meanwhile: a CPU's
//! TSC cannot be stopped, but nobody is there who could read it.

use super::{Config, Partition};
use crate::sys::pages::Pages;
use crate::vmx::insn::rdtsc;
use crate::vp::core::VpCore;
use crate::vp::shared::event;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hv1::time::next_sequence;
use hv1::RefTime;
use hvdef::{HvReferenceTscPage, HvResult, HV_STATUS_INVALID_PARTITION_STATE};

/// See above. What changes, changes under [`Partition`]'s `synthetic` lock.
pub(crate) struct Clock {
    time: RefTime,
    /// What HV_PARTITION_PROPERTY_REFERENCE_TIME has added to the counter.
    moved_100ns: AtomicU64,
    /// The partition's TSC minus the host's, when it runs.
    tsc_offset: AtomicU64,
    /// By how much the VMM has set it forward in all: VPs' timers that count are not to notice.
    jumps: AtomicU64,
    /// A VP has run: its guest may know the time.
    started: AtomicBool,
    frozen: AtomicBool,
    /// The host's TSC when it was frozen.
    frozen_tsc: AtomicU64,
    /// The VP by whose TSC the VMM has set it since, or `NO_VP`.
    set_by: AtomicU32,
}

const NO_VP: u32 = u32::MAX;

/// What VPs follow of the partition's time.
#[derive(Clone, Copy)]
pub(crate) struct TscState {
    /// The partition's TSC minus the host's.
    pub(crate) offset: u64,
    /// See [`Clock::jumps`].
    pub(crate) jumps: u64,
    /// The host's TSC at which it stopped; 0: it runs.
    pub(crate) stopped: u64,
}

impl Clock {
    /// TSC and counter start at 0. `None`: the TSC is too slow.
    pub(super) fn new(tsc_hz: u64, reliable: bool) -> Option<Self> {
        Some(Self {
            time: RefTime::new(tsc_hz, 0, reliable)?,
            moved_100ns: AtomicU64::new(0),
            tsc_offset: AtomicU64::new(rdtsc().wrapping_neg()),
            jumps: AtomicU64::new(0),
            started: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            frozen_tsc: AtomicU64::new(0),
            set_by: AtomicU32::new(NO_VP),
        })
    }

    /// The reference counter at TSC value `tsc` of the partition, in units of 100 ns.
    #[inline(always)]
    pub(crate) fn now_100ns(&self, tsc: u64) -> u64 {
        self.moved().now_100ns(tsc)
    }

    /// This counter as it is now set.
    #[inline(always)]
    fn moved(&self) -> RefTime {
        self.time.moved(self.moved_100ns.load(Ordering::Relaxed))
    }

    /// TSC ticks from `tsc` on after which the counter has reached `time`.
    #[inline]
    pub(crate) fn ticks_until(&self, tsc: u64, time: u64) -> u64 {
        self.moved().ticks_until(tsc, time)
    }

    /// TSC ticks in so many units of 100 ns.
    pub(crate) fn ticks_in(&self, time_100ns: u64) -> u64 {
        self.time.ticks_in(time_100ns)
    }

    /// TSC ticks in units of 100 ns.
    #[inline(always)]
    pub(crate) fn ticks_100ns(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.time.scale())) >> 64) as u64
    }

    /// A VP runs.
    #[inline]
    pub(crate) fn note_run(&self) {
        if !self.started.load(Ordering::Relaxed) {
            self.started.store(true, Ordering::Relaxed);
        }
    }

    /// Whether time stands still.
    #[inline(always)]
    pub(crate) fn is_frozen(&self) -> bool {
        // SeqCst, against GuestMode::enter: a VP that has announced guest mode sees it, or is waited
        // for.
        self.frozen.load(Ordering::SeqCst)
    }

    /// What VPs follow.
    #[inline(always)]
    pub(crate) fn state(&self) -> TscState {
        let stopped = if self.is_frozen() {
            self.frozen_tsc.load(Ordering::Relaxed)
        } else {
            0
        };
        TscState {
            offset: self.tsc_offset.load(Ordering::Relaxed),
            jumps: self.jumps.load(Ordering::Relaxed),
            stopped,
        }
    }

    /// The partition's TSC.
    fn tsc(&self) -> u64 {
        let state = self.state();
        let host = match state.stopped {
            0 => rdtsc(),
            stopped => stopped,
        };
        host.wrapping_add(state.offset)
    }

    /// The reference counter as it is.
    pub(crate) fn reference_time(&self) -> u64 {
        self.now_100ns(self.tsc())
    }

    /// Writes the reference TSC page. No VP reads it meanwhile: none has started, or time is frozen.
    pub(super) fn fill_page(&self, page: &Pages) {
        let old: HvReferenceTscPage = page.read_shared(0).unwrap_or_default();
        page.write_shared(0, &self.moved().page(next_sequence(old.tsc_sequence)));
    }
}

impl Partition {
    /// HV_PARTITION_PROPERTY_TIME_FREEZE. When it returns, no VP executes, or all may.
    pub(super) fn freeze_time(&self, freeze: bool) -> HvResult<()> {
        let config = self
            .config()
            .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
        let clock = &config.time;
        let _state = self.synthetic.lock();
        if clock.is_frozen() == freeze {
            return Ok(());
        }
        if freeze {
            self.stop_time(clock);
        } else {
            self.start_time(clock);
        }
        Ok(())
    }

    /// Under the `synthetic` lock, as [`Self::start_time`].
    fn stop_time(&self, clock: &Clock) {
        // Should a VP ask before it has stopped: not 0, which would be "runs".
        clock.frozen_tsc.store(rdtsc(), Ordering::Relaxed);
        clock.frozen.store(true, Ordering::SeqCst);
        self.memory.space.drive_out();
        clock.frozen_tsc.store(rdtsc(), Ordering::Relaxed);
    }

    fn start_time(&self, clock: &Clock) {
        let stood = rdtsc().wrapping_sub(clock.frozen_tsc.load(Ordering::Relaxed));
        clock
            .tsc_offset
            .fetch_add(stood.wrapping_neg(), Ordering::Relaxed);
        clock.set_by.store(NO_VP, Ordering::Relaxed);
        clock.frozen.store(false, Ordering::SeqCst);
        for (index, vp) in self.shared_vps() {
            vp.set_event(event::PARTITION);
            vp.kick(&self.memory.space, index);
        }
    }

    /// The VMM sets the TSC of VP `index`, on RESET or to restore it: the partition's moves, so that all VPs'
    /// TSCs stay synchronized. Another VP's that is set to about the same (one second) meant the same
    /// and is not moved again; while time is frozen, it reads as it was set.
    pub(crate) fn set_tsc(&self, config: &Config, index: u32, core: &mut VpCore, value: u64) {
        let clock = &config.time;
        let _state = self.synthetic.lock();
        core.follow(clock);
        core.join_tsc();
        let frozen = clock.is_frozen();
        let delta = value.wrapping_sub(core.guest_now());
        let near = (delta as i64).unsigned_abs() < config.features.limits.tsc_hz;
        let set_by = clock.set_by.load(Ordering::Relaxed);
        if near && !frozen {
            return;
        }
        if near && set_by != NO_VP && set_by != index {
            core.set_tsc_apart(delta);
            return;
        }
        if !frozen {
            self.stop_time(clock);
        }
        clock.set_by.store(index, Ordering::Relaxed);
        let time = clock.reference_time();
        clock.tsc_offset.fetch_add(delta, Ordering::Relaxed);
        clock.jumps.fetch_add(delta, Ordering::Relaxed);
        self.move_reference_time(clock, time);
        if !frozen {
            self.start_time(clock);
        }
        core.follow(clock);
    }

    /// Whether HV_PARTITION_PROPERTY_TIME_FREEZE is 1.
    pub(super) fn time_is_frozen(&self) -> bool {
        self.config().is_ok_and(|config| config.time.is_frozen())
    }

    /// HV_PARTITION_PROPERTY_REFERENCE_TIME: only while time is frozen or before a VP runs (as OpenVMM restores a snapshot), so that no
    /// guest sees it jump.
    pub(super) fn set_reference_time(&self, time_100ns: u64) -> HvResult<()> {
        let config = self
            .config()
            .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
        let clock = &config.time;
        let _state = self.synthetic.lock();
        if !clock.is_frozen() && clock.started.load(Ordering::Relaxed) {
            return Err(HV_STATUS_INVALID_PARTITION_STATE);
        }
        self.move_reference_time(clock, time_100ns);
        Ok(())
    }

    /// Makes the counter read `time_100ns`, with no VP running.
    fn move_reference_time(&self, clock: &Clock, time_100ns: u64) {
        let step = time_100ns.wrapping_sub(clock.reference_time());
        clock.moved_100ns.fetch_add(step, Ordering::Relaxed);
        if let Some(page) = self.tsc_page.as_ref() {
            clock.fill_page(page);
        }
    }
}
