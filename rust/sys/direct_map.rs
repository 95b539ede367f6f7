// SPDX-License-Identifier: GPL-2.0

//! The machine's memory by its physical address, for a window: without the kernel's help.

use super::bindings;
use core::arch::asm;

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
        let from = self.0.wrapping_add(spa & !7);
        let (word, read): (u64, u32);
        // SAFETY: Reads one word; the exception table leads a #PF behind the second instruction.
        unsafe {
            asm!(
                "xor {read:e}, {read:e}",
                "2: mov {word}, [{from}]",
                "inc {read:e}",
                "3:",
                ".pushsection __ex_table, \"a\"",
                ".balign 4",
                ".long 2b - ., 3b - ., {kind}",
                ".popsection",
                from = in(reg) from,
                word = out(reg) word,
                read = out(reg) read,
                kind = const bindings::HVRS_EX_TYPE_DEFAULT,
                options(nostack, readonly),
            )
        };
        (read != 0).then_some(word)
    }
}
