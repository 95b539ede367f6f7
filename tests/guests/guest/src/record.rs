// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The order in which vectors were delivered.

use crate::idt::{self, Frame};
use crate::{apic, time};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

static ORDER: [AtomicU8; 64] = [const { AtomicU8::new(0) }; 64];
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Notes a delivery; for hooks that do more than [`and_eoi`].
pub fn note(vector: u8) {
    let at = LENGTH.fetch_add(1, Ordering::AcqRel);
    if let Some(slot) = ORDER.get(at) {
        slot.store(vector, Ordering::Release);
    }
}

fn and_eoi(frame: &mut Frame) {
    note(frame.vector as u8);
    apic::eoi();
}

/// Notes and acknowledges `vectors` from now on; forgets what was noted before.
pub fn start(vectors: &[u8]) {
    LENGTH.store(0, Ordering::Release);
    idt::hook(apic::SPURIOUS, |_| ()); // legal at any time, and not to be acknowledged
    for &vector in vectors {
        idt::hook(vector, and_eoi);
    }
}

/// Number of deliveries so far.
pub fn len() -> usize {
    LENGTH.load(Ordering::Acquire)
}

/// Asserts what was delivered, in order, and forgets it.
#[track_caller]
pub fn expect(vectors: &[u8]) {
    let mut seen = [0u8; 64];
    for (to, from) in seen.iter_mut().zip(&ORDER) {
        *to = from.load(Ordering::Acquire);
    }
    let seen = &seen[..len().min(64)];
    assert!(
        seen == vectors,
        "delivered {seen:x?} in place of {vectors:x?}"
    );
    LENGTH.store(0, Ordering::Release);
}

/// Waits, interrupts on, until `count` deliveries were noted.
#[must_use]
pub fn reached(count: usize) -> bool {
    crate::cpu::sti();
    let reached = time::reached(|| len() >= count);
    crate::cpu::cli();
    reached
}
