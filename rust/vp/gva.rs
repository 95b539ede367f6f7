// SPDX-License-Identifier: GPL-2.0

//! The guest's page tables, read as the VMM's memory: for instruction bytes and for
//! HvCallTranslateVirtualAddress.

use super::message::Capture;
use crate::partition::Partition;
use hvdef::*;
use x86def::cr;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bytes of an instruction, as many as could be read.
pub(super) struct Bytes {
    pub(super) bytes: [u8; 16],
    pub(super) len: u8,
}

impl Bytes {
    /// None.
    pub(super) const NONE: Self = Self {
        bytes: [0; 16],
        len: 0,
    };
}

/// The bytes at CS:RIP, up to 15 of them and up to where memory ends.
pub(super) fn fetch(partition: &Partition, capture: &Capture) -> Bytes {
    let mut out = Bytes::NONE;
    let long = capture.efer & cr::EFER_LMA != 0 && capture.cs.attributes & 1 << 13 != 0;
    let start = if long {
        capture.rip
    } else {
        u64::from(capture.cs.base.wrapping_add(capture.rip) as u32)
    };
    while out.len < 15 {
        let gva = start.wrapping_add(u64::from(out.len));
        let in_page = (4096 - (gva & 0xfff)) as usize;
        let want = in_page.min(15 - out.len as usize);
        let at = out.len as usize;
        let Some(to) = out.bytes.get_mut(at..at + want) else {
            break;
        };
        let read = walk(partition, capture, gva)
            .ok()
            .and_then(|found| partition.memory.read(found.gpa, to));
        if read.is_none() {
            break;
        }
        out.len += want as u8;
    }
    out
}

fn read_entry(partition: &Partition, gpa: u64, size: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    partition.memory.read(gpa, bytes.get_mut(..size)?)?;
    Some(u64::from_le_bytes(bytes))
}

/// Where a linear address leads, and what its page tables allow.
pub(super) struct Translation {
    pub(super) gpa: u64,
    writable: bool,
    user: bool,
    executable: bool,
}

impl Translation {
    /// The same page tables with another entry: a right is there if every entry gives it.
    fn with(self, entry: u64, nx_enabled: bool) -> Self {
        Self {
            gpa: self.gpa,
            writable: self.writable && entry & WRITABLE != 0,
            user: self.user && entry & USER != 0,
            executable: self.executable && !(nx_enabled && entry & NO_EXECUTE != 0),
        }
    }

    fn at(self, gpa: u64) -> Self {
        Self { gpa, ..self }
    }
}

/// Why there is none: `HV_TRANSLATE_GVA_*`.
type NoTranslation = u32;

/// Walks the guest's page tables (SDM 4.3 to 4.5); access rights are for the caller to judge.
fn walk(partition: &Partition, c: &Capture, gva: u64) -> Result<Translation, NoTranslation> {
    let all = Translation {
        gpa: gva,
        writable: true,
        user: true,
        executable: true,
    };
    if c.cr0 & cr::CR0_PG == 0 {
        return Ok(all);
    }
    let entry = |gpa, size| {
        let entry = read_entry(partition, gpa, size).ok_or(HV_TRANSLATE_GVA_GPA_UNMAPPED)?;
        if entry & PRESENT == 0 {
            return Err(HV_TRANSLATE_GVA_PAGE_NOT_PRESENT);
        }
        Ok(entry)
    };
    if c.cr4 & cr::CR4_PAE == 0 {
        let pde = entry((c.cr3 & 0xffff_f000) + (gva >> 22 & 0x3ff) * 4, 4)?;
        let rights = all.with(pde, false);
        if pde & LARGE != 0 && c.cr4 & cr::CR4_PSE != 0 {
            // PSE-36: bits 20:13 are address bits 39:32.
            let high = (pde >> 13 & 0xff) << 32;
            return Ok(rights.at(high | pde & 0xffc0_0000 | gva & 0x3f_ffff));
        }
        let pte = entry((pde & 0xffff_f000) + (gva >> 12 & 0x3ff) * 4, 4)?;
        return Ok(rights.with(pte, false).at(pte & 0xffff_f000 | gva & 0xfff));
    }
    let nx = c.efer & cr::EFER_NXE != 0;
    let (mut table, top) = if c.efer & cr::EFER_LMA != 0 {
        (c.cr3 & ADDRESS, 4)
    } else {
        let pdpte = c.pdptes.get((gva >> 30 & 3) as usize).copied().unwrap_or(0);
        if pdpte & PRESENT == 0 {
            return Err(HV_TRANSLATE_GVA_PAGE_NOT_PRESENT);
        }
        (pdpte & ADDRESS, 2)
    };
    let mut rights = all;
    for level in (1..=top).rev() {
        let shift = 12 + 9 * (level - 1);
        let e = entry(table + (gva >> shift & 0x1ff) * 8, 8)?;
        rights = rights.with(e, nx);
        if level == 1 || level <= 3 && e & LARGE != 0 {
            let mask = (1u64 << shift) - 1;
            return Ok(rights.at(e & ADDRESS & !mask | gva & mask));
        }
        table = e & ADDRESS;
    }
    Err(HV_TRANSLATE_GVA_INVALID_PAGE_TABLE_FLAGS)
}

/// HvCallTranslateVirtualAddress: `flags` are `HV_TRANSLATE_GVA_*` of its input.
///
/// Accessed and dirty flags are not set, whatever SET_PAGE_TABLE_BITS says: that would race with
/// the guest's own updates of its page tables.
pub(super) fn translate(
    partition: &Partition,
    c: &Capture,
    gva: u64,
    flags: u64,
) -> Result<u64, NoTranslation> {
    let found = walk(partition, c, gva)?;
    let has = |flag: u64| flags & flag != 0;
    if c.cr0 & cr::CR0_PG == 0 || has(HV_TRANSLATE_GVA_PRIVILEGE_EXEMPT) {
        return Ok(found.gpa);
    }
    let user_access = match (
        has(HV_TRANSLATE_GVA_USER_ACCESS),
        has(HV_TRANSLATE_GVA_SUPERVISOR_ACCESS),
    ) {
        (true, _) => true,
        (false, true) => false,
        (false, false) => c.cpl() == 3,
    };
    let execute = has(HV_TRANSLATE_GVA_VALIDATE_EXECUTE);
    let write = has(HV_TRANSLATE_GVA_VALIDATE_WRITE);
    let data = write || has(HV_TRANSLATE_GVA_VALIDATE_READ);
    let smap = c.cr4 & cr::CR4_SMAP != 0
        && !has(HV_TRANSLATE_GVA_OVERRIDE_SMAP)
        && (has(HV_TRANSLATE_GVA_ENFORCE_SMAP) || c.rflags & cr::RFLAGS_AC == 0);
    let denied = if user_access {
        !found.user || write && !found.writable || execute && !found.executable
    } else {
        write && !found.writable && c.cr0 & cr::CR0_WP != 0
            || execute && (!found.executable || found.user && c.cr4 & cr::CR4_SMEP != 0)
            || data && found.user && smap
    };
    if denied {
        return Err(HV_TRANSLATE_GVA_PRIVILEGE_VIOLATION);
    }
    Ok(found.gpa)
}
