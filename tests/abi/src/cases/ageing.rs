// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel takes the memory that a guest does not use, and leaves it what it uses.

use std::fs;

use crate::cases::kept::{needs_swap, number, set, Cgroup};
use crate::guests::{self, COUNTER};
use crate::run::{case, ensure, equal, Case, Outcome, Stop};
use crate::sys::{Memory, PAGE};
use crate::threads::{interrupted, moves, run_on, started};
use crate::vm::*;

/// Generations of pages, which the kernel makes and evicts on command.
const LRU_GEN: &str = "/sys/kernel/debug/lru_gen";
/// What the guest does not use.
const IDLE: usize = 8 << 20;

/// The id of a memory cgroup there, and the number of its youngest generation.
fn generations(group: &str) -> Result<(u64, u64), Stop> {
    let text = fs::read_to_string(LRU_GEN).map_err(|e| Stop::Skip(format!("{LRU_GEN}: {e}")))?;
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let id = lines
        .by_ref()
        .find_map(
            |mut words| match (words.next(), words.next(), words.next()) {
                (Some("memcg"), Some(id), Some(path)) if path.ends_with(group) => id.parse().ok(),
                _ => None,
            },
        )
        .ok_or_else(|| Stop::Fail(format!("{group} is not in {LRU_GEN}")))?;
    let numbers: Vec<u64> = lines
        .skip(1)
        .map_while(|mut words| words.next()?.parse().ok())
        .collect();
    match numbers.last() {
        Some(youngest) if *youngest >= 2 => Ok((id, *youngest)),
        _ => Err(Stop::Fail(format!("generations of {group}: {numbers:?}"))),
    }
}

/// EPT violations of the one VP that there is.
fn faults() -> Result<u64, Stop> {
    let found = fs::read_dir("/sys/kernel/debug/hvrs/partition").map_err(|e| e.to_string())?;
    let text: String = found
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .collect();
    text.lines()
        .find_map(|line| line.strip_prefix("VpNestedPageFaultInterceptsCount"))
        .and_then(|rest| rest.split_whitespace().last()?.parse().ok())
        .ok_or_else(|| Stop::Fail("no counter in debugfs".into()))
}

fn used_and_idle() -> Outcome {
    needs_swap()?;
    let group = Cgroup::new()?;
    let small = |len| {
        let memory = Memory::new(len);
        memory.advise(0, len, libc::MADV_NOHUGEPAGE);
        memory
    };
    let guest = Guest::with(guests::play(), 1, FLAGS, small(RAM))?;
    let running = run_on(guest.vp());
    started(&guest.memory)?;
    let name = format!("/abi-{}", std::process::id());
    for round in 0..6 {
        // New each time: what was taken once and came back is kept.
        let idle = small(IDLE);
        for at in (0..IDLE).step_by(PAGE) {
            idle.write(at, &[1]);
        }
        // The kernel looks who was used, and what was not is two generations old.
        for _ in 0..3 {
            moves(&guest.memory, COUNTER)?;
            let (id, youngest) = generations(&name)?;
            set(LRU_GEN, &format!("+ {id} 0 {youngest} 200 1"))?;
        }
        let before = faults()?;
        let (id, youngest) = generations(&name)?;
        set(LRU_GEN, &format!("- {id} 0 {} 200", youngest - 2))?;
        let swapped = number(&group.file("memory.swap.current"))?;
        ensure(swapped > IDLE as u64 / 2, || {
            format!("round {round}: {swapped} bytes of idle memory were taken, not {IDLE}")
        })?;
        moves(&guest.memory, COUNTER)?;
        let taken = faults()? - before;
        equal(
            &format!("round {round}: pages taken of what the guest uses"),
            taken,
            0,
        )?;
    }
    interrupted(running.interrupt()?)
}

pub fn cases() -> Vec<Case> {
    vec![case(
        "guest memory: what the guest uses is not taken for what it does not",
        used_and_idle,
    )
    .within(60)]
}
