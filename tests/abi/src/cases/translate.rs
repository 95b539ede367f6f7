// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HvCallTranslateVirtualAddress: result codes by page tables and flags, and what it writes to the page tables.

#![allow(clippy::precedence)] // Bits.

use crate::run::{case, equal, Case, Outcome, Stop};
use crate::sys::{Errno, Memory};
use crate::vm::names::*;
use crate::vm::*;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const EXEMPT: u64 = 1 << 3;
const SET_BITS: u64 = 1 << 4;
const SUPERVISOR: u64 = 1 << 6;
const USER: u64 = 1 << 7;
const ENFORCE_SMAP: u64 = 1 << 8;
const OVERRIDE_SMAP: u64 = 1 << 9;

const SUCCESS: u32 = 0;
const NOT_PRESENT: u32 = 1;
const PRIVILEGE: u32 = 2;
const BAD_ENTRY: u32 = 3;
const UNMAPPED: u32 = 4;
const NO_WRITE: u32 = 6;
const OVERLAY_ACCESS: u32 = 7;

/// Write-back memory, and an overlay.
const WRITE_BACK: u32 = 6;
const OVERLAY: u32 = 1 << 8;

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NX: u64 = 1 << 63;

const CR0: u64 = 0x8005_0033;
const WP: u64 = 1 << 16;
const PAE: u64 = 1 << 5;
const PSE: u64 = 1 << 4;
const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;
const LONG: u64 = 0x501;
const NXE: u64 = 1 << 11;
const AC: u64 = 1 << 18;

/// Where the tables are, and the page that GVA leads to.
const TABLES: u64 = 0x1_0000;
const GVA: u64 = 0x20_3000;
const PAGE: u64 = 0x7_7000;
/// Memory that the guest cannot write.
const FIXED: u64 = 0x1000_0000;
const HYPERCALL_PAGE: u64 = 0x8_8000;

/// A VP's state. In IA-32e paging there are four entries on the way to GVA, in 32-bit paging two.
struct State {
    cr0: u64,
    cr4: u64,
    efer: u64,
    rflags: u64,
    cpl: u64,
    entries: [u64; 4],
    gva: u64,
    flags: u64,
}

impl State {
    fn long() -> Self {
        Self {
            cr0: CR0,
            cr4: PAE,
            efer: LONG | NXE,
            rflags: 2,
            cpl: 0,
            entries: [
                (TABLES + 0x1000) | P | W | U,
                (TABLES + 0x2000) | P | W | U,
                (TABLES + 0x3000) | P | W | U,
                PAGE | P | W | U,
            ],
            gva: GVA,
            flags: READ,
        }
    }

    fn legacy(&mut self) {
        self.cr4 = PSE;
        self.efer = 0;
        self.entries = [(TABLES + 0x1000) | P | W | U, PAGE | P | W | U, 0, 0];
    }

    /// Size of an entry, and where each is.
    fn places(&self) -> (usize, Vec<u64>) {
        let index = |shift: u64, bits: u64| GVA >> shift & ((1 << bits) - 1);
        if self.cr4 & PAE == 0 {
            let places = [index(22, 10), index(12, 10)];
            let at = |(n, index): (u64, u64)| TABLES + 0x1000 * n + 4 * index;
            return (4, (0..).zip(places).map(at).collect());
        }
        let places = [39, 30, 21, 12].map(|shift| index(shift, 9));
        let at = |(n, index): (u64, u64)| TABLES + 0x1000 * n + 8 * index;
        (8, (0..).zip(places).map(at).collect())
    }
}

