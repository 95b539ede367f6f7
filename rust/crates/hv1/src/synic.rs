// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The synthetic interrupt controller of a VP (M-80 to M-90, F-SY1 to F-SY9): registers, message slots, event flags.
//!
//! [`Synic`] are the registers, which the VP's own thread changes. [`SynicShared`] is what of them others need who have
//! a message or an event for the VP; both pages may meanwhile be read and written by any of the guest's VPs.

use crate::msr::MsrError;
use core::sync::atomic::{fence, AtomicU32, Ordering};
use hvdef::{
    HVMSG_NONE, HV_EVENT_FLAGS_COUNT, HV_HYP_PAGE_SIZE, HV_MESSAGE_FLAG_PENDING,
    HV_MESSAGE_PAYLOAD_BYTE_COUNT, HV_MESSAGE_SIZE, HV_SYNIC_CONTROL_ENABLE,
    HV_SYNIC_SINT_AUTO_EOI, HV_SYNIC_SINT_COUNT, HV_SYNIC_SINT_MASKED, HV_SYNIC_SINT_POLLING,
    HV_SYNIC_SINT_VECTOR, HV_X64_MSR_PAGE_ENABLE,
};

/// The message page or the event flags page, which the guest shares.
pub type SynicPage = [AtomicU32; HV_HYP_PAGE_SIZE / 4];

/// Words of a message slot.
const SLOT: usize = HV_MESSAGE_SIZE / 4;
/// Words of a message's header.
const HEADER: usize = (HV_MESSAGE_SIZE - HV_MESSAGE_PAYLOAD_BYTE_COUNT) / 4;
/// Words of the event flags of one SINT.
const FLAGS: usize = HV_EVENT_FLAGS_COUNT as usize / 32;
/// `HV_MESSAGE_FLAG_PENDING` in the header's second word.
const PENDING: u32 = (HV_MESSAGE_FLAG_PENDING as u32) << 8;

/// What became of a message or an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there; interrupt the VP with this vector.
    Interrupt(u8),
    /// It is there; there is nothing to interrupt with (masked, polling, flag already set).
    Silent,
    /// The slot is taken, and its message says that another waits.
    Busy,
    /// The SynIC or its page is disabled.
    Off,
}

/// Registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synic {
    pub(crate) scontrol: u64,
    pub(crate) siefp: u64,
    pub(crate) simp: u64,
    sints: [u64; HV_SYNIC_SINT_COUNT],
    /// SINTs whose interrupts end as they are delivered.
    auto_eoi: u16,
}

impl Default for Synic {
    fn default() -> Self {
        Self::new()
    }
}

impl Synic {
    /// State after creation and reset.
    pub const fn new() -> Self {
        Self {
            scontrol: 0,
            siefp: 0,
            simp: 0,
            sints: [HV_SYNIC_SINT_MASKED; HV_SYNIC_SINT_COUNT],
            auto_eoi: 0,
        }
    }

    /// HV_X64_MSR_SINTx.
    pub fn sint(&self, sint: u8) -> u64 {
        self.sints
            .get(usize::from(sint))
            .copied()
            .unwrap_or(HV_SYNIC_SINT_MASKED)
    }

    /// M-90. An exception's vector is refused, but not in a masked one: guests write the reset value (F-SY12).
    pub(crate) fn write_sint(&mut self, sint: u8, value: u64) -> Result<(), MsrError> {
        let masked = value & HV_SYNIC_SINT_MASKED != 0;
        if !masked && value & HV_SYNIC_SINT_VECTOR < 16 {
            return Err(MsrError::GeneralProtection);
        }
        if let Some(s) = self.sints.get_mut(usize::from(sint)) {
            *s = value;
            let bit = 1 << sint;
            self.auto_eoi &= !bit;
            if !masked && value & HV_SYNIC_SINT_AUTO_EOI != 0 {
                self.auto_eoi |= bit;
            }
        }
        Ok(())
    }

    /// Whether an interrupt with `vector` ends as it is delivered (F-SY5).
    #[inline(always)]
    pub fn ends_by_itself(&self, vector: u8) -> bool {
        self.auto_eoi != 0 && self.has_auto_eoi(vector)
    }

    fn has_auto_eoi(&self, vector: u8) -> bool {
        (0u8..)
            .zip(&self.sints)
            .any(|(i, &s)| self.auto_eoi & (1 << (i & 15)) != 0 && s as u8 == vector)
    }
}

/// What senders of messages and events have to know of a VP, without a lock.
#[derive(Debug)]
pub struct SynicShared {
    /// [`MESSAGES`], [`EVENTS`].
    takes: AtomicU32,
    sints: [AtomicU32; HV_SYNIC_SINT_COUNT],
    /// Slots that somebody fills.
    filling: AtomicU32,
}

const MESSAGES: u32 = 1 << 0;
const EVENTS: u32 = 1 << 1;

impl Default for SynicShared {
    fn default() -> Self {
        Self::new()
    }
}

impl SynicShared {
    /// State after creation and reset.
    pub const fn new() -> Self {
        Self {
            takes: AtomicU32::new(0),
            sints: [const { AtomicU32::new(HV_SYNIC_SINT_MASKED as u32) }; HV_SYNIC_SINT_COUNT],
            filling: AtomicU32::new(0),
        }
    }

