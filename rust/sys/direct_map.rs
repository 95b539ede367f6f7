// SPDX-License-Identifier: GPL-2.0

//! The machine's memory by its physical address, for a window: without the kernel's help.

use super::bindings;

/// Where the kernel maps all memory.
#[derive(Clone, Copy)]
pub(crate) struct DirectMap(u64);

impl DirectMap {
    /// The kernel's.
    pub(crate) fn new() -> Self {
        // SAFETY: Only adds.
        Self(unsafe { bindings::hvrs_phys_to_virt(0) } as u64)
    }

    /// The 64-bit word at `spa`, which is a multiple of 8; None: nothing is mapped there, as for
    /// memory that its process took out of the direct map.
    ///
    /// The caller sees to it that the page cannot be reused meanwhile.
    #[inline(always)]
    pub(crate) fn word(self, spa: u64) -> Option<u64> {
        let mut word = 0;
        let from = self.0.wrapping_add(spa & !7) as *const u64;
        // SAFETY: Reads one word; #PF is caught by the exception table.
        unsafe { bindings::hvrs_read_safe(from, &mut word) }.then_some(word)
    }
}
