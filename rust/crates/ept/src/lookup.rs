// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A walk without the map lock, by a VP that is in guest mode.
//!
//! Hardware walks the tables in the same state: what a walk finds stays valid until the VP leaves
//! guest mode, because whoever takes a page or a table away waits for that ([`crate::flush()`]).

use crate::addr::{index, Gpa, GpaRange, PageSize, Spa};
use crate::entry::{Entry, Rights};
use crate::eptp::Eptp;

/// Where the page of 4 KiB at `gpa` is under `eptp`, and what the guest may do with it. `read` gives the 64-bit word at an
/// address of the machine.
///
/// Between [`crate::GuestMode::enter`] and [`crate::GuestMode::leave`], where the page may be used, too.
#[inline(always)]
pub fn lookup(
    eptp: Eptp,
    gpa: Gpa,
    mut read: impl FnMut(Spa) -> Option<u64>,
) -> Option<(Spa, Rights)> {
    if gpa >= GpaRange::ALL.end() {
        return None;
    }
    let mut table = eptp.root();
    // Unrolled: a third of the instructions. This is most of what a hypercall's input or a doorbell costs.
    macro_rules! look {
        ($($level:literal)*) => {$(
            let entry = Entry(read(Spa(table.0 | (index(gpa, $level) as u64) << 3))?);
            if entry.is_leaf($level) {
                let page = gpa.0 & (PageSize::from_level($level).bytes() - 1) & !0xfff;
                return Some((Spa(entry.spa().0 | page), entry.rights()));
            }
            if !entry.is_table($level) {
                return None;
            }
            table = entry.spa();
        )*};
    }
    look!(4 3 2 1);
    let _ = table;
    None
}
