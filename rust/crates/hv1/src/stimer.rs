// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Synthetic timers of a VP (M-B0, M-B1, F-TM1 to F-TM8).
//!
//! Registers are written without a clock; [`Stimers::run`] afterwards starts what they started, and expires what is
//! due. Time is the partition's reference time in units of 100 ns.

use crate::msr::MsrError;
use hvdef::{
    HvStimerState, HvSyntheticTimersState, HvTimerMessagePayload, Wire, HV_STIMER_AUTO_ENABLE,
    HV_STIMER_DIRECT, HV_STIMER_ENABLE, HV_STIMER_LAZY, HV_STIMER_PERIODIC, HV_STIMER_RESERVED,
    HV_STIMER_SINT_SHIFT, HV_STIMER_UNDELIVERED, HV_STIMER_VECTOR_SHIFT, HV_SYNIC_STIMER_COUNT,
};

/// No timer is due ever.
pub const NEVER: u64 = u64::MAX;
/// Ticks of a periodic timer that catches up, or has a very short period, are at least this far apart: a guest must
/// get on between them.
const SHORTEST_GAP_100NS: u64 = 500;
/// A periodic timer that is later than this does not catch up (F-TM3: it is hopeless).
const HOPELESS_100NS: u64 = 10_000_000;
/// A message that found its slot taken is tried again after this time, should the guest forget EOM (F-SY4).
const RETRY_100NS: u64 = 100_000;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is in its slot.
    Delivered,
    /// The slot is taken.
    Busy,
    /// The VP takes no messages; a write of one of the SynIC's registers may change that.
    Off,
}

/// Where expirations go.
pub trait Sink {
    /// Direct mode: an edge-triggered interrupt for the VP's local APIC.
    fn interrupt(&mut self, vector: u8);
    /// A timer message for `sint`.
    fn message(&mut self, sint: u8, payload: &HvTimerMessagePayload) -> Posted;
}

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer {
    config: u64,
    count: u64,
    /// When it expires next.
    due: u64,
    /// Periodic: the tick's place in the raster, from which `due` deviates while it catches up.
    on_time: u64,
    /// It was enabled, and `due` is not known yet.
    starts: bool,
    /// A message waits, of an expiration at this time. Until it is delivered a periodic timer does not go on.
    undelivered: Option<u64>,
}

impl Timer {
    const RESET: Self = Self {
        config: 0,
        count: 0,
        due: NEVER,
        on_time: NEVER,
        starts: false,
        undelivered: None,
    };

    fn has(&self, bit: u64) -> bool {
        self.config & bit != 0
    }

    /// Stops, and starts anew if it is enabled. A message that waits is dropped: it is the old timer's.
    fn restart(&mut self) {
        self.due = NEVER;
        self.on_time = NEVER;
        self.undelivered = None;
        self.starts = self.has(HV_STIMER_ENABLE) && self.count != 0;
    }

    fn write_config(&mut self, value: u64) -> Result<(), MsrError> {
        let enable = value & HV_STIMER_ENABLE != 0;
        let direct = value & HV_STIMER_DIRECT != 0;
        if value & HV_STIMER_RESERVED != 0
            || enable && direct && (value >> HV_STIMER_VECTOR_SHIFT) as u8 & 0xf0 == 0
        {
            return Err(MsrError::GeneralProtection);
        }
        self.config = value;
        self.check_sint();
        self.restart();
        Ok(())
    }

    fn write_count(&mut self, value: u64) {
        self.count = value;
        // F-TM5.
        if value == 0 {
            self.config &= !HV_STIMER_ENABLE;
        } else if self.has(HV_STIMER_AUTO_ENABLE) && self.may_run() {
            self.config |= HV_STIMER_ENABLE;
        }
        self.check_sint();
        self.restart();
    }

    /// A direct timer's vector must be one.
    fn may_run(&self) -> bool {
        !self.has(HV_STIMER_DIRECT) || self.vector() >= 16
    }

    /// M-B0: enabled, not direct and without a SINT, it is disabled at once.
    fn check_sint(&mut self) {
        if !self.has(HV_STIMER_DIRECT) && self.sint() == 0 {
            self.config &= !HV_STIMER_ENABLE;
        }
    }

    fn vector(&self) -> u8 {
        (self.config >> HV_STIMER_VECTOR_SHIFT) as u8
    }

    fn sint(&self) -> u8 {
        (self.config >> HV_STIMER_SINT_SHIFT) as u8 & 0xf
    }

    /// Starts, delivers, expires. When it wants to run again.
    fn run(&mut self, index: u32, now: u64, sink: &mut impl Sink) -> u64 {
        if core::mem::take(&mut self.starts) {
            self.due = if self.has(HV_STIMER_PERIODIC) {
                now.saturating_add(self.count)
            } else {
                self.count
            };
            self.on_time = self.due;
        }
        if let Some(time) = self.undelivered {
            return self.deliver(index, time, now, sink);
        }
        if self.due == NEVER || now < self.due {
            return self.due;
        }
        let time = self.due;
        if !self.has(HV_STIMER_PERIODIC) {
            self.config &= !HV_STIMER_ENABLE;
            self.due = NEVER;
        } else if !self.next_tick(now) {
            return self.due;
        }
        if self.has(HV_STIMER_DIRECT) {
            sink.interrupt(self.vector());
            return self.due;
        }
        self.deliver(index, time, now, sink)
    }

