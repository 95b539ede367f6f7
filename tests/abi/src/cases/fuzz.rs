// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Calls with random arguments, from several threads, on a partition whose VPs run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mshv_bindings::{
    hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION, mshv_root_hvcall, mshv_user_mem_region,
};

use crate::cases::device::map;
use crate::guests::{self, COUNTER};
use crate::run::{case, equal, Case, Outcome};
use crate::sys::{self, edge, sleep_ms, Memory, Random, KERNEL, NOWHERE, PAGE};
use crate::threads::{interrupted, moves, run_on, Running};
use crate::vm::names::*;
use crate::vm::*;

/// Calls that the table has, and some that it has not.
const CODES: [u16; 19] = [
    0x44, 0x45, 0x4d, 0x50, 0x51, 0x52, 0x56, 0x57, 0x58, 0x5b, 0x95, 0x96, 0x91, 0x94, 0xf4,
    0x101, 0x8, 0x5c, 0x7fff,
];
/// First names of groups of registers.
const NAMES: [u32; 9] = [
    0, 0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000, 0x5_0000, 0x6_0000, 0x8_0000, 0x9_0000,
];

/// What may keep a VP from running, as it is after RESET.
const RESET: &[(u32, Value)] = &[
    (HV_X64_REGISTER_CR0, (0x6000_0010, 0)),
    (HV_X64_REGISTER_CR4, (0, 0)),
    (HV_X64_REGISTER_EFER, (0, 0)),
    (HV_X64_REGISTER_TR, segment(0, 0, 0xffff, 0x8b)),
    (0x6_0006, segment(0, 0, 0xffff, 0x82)),
    (0x6_0004, segment(0, 0, 0xffff, 0x93)),
    (0x6_0005, segment(0, 0, 0xffff, 0x93)),
    (HV_X64_REGISTER_GDTR, (0xffff << 48, 0)),
    (HV_X64_REGISTER_IDTR, (0xffff << 48, 0)),
    (0x1_0002, (0, 0)),
    (0x1_0003, (0, 0)),
];

impl Random {
    /// 64 bits, often with few of them set, often near a limit.
    fn word(&mut self) -> u64 {
        let any = (self.below(1 << 31) << 33) ^ (self.below(1 << 31) << 11) ^ self.below(1 << 31);
        match self.below(6) {
            0 => any,
            1 => any >> self.below(64),
            2 => 1 << self.below(64),
            3 => u64::MAX << self.below(64),
            4 => self.below(32),
            _ => 0,
        }
    }
}

/// HvCall* with a header that is mostly right and a body that is not.
fn hvcall(random: &mut Random, fd: &impl std::os::fd::AsRawFd) {
    let code = CODES[random.below(CODES.len() as u64) as usize];
    let reps = if matches!(code, 0x50 | 0x51 | 0xf4) {
        random.below(6)
    } else {
        0
    };
    let mut call = Hvcall::new(code, &[0, random.below(4)], 0);
    call.reps = reps as u16;
    for _ in 0..reps.max(2) {
        let name = NAMES[random.below(NAMES.len() as u64) as usize] + random.below(0xa0) as u32;
        match code {
            0x50 => call.input.extend_from_slice(&name.to_le_bytes()),
            0x51 => {
                let value = (random.word(), random.word());
                call.put(&[name.into(), 0, value.0, value.1]);
            }
            _ => {
                let word = random.word();
                call.put(&[word]);
            }
        }
    }
    call.output = [0, 8, 16, 96, 4096][random.below(5) as usize];
    let mut output = [0u8; 4096];
    let mut argument: mshv_root_hvcall =
        call.argument(call.input.as_ptr() as usize, output.as_mut_ptr() as usize);
    match random.below(30) {
        0 => argument.in_ptr = random.word(),
        1 => argument.out_ptr = KERNEL as u64,
        2 => argument.in_sz = argument.in_sz.min(random.word() as u16),
        3 => argument.status = 1,
        4 => argument.reps = random.word() as u16,
        _ => {}
    }
    let _ = sys::ioctl_on(fd, ROOT_HVCALL, &mut argument);
}

