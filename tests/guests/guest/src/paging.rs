// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Physical pages and 4-level translations for tests.
//!
//! The first 4 GiB are identity-mapped by `boot.S`. Tests map pages of their
//! own from [`WINDOW`] on.

use crate::cpu;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU64, Ordering};

/// Virtual address from which tests may map.
pub const WINDOW: u64 = 0x80_0000_0000;
/// Pages are handed out below this address, and from here on by [`untouched`].
const LIMIT: u64 = 48 << 20;
/// What every machine here has.
const RAM: u64 = 64 << 20;

/// Present.
pub const P: u64 = 1;
/// Writable.
pub const RW: u64 = 1 << 1;
/// User.
pub const US: u64 = 1 << 2;
/// Write-through.
pub const PWT: u64 = 1 << 3;
/// Cache disable.
pub const PCD: u64 = 1 << 4;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// Large page.
pub const PS: u64 = 1 << 7;
/// Global.
pub const G: u64 = 1 << 8;
/// No execute.
pub const NX: u64 = 1 << 63;
/// Address bits of an entry.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

extern "C" {
    static __image_end: u8;
    static boot_pml4: [u64; 512];
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// `count` zeroed physical pages in a row, never given back.
pub fn frames(count: u64) -> u64 {
    let base = (addr_of!(__image_end) as u64 + 0xfff) & !0xfff;
    let _ = NEXT.compare_exchange(0, base, Ordering::AcqRel, Ordering::Acquire);
    let frame = NEXT.fetch_add(count << 12, Ordering::AcqRel);
    assert!(frame + (count << 12) <= LIMIT, "out of test memory");
    // SAFETY: identity-mapped RAM that nobody else was given.
    unsafe { core::ptr::write_bytes(frame as *mut u8, 0, (count << 12) as usize) };
    frame
}

/// `count` pages in a row that nothing has touched yet, the same on each call.
pub fn untouched(count: u64) -> u64 {
    assert!(LIMIT + (count << 12) <= RAM, "out of untouched memory");
    LIMIT
}

/// One zeroed physical page.
pub fn frame() -> u64 {
    frames(1)
}

/// Physical address of the boot page tables.
pub fn root() -> u64 {
    addr_of!(boot_pml4) as u64
}

/// The entry that maps `va` at `level` (1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB) under
/// `root`; tables on the way are made, open to all rights.
pub fn entry(root: u64, va: u64, level: u32) -> &'static AtomicU64 {
    let mut table = root;
    let mut depth = 4;
    loop {
        let index = (va >> (12 + 9 * (depth - 1))) & 511;
        // SAFETY: `table` is an identity-mapped page table, entries are 8-byte aligned.
        let slot = unsafe { &*((table + index * 8) as *const AtomicU64) };
        if depth == level {
            return slot;
        }
        let mut value = slot.load(Ordering::Acquire);
        if value & P == 0 {
            let table = frame() | P | RW | US;
            // Another CPU may make it at the same time.
            value = match slot.compare_exchange(value, table, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => table,
                Err(theirs) => theirs,
            };
        }
        assert!(
            value & PS == 0 || depth == 4,
            "{va:#x} lies in a large page"
        );
        table = value & ADDRESS;
        depth -= 1;
    }
}

/// Opens the tables above `va` to CPL 3; those made by [`entry`] are open already.
pub fn open_to_user(va: u64) {
    for level in [4, 3, 2] {
        entry(root(), va, level).fetch_or(US, Ordering::AcqRel);
    }
    cpu::set_cr3(cpu::cr3());
}

/// Maps one 4 KiB page.
pub fn map(va: u64, pa: u64, flags: u64) {
    entry(root(), va, 1).store(pa | flags, Ordering::Release);
    cpu::invlpg(va);
}

/// Removes the mapping of one 4 KiB page.
pub fn unmap(va: u64) {
    entry(root(), va, 1).store(0, Ordering::Release);
    cpu::invlpg(va);
}
