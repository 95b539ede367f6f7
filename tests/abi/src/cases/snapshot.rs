// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A running guest is saved and goes on in another partition: registers, the five VP states, memory and time. Its timers and
//! its SynIC are armed, and it looks itself whether its clocks go back.

use super::state::{msr_names, transfer, GET_VP_STATE, SET_VP_STATE};
use crate::guests;
use crate::run::{case, ensure, equal, eventually, good, Case, Outcome, Stop};
use crate::sys::{Memory, PAGE};
use crate::threads::{interrupted, moves, run_once};
use crate::vm::*;

const TIME_FREEZE: u32 = 0x3_0003;
const REFERENCE_TIME: u32 = 0x3_0005;
const SYNTHETIC_PROC_FEATURES: u32 = 0x1_0001;

/// What the guest counts: local APIC timer, direct synthetic timer, messages of another; and that its clocks went back.
const APIC_TICKS: usize = 0x2200;
const DIRECT_TICKS: usize = 0x2204;
const MESSAGES: usize = 0x2208;
const WENT_BACK: usize = 0x220c;

/// Periods of the synthetic timers in 100 ns, the local APIC's in ns.
const DIRECT_PERIOD: u64 = 20_000;
const MESSAGE_PERIOD: u64 = 30_000;

const SINT2: u32 = 0xa_0002;
const SCONTROL: u32 = 0xa_0010;
const SIMP: u32 = 0xa_0013;
const STIMER0: u32 = 0xb_0000;

fn fail(e: HvcallError) -> Stop {
    Stop::Fail(format!("{e:?}"))
}

fn set(partition: &Partition, code: u32, value: u64) -> Outcome {
    let call = Hvcall::set_property(code, value).make(partition);
    call.map(|_| ()).map_err(fail)
}

fn get(partition: &Partition, code: u32) -> Result<u64, Stop> {
    let output = Hvcall::get_property(code).make(partition).map_err(fail)?;
    Ok(u64::from_le_bytes(output[..8].try_into().expect("8 bytes")))
}

/// All names that a VMM saves, in the order in which they can be stored.
fn names() -> Vec<u32> {
    let mut names: Vec<u32> = Vec::new();
    names.extend(0x2_0000..=0x2_0011);
    names.extend(0x6_0000..=0x6_0007);
    names.extend(0x7_0000..=0x7_0001);
    // CR0, CR2, CR3, CR4, CR8, XFEM.
    names.extend([0x4_0000, 0x4_0001, 0x4_0002, 0x4_0003, 0x4_0004, 0x4_0005]);
    names.extend(0x5_0000..=0x5_0005);
    names.push(0x8_0003);
    names.extend(msr_names());
    // SINTs, SCONTROL, SIEFP, SIMP.
    names.extend(0xa_0000..=0xa_0010);
    names.extend([0xa_0012, 0xa_0013]);
    // Pending events, interrupt state, activity.
    names.extend([0x1_0002, 0x1_0003, 0x1_0004, 0x1_0005, 0x4]);
    names
}

/// A guest that is not running, on paper.
struct Saved {
    registers: Vec<(u32, Value)>,
    states: Vec<(u8, Vec<u8>)>,
    reference_time: u64,
    memory: Memory,
}

/// Freezes time and writes all down.
fn save(guest: Guest) -> Result<Saved, Stop> {
    let vp = guest.vp();
    set(&guest.partition, TIME_FREEZE, 1)?;
    let names = names();
    let values = vp.get(&names).map_err(fail)?;
    let mut states = Vec::new();
    let buffer = Memory::new(PAGE);
    for kind in 0..5 {
        let (result, size) = transfer(vp, GET_VP_STATE, kind, PAGE as u32, buffer.addr());
        good("GET_VP_STATE", result)?;
        let mut bytes = Vec::new();
        for at in (0..size as usize).step_by(4) {
            bytes.extend(buffer.word(at).to_le_bytes());
        }
        states.push((kind, bytes));
    }
    let memory = Memory::new(RAM);
    for at in (0..RAM).step_by(4) {
        let word = guest.memory.word(at);
        if word != 0 {
            memory.set_word(at, word);
        }
    }
    Ok(Saved {
        registers: names.into_iter().zip(values).collect(),
        states,
        reference_time: get(&guest.partition, REFERENCE_TIME)?,
        memory,
    })
}

