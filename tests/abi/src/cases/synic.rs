// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HvCallSignalEventDirect and HvCallPostMessageDirect: from the VMM to a guest's SynIC.

use crate::cases::messages::io;
use crate::guests;
use crate::run::{case, ensure, equal, eventually, good, Case, Outcome, Stop};
use crate::sys::Memory;
use crate::threads::{interrupted, run_once, skip, started};
use crate::vm::*;

const SINT2: u32 = 0xa_0002;
const SCONTROL: u32 = 0xa_0010;
const SIEFP: u32 = 0xa_0012;
const SIMP: u32 = 0xa_0013;

const INVALID_PARAMETER: u16 = 5;
const INVALID_VP_INDEX: u16 = 14;
const OBJECT_IN_USE: u16 = 0x19;
const INVALID_SYNIC_STATE: u16 = 0x18;

const VECTOR: u64 = 0x30;
const MASKED: u64 = 0x1_0000;

/// HvCallPostMessageDirect of one payload word.
fn post(vp: u32, vtl: u32, sint: u32, kind: u32, size: u32, word: u32) -> Hvcall {
    let mut input = vec![0u8; 280];
    for (at, value) in [
        (8, vp),
        (12, vtl),
        (16, sint),
        (20, kind),
        (24, size),
        (36, word),
    ] {
        input[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    Hvcall {
        code: 0xc1,
        input,
        ..Hvcall::default()
    }
}

/// HvCallSignalEventDirect.
fn signal(vp: u32, vtl: u64, sint: u64, flag: u64) -> Hvcall {
    Hvcall::new(
        0xc0,
        &[0, u64::from(vp) | (vtl << 32) | (sint << 40) | (flag << 48)],
        8,
    )
}

fn status(call: Hvcall, partition: &Partition) -> u16 {
    call.make(partition).map_or_else(|e| e.status, |_| 0)
}

/// A VP whose SynIC takes everything, and whose guest reports it.
pub fn listening() -> Result<Guest, Stop> {
    let guest = Guest::new(guests::messages())?;
    guest
        .memory
        .write(4 * VECTOR as usize, &(ENTRY as u32 + 2).to_le_bytes());
    enable(guest.vp())?;
    Ok(guest)
}

fn enable(vp: &Vp) -> Outcome {
    for (name, value) in [
        (SIMP, 0x2_0001),
        (SIEFP, 0x2_1001),
        (SINT2, VECTOR),
        (SCONTROL, 1),
    ] {
        vp.set_register(name, value)?;
    }
    Ok(())
}

/// What the guest tells by its three OUTs after an interrupt: type, payload, event flags.
fn told(guest: &Guest, before: impl FnOnce() -> Outcome) -> Result<(u32, u32, u32), Stop> {
    let mut told = [0; 3];
    let counter = guest.memory.word(guests::COUNTER);
    let running = run_once(guest.vp());
    eventually("the guest waits", 5, || {
        guest.memory.word(guests::COUNTER) > counter
    })?;
    before()?;
    let mut message = good("RUN_VP", running.wait(5)?)?;
    for n in 0..3 {
        let info = io(&message)?;
        let port = usize::from(info.port_number);
        *told
            .get_mut(port.wrapping_sub(0x80))
            .ok_or_else(|| Stop::Fail(format!("port {port:#x}")))? = info.rax as u32;
        good("skipping OUT", skip(guest.vp(), &message))?;
        if n < 2 {
            message = guest.vp().message()?;
        }
    }
    Ok((told[0], told[1], told[2]))
}

/// The VMM is told once when a slot is free.
fn notice() -> Outcome {
    const NOTIFICATIONS: u32 = 0x1_0006;
    let sints = |n: u64| n << 48;
    let guest = listening()?;
    let vp = guest.vp();
    let told = |wanted: u16| -> Outcome {
        let message = vp.message()?;
        let info = message
            .to_sint_deliverable_info()
            .map_err(|_| Stop::Fail("another message".into()))?;
        let got = (info.deliverable_sints, info.rsvd1, info.rsvd2);
        equal("SINTs", got, (wanted, 0, 0))
    };
    let ports = |numbers: &[u16]| -> Outcome {
        for number in numbers {
            let message = vp.message()?;
            equal("port", io(&message)?.port_number, *number)?;
            good("skip", skip(vp, &message))?;
        }
        Ok(())
    };
    let running = run_once(vp);
    started(&guest.memory)?;
    interrupted(running.interrupt()?)?;
    let first = post(0, 0, 2, 0x8000_0001, 4, 1);
    equal("first", status(first, &guest.partition), 0)?;
    let second = post(0, 0, 2, 0x8000_0002, 4, 2);
    let refused = status(second.clone(), &guest.partition);
    equal("second", refused, OBJECT_IN_USE)?;
    vp.set_register(NOTIFICATIONS, sints(1 << 2))?;
    // The guest has freed the slot before it tells its type at port 0x80.
    ports(&[0x81])?;
    let wanted = vp.register(NOTIFICATIONS)?;
    equal("still wanted", wanted, sints(1 << 2))?;
    ports(&[0x80])?;
    told(1 << 2)?;
    equal("no longer wanted", vp.register(NOTIFICATIONS)?, 0)?;
    ports(&[0x82])?;
    // SINT 2's alone is taken.
    equal("second", status(second, &guest.partition), 0)?;
    vp.set_register(NOTIFICATIONS, sints(0b1110))?;
    told(0b1010)?;
    equal("the rest", vp.register(NOTIFICATIONS)?, sints(1 << 2))?;
    ports(&[0x81, 0x80])?;
    told(1 << 2)?;
    // In HLT, at once.
    ports(&[0x82])?;
    let rounds = guest.memory.word(guests::COUNTER);
    let running = run_once(vp);
    eventually("the guest waits", 5, || {
        guest.memory.word(guests::COUNTER) > rounds
    })?;
    interrupted(running.interrupt()?)?;
    vp.set_register(NOTIFICATIONS, sints(1 << 15))?;
    told(1 << 15)
}

/// The notice comes as soon as the guest says that it has freed the slot.
fn notice_at_eom() -> Outcome {
    let code = guests::quiet();
    let guest = Guest::with_features(code, 1, FLAGS, u64::MAX, Memory::new(RAM))?;
    // The first WRMSR.
    let eom = code.bytes().windows(2).position(|b| b == [0x0f, 0x30]);
    let eom = eom.ok_or_else(|| Stop::Fail("no WRMSR".into()))?;
    let handler = ENTRY as u32 + 2;
    guest
        .memory
        .write(4 * VECTOR as usize, &handler.to_le_bytes());
    let vp = guest.vp();
    enable(vp)?;
    let running = run_once(vp);
    started(&guest.memory)?;
    interrupted(running.interrupt()?)?;
    for n in 1..=10 {
        let call = |word| post(0, 0, 2, 0x8000_0001, 4, word);
        equal("first", status(call(n), &guest.partition), 0)?;
        let refused = status(call(0), &guest.partition);
        equal("second", refused, OBJECT_IN_USE)?;
        vp.set_register(0x1_0006, 1 << 50)?;
        let info = vp.message()?.to_sint_deliverable_info();
        let info = info.map_err(|_| Stop::Fail("another message".into()))?;
        let (sints, rip) = (info.deliverable_sints, info.header.rip);
        equal("SINTs, RIP", (sints, rip), (1 << 2, ENTRY + eom as u64 + 2))?;
    }
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![
        case("SINT_DELIVERABLE: at the guest's EOM", notice_at_eom),
        case("SINT_DELIVERABLE: told once when a slot is free", notice),
        case(
            "POST_MESSAGE_DIRECT: wakes the VP, with the message [H-C1 F-SY2]",
            || {
                let guest = listening()?;
                for n in 1..20 {
                    let got = told(&guest, || {
                        let call = post(0, 0, 2, 0x8000_0000 | n, 4, n * 77);
                        equal("status", status(call, &guest.partition), 0)
                    })?;
                    equal("the guest saw", got, (0x8000_0000 | n, n * 77, 0))?;
                }
                Ok(())
            },
        ),
        case(
            "SIGNAL_EVENT_DIRECT: wakes the VP, with the flag [H-C0 F-SY9]",
            || {
                let guest = listening()?;
                for flag in 0..32 {
                    let got = told(&guest, || {
                        let output = signal(0, 0, 2, flag).make(&guest.partition);
                        equal("output", output, Ok(vec![1, 0, 0, 0, 0, 0, 0, 0]))
                    })?;
                    equal("the guest saw", got, (0, 0, 1 << flag))?;
                }
                Ok(())
            },
        ),
        case("POST_MESSAGE_DIRECT: a slot holds one [H-C1]", || {
            let partition = Partition::ready();
            let vp = partition.vp(0);
            vp.set_register(SINT2, MASKED)?;
            for name in [SCONTROL, SIMP] {
                let now = status(post(0, 0, 2, 1, 4, 9), &partition);
                equal("status without SynIC", now, INVALID_SYNIC_STATE)?;
                vp.set_register(name, 0x1001)?;
            }
            for (sint, wanted) in [
                (2, 0),
                (2, OBJECT_IN_USE),
                (3, 0),
                (2, OBJECT_IN_USE),
                (3, OBJECT_IN_USE),
                (15, 0),
            ] {
                let now = status(post(0, 0, sint, 1, 4, 9), &partition);
                equal("status", now, wanted)?;
            }
            Ok(())
        }),
        case(
            "SIGNAL_EVENT_DIRECT: says whether the flag was clear [H-C0 F-SY9]",
            || {
                let partition = Partition::ready();
                let vp = partition.vp(0);
                let state = status(signal(0, 0, 2, 0), &partition);
                equal("status without SynIC", state, INVALID_SYNIC_STATE)?;
                vp.set_register(SCONTROL, 1)?;
                vp.set_register(SIEFP, 0x1001)?;
                for (flag, newly) in [(0, 1), (0, 0), (2047, 1), (2047, 0), (1, 1)] {
                    let output = signal(0, 0, 15, flag).make(&partition);
                    equal("output", output, Ok(vec![newly, 0, 0, 0, 0, 0, 0, 0]))?;
                }
                Ok(())
            },
        ),
        case(
            "SIGNAL_EVENT_DIRECT, POST_MESSAGE_DIRECT: parameters [H-C0 H-C1]",
            || {
                let partition = Partition::ready();
                enable(&partition.vp(0))?;
                let rows = [
                    (signal(1, 0, 2, 0), INVALID_VP_INDEX),
                    (signal(u32::MAX, 0, 2, 0), INVALID_VP_INDEX),
                    (signal(0, 1, 2, 0), INVALID_PARAMETER),
                    (signal(0, 0, 16, 0), INVALID_PARAMETER),
                    (signal(0, 0, 2, 2048), INVALID_PARAMETER),
                    (post(1, 0, 2, 1, 4, 0), INVALID_VP_INDEX),
                    (post(0, 1, 2, 1, 4, 0), INVALID_PARAMETER),
                    (post(0, 0, 16, 1, 4, 0), INVALID_PARAMETER),
                    (post(0, 0, u32::MAX, 1, 4, 0), INVALID_PARAMETER),
                    (post(0, 0, 2, 0, 4, 0), INVALID_PARAMETER),
                    (post(0, 0, 2, 1, 241, 0), INVALID_PARAMETER),
                    (post(0, 0, 2, 1, 240, 0), 0),
                ];
                for (n, (call, wanted)) in rows.into_iter().enumerate() {
                    let got = status(call, &partition);
                    ensure(got == wanted, || format!("row {n}: status {got}"))?;
                }
                Ok(())
            },
        ),
    ]
}
