// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tracking of accesses: HV_PARTITION_PROPERTY_GPA_PAGE_ACCESS_TRACKING and MSHV_GET_GPAP_ACCESS_BITMAP.

use mshv_bindings::*;

use crate::guests::{self, PLAYGROUND};
use crate::run::{case, ensure, equal, errno, Case, Outcome, Stop};
use crate::sys::{self, sleep_ms, Memory, Sys, NOWHERE, PAGE};
use crate::threads::{interrupted, moves, run_on, started};
use crate::vm::*;

const GET_GPAP_ACCESS_BITMAP: u32 = 0xc020_b806;
const TRACKING: u32 = 0x0005_0005;

pub const ACCESSED: u8 = 0;
pub const DIRTY: u8 = 1;
pub const NOOP: u8 = 0;
pub const CLEAR: u8 = 1;
const SET: u8 = 2;

pub fn track(partition: &Partition, on: u64) -> Outcome {
    Hvcall::set_property(TRACKING, on)
        .make(partition)
        .map(|_| ())
        .map_err(|e| Stop::Fail(format!("tracking := {on}: {e:?}")))
}

fn ask(partition: &Partition, kind: u8, op: u8, base: u64, pages: u64, to: usize) -> Sys<i32> {
    let mut argument = mshv_gpap_access_bitmap {
        access_type: kind,
        access_op: op,
        page_count: pages,
        gpap_base: base,
        bitmap_ptr: to as u64,
        ..Default::default()
    };
    sys::ioctl_on(partition, GET_GPAP_ACCESS_BITMAP, &mut argument)
}

/// Pages of [0, pages) whose bit is set.
pub fn bits(partition: &Partition, kind: u8, op: u8, pages: u64) -> Result<Vec<u64>, Stop> {
    let mut bitmap = vec![0u64; pages.div_ceil(64) as usize];
    ask(partition, kind, op, 0, pages, bitmap.as_mut_ptr() as usize)
        .map_err(|e| Stop::Fail(format!("GET_GPAP_ACCESS_BITMAP: {e:?}")))?;
    Ok((0..pages)
        .filter(|page| bitmap[(page / 64) as usize] & (1 << (page % 64)) != 0)
        .collect())
}

/// A guest that writes two pages and executes a third: exactly those, page by page, also in a large one.
fn written(memory: Memory) -> Outcome {
    let pages = (memory.len() / PAGE) as u64;
    let guest = Guest::with(guests::play(), 1, SUPER_PAGES, memory)?;
    let partition = &guest.partition;
    let (code, counter, playground) = (1, 2, (PLAYGROUND / PAGE) as u64);
    let first = run_on(guest.vp());
    started(&guest.memory)?;
    track(partition, 1)?;
    moves(&guest.memory, PLAYGROUND)?;
    moves(&guest.memory, guests::COUNTER)?;
    for round in 0..5 {
        for op in [NOOP, NOOP, CLEAR] {
            let dirty = bits(partition, DIRTY, op, pages)?;
            equal(
                &format!("round {round}: dirty"),
                dirty,
                vec![counter, playground],
            )?;
            let accessed = bits(partition, ACCESSED, op, pages)?;
            equal("accessed", accessed, vec![code, counter, playground])?;
            moves(&guest.memory, PLAYGROUND)?;
            moves(&guest.memory, guests::COUNTER)?;
        }
        sleep_ms(3);
    }
    interrupted(first.interrupt()?)?;
    bits(partition, DIRTY, CLEAR, pages)?;
    bits(partition, ACCESSED, CLEAR, pages)?;
    equal("cleared", bits(partition, DIRTY, NOOP, pages)?, vec![])?;
    equal("cleared", bits(partition, ACCESSED, NOOP, pages)?, vec![])?;
    // The VMM's own accesses are not the guest's.
    guest.memory.write(0x9000, &[1]);
    equal("VMM's", bits(partition, DIRTY, SET, pages)?, vec![])?;
    equal(
        "set",
        bits(partition, DIRTY, NOOP, pages)?.len() as u64,
        pages,
    )?;
    track(partition, 0)?;
    let again = run_on(guest.vp());
    moves(&guest.memory, PLAYGROUND)?;
    interrupted(again.interrupt()?)
}

/// No write is lost: what the guest wrote after a page was read as clean shows in the next bitmap.
fn nothing_lost() -> Outcome {
    let guest = Guest::with(guests::walk(), 2, SUPER_PAGES, Memory::new(RAM))?;
    let partition = &guest.partition;
    track(partition, 1)?;
    let running: Vec<_> = guest.vps.iter().map(run_on).collect();
    started(&guest.memory)?;
    let mut copy = vec![0u32; RAM / PAGE];
    let pages = copy.len() as u64;
    for _ in 0..100 {
        for page in bits(partition, DIRTY, CLEAR, pages)? {
            copy[page as usize] = guest.memory.word(page as usize * PAGE);
        }
    }
    for vp in running {
        interrupted(vp.interrupt()?)?;
    }
    for page in bits(partition, DIRTY, CLEAR, pages)? {
        copy[page as usize] = guest.memory.word(page as usize * PAGE);
    }
    for (page, copied) in copy.iter().enumerate().skip(16).take(240) {
        equal(
            &format!("page {page}"),
            *copied,
            guest.memory.word(page * PAGE),
        )?;
    }
    Ok(())
}

