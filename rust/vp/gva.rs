// SPDX-License-Identifier: GPL-2.0

//! The guest's page tables: for instruction bytes, and for HvCallTranslateVirtualAddress. They are read where they are by a VP
//! that is in guest mode, and between windows as the VMM's memory.

use super::message::Capture;
use super::registers::{guest_cr0, guest_cr4, segment};
use crate::partition::space::Space;
use crate::partition::Partition;
use crate::vmx::vmcs::CurrentVmcs;
use ::core::cell::Cell;
use hvdef::*;
use vmxdef::field::*;
use x86def::cr;
use x86def::segment::Segment;

pub(super) mod translate;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What decides where linear addresses lead, and where the next instruction is.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) rip: u64,
    pub(super) rflags: u64,
    pub(super) cr0: u64,
    pub(super) cr3: u64,
    pub(super) cr4: u64,
    pub(super) efer: u64,
    pdptes: [u64; 4],
    pub(super) cs: HvX64SegmentRegister,
}

impl Context {
    /// Reads it.
    #[inline(always)] // In place, not copied.
    pub(super) fn new(vmcs: &CurrentVmcs<'_>) -> Self {
        let cr4 = guest_cr4(vmcs);
        let efer = vmcs.read(GUEST_IA32_EFER);
        let pae_paging = cr4 & cr::CR4_PAE != 0 && efer & cr::EFER_LMA == 0;
        Self {
            rip: vmcs.read(GUEST_RIP),
            rflags: vmcs.read(GUEST_RFLAGS),
            cr0: guest_cr0(vmcs),
            cr3: vmcs.read(GUEST_CR3),
            cr4,
            efer,
            pdptes: if pae_paging {
                [GUEST_PDPTR0, GUEST_PDPTR1, GUEST_PDPTR2, GUEST_PDPTR3].map(|f| vmcs.read(f))
            } else {
                [0; 4]
            },
            cs: segment(vmcs, Segment::Cs),
        }
    }

    /// Whether it is in 64-bit mode.
    pub(super) fn is_64_bit(&self) -> bool {
        self.efer & cr::EFER_LMA != 0 && self.cs.attributes & 1 << 13 != 0
    }
}

/// Bytes of an instruction, as many as could be read.
#[derive(Clone, Copy)]
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

    /// Those that could be read.
    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or(&[])
    }
}

/// An instruction that was fetched in the window.
pub(super) struct Code {
    pub(super) context: Context,
    pub(super) bytes: Bytes,
    /// Where there is nothing to read now, though there may be memory: behind the bytes, or a paging structure.
    pub(super) missing: Option<u64>,
}

impl Code {
    /// Only by a VP that announced guest mode, as [`Space::readable_page`].
    pub(super) fn fetch(space: &Space, context: Context) -> Self {
        let memory = InWindow {
            space,
            missing: Cell::new(None),
        };
        let bytes = bytes_at(&memory, &context);
        let missing = memory.missing.get();
        Self {
            context,
            bytes,
            missing,
        }
    }
}

/// Memory in which page tables and code are.
trait GuestMemory {
    /// The 64-bit word at `gpa`, which is a multiple of 8.
    fn word(&self, gpa: u64) -> Option<u64>;
}

/// As the VMM has it.
impl GuestMemory for Partition {
    fn word(&self, gpa: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read(gpa, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }
}

/// As the guest has it.
struct InWindow<'a> {
    space: &'a Space,
    missing: Cell<Option<u64>>,
}

impl GuestMemory for InWindow<'_> {
    #[inline]
    fn word(&self, gpa: u64) -> Option<u64> {
        let page = self.space.readable_page(gpa);
        let word = page.and_then(|page| self.space.read_word(page | gpa & 0xfff));
        if word.is_none() {
            self.missing.set(Some(gpa));
        }
        word
    }
}

/// The bytes at CS:RIP, between windows.
pub(super) fn fetch(partition: &Partition, capture: &Capture) -> Bytes {
    match capture.code {
        Some(bytes) => bytes,
        None => bytes_at(partition, &capture.context),
    }
}

