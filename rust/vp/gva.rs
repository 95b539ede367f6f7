// SPDX-License-Identifier: GPL-2.0

//! The guest's page tables, read as the VMM's memory: for instruction bytes.

use super::message::Capture;
use crate::partition::Partition;
use crate::sys::user;
use x86def::cr;

const PRESENT: u64 = 1;
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
        let read =
            translate(partition, capture, gva).and_then(|gpa| read_guest(partition, gpa, to));
        if read.is_none() {
            break;
        }
        out.len += want as u8;
    }
    out
}

/// Reads guest memory below overlays; None where there is none.
fn read_guest(partition: &Partition, gpa: u64, to: &mut [u8]) -> Option<()> {
    let (addr, len) = partition.memory.user_address(gpa)?;
    if len < to.len() {
        return None;
    }
    user::read_bytes(addr, to).ok()
}

fn read_entry(partition: &Partition, gpa: u64, size: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    read_guest(partition, gpa, bytes.get_mut(..size)?)?;
    Some(u64::from_le_bytes(bytes))
}

/// The guest-physical address of `gva` (SDM 4.3 to 4.5), without access rights: the CPU has just
/// fetched from there.
fn translate(partition: &Partition, c: &Capture, gva: u64) -> Option<u64> {
    if c.cr0 & cr::CR0_PG == 0 {
        return Some(gva);
    }
    if c.cr4 & cr::CR4_PAE == 0 {
        let pde = read_entry(
            partition,
            (c.cr3 & 0xffff_f000) + (gva >> 22 & 0x3ff) * 4,
            4,
        )?;
        if pde & PRESENT == 0 {
            return None;
        }
        if pde & LARGE != 0 && c.cr4 & cr::CR4_PSE != 0 {
            // PSE-36: bits 20:13 are address bits 39:32.
            let high = (pde >> 13 & 0xff) << 32;
            return Some(high | pde & 0xffc0_0000 | gva & 0x3f_ffff);
        }
        let pte = read_entry(partition, (pde & 0xffff_f000) + (gva >> 12 & 0x3ff) * 4, 4)?;
        return (pte & PRESENT != 0).then_some(pte & 0xffff_f000 | gva & 0xfff);
    }
    let (mut table, top) = if c.efer & cr::EFER_LMA != 0 {
        (c.cr3 & ADDRESS, 4)
    } else {
        let pdpte = *c.pdptes.get((gva >> 30 & 3) as usize)?;
        if pdpte & PRESENT == 0 {
            return None;
        }
        (pdpte & ADDRESS, 2)
    };
    for level in (1..=top).rev() {
        let shift = 12 + 9 * (level - 1);
        let entry = read_entry(partition, table + (gva >> shift & 0x1ff) * 8, 8)?;
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 1 || level <= 3 && entry & LARGE != 0 {
            let mask = (1u64 << shift) - 1;
            return Some(entry & ADDRESS & !mask | gva & mask);
        }
        table = entry & ADDRESS;
    }
    None
}
