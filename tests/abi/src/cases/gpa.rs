// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The VMM's calls about guest memory: HvCallReadGpa, HvCallWriteGpa, HvCallGetGpaPagesAccessStates.

use std::os::fd::AsRawFd;

use super::tracking::{bits, track, ACCESSED, CLEAR, DIRTY, NOOP};
use crate::guests::{self, PLAYGROUND};
use crate::run::{case, equal, Case, Outcome, Stop};
use crate::sys::{Errno, Memory, PAGE};
use crate::threads::{interrupted, moves, run_on, started};
use crate::vm::*;

const INVALID_PARAMETER: (u16, i32) = (5, libc::EINVAL);
const INVALID_PARTITION_STATE: (u16, i32) = (7, libc::EIO);
const INVALID_VP_INDEX: (u16, i32) = (14, libc::EINVAL);

/// Results of an access.
const SUCCESS: u32 = 0;
const UNMAPPED: u32 = 1;
const WRITE_INTERCEPT: u32 = 3;
const ILLEGAL_OVERLAY_ACCESS: u32 = 4;

const VP_SELF: u32 = u32::MAX - 1;

fn place(code: u16, vp: u32, gpa: u64, count: u32, control: u64, output: usize) -> Hvcall {
    let vp_and_count = u64::from(vp) | (u64::from(count) << 32);
    Hvcall::new(code, &[0, vp_and_count, gpa, control], output)
}

fn reading(vp: u32, gpa: u64, count: u32, control: u64) -> Hvcall {
    place(0x53, vp, gpa, count, control, 24)
}

fn writing(vp: u32, gpa: u64, count: u32, control: u64) -> Hvcall {
    let mut call = place(0x54, vp, gpa, count, control, 8);
    call.put(&[0x1716_1514_1312_1110, 0x1f1e_1d1c_1b1a_1918]);
    call
}

fn fail(e: HvcallError) -> Stop {
    Stop::Fail(format!("{e:?}"))
}

/// The result code, and the data of a read.
fn access(call: &Hvcall, fd: &impl AsRawFd) -> Result<(u32, Vec<u8>), Stop> {
    let output = call.make(fd).map_err(fail)?;
    let word = |at: usize| u32::from_le_bytes(output[at..at + 4].try_into().expect("4 bytes"));
    equal("reserved", word(4), 0)?;
    Ok((word(0), output[8..].to_vec()))
}

fn refused(call: &Hvcall, fd: &impl AsRawFd, wanted: (u16, i32)) -> Outcome {
    let got = call.make(fd).map_err(|e| (e.status, e.errno));
    let (status, errno) = wanted;
    equal("status, errno", got, Err((status, Errno(errno))))
}

fn read_and_write() -> Outcome {
    let guest = Guest::new(guests::halt())?;
    let (partition, vp, memory) = (&guest.partition, guest.vp(), &guest.memory);
    let fixed = Memory::new(PAGE);
    fixed.set_word(0, 0xcafe);
    partition.map(0x1000_0000, &fixed, EXECUTABLE);
    let bytes: Vec<u8> = (1..=16).collect();
    memory.write(0x3ff0, &bytes);
    for count in [1u32, 2, 7, 16] {
        let mut wanted = bytes.clone();
        wanted[count as usize..].fill(0);
        for control in [0, 1, 4, 5, 6] {
            let call = reading(0, 0x3ff0, count, control);
            equal("read", access(&call, partition)?, (SUCCESS, wanted.clone()))?;
        }
        let call = reading(VP_SELF, 0x3ff0, count, 6);
        equal("read", access(&call, vp)?, (SUCCESS, wanted))?;
    }
    // Only what was asked for is written.
    equal("write", access(&writing(0, 0x3ff4, 4, 6), vp)?.0, SUCCESS)?;
    let words = [0x3ff0, 0x3ff4, 0x3ff8].map(|at| memory.word(at));
    equal("words", words, [0x0403_0201, 0x1312_1110, 0x0c0b_0a09])?;
    equal("write", access(&writing(0, 0x3ff0, 16, 0), vp)?.0, SUCCESS)?;
    equal("last word", memory.word(0x3ffc), 0x1f1e_1d1c)?;
    // Where there is no memory, where it cannot be written, and on overlays.
    let nothing = vec![0; 16];
    let call = reading(0, 1 << 40, 16, 6);
    equal("no memory", access(&call, vp)?, (UNMAPPED, nothing.clone()))?;
    equal(
        "no memory",
        access(&writing(0, 1 << 40, 1, 6), vp)?.0,
        UNMAPPED,
    )?;
    let call = writing(0, 0x1000_0000, 4, 6);
    equal("read-only", access(&call, vp)?.0, WRITE_INTERCEPT)?;
    equal("read-only", fixed.word(0), 0xcafe)?;
    let (_, data) = access(&reading(0, 0x1000_0000, 2, 6), vp)?;
    equal("read-only", &data[..3], &[0xfe, 0xca, 0][..])?;
    let hypercall_page = [(0x9_0002, (1, 0)), (0x9_0001, (0x5001, 0))];
    vp.set(&hypercall_page).map_err(fail)?;
    let code = ILLEGAL_OVERLAY_ACCESS;
    equal(
        "overlay",
        access(&reading(0, 0x5000, 16, 6), vp)?,
        (code, nothing),
    )?;
    equal("overlay", access(&writing(0, 0x5ff0, 16, 6), vp)?.0, code)?;
    equal("under it", memory.word(0x5ff0), 0)
}