/// The bytes at CS:RIP, up to 15 of them and up to where memory ends.
fn bytes_at(memory: &impl GuestMemory, context: &Context) -> Bytes {
    const MOST: u32 = 15;
    let start = if context.is_64_bit() {
        context.rip
    } else {
        u64::from(context.cs.base.wrapping_add(context.rip) as u32)
    };
    let (mut code, mut len) = (0u128, 0);
    let mut page = None;
    while len < MOST {
        let gva = start.wrapping_add(len.into());
        if gva & 0xfff == 0 {
            page = None;
        }
        let found = || walk(memory, context, gva & !0xfff, |_| Ok(())).ok();
        let Some(gpa) = page.or_else(|| found().map(|w| w.gpa)) else {
            break;
        };
        page = Some(gpa);
        let Some(word) = memory.word(gpa | gva & 0xff8) else {
            break;
        };
        let skip = (gva & 7) as u32;
        code |= u128::from(word >> (8 * skip)) << (8 * len);
        len += 8 - skip;
    }
    let len = len.min(MOST);
    code &= (1 << (8 * len)) - 1;
    Bytes {
        bytes: code.to_le_bytes(),
        len: len as u8,
    }
}

/// An entry of a page table, of 4 or 8 bytes.
#[inline]
fn read_entry(memory: &impl GuestMemory, gpa: u64, size: usize) -> Option<u64> {
    let word = memory.word(gpa & !7)?;
    Some(match size {
        4 => u64::from((word >> (8 * (gpa & 4))) as u32),
        _ => word,
    })
}

/// An entry of the guest's page tables, for `1 << shift` bytes.
#[derive(Clone, Copy)]
struct Entry {
    gpa: u64,
    value: u64,
    shift: u32,
}

impl Entry {
    /// It is for a page, though not of 4 KiB.
    fn is_large(&self) -> bool {
        self.shift > 12 && self.value & LARGE != 0
    }
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

/// Why there is none.
pub(crate) struct NoTranslation {
    /// `HV_TRANSLATE_GVA_*`.
    pub(crate) code: u32,
    /// Where the guest's memory could not be accessed; else 0.
    pub(crate) gpa: u64,
}

impl NoTranslation {
    const fn of(code: u32) -> Self {
        Self { code, gpa: 0 }
    }
}

/// Walks the guest's page tables (SDM 4.3 to 4.5); access rights are for the caller to judge, and reserved bits for `seen`.
fn walk(
    memory: &impl GuestMemory,
    c: &Context,
    gva: u64,
    mut seen: impl FnMut(Entry) -> Result<(), NoTranslation>,
) -> Result<Translation, NoTranslation> {
    let all = Translation {
        gpa: gva,
        writable: true,
        user: true,
        executable: true,
    };
    if c.cr0 & cr::CR0_PG == 0 {
        return Ok(all);
    }
    let mut entry = |gpa, size, shift| {
        let value = read_entry(memory, gpa, size).ok_or(NoTranslation {
            code: HV_TRANSLATE_GVA_GPA_UNMAPPED,
            gpa,
        })?;
        if value & PRESENT == 0 {
            return Err(NoTranslation::of(HV_TRANSLATE_GVA_PAGE_NOT_PRESENT));
        }
        seen(Entry { gpa, value, shift })?;
        Ok(value)
    };
    if c.cr4 & cr::CR4_PAE == 0 {
        let pde = entry((c.cr3 & 0xffff_f000) + (gva >> 22 & 0x3ff) * 4, 4, 22)?;
        let rights = all.with(pde, false);
        if pde & LARGE != 0 && c.cr4 & cr::CR4_PSE != 0 {
            // PSE-36: bits 20:13 are address bits 39:32.
            let high = (pde >> 13 & 0xff) << 32;
            return Ok(rights.at(high | pde & 0xffc0_0000 | gva & 0x3f_ffff));
        }
        let pte = entry((pde & 0xffff_f000) + (gva >> 12 & 0x3ff) * 4, 4, 12)?;
        return Ok(rights.with(pte, false).at(pte & 0xffff_f000 | gva & 0xfff));
    }
    let nx = c.efer & cr::EFER_NXE != 0;
    let (mut table, top) = if c.efer & cr::EFER_LMA != 0 {
        (c.cr3 & ADDRESS, 39)
    } else {
        let pdpte = c.pdptes.get((gva >> 30 & 3) as usize).copied().unwrap_or(0);
        if pdpte & PRESENT == 0 {
            return Err(NoTranslation::of(HV_TRANSLATE_GVA_PAGE_NOT_PRESENT));
        }
        (pdpte & ADDRESS, 21)
    };
    let (mut rights, mut shift) = (all, top);
    while shift >= 12 {
        let e = entry(table | (gva >> shift & 0x1ff) << 3, 8, shift)?;
        rights = rights.with(e, nx);
        if shift == 12 || shift < 39 && e & LARGE != 0 {
            let mask = (1u64 << shift) - 1;
            return Ok(rights.at(e & ADDRESS & !mask | gva & mask));
        }
        table = e & ADDRESS;
        shift -= 9;
    }
    Err(NoTranslation::of(HV_TRANSLATE_GVA_INVALID_PAGE_TABLE_FLAGS))
}