fn bad() -> Outcome {
    let partition = Partition::ready();
    let memory = Memory::new(16 * PAGE);
    partition.map(0x10 * 4096, &memory, RWX);
    let mut word = 0u64;
    let to = &raw mut word as usize;
    errno("off", ask(&partition, DIRTY, NOOP, 0, 64, to), libc::EIO)?;
    track(&partition, 1)?;
    track(&partition, 1)?;
    for (kind, op, base, pages) in [
        (2, NOOP, 0, 64),
        (DIRTY, 3, 0, 64),
        (DIRTY, NOOP, u64::MAX, 64),
        (DIRTY, NOOP, 0, u64::MAX),
        (DIRTY, NOOP, 0, 0),
        (DIRTY, NOOP, 1 << 36, 1),
    ] {
        errno(
            "argument",
            ask(&partition, kind, op, base, pages, to),
            libc::EINVAL,
        )?;
    }
    errno(
        "nowhere",
        ask(&partition, DIRTY, NOOP, 0, 64, NOWHERE),
        libc::EFAULT,
    )?;
    errno(
        "no bitmap",
        ask(&partition, DIRTY, NOOP, 0, 64, 0),
        libc::EINVAL,
    )?;
    for byte in 0..6 {
        let mut rsvd = [0; 6];
        rsvd[byte] = 1;
        let mut argument = mshv_gpap_access_bitmap {
            rsvd,
            page_count: 1,
            bitmap_ptr: to as u64,
            ..Default::default()
        };
        let result = sys::ioctl_on(&partition, GET_GPAP_ACCESS_BITMAP, &mut argument);
        errno(&format!("rsvd[{byte}]"), result, libc::EINVAL)?;
    }
    for addr in [0, NOWHERE, sys::KERNEL, sys::edge(31).1] {
        let result = sys::ioctl(&partition, GET_GPAP_ACCESS_BITMAP, addr);
        errno(&format!("argument at {addr:#x}"), result, libc::EFAULT)?;
    }
    let call = Hvcall::set_property(TRACKING, 2);
    ensure(call.make(&partition).is_err(), || "tracking := 2".into())?;
    // Only memory has bits; no byte is written beyond the last page's.
    word = u64::MAX;
    ask(&partition, DIRTY, SET, 0, 20, to).map_err(|e| Stop::Fail(format!("{e:?}")))?;
    equal("three bytes", word, 0xffff_ffff_ff00_0000)?;
    ask(&partition, DIRTY, NOOP, 8, 16, to).map_err(|e| Stop::Fail(format!("{e:?}")))?;
    equal("a region's first four pages", word & 0xffff, 0x0f00)
}

/// One operation on pages 0x10 to 0x1f, all of them accessed and dirty or neither, and what it makes of both bits. As
/// Linux: what is not accessed is not dirty, what is dirty is accessed.
struct Operation {
    kind: u8,
    op: u8,
    set_before: bool,
    accessed: bool,
    dirty: bool,
}

const fn operation(kind: u8, op: u8, set_before: bool, accessed: bool, dirty: bool) -> Operation {
    Operation {
        kind,
        op,
        set_before,
        accessed,
        dirty,
    }
}

const OPERATIONS: &[Operation] = &[
    operation(ACCESSED, NOOP, false, false, false),
    operation(ACCESSED, NOOP, true, true, true),
    operation(ACCESSED, CLEAR, true, false, false),
    operation(ACCESSED, SET, false, true, false),
    operation(DIRTY, NOOP, false, false, false),
    operation(DIRTY, NOOP, true, true, true),
    operation(DIRTY, CLEAR, true, true, false),
    operation(DIRTY, SET, false, true, true),
];

fn operations() -> Outcome {
    let partition = Partition::ready();
    let memory = Memory::new(16 * PAGE);
    partition.map(0x10 * 4096, &memory, RWX);
    track(&partition, 1)?;
    for (n, row) in OPERATIONS.iter().enumerate() {
        bits(&partition, ACCESSED, CLEAR, 64)?;
        if row.set_before {
            bits(&partition, DIRTY, SET, 64)?;
        }
        let all = |set: bool| if set { (0x10..0x20).collect() } else { vec![] };
        let told = bits(&partition, row.kind, row.op, 64)?;
        equal(&format!("row {n}: told"), told, all(row.set_before))?;
        for (kind, wanted) in [(ACCESSED, row.accessed), (DIRTY, row.dirty)] {
            let after = bits(&partition, kind, NOOP, 64)?;
            equal(&format!("row {n}: bit {kind}"), after, all(wanted))?;
        }
    }
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "tracking: operations on both kinds of bit [V-I12]",
            operations,
        ),
        case(
            "tracking: what the guest writes and accesses, in small pages",
            || written(Memory::new(RAM)),
        ),
        case(
            "tracking: what the guest writes and accesses, in large pages",
            || written(Memory::huge(4 << 20)),
        ),
        case("tracking: no write is lost [V-I12]", nothing_lost).within(60),
        case("tracking: bad arguments, holes [V-I12]", bad),
    ]
}
