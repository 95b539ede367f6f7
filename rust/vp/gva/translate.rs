// SPDX-License-Identifier: GPL-2.0

//! HvCallTranslateVirtualAddress: where a linear address leads for the guest, judged and marked as the CPU would.

use super::*;
use crate::partition::memory::{Access, Resolved};
use crate::sys::window::handle_work;
use cpumodel::Feature;

const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;

/// The entries that led to a page.
struct Path {
    entries: [Entry; 4],
    used: usize,
}

impl Default for Path {
    fn default() -> Self {
        let none = Entry {
            gpa: 0,
            value: 0,
            shift: 0,
        };
        Self {
            entries: [none; 4],
            used: 0,
        }
    }
}

impl Path {
    fn push(&mut self, entry: Entry) {
        if let Some(place) = self.entries.get_mut(self.used) {
            *place = entry;
            self.used += 1;
        }
    }
}

/// What entries may be like.
struct Limits {
    /// Of 8 bytes, else of 4.
    wide: bool,
    /// Bits that none of 8 bytes may have.
    never: u64,
    /// Width of physical addresses.
    width: u8,
    /// There are pages of 4 MiB, where entries have 4 bytes.
    large: bool,
    /// There are pages of 1 GiB.
    gigabyte: bool,
}

impl Limits {
    fn new(partition: &Partition, c: &Context) -> Self {
        let (width, gigabyte) = partition.config().map_or((52, true), |config| {
            let cpu = &config.cpu;
            (cpu.physical_address_bits(), cpu.has(Feature::Page1Gb))
        });
        // Above the CPU's addresses; bits that software may use in IA-32e paging only; execution that cannot be disabled.
        let mut never = ADDRESS >> width << width;
        if c.efer & cr::EFER_LMA == 0 {
            never |= 0x7ff << 52;
        }
        if c.efer & cr::EFER_NXE == 0 {
            never |= NO_EXECUTE;
        }
        Self {
            wide: c.cr4 & cr::CR4_PAE != 0,
            never,
            width,
            large: c.cr4 & cr::CR4_PSE != 0,
            gigabyte,
        }
    }

    /// Reserved bits (SDM tables 4-4 to 4-20).
    fn judge(&self, entry: &Entry) -> Result<(), NoTranslation> {
        let value = entry.value;
        let reserved = if !self.wide {
            // PSE-36: bits 20:13 are address bits 39:32.
            let high = (value >> 13 & 0xff) << 32;
            entry.is_large() && self.large && (value & 1 << 21 != 0 || high >> self.width != 0)
        } else if entry.is_large() {
            // Address bits below the page's size, but for the PAT's.
            let below = ADDRESS & ((1 << entry.shift) - 1) & !(1 << 12);
            value & (self.never | below) != 0
                || entry.shift == 39
                || entry.shift == 30 && !self.gigabyte
        } else {
            value & self.never != 0
        };
        match reserved {
            false => Ok(()),
            true => Err(NoTranslation::of(HV_TRANSLATE_GVA_INVALID_PAGE_TABLE_FLAGS)),
        }
    }
}

/// Whether there can be an entry for `gva`.
fn is_in_range(c: &Context, gva: u64) -> bool {
    if c.efer & cr::EFER_LMA != 0 {
        (gva << 16) as i64 >> 16 == gva as i64
    } else {
        gva >> 32 == 0
    }
}