fn bad_access() -> Outcome {
    let guest = Guest::new(guests::halt())?;
    let vp = guest.vp();
    for call in [reading, writing] {
        for (gpa, count, control) in [
            (0x2000, 0, 6),
            (0x2000, 17, 6),
            (0x2ff8, 9, 6),
            (0x2fff, 2, 6),
            (0x2000, 8, 2),
            (0x2000, 8, 7),
            (0x2000, 8, 0x100),
        ] {
            refused(&call(0, gpa, count, control), vp, INVALID_PARAMETER)?;
        }
        refused(&call(1, 0x2000, 8, 6), vp, INVALID_VP_INDEX)?;
        refused(
            &call(VP_SELF, 0x2000, 8, 6),
            &guest.partition,
            INVALID_VP_INDEX,
        )?;
    }
    equal("memory", guest.memory.word(0x2000), 0)
}

fn write_is_dirty() -> Outcome {
    let guest = Guest::new(guests::halt())?;
    let partition = &guest.partition;
    track(partition, 1)?;
    let pages = (RAM / PAGE) as u64;
    for page in [3u64, 0x80, 0x81] {
        equal("before", bits(partition, DIRTY, CLEAR, pages)?, vec![])?;
        access(&writing(0, page << 12, 16, 6), guest.vp())?;
        equal("after", bits(partition, DIRTY, CLEAR, pages)?, vec![page])?;
    }
    Ok(())
}

const CLEAR_ACCESSED: u64 = 1;
const SET_ACCESSED: u64 = 2;
const CLEAR_DIRTY: u64 = 4;
const SET_DIRTY: u64 = 8;

fn asking(flags: u64, first: u64, pages: u16) -> Hvcall {
    let mut call = Hvcall::new(0xc9, &[0, flags, first], pages.into());
    call.reps = pages;
    call
}

fn access_states() -> Outcome {
    let guest = Guest::new(guests::play())?;
    let partition = &guest.partition;
    let pages = (RAM / PAGE) as u16 + 8;
    let states = |flags| asking(flags, 0, pages).make(partition).map_err(fail);
    refused(&asking(0, 0, pages), partition, INVALID_PARTITION_STATE)?;
    track(partition, 1)?;
    let running = run_on(guest.vp());
    started(&guest.memory)?;
    moves(&guest.memory, PLAYGROUND)?;
    interrupted(running.interrupt()?)?;
    let (code, counter, playground) = (1, 2, PLAYGROUND / PAGE);
    let mut wanted = vec![0u8; pages.into()];
    wanted[code] = 1;
    wanted[counter] = 3;
    wanted[playground] = 3;
    equal("as they are", states(0)?, wanted.clone())?;
    equal("and stay", states(CLEAR_DIRTY)?, wanted.clone())?;
    wanted[counter] = 1;
    wanted[playground] = 1;
    equal("not dirty", states(CLEAR_ACCESSED)?, wanted)?;
    equal(
        "nothing",
        states(SET_DIRTY | SET_ACCESSED)?,
        vec![0; pages.into()],
    )?;
    // Only memory has states.
    let mut wanted = vec![3u8; pages.into()];
    wanted[RAM / PAGE..].fill(0);
    equal("all", states(CLEAR_DIRTY | CLEAR_ACCESSED)?, wanted)?;
    equal("dirty", bits(partition, DIRTY, NOOP, pages.into())?, vec![])?;
    equal(
        "accessed",
        bits(partition, ACCESSED, NOOP, pages.into())?,
        vec![],
    )?;
    // And the guest's next write is seen.
    let running = run_on(guest.vp());
    moves(&guest.memory, PLAYGROUND)?;
    interrupted(running.interrupt()?)?;
    let one = asking(0, playground as u64, 1)
        .make(partition)
        .map_err(fail)?;
    equal("written again", one, vec![3])?;
    for (flags, first) in [
        (16, 0),
        (SET_DIRTY | CLEAR_DIRTY, 0),
        (SET_ACCESSED | CLEAR_ACCESSED, 0),
        (0, 1 << 36),
        (0, u64::MAX),
    ] {
        refused(&asking(flags, first, 1), partition, INVALID_PARAMETER)?;
    }
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "ReadGpa, WriteGpa: memory, none, read-only, an overlay [H-53 H-54]",
            read_and_write,
        ),
        case("ReadGpa, WriteGpa: bad arguments [H-53 H-54]", bad_access),
        case("WriteGpa: what it writes is dirty [H-54]", write_is_dirty),
        case(
            "GetGpaPagesAccessStates: reads, clears and sets; bad arguments",
            access_states,
        ),
    ]
}