    /// Takes over the registers after a write.
    pub fn publish(&self, synic: &Synic) {
        for (to, from) in self.sints.iter().zip(&synic.sints) {
            to.store(*from as u32, Ordering::Relaxed);
        }
        let mut takes = 0;
        if synic.scontrol & HV_SYNIC_CONTROL_ENABLE != 0 {
            if synic.simp & HV_X64_MSR_PAGE_ENABLE != 0 {
                takes |= MESSAGES;
            }
            if synic.siefp & HV_X64_MSR_PAGE_ENABLE != 0 {
                takes |= EVENTS;
            }
        }
        self.takes.store(takes, Ordering::Release);
    }

    /// Whether a message could be delivered.
    pub fn takes_messages(&self) -> bool {
        self.takes(MESSAGES)
    }

    /// Whether an event could be delivered.
    pub fn takes_events(&self) -> bool {
        self.takes(EVENTS)
    }

    /// Whether a SINT is masked.
    pub fn is_masked(&self, sint: u8) -> bool {
        self.sints
            .get(usize::from(sint))
            .is_none_or(|s| u64::from(s.load(Ordering::Relaxed)) & HV_SYNIC_SINT_MASKED != 0)
    }

    fn takes(&self, what: u32) -> bool {
        self.takes.load(Ordering::Acquire) & what != 0
    }

    /// Puts a message into the slot of `sint` (F-SY2, F-SY3). A payload that is too long is cut.
    pub fn post(
        &self,
        page: &SynicPage,
        sint: u8,
        message_type: u32,
        sender: u64,
        payload: &[u8],
    ) -> Outcome {
        let at = usize::from(sint) * SLOT;
        let (Some(slot), true) = (page.get(at..at + SLOT), self.takes(MESSAGES)) else {
            return Outcome::Off;
        };
        let bit = 1 << (sint & 15);
        if self.filling.fetch_or(bit, Ordering::Acquire) & bit != 0 {
            return Outcome::Busy;
        }
        let filled = fill(slot, message_type, sender, payload);
        self.filling.fetch_and(!bit, Ordering::Release);
        if filled {
            self.interrupt(sint)
        } else {
            Outcome::Busy
        }
    }

    /// Which of these SINTs have room for a message; none while the SynIC takes none.
    pub fn free_slots(&self, page: &SynicPage, wanted: u16) -> u16 {
        if !self.takes(MESSAGES) {
            return 0;
        }
        let free = |sint: usize| {
            let kind = page.get(sint * SLOT);
            kind.is_some_and(|kind| kind.load(Ordering::Acquire) == HVMSG_NONE)
        };
        (0..HV_SYNIC_SINT_COUNT)
            .filter(|&sint| (wanted >> sint) & 1 != 0 && free(sint))
            .fold(0, |free, sint| free | (1 << sint))
    }

    /// Sets an event flag of `sint`; the interrupt comes for a flag that was clear (F-SY9). Whether it was.
    pub fn signal(&self, page: &SynicPage, sint: u8, flag: u16) -> (Outcome, bool) {
        let word = usize::from(flag) / 32;
        if !self.takes(EVENTS) || word >= FLAGS {
            return (Outcome::Off, false);
        }
        let Some(word) = page.get(usize::from(sint) * FLAGS + word) else {
            return (Outcome::Off, false);
        };
        let bit = 1 << (flag % 32);
        if word.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            (Outcome::Silent, false)
        } else {
            (self.interrupt(sint), true)
        }
    }

    fn interrupt(&self, sint: u8) -> Outcome {
        let value = match self.sints.get(usize::from(sint)) {
            Some(sint) => u64::from(sint.load(Ordering::Relaxed)),
            None => HV_SYNIC_SINT_MASKED,
        };
        if value & (HV_SYNIC_SINT_MASKED | HV_SYNIC_SINT_POLLING) != 0 {
            Outcome::Silent
        } else {
            Outcome::Interrupt(value as u8)
        }
    }
}

/// Fills a free slot; false: it is taken, and says that another message waits.
fn fill(slot: &[AtomicU32], message_type: u32, sender: u64, payload: &[u8]) -> bool {
    let [kind, flags, sender_low, sender_high, body @ ..] = slot else {
        return false;
    };
    const { assert!(HEADER == 4) };
    if kind.load(Ordering::Acquire) != HVMSG_NONE {
        // The guest clears the type and then looks at the flag; here it is the other way round, so that one of the
        // two sees the other.
        flags.fetch_or(PENDING, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if kind.load(Ordering::SeqCst) != HVMSG_NONE {
            return false;
        }
    }
    let mut size = 0;
    for (word, chunk) in body.iter().zip(payload.chunks(4)) {
        let mut bytes = [0; 4];
        for (to, from) in bytes.iter_mut().zip(chunk) {
            *to = *from;
            size += 1;
        }
        word.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
    }
    sender_low.store(sender as u32, Ordering::Relaxed);
    sender_high.store((sender >> 32) as u32, Ordering::Relaxed);
    flags.store(size, Ordering::Relaxed);
    kind.store(message_type, Ordering::Release);
    true
}

#[cfg(test)]
mod tests;