/// HvCallTranslateVirtualAddress: `flags` are `HV_TRANSLATE_GVA_*` of its input. What is at the address is not judged, because
/// VMMs translate addresses of their devices, too.
///
/// # Errors
///
/// EINTR; as for [`Memory::resolve`](crate::partition::memory::Memory::resolve).
pub(in crate::vp) fn translate(
    partition: &Partition,
    c: &Capture,
    gva: u64,
    flags: u64,
) -> kernel::error::Result<Result<u64, NoTranslation>> {
    let write = flags & HV_TRANSLATE_GVA_VALIDATE_WRITE != 0;
    let context = &c.context;
    let limits = Limits::new(partition, context);
    if !is_in_range(context, gva) {
        return Ok(Err(NoTranslation::of(HV_TRANSLATE_GVA_PAGE_NOT_PRESENT)));
    }
    loop {
        let mut path = Path::default();
        let walked = walk(partition, context, gva, |entry| {
            path.push(entry);
            limits.judge(&entry)
        });
        let found = match walked {
            Ok(found) if is_allowed(&found, c, flags) => found,
            Ok(_) => return Ok(Err(NoTranslation::of(HV_TRANSLATE_GVA_PRIVILEGE_VIOLATION))),
            Err(e) => return Ok(Err(e)),
        };
        if flags & HV_TRANSLATE_GVA_SET_PAGE_TABLE_BITS == 0 {
            return Ok(Ok(found.gpa));
        }
        match mark(partition, &path, limits.wide, write)? {
            Err(e) => return Ok(Err(e)),
            Ok(true) => return Ok(Ok(found.gpa)),
            // The guest has changed its page tables meanwhile.
            Ok(false) => handle_work()?,
        }
    }
}

/// Whether the page tables allow the access (SDM 4.6).
fn is_allowed(found: &Translation, capture: &Capture, flags: u64) -> bool {
    let c = &capture.context;
    let has = |flag: u64| flags & flag != 0;
    if c.cr0 & cr::CR0_PG == 0 {
        return true;
    }
    let exempt = has(HV_TRANSLATE_GVA_PRIVILEGE_EXEMPT);
    let by_user = has(HV_TRANSLATE_GVA_USER_ACCESS)
        || !has(HV_TRANSLATE_GVA_SUPERVISOR_ACCESS) && capture.cpl() == 3;
    let execute = has(HV_TRANSLATE_GVA_VALIDATE_EXECUTE);
    let write = has(HV_TRANSLATE_GVA_VALIDATE_WRITE);
    let data = write || has(HV_TRANSLATE_GVA_VALIDATE_READ);
    if execute && !found.executable {
        return false;
    }
    if by_user && !exempt {
        return found.user && (!write || found.writable);
    }
    let smap = c.cr4 & cr::CR4_SMAP != 0
        && !has(HV_TRANSLATE_GVA_OVERRIDE_SMAP)
        && (has(HV_TRANSLATE_GVA_ENFORCE_SMAP) || c.rflags & cr::RFLAGS_AC == 0);
    let of_user = found.user && !exempt;
    !(write && !found.writable && c.cr0 & cr::CR0_WP != 0
        || of_user && execute && c.cr4 & cr::CR4_SMEP != 0
        || of_user && data && smap)
}

/// Sets the accessed flags of the entries, and the dirty flag of the last if the access writes, as the CPU would (SDM 4.8).
/// False: an entry is not what it was.
fn mark(
    partition: &Partition,
    path: &Path,
    wide: bool,
    write: bool,
) -> kernel::error::Result<Result<bool, NoTranslation>> {
    for (n, entry) in path.entries.iter().take(path.used).enumerate() {
        let leaf = n + 1 == path.used;
        let wanted = entry.value | ACCESSED | if leaf && write { DIRTY } else { 0 };
        if wanted == entry.value {
            continue;
        }
        let gpa = entry.gpa;
        loop {
            let memory = &partition.memory;
            match memory.exchange(gpa, wide, entry.value, wanted) {
                Some(true) => break,
                Some(false) => return Ok(Ok(false)),
                None => {}
            }
            let code = if memory.space.has_overlay(gpa >> 12, 1) {
                HV_TRANSLATE_GVA_GPA_ILLEGAL_OVERLAY_ACCESS
            } else {
                match memory.resolve(gpa, Access::Write, &mut (0..0))? {
                    Resolved::Mapped => {
                        handle_work()?;
                        continue;
                    }
                    Resolved::Unmapped => HV_TRANSLATE_GVA_GPA_UNMAPPED,
                    Resolved::Denied => HV_TRANSLATE_GVA_GPA_NO_WRITE_ACCESS,
                }
            };
            return Ok(Err(NoTranslation { code, gpa }));
        }
    }
    Ok(Ok(true))
}