/// A name, how a state differs from one in which supervisor and user may do all, and result code, page, and what is set in
/// each entry.
type Row = (&'static str, fn(&mut State), (u32, u64, [u64; 4]));

const NONE: [u64; 4] = [0; 4];
const FOUND: (u32, u64, [u64; 4]) = (SUCCESS, PAGE >> 12, NONE);
const fn fails(code: u32) -> (u32, u64, [u64; 4]) {
    (code, 0, NONE)
}

const ROWS: &[Row] = &[
    ("read", |_| {}, FOUND),
    (
        "read, write, execute",
        |s| s.flags = READ | WRITE | EXECUTE,
        FOUND,
    ),
    ("VTL 0 by name", |s| s.flags |= 0x10 << 56, FOUND),
    (
        "without paging",
        |s| s.cr0 &= !(1 << 31),
        (SUCCESS, GVA >> 12, NONE),
    ),
    (
        "without paging, above 4 GiB",
        |s| {
            s.cr0 &= !(1 << 31);
            s.efer = 0;
            s.gva = 1 << 32
        },
        fails(NOT_PRESENT),
    ),
    ("not canonical", |s| s.gva |= 1 << 48, fails(NOT_PRESENT)),
    (
        "another entry, all zero",
        |s| s.gva += 0x1000,
        fails(NOT_PRESENT),
    ),
    (
        "not present: PML4E",
        |s| s.entries[0] &= !P,
        fails(NOT_PRESENT),
    ),
    (
        "not present: PDPTE",
        |s| s.entries[1] &= !P,
        fails(NOT_PRESENT),
    ),
    (
        "not present: PDE",
        |s| s.entries[2] &= !P,
        fails(NOT_PRESENT),
    ),
    (
        "not present: PTE",
        |s| s.entries[3] &= !P,
        fails(NOT_PRESENT),
    ),
    (
        "reserved: address bit 51",
        |s| s.entries[3] |= 1 << 51,
        fails(BAD_ENTRY),
    ),
    (
        "reserved: address bit 51 of a PDE",
        |s| s.entries[2] |= 1 << 51,
        fails(BAD_ENTRY),
    ),
    (
        "ignored: bits 52 to 58",
        |s| s.entries[3] |= 0x7f << 52,
        FOUND,
    ),
    (
        "reserved: NX without EFER.NXE",
        |s| {
            s.efer = LONG;
            s.entries[3] |= NX
        },
        fails(BAD_ENTRY),
    ),
    (
        "reserved: PS of a PML4E",
        |s| s.entries[0] |= LARGE,
        fails(BAD_ENTRY),
    ),
    (
        "large page",
        |s| s.entries[2] = 0x60_0000 | P | W | U | LARGE,
        (SUCCESS, 0x603, NONE),
    ),
    (
        "large page, PAT",
        |s| s.entries[2] = 0x60_1000 | P | W | U | LARGE,
        (SUCCESS, 0x603, NONE),
    ),
    (
        "reserved: address bit 13 of a large page",
        |s| s.entries[2] = 0x60_2000 | P | W | U | LARGE,
        fails(BAD_ENTRY),
    ),
    (
        "page of 1 GiB",
        |s| s.entries[1] = 0x4000_0000 | P | W | U | LARGE,
        (SUCCESS, 0x4_0203, NONE),
    ),
    (
        "a table where no memory is",
        |s| s.entries[1] = 1 << 35 | P | W | U,
        (UNMAPPED, 1 << 23, NONE),
    ),
    (
        "a page where no memory is",
        |s| s.entries[3] = 1 << 35 | P | W | U,
        (SUCCESS, 1 << 23, NONE),
    ),
    (
        "write to what is read-only",
        |s| {
            s.entries[3] &= !W;
            s.flags = WRITE
        },
        fails(PRIVILEGE),
    ),
    (
        "write to what is read-only by its PDPTE",
        |s| {
            s.entries[1] &= !W;
            s.flags = WRITE
        },
        fails(PRIVILEGE),
    ),
    (
        "write to what is read-only, CR0.WP clear",
        |s| {
            s.entries[3] &= !W;
            s.cr0 &= !WP;
            s.flags = WRITE
        },
        FOUND,
    ),
    (
        "user's write to what is read-only, CR0.WP clear",
        |s| {
            s.entries[3] &= !W;
            s.cr0 &= !WP;
            s.flags = WRITE | USER
        },
        fails(PRIVILEGE),
    ),
    (
        "execution of what is NX",
        |s| {
            s.entries[3] |= NX;
            s.flags = EXECUTE
        },
        fails(PRIVILEGE),
    ),
    (
        "execution of what is NX by its PML4E",
        |s| {
            s.entries[0] |= NX;
            s.flags = EXECUTE
        },
        fails(PRIVILEGE),
    ),
    (
        "user's read of the supervisor's",
        |s| {
            s.entries[2] &= !U;
            s.flags |= USER
        },
        fails(PRIVILEGE),
    ),
    (
        "the same by CPL 3",
        |s| {
            s.entries[2] &= !U;
            s.cpl = 3
        },
        fails(PRIVILEGE),
    ),
    (
        "the same by CPL 3, as the supervisor",
        |s| {
            s.entries[2] &= !U;
            s.cpl = 3;
            s.flags |= SUPERVISOR
        },
        FOUND,
    ),
    (
        "the same by CPL 3, exempt",
        |s| {
            s.entries[2] &= !U;
            s.cpl = 3;
            s.flags |= EXEMPT
        },
        FOUND,
    ),
    (
        "exempt, but NX",
        |s| {
            s.entries[3] |= NX;
            s.flags = EXECUTE | EXEMPT
        },
        fails(PRIVILEGE),
    ),
    (
        "SMEP: execution of the user's",
        |s| {
            s.cr4 |= SMEP;
            s.flags = EXECUTE
        },
        fails(PRIVILEGE),
    ),
    (
        "SMEP: exempt",
        |s| {
            s.cr4 |= SMEP;
            s.flags = EXECUTE | EXEMPT
        },
        FOUND,
    ),
    (
        "SMAP: read of the user's",
        |s| s.cr4 |= SMAP,
        fails(PRIVILEGE),
    ),
    (
        "SMAP: execution of the user's",
        |s| {
            s.cr4 |= SMAP;
            s.flags = EXECUTE
        },
        FOUND,
    ),
    (
        "SMAP: RFLAGS.AC",
        |s| {
            s.cr4 |= SMAP;
            s.rflags |= AC
        },
        FOUND,
    ),
    (
        "SMAP: RFLAGS.AC, enforced",
        |s| {
            s.cr4 |= SMAP;
            s.rflags |= AC;
            s.flags |= ENFORCE_SMAP
        },
        fails(PRIVILEGE),
    ),
    (
        "SMAP: overridden",
        |s| {
            s.cr4 |= SMAP;
            s.flags |= OVERRIDE_SMAP
        },
        FOUND,
    ),
    (
        "SMAP: enforced without CR4.SMAP",
        |s| s.flags |= ENFORCE_SMAP,
        FOUND,
    ),
    (
        "flags set: a read",
        |s| s.flags |= SET_BITS,
        (SUCCESS, PAGE >> 12, [A, A, A, A]),
    ),
    (
        "flags set: a write",
        |s| s.flags = WRITE | SET_BITS,
        (SUCCESS, PAGE >> 12, [A, A, A, A | D]),
    ),
    (
        "flags set: execution",
        |s| s.flags = EXECUTE | SET_BITS,
        (SUCCESS, PAGE >> 12, [A, A, A, A]),
    ),
    (
        "flags set: those that were",
        |s| {
            s.entries[0] |= A;
            s.entries[3] |= A | D;
            s.flags = WRITE | SET_BITS
        },
        (SUCCESS, PAGE >> 12, [A, A, A, A | D]),
    ),
    (
        "flags set: a write to a large page",
        |s| {
            s.entries[2] = 0x60_0000 | P | W | U | LARGE;
            s.flags = WRITE | SET_BITS
        },
        (SUCCESS, 0x603, [A, A, A | D, 0]),
    ),
    (
        "flags set: not where it is denied",
        |s| {
            s.entries[3] &= !W;
            s.flags = WRITE | SET_BITS
        },
        fails(PRIVILEGE),
    ),
    (
        "flags set: not where a page is not present",
        |s| {
            s.entries[3] &= !P;
            s.flags |= SET_BITS
        },
        fails(NOT_PRESENT),
    ),
    (
        "flags set: a table that the guest cannot write",
        |s| {
            s.entries[1] = FIXED | P | W | U;
            s.flags |= SET_BITS
        },
        (NO_WRITE, FIXED >> 12, [A, A, 0, 0]),
    ),
    (
        "flags not set: the same",
        |s| s.entries[1] = FIXED | P | W | U,
        (SUCCESS, PAGE >> 12, NONE),
    ),
    ("32-bit: read", |s| s.legacy(), FOUND),
    (
        "32-bit: above 4 GiB",
        |s| {
            s.legacy();
            s.gva = 1 << 32
        },
        fails(NOT_PRESENT),
    ),
    (
        "32-bit: not present",
        |s| {
            s.legacy();
            s.entries[1] &= !P
        },
        fails(NOT_PRESENT),
    ),
    (
        "32-bit: page of 4 MiB",
        |s| {
            s.legacy();
            s.entries[0] = 0x40_0000 | P | W | U | LARGE
        },
        (SUCCESS, 0x603, NONE),
    ),
    (
        "32-bit: page of 4 MiB above 4 GiB",
        |s| {
            s.legacy();
            s.entries[0] = 0x40_2000 | P | W | U | LARGE
        },
        (SUCCESS, 0x10_0603, NONE),
    ),
    (
        "32-bit: reserved bit 21",
        |s| {
            s.legacy();
            s.entries[0] = 0x60_0000 | P | W | U | LARGE
        },
        fails(BAD_ENTRY),
    ),
    (
        "32-bit: flags set by a write",
        |s| {
            s.legacy();
            s.flags = WRITE | SET_BITS
        },
        (SUCCESS, PAGE >> 12, [A, A | D, 0, 0]),
    ),
];

/// A partition with a VP in this state, and its memory; behind it, tables that it cannot write.
fn prepare(state: &State) -> Result<(Partition, Vp, Memory, Memory), Stop> {
    let partition = Partition::ready();
    let (memory, fixed) = (Memory::new(RAM), Memory::new(0x1000));
    partition.map(0, &memory, RWX);
    partition.map(FIXED, &fixed, EXECUTABLE);
    let vp = partition.vp(0);
    let (size, places) = state.places();
    for (at, entry) in places.iter().zip(state.entries) {
        memory.write(*at as usize, &entry.to_le_bytes()[..size]);
    }
    // A page directory that is the same as the third table.
    fixed.write(
        (places[places.len() - 2] & 0xfff) as usize,
        &state.entries[2].to_le_bytes(),
    );
    let dpl = state.cpl << 5;
    vp.set(&[
        (HV_X64_REGISTER_CR3, (TABLES, 0)),
        (HV_X64_REGISTER_CR4, (state.cr4, 0)),
        (HV_X64_REGISTER_EFER, (state.efer, 0)),
        (HV_X64_REGISTER_CR0, (state.cr0, 0)),
        (HV_X64_REGISTER_RFLAGS, (state.rflags, 0)),
        (
            HV_X64_REGISTER_CS,
            segment(8, 0, u32::MAX, 0xa09b | dpl as u16),
        ),
        (
            HV_X64_REGISTER_SS,
            segment(16, 0, u32::MAX, 0xc093 | dpl as u16),
        ),
    ])
    .map_err(|e| Stop::Fail(format!("registers: {e:?}")))?;
    Ok((partition, vp, memory, fixed))
}

/// Result code, attributes, page.
fn translate(vp: &Vp, gva: u64, flags: u64) -> Result<(u32, u32, u64), HvcallError> {
    let call = Hvcall::new(0x52, &[0, u64::from(vp.index), flags, gva >> 12], 16);
    let output = call.make(vp)?;
    let word = |at: usize| u32::from_le_bytes(output[at..at + 4].try_into().expect("4 bytes"));
    let page = u64::from_le_bytes(output[8..].try_into().expect("8 bytes"));
    Ok((word(0), word(4), page))
}

fn try_row(&(_, change, (code, page, set)): &Row) -> Outcome {
    let mut state = State::long();
    change(&mut state);
    let (_partition, vp, memory, fixed) = prepare(&state)?;
    for _ in 0..2 {
        let got = translate(&vp, state.gva, state.flags);
        let attributes = if code == SUCCESS { WRITE_BACK } else { 0 };
        equal("code, attributes, page", got, Ok((code, attributes, page)))?;
        let (size, places) = state.places();
        for (n, (at, entry)) in places.iter().zip(state.entries).enumerate() {
            let mut bytes = [0; 8];
            for (part, out) in bytes[..size].chunks_exact_mut(4).enumerate() {
                out.copy_from_slice(&memory.word(*at as usize + 4 * part).to_le_bytes());
            }
            equal(
                &format!("entry {n}"),
                u64::from_le_bytes(bytes),
                entry | set[n],
            )?;
        }
        equal("read-only table", fixed.word(8), state.entries[2] as u32)?;
    }
    Ok(())
}

/// Flags that are refused.
const REFUSED: &[(&str, u64)] = &[
    ("none", 0),
    ("no access", EXEMPT | SET_BITS | SUPERVISOR),
    ("TLB_FLUSH_INHIBIT", READ | 1 << 5),
    ("supervisor and user", READ | SUPERVISOR | USER),
    ("shadow stack", READ | 1 << 10),
    ("bit 11", READ | 1 << 11),
    ("bit 55", READ | 1 << 55),
    ("VTL 1", READ | 0x11 << 56),
    ("a VTL that does not count", READ | 1 << 56),
];

fn refused() -> Outcome {
    let (_partition, vp, _memory, _fixed) = prepare(&State::long())?;
    let wanted = Err(HvcallError {
        errno: Errno(libc::EINVAL),
        status: 5,
        reps: 0,
    });
    for (what, flags) in REFUSED {
        equal(what, translate(&vp, GVA, *flags), wanted)?;
    }
    let call = Hvcall::new(0x52, &[0, 0, READ, 1 << 52], 16);
    equal("page 2^52", call.make(&vp).map_err(|e| e.status), Err(5))?;
    let call = Hvcall::new(0x52, &[0, 1, READ, 0], 16);
    equal("VP 1", call.make(&vp).map_err(|e| e.status), Err(14))
}

/// An overlay is told of; page tables in one are not written.
fn overlay() -> Outcome {
    let mut state = State::long();
    state.entries[3] = HYPERCALL_PAGE | P | W | U;
    let (_partition, vp, memory, _fixed) = prepare(&state)?;
    for (name, value) in [(0x9_0002, 1), (0x9_0001, HYPERCALL_PAGE | 1)] {
        vp.set_register(name, value)?;
    }
    let found = (SUCCESS, WRITE_BACK | OVERLAY, HYPERCALL_PAGE >> 12);
    equal("the page", translate(&vp, GVA, READ), Ok(found))?;
    let (_, places) = state.places();
    let table = HYPERCALL_PAGE | P | W | U;
    memory.write(places[2] as usize, &table.to_le_bytes());
    memory.write(HYPERCALL_PAGE as usize + 0x18, &(PAGE | P).to_le_bytes());
    let refused = (OVERLAY_ACCESS, 0, HYPERCALL_PAGE >> 12);
    equal("a table", translate(&vp, GVA, READ | SET_BITS), Ok(refused))?;
    equal(
        "below it",
        memory.word(HYPERCALL_PAGE as usize + 0x18),
        (PAGE | P) as u32,
    )
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ROWS
        .iter()
        .map(|row| case(format!("TRANSLATE: {} [H-52]", row.0), || try_row(row)))
        .collect();
    cases.push(case("TRANSLATE: flags that are refused [H-52]", refused));
    cases.push(case("TRANSLATE: overlays [H-52]", overlay));
    cases
}