    fn deliver(&mut self, index: u32, time: u64, now: u64, sink: &mut impl Sink) -> u64 {
        let payload = HvTimerMessagePayload {
            timer_index: index,
            reserved: 0,
            expiration_time: time,
            delivery_time: now,
        };
        let waited = self.undelivered.is_some();
        match sink.message(self.sint(), &payload) {
            Posted::Delivered => {
                self.undelivered = None;
                if waited && self.has(HV_STIMER_ENABLE) && self.due != NEVER {
                    self.due = self.due.max(now.saturating_add(self.gap()));
                }
                self.due
            }
            Posted::Busy => {
                self.undelivered = Some(time);
                now.saturating_add(RETRY_100NS)
            }
            Posted::Off => {
                self.undelivered = Some(time);
                NEVER
            }
        }
    }

    /// The shortest distance between two ticks.
    fn gap(&self) -> u64 {
        (self.count / 2).max(SHORTEST_GAP_100NS)
    }

    /// A periodic timer's next tick, after the one that is due. False: the one that is due is left out.
    fn next_tick(&mut self, now: u64) -> bool {
        let period = self.count.max(1);
        let late = now.saturating_sub(self.on_time);
        let lazy = self.has(HV_STIMER_LAZY);
        if lazy || late >= HOPELESS_100NS && late >= period {
            // Missed ticks are lost, the raster stays.
            let missed = late / period;
            self.on_time = self.on_time.saturating_add(missed.saturating_mul(period));
        }
        self.on_time = self.on_time.saturating_add(period);
        // F-TM4: what is late is left out when the next is near.
        let near = lazy && self.on_time.saturating_sub(now) < period / 2;
        // F-TM3: shorter periods until it has caught up.
        let earliest = if near {
            0
        } else {
            now.saturating_add(self.gap())
        };
        self.due = self.on_time.max(earliest);
        !near
    }

    fn save(&self) -> HvStimerState {
        HvStimerState {
            flags: match self.undelivered {
                Some(_) => HV_STIMER_UNDELIVERED,
                None => 0,
            },
            resvd: 0,
            config: self.config,
            count: self.count,
            adjustment: if self.has(HV_STIMER_PERIODIC) && self.on_time != NEVER {
                self.on_time
            } else {
                0
            },
            undelivered_exp_time: self.undelivered.unwrap_or(0),
        }
    }

    fn restore(state: &HvStimerState) -> Result<Self, MsrError> {
        let mut timer = Self::RESET;
        timer.count = state.count;
        timer.write_config(state.config)?;
        if timer.starts && timer.has(HV_STIMER_PERIODIC) && state.adjustment != 0 {
            timer.starts = false;
            timer.due = state.adjustment;
            timer.on_time = state.adjustment;
        }
        if state.flags & HV_STIMER_UNDELIVERED != 0 && !timer.has(HV_STIMER_DIRECT) {
            timer.undelivered = Some(state.undelivered_exp_time);
        }
        Ok(timer)
    }
}

/// The timers of a VP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stimers {
    timers: [Timer; HV_SYNIC_STIMER_COUNT],
    waits: bool,
}

impl Default for Stimers {
    fn default() -> Self {
        Self::new()
    }
}

impl Stimers {
    /// State after creation and reset.
    pub const fn new() -> Self {
        Self {
            timers: [Timer::RESET; HV_SYNIC_STIMER_COUNT],
            waits: false,
        }
    }

    /// HV_X64_MSR_STIMERx_CONFIG.
    pub fn config(&self, timer: u8) -> u64 {
        self.timers.get(usize::from(timer)).map_or(0, |t| t.config)
    }

    /// HV_X64_MSR_STIMERx_COUNT.
    pub fn count(&self, timer: u8) -> u64 {
        self.timers.get(usize::from(timer)).map_or(0, |t| t.count)
    }

    /// Writes HV_X64_MSR_STIMERx_CONFIG; [`Self::run`] is due.
    pub fn write_config(&mut self, timer: u8, value: u64) -> Result<(), MsrError> {
        match self.timers.get_mut(usize::from(timer)) {
            Some(timer) => timer.write_config(value),
            None => Err(MsrError::NotMine),
        }
    }

    /// Writes HV_X64_MSR_STIMERx_COUNT; [`Self::run`] is due.
    pub fn write_count(&mut self, timer: u8, value: u64) {
        if let Some(timer) = self.timers.get_mut(usize::from(timer)) {
            timer.write_count(value);
        }
    }

    /// Whether a message waits: [`Self::run`] is due when a slot may have become free.
    #[inline(always)]
    pub fn message_waits(&self) -> bool {
        self.waits
    }

    /// Expires what is due at `now` and delivers what waits. When it wants to be called again, or [`NEVER`].
    pub fn run(&mut self, now: u64, sink: &mut impl Sink) -> u64 {
        let mut next = NEVER;
        self.waits = false;
        for (index, timer) in (0u32..).zip(&mut self.timers) {
            next = next.min(timer.run(index, now, sink));
            self.waits |= timer.undelivered.is_some();
        }
        next
    }

    /// The timers as a VMM saves them.
    pub fn save(&self) -> HvSyntheticTimersState {
        let mut state = HvSyntheticTimersState::ZERO;
        for (to, timer) in state.timers.iter_mut().zip(&self.timers) {
            *to = timer.save();
        }
        state
    }

    /// Timers as a VMM saved them; [`Self::run`] is due. One that no guest could have made is refused.
    pub fn restore(state: &HvSyntheticTimersState) -> Result<Self, MsrError> {
        let mut stimers = Self::new();
        for (timer, from) in stimers.timers.iter_mut().zip(&state.timers) {
            *timer = Timer::restore(from)?;
        }
        Ok(stimers)
    }
}

#[cfg(test)]
mod tests;
