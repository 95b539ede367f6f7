// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A walk without the map lock, by a VP that is in guest mode.
//!
//! Hardware walks the tables in the same state: what a walk finds stays valid until the VP leaves
//! guest mode, because whoever takes a page or a table away waits for that ([`crate::flush()`]).

use crate::addr::{index, Gpa, GpaRange, Spa};
use crate::entry::{Entry, Leaf};
use crate::eptp::Eptp;
use crate::tree::TOP;

/// The page that is mapped at `gpa` under `eptp`. `read` gives the 64-bit word at an address of
/// the machine.
///
/// Between [`crate::GuestMode::enter`] and [`crate::GuestMode::leave`], where the leaf's memory
/// may be used, too.
#[inline]
pub fn lookup(eptp: Eptp, gpa: Gpa, mut read: impl FnMut(Spa) -> Option<u64>) -> Option<Leaf> {
    if gpa >= GpaRange::ALL.end() {
        return None;
    }
    let mut table = eptp.root();
    for level in (1..=TOP).rev() {
        let at = Spa(table.0 + index(gpa, level) as u64 * 8);
        let entry = Entry(read(at)?);
        if entry.is_leaf(level) {
            return Some(entry.to_leaf(gpa, level));
        }
        if !entry.is_table(level) {
            return None;
        }
        table = entry.spa();
    }
    None
}