/// A region of `playground`, and nothing else, somewhere.
fn region(random: &mut Random, partition: &Partition, playground: &Memory) {
    let pages = playground.len() / PAGE;
    let first = random.below(pages as u64) as usize;
    let most = (pages - first) as u64;
    let mut region = mshv_user_mem_region {
        size: (PAGE as u64) * (1 + random.below(most)),
        guest_pfn: 0x200 + random.below(0x40),
        userspace_addr: (playground.addr() + PAGE * first) as u64,
        flags: random.below(8) as u8,
        rsvd: [0; 7],
    };
    match random.below(16) {
        0 => region.guest_pfn = random.word(),
        1 => region.flags = random.word() as u8,
        2 => region.rsvd[random.below(7) as usize] = 1,
        3 => region.userspace_addr = NOWHERE as u64,
        _ => {}
    }
    let _ = sys::ioctl_on(partition, SET_GUEST_MEMORY, &mut region);
}

/// Random calls until `stop`.
fn calls(seed: u64, partition: Partition, vps: Vec<Vp>, playground: &Memory, stop: &AtomicBool) {
    let mut random = Random(seed);
    let (_hole, at_edge) = edge(8);
    while !stop.load(Ordering::Relaxed) {
        let vp = &vps[random.below(vps.len() as u64) as usize];
        match random.below(10) {
            0..=3 => hvcall(&mut random, vp),
            4 => hvcall(&mut random, &partition),
            5 => hvcall(&mut random, &device()),
            6 | 7 => region(&mut random, &partition, playground),
            8 => {
                let page = random.below(3) as usize * PAGE;
                if let Ok(addr) = map(vp, page, PAGE) {
                    // SAFETY: Just mapped, and used by nobody.
                    unsafe { libc::munmap(addr as *mut _, PAGE) };
                }
            }
            _ => {
                let numbers = [
                    CREATE_PARTITION,
                    INITIALIZE_PARTITION,
                    CREATE_VP,
                    SET_GUEST_MEMORY,
                    ROOT_HVCALL,
                ];
                let number = numbers[random.below(5) as usize];
                let addr = [NOWHERE, KERNEL, at_edge][random.below(3) as usize];
                let _ = sys::ioctl(&partition, number, addr);
            }
        }
    }
}

fn fuzz(seed: u64) -> Outcome {
    let guest = Guest::with(guests::walk(), 3, SUPER_PAGES, Memory::huge(2 << 20))?;
    let playground: &'static Memory = Box::leak(Box::new(Memory::new(64 * PAGE)));
    let runs: Vec<_> = guest
        .vps
        .iter()
        .map(|vp| {
            let vp = vp.clone();
            Running::start(move |stop| {
                while !stop.load(Ordering::Relaxed) {
                    // A message or an error: whatever the others have made of the VP.
                    let end = vp.run().map(|message| message.header.message_type);
                    if end == Ok(hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION) {
                        let _ = vp.set(RESET);
                        let _ = vp.start_at(ENTRY);
                    }
                }
            })
        })
        .collect();
    let callers: Vec<_> = (0..3)
        .map(|n| {
            let (partition, vps) = (guest.partition.clone(), guest.vps.clone());
            Running::start(move |stop| calls(seed * 8 + n, partition, vps, playground, stop))
        })
        .collect();
    let end = Instant::now() + Duration::from_millis(1500);
    let mut random = Random(seed);
    while Instant::now() < end {
        sleep_ms(1);
        // Signals, so that VPs that halt or spin come out and callers get at them.
        for thread in runs.iter().chain(&callers) {
            if random.below(3) == 0 {
                thread.signal();
            }
        }
    }
    for thread in callers.into_iter().chain(runs) {
        thread.interrupt()?;
    }
    drop(guest);
    let other = Guest::new(guests::count())?;
    let running = run_on(other.vp());
    moves(&other.memory, COUNTER)?;
    interrupted(running.interrupt()?)?;
    equal("partitions", crate::hvrs::mine().len(), 1)
}

pub fn cases() -> Vec<Case> {
    (1..=4)
        .map(|seed| {
            case(
                format!("random calls from 3 threads while 3 VPs run, seed {seed}"),
                move || fuzz(seed),
            )
        })
        .collect()
}
