// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The APIC timer (SDM Vol. 3, 11.5.4), in ticks of the guest's TSC.
//!
//! Nothing counts: a running timer is the TSC value at which it expires, and the current count
//! follows from that and from now.

use core::ops::DerefMut;

use crate::ratio::Ratio;
use crate::{regs, ApicPage, Config, Effect, Lapic, LvtSource};

/// Timer mode: bits 18:17 of the LVT timer entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// Counts down once.
    OneShot,
    /// Counts down again and again.
    Periodic,
    /// Expires when the TSC reaches `IA32_TSC_DEADLINE`.
    TscDeadline,
    /// Reserved encoding: the timer does not run.
    Reserved,
}

impl TimerMode {
    /// The mode that the LVT timer entry `lvt` encodes.
    #[inline]
    pub const fn from_lvt(lvt: u32) -> Self {
        match (lvt >> 17) & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }

    /// One-shot or periodic: the modes that count.
    #[inline]
    const fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}

/// The state of the timer that is not in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    bus_to_tsc: Ratio,
    tsc_to_bus: Ratio,
    mode: TimerMode,
    masked: bool,
    running: bool,
    /// When the timer expires, with 32 fractional bits so that periods do not drift. In the
    /// counting modes it is compared modulo 2^64, as the guest may set its TSC close to the end.
    deadline_q32: u128,
    /// The period of the counting modes.
    period_q32: u128,
    initial_count: u32,
    /// log2 of the divisor.
    divide_shift: u32,
    /// A deadline that was restored before the LVT entry that selects TSC-deadline mode.
    restored_deadline: u64,
}

impl Timer {
    pub(crate) fn new(config: &Config) -> Self {
        let tsc_hz = u64::from(config.tsc_khz.max(1)) * 1000;
        // Above 1 MHz, which keeps the ratios in the range of `Ratio`.
        let bus_hz = u64::from(config.apic_hz.max(1_024_000));
        Self {
            bus_to_tsc: Ratio::new(tsc_hz, bus_hz),
            tsc_to_bus: Ratio::new(bus_hz, tsc_hz),
            mode: TimerMode::OneShot,
            masked: true,
            running: false,
            deadline_q32: 0,
            period_q32: 0,
            initial_count: 0,
            divide_shift: 1,
            restored_deadline: 0,
        }
    }

    /// The state after RESET and INIT.
    pub(crate) fn reset(&mut self) {
        self.mode = TimerMode::OneShot;
        self.masked = true;
        self.running = false;
        self.initial_count = 0;
        self.divide_shift = 1;
        self.restored_deadline = 0;
    }

    #[inline]
    fn deadline(&self) -> u64 {
        (self.deadline_q32 >> 32) as u64
    }

    /// Arms TSC-deadline mode; zero disarms.
    fn set_deadline(&mut self, tsc: u64) {
        self.deadline_q32 = u128::from(tsc) << 32;
        self.running = tsc != 0;
    }

    /// TSC ticks until the timer expires; 0 when it has.
    #[inline]
    fn ticks_left(&self, now: u64) -> u64 {
        let deadline = self.deadline();
        if !self.mode.counts() {
            return deadline.saturating_sub(now);
        }
        let left = deadline.wrapping_sub(now);
        if left >> 63 == 0 {
            left
        } else {
            0
        }
    }

    /// Starts counting down from `count`.
    fn start(&mut self, count: u32, now: u64) {
        self.running = count != 0 && self.mode.counts();
        let ticks = self
            .bus_to_tsc
            .apply_q32(u64::from(count) << (self.divide_shift & 7));
        self.deadline_q32 = (u128::from(now) << 32).wrapping_add(ticks);
        self.period_q32 = self
            .bus_to_tsc
            .apply_q32(u64::from(self.initial_count) << (self.divide_shift & 7));
    }

