// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a VM's run ends, and the one place where the first reason is kept.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use vmm_sys_util::eventfd::EventFd;

/// Why a VM stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest went to S5.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest wrote this value to the debug-exit port.
    DebugExit(u32),
    /// A VP cannot go on because of what the guest did.
    GuestFault(String),
    /// `hvrsctl stop` or a signal.
    Stopped,
    /// hvrs or hvrsctl failed.
    Failed(String),
}

/// Holds the first [`Outcome`] of a run; whoever waits is woken through `event`.
pub struct ExitSlot {
    stop: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
    event: EventFd,
}

impl ExitSlot {
    /// An empty slot.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            stop: AtomicBool::new(false),
            outcome: Mutex::new(None),
            event: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        })
    }

    /// Ends the run for `outcome`, unless it has ended already.
    pub fn set(&self, outcome: Outcome) {
        self.outcome
            .lock()
            .expect("no holder panics")
            .get_or_insert(outcome);
        self.stop.store(true, Ordering::Release);
        // An eventfd's counter cannot overflow from a handful of ones.
        let _ = self.event.write(1);
    }

    /// Whether the run has ended.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The reason, once there is one.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.lock().expect("no holder panics").clone()
    }

    /// Becomes readable when the run ends.
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_reason_wins() {
        let slot = ExitSlot::new().unwrap();
        assert!(!slot.is_set() && slot.outcome().is_none());
        slot.set(Outcome::PowerOff);
        slot.set(Outcome::Stopped);
        assert!(slot.is_set());
        assert_eq!(slot.outcome(), Some(Outcome::PowerOff));
        assert_eq!(slot.event().read().unwrap(), 2);
    }
}