/// Makes another partition of it.
fn restore(saved: Saved) -> Result<Guest, Stop> {
    let partition = good("CREATE_PARTITION", Partition::create(FLAGS))?;
    set(&partition, SYNTHETIC_PROC_FEATURES, u64::MAX)?;
    good("INITIALIZE_PARTITION", partition.initialize())?;
    set(&partition, TIME_FREEZE, 1)?;
    partition.map(0, &saved.memory, RWX);
    let vp = partition.vp(0);
    set(&partition, REFERENCE_TIME, saved.reference_time)?;
    vp.set(&saved.registers).map_err(fail)?;
    // The TSC moved the reference time with it.
    set(&partition, REFERENCE_TIME, saved.reference_time)?;
    let buffer = Memory::new(PAGE);
    for (kind, bytes) in &saved.states {
        buffer.write(0, bytes);
        let (result, _) = transfer(&vp, SET_VP_STATE, *kind, PAGE as u32, buffer.addr());
        good("SET_VP_STATE", result)?;
    }
    // What is saved again is the same.
    let names: Vec<u32> = saved.registers.iter().map(|r| r.0).collect();
    let again = vp.get(&names).map_err(fail)?;
    for ((name, value), again) in saved.registers.iter().zip(again) {
        equal(&format!("register {name:#x}"), again, *value)?;
    }
    let time = get(&partition, REFERENCE_TIME)?;
    equal("reference time", time, saved.reference_time)?;
    set(&partition, TIME_FREEZE, 0)?;
    Ok(Guest {
        partition,
        memory: saved.memory,
        vps: vec![vp],
    })
}

/// Runs for a while and is stopped by a signal.
fn run(guest: &Guest) -> Outcome {
    let running = run_once(guest.vp());
    for at in [guests::COUNTER, APIC_TICKS, DIRECT_TICKS, MESSAGES] {
        for _ in 0..3 {
            moves(&guest.memory, at)?;
        }
    }
    interrupted(running.interrupt()?)
}

fn snapshots() -> Outcome {
    let code = guests::clocks();
    let memory = Memory::new(RAM);
    let mut guest = Guest::with_features(code, 1, FLAGS, u64::MAX, memory)?;
    for (vector, handler) in [(0x41, 2), (0x42, 4), (0x43, 6)] {
        let entry = ENTRY as u32 + handler;
        guest.memory.write(vector * 4, &entry.to_le_bytes());
    }
    // Timer 0 is direct, with vector 0x42; timer 1 sends to SINT 2, vector 0x43. Both are periodic.
    let vp = guest.vp();
    for (name, value) in [
        (SIMP, 0x2_0001),
        (SINT2, 0x43),
        (SCONTROL, 1),
        (STIMER0 + 1, DIRECT_PERIOD),
        (STIMER0, 3 | (1 << 12) | (0x42 << 4)),
        (STIMER0 + 3, MESSAGE_PERIOD),
        (STIMER0 + 2, 3 | (2 << 16)),
    ] {
        vp.set_register(name, value)?;
    }
    let start = get(&guest.partition, REFERENCE_TIME)?;
    for _ in 0..6 {
        run(&guest)?;
        guest = restore(save(guest)?)?;
    }
    run(&guest)?;
    // Let it take what is due, then stop its time.
    let running = run_once(guest.vp());
    eventually("the guest runs", 10, || {
        guest.memory.word(guests::COUNTER) != 0
    })?;
    moves(&guest.memory, MESSAGES)?;
    interrupted(running.interrupt()?)?;
    set(&guest.partition, TIME_FREEZE, 1)?;
    let elapsed = get(&guest.partition, REFERENCE_TIME)? - start;
    equal("clocks that went back", guest.memory.word(WENT_BACK), 0)?;
    // Periodic timers make up for what they missed, so that none is lost, and none is there twice.
    for (what, at, period) in [
        ("direct timer", DIRECT_TICKS, DIRECT_PERIOD),
        ("messages", MESSAGES, MESSAGE_PERIOD),
    ] {
        let (ticks, due) = (u64::from(guest.memory.word(at)), elapsed / period);
        ensure(ticks <= due + 1 && ticks + 4 >= due, || {
            format!("{what}: {ticks} in {elapsed} of 100 ns, {due} were due")
        })?;
    }
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![case(
        "snapshot: six times into a new partition, timers and SynIC armed [F-TM11]",
        snapshots,
    )
    .within(60)]
}