    /// If the timer has expired, stops it or starts its next period, and tells so. Periods that
    /// have gone by unseen are skipped, for they would merge in the IRR.
    fn advance(&mut self, now: u64) -> bool {
        if !self.running || self.ticks_left(now) != 0 {
            return false;
        }
        if self.mode != TimerMode::Periodic {
            self.running = false;
            return true;
        }
        let late = now.wrapping_sub(self.deadline());
        let period = (self.period_q32 >> 32) as u64;
        if period >> 32 != 0 {
            self.skip(late / period + 1);
        } else if late >> 32 == 0 {
            self.skip((late << 32) / (self.period_q32 as u64).max(1) + 1);
        } else {
            // More than a second late: the phase means nothing any more.
            self.deadline_q32 = (u128::from(now) << 32).wrapping_add(self.period_q32);
        }
        if self.ticks_left(now) == 0 {
            // Periods of about a tick.
            self.deadline_q32 = self.deadline_q32.wrapping_add(self.period_q32.max(1 << 32));
        }
        true
    }

    fn skip(&mut self, periods: u64) {
        let step = self.period_q32.wrapping_mul(periods.into());
        self.deadline_q32 = self.deadline_q32.wrapping_add(step);
    }

    fn current_count(&self, now: u64) -> u32 {
        if !self.running || !self.mode.counts() {
            return 0;
        }
        let left = self.ticks_left(now);
        if left == 0 {
            return 0;
        }
        // More is left only if the TSC ran backwards.
        let left = left.min((self.period_q32 >> 32) as u64 + 1);
        let below_one = (1u64 << (self.divide_shift & 7)) - 1;
        let ticks = self.tsc_to_bus.apply_ceil(left).saturating_add(below_one);
        let count = ticks >> (self.divide_shift & 7);
        count.clamp(1, self.initial_count.max(1).into()) as u32
    }
}

impl<P: DerefMut<Target = ApicPage>> Lapic<P> {
    /// When the timer's interrupt is due, in guest TSC ticks; it may have passed. `None`: the
    /// timer is stopped or its LVT entry masked.
    #[inline]
    pub fn timer_deadline(&self) -> Option<u64> {
        (self.timer.running && !self.timer.masked).then(|| self.timer.deadline())
    }

    /// Guest TSC ticks until the timer's interrupt, 0 when it is due: [`Self::timer_deadline`]
    /// minus `now_tsc`, right also when the TSC runs past 2^64 meanwhile.
    #[inline]
    pub fn timer_ticks_left(&self, now_tsc: u64) -> Option<u64> {
        (self.timer.running && !self.timer.masked).then(|| self.timer.ticks_left(now_tsc))
    }

    /// Delivers the timer's interrupt if it is due, starts the next period of a periodic timer,
    /// and tells whether the interrupt was delivered.
    #[inline]
    pub fn timer_expire(&mut self, now_tsc: u64) -> bool {
        self.timer.advance(now_tsc) && self.signal(LvtSource::Timer).is_some()
    }

    /// The mode of the timer.
    #[inline]
    pub fn timer_mode(&self) -> TimerMode {
        self.timer.mode
    }

    /// The guest's TSC was moved by `delta` (modulo 2^64): counts go on as before, while a TSC
    /// deadline stays what it is.
    pub fn adjust_tsc(&mut self, delta: u64) {
        if self.timer.mode.counts() {
            let delta = u128::from(delta) << 32;
            self.timer.deadline_q32 = self.timer.deadline_q32.wrapping_add(delta);
        }
    }

    /// `IA32_TSC_DEADLINE`: zero when not armed.
    pub fn tsc_deadline(&self, now_tsc: u64) -> u64 {
        let timer = &self.timer;
        if timer.mode == TimerMode::TscDeadline && timer.running && timer.ticks_left(now_tsc) != 0 {
            timer.deadline()
        } else {
            0
        }
    }

    /// A write of `IA32_TSC_DEADLINE`: arms, disarms with zero, and is ignored in the other modes.
    pub fn write_tsc_deadline(&mut self, value: u64, now_tsc: u64) -> Effect {
        if self.timer.mode != TimerMode::TscDeadline {
            return Effect::None;
        }
        self.timer_expire(now_tsc);
        self.timer.set_deadline(value);
        // A deadline in the past expires at once.
        self.timer_expire(now_tsc);
        Effect::TimerChanged
    }

