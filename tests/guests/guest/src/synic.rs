// SPDX-License-Identifier: GPL-2.0 OR MIT
//! SynIC and synthetic timers: registers, and a message page to play with.

use crate::{apic, cpu, hv, paging};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Enable.
pub const SCONTROL: u32 = 0x4000_0080;
/// Version.
pub const SVERSION: u32 = 0x4000_0081;
/// Event flags page.
pub const SIEFP: u32 = 0x4000_0082;
/// Message page.
pub const SIMP: u32 = 0x4000_0083;
/// End of message.
pub const EOM: u32 = 0x4000_0084;
/// First of the 16 sources.
pub const SINT0: u32 = 0x4000_0090;
/// Reading it waits for an interrupt.
pub const GUEST_IDLE: u32 = 0x4000_00f0;

/// SINT: no interrupt.
pub const MASKED: u64 = 1 << 16;
/// SINT: it ends at its delivery.
pub const AUTO_EOI: u64 = 1 << 17;
/// SINT: messages, but no interrupt.
pub const POLLING: u64 = 1 << 18;

/// Timer: enabled.
pub const ENABLE: u64 = 1;
/// Timer: periodic.
pub const PERIODIC: u64 = 1 << 1;
/// Timer: enabled by a write of its count.
pub const AUTO_ENABLE: u64 = 1 << 3;

/// HvMessageTypeTimerExpired.
pub const TIMER_EXPIRED: u32 = 0x8000_0010;

/// Timer: an interrupt with `vector` in place of a message.
pub const fn direct(vector: u8) -> u64 {
    1 << 12 | (vector as u64) << 4
}

/// Timer: messages for `sint`.
pub const fn sint(sint: u64) -> u64 {
    sint << 16
}

/// Configuration register of a timer.
pub const fn config(timer: u32) -> u32 {
    0x4000_00b0 + 2 * timer
}

/// Count register of a timer.
pub const fn count(timer: u32) -> u32 {
    0x4000_00b1 + 2 * timer
}

/// Reference time.
pub fn now() -> u64 {
    cpu::rdmsr(hv::HV_X64_MSR_TIME_REF_COUNT)
}

/// Whether there are SynIC and timers.
pub fn there() -> bool {
    hv::privilege(2) && hv::privilege(3) && hv::privilege(hv::ACCESS_REF_COUNTER)
}

/// The slots of a message page.
pub struct Messages(u64);

impl Messages {
    /// Enables SynIC and message page, with SINT `sint` as told; the local APIC, too.
    pub fn enable(sint: u32, value: u64) -> Self {
        apic::init();
        let page = paging::frame();
        cpu::wrmsr(SIMP, page | 1);
        cpu::wrmsr(SINT0 + sint, value);
        cpu::wrmsr(SCONTROL, 1);
        let messages = Self(page);
        for sint in 0..16 {
            messages.clear(sint);
        }
        messages
    }

    /// Everything as after reset; the slots keep what they have.
    pub fn disable() {
        for timer in 0..4 {
            cpu::wrmsr(config(timer), 0);
            cpu::wrmsr(count(timer), 0);
        }
        cpu::wrmsr(SCONTROL, 0);
        for sint in SINT0..SINT0 + 16 {
            cpu::wrmsr(sint, MASKED);
        }
        cpu::wrmsr(SIMP, 0);
        cpu::wrmsr(SIEFP, 0);
    }

    fn word(&self, sint: u64, at: u64) -> &'static AtomicU32 {
        // SAFETY: a page that `enable` took for ever.
        unsafe { &*((self.0 + sint * 256 + at) as *const AtomicU32) }
    }

    /// Message type in a slot; 0: none.
    pub fn kind(&self, sint: u64) -> u32 {
        self.word(sint, 0).load(Ordering::Acquire)
    }

    /// Payload size and whether another message waits.
    pub fn header(&self, sint: u64) -> (u32, bool) {
        let word = self.word(sint, 4).load(Ordering::Acquire);
        (word & 0xff, word & 0x100 != 0)
    }

    /// The payload's `n`-th 8 bytes.
    pub fn payload(&self, sint: u64, n: u64) -> u64 {
        // SAFETY: as in `word`.
        unsafe { &*((self.0 + sint * 256 + 16 + 8 * n) as *const AtomicU64) }
            .load(Ordering::Acquire)
    }

    /// Takes the message out of its slot, without EOM.
    pub fn clear(&self, sint: u64) {
        self.word(sint, 0).store(0, Ordering::SeqCst);
    }

    /// As a guest should: EOM if another message waits.
    pub fn take(&self, sint: u64) {
        self.clear(sint);
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.header(sint).1 {
            cpu::wrmsr(EOM, 0);
        }
    }
}