    /// The VMM restores `IA32_TSC_DEADLINE`, before or after [`Self::restore`]. A deadline in the
    /// past expires at the next [`Self::timer_expire`].
    pub fn restore_tsc_deadline(&mut self, value: u64) {
        if self.timer.mode == TimerMode::TscDeadline {
            self.timer.set_deadline(value);
        } else {
            self.timer.restored_deadline = value;
        }
    }

    /// The current count register.
    pub(crate) fn current_count(&mut self, now_tsc: u64) -> u32 {
        self.timer_expire(now_tsc);
        self.timer.current_count(now_tsc)
    }

    /// A write of the initial count register: (re)starts the timer, stops it with zero, and is
    /// ignored in TSC-deadline mode.
    pub(crate) fn write_initial_count(&mut self, value: u32, now_tsc: u64) -> Effect {
        self.timer_expire(now_tsc);
        if self.timer.mode == TimerMode::TscDeadline {
            // Also undoes what APIC-write emulation of the processor left in the page.
            self.page.set(regs::TIMER_ICR, self.timer.initial_count);
            return Effect::None;
        }
        self.page.set(regs::TIMER_ICR, value);
        self.timer.initial_count = value;
        self.timer.start(value, now_tsc);
        Effect::TimerChanged
    }

    /// A write of the divide configuration register: the current count stays, and counts on with
    /// the new divisor.
    pub(crate) fn write_divide(&mut self, value: u32, now_tsc: u64) -> Effect {
        self.timer_expire(now_tsc);
        let count = self.timer.current_count(now_tsc);
        self.page.set(regs::TIMER_DCR, value & 0xB);
        self.timer.divide_shift = divide_shift(value);
        if self.timer.running && self.timer.mode.counts() {
            self.timer.start(count, now_tsc);
        }
        Effect::TimerChanged
    }

    /// A write of the LVT timer entry. A change to or from TSC-deadline mode stops the timer
    /// (SDM 11.5.4.1); one between one-shot and periodic lets it count on.
    pub(crate) fn write_lvt_timer(&mut self, value: u32, now_tsc: u64) -> Effect {
        // What expired until now did so under the old entry.
        self.timer_expire(now_tsc);
        self.write_lvt(regs::LVT_TIMER, value);
        let lvt = self.page.get(regs::LVT_TIMER);
        let mode = TimerMode::from_lvt(lvt);
        if mode != self.timer.mode && !(mode.counts() && self.timer.mode.counts()) {
            self.timer.running = false;
            self.timer.initial_count = 0;
            self.page.set(regs::TIMER_ICR, 0);
        }
        self.timer.mode = mode;
        self.timer.masked = lvt & regs::LVT_MASKED != 0;
        Effect::TimerChanged
    }

    /// Software disable masks the timer with the other LVT entries.
    pub(crate) fn mask_timer(&mut self, now_tsc: u64) {
        self.timer_expire(now_tsc);
        self.timer.masked = true;
    }

    /// Takes the timer over from the registers, with `count` left to go.
    pub(crate) fn restore_timer(&mut self, count: u32, now_tsc: u64) {
        let lvt = self.page.get(regs::LVT_TIMER);
        let timer = &mut self.timer;
        let deadline = if timer.mode == TimerMode::TscDeadline && timer.running {
            timer.deadline()
        } else {
            core::mem::take(&mut timer.restored_deadline)
        };
        timer.mode = TimerMode::from_lvt(lvt);
        timer.masked = lvt & regs::LVT_MASKED != 0;
        timer.divide_shift = divide_shift(self.page.get(regs::TIMER_DCR));
        timer.initial_count = self.page.get(regs::TIMER_ICR);
        if timer.mode.counts() {
            timer.start(count.min(timer.initial_count), now_tsc);
        } else {
            let armed = timer.mode == TimerMode::TscDeadline;
            timer.set_deadline(if armed { deadline } else { 0 });
        }
    }
}

/// log2 of the divisor that the divide configuration register holds (SDM figure 11-10).
#[inline]
const fn divide_shift(dcr: u32) -> u32 {
    // Bits 3, 1 and 0 count from "divide by 2"; all ones is "divide by 1".
    let code = dcr & 3 | ((dcr >> 1) & 4);
    (code + 1) & 7
}
