// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Resets: by a guest's HV_X64_MSR_RESET, and by a VMM that stores the registers of RESET.

use mshv_bindings::*;

use super::messages::io;
use super::state::{get_state, transfer, SET_VP_STATE};
use crate::guests;
use crate::run::{case, ensure, equal, good, Case, Outcome, Stop};
use crate::sys::{Memory, PAGE};
use crate::threads::{interrupted, run_once, skip};
use crate::vm::names::*;
use crate::vm::*;

/// HypervisorPresent, Hv1.
const HV1: u64 = 3;
const READ: u8 = 0;
const WRITE: u8 = 1;

const SINT2: u32 = 0xa_0002;
const SCONTROL: u32 = 0xa_0010;
const SIEFP: u32 = 0xa_0012;
const SIMP: u32 = 0xa_0013;
const STIMER0_CONFIG: u32 = 0xb_0000;
const STIMER0_COUNT: u32 = 0xb_0001;
const VP_ASSIST_PAGE: u32 = 0x9_0013;
const GUEST_OS_ID: u32 = 0x9_0002;
const STARTUP_SUSPEND: u64 = 1;

/// Synthetic registers of a VP's own, other values than after RESET, and those.
const SYNTHETIC: &[(u32, u64, u64)] = &[
    (SIMP, 0x2_0001, 0),
    (SIEFP, 0x2_1001, 0),
    (SINT2, 0x41, 0x1_0000),
    (SCONTROL, 1, 0),
    (VP_ASSIST_PAGE, 0x2_2001, 0),
    (STIMER0_COUNT, 1 << 60, 0),
    (STIMER0_CONFIG, 0x1411, 0),
];

fn unrecoverable(vp: &Vp) -> Result<hv_x64_intercept_message_header, Stop> {
    let message = vp.message()?;
    let wanted = hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION;
    equal("message", message.header.message_type, wanted)?;
    // SAFETY: What the payload of this type is.
    let payload = unsafe {
        std::ptr::read_unaligned(
            std::ptr::addr_of!(message.u.payload).cast::<hv_x64_unrecoverable_exception_message>(),
        )
    };
    Ok(payload.header)
}

fn port(vp: &Vp) -> Result<(hv_message, u16), Stop> {
    let message = vp.message()?;
    let port = io(&message)?.port_number;
    Ok((message, port))
}

/// RESET's registers as a VMM stores them that stores all but the activity state.
fn store_reset(vp: &Vp) -> Outcome {
    vp.set(&[
        (HV_X64_REGISTER_RIP, (0xfff0, 0)),
        (HV_X64_REGISTER_RFLAGS, (2, 0)),
        (
            HV_X64_REGISTER_CS,
            segment(0xf000, 0xffff_0000, 0xffff, 0x9b),
        ),
        (HV_X64_REGISTER_CR0, (0x6000_0010, 0)),
        (HV_X64_REGISTER_CR4, (0, 0)),
        (HV_X64_REGISTER_EFER, (0, 0)),
    ])
    .map_err(|e| Stop::Fail(format!("RESET's registers: {e:?}")))
}

fn spoil(vp: &Vp) -> Outcome {
    for (name, value, _) in SYNTHETIC {
        vp.set_register(*name, *value)?;
    }
    Ok(())
}

fn synthetic_are(vp: &Vp, reset: bool) -> Outcome {
    for (name, set, after) in SYNTHETIC {
        let wanted = if reset { *after } else { *set };
        equal(&format!("register {name:#x}"), vp.register(*name)?, wanted)?;
    }
    Ok(())
}

/// The VMM is told as of a triple fault, with the write in the header, and again until it has done something.
fn by_guest() -> Outcome {
    let guest = Guest::with_features(guests::reset(), 1, FLAGS, HV1, Memory::new(RAM))?;
    let vp = guest.vp();
    let (message, number) = port(vp)?;
    equal("port", number, 0x80)?;
    equal("RESET reads", guest.memory.word(guests::COUNTER), 0)?;
    good("skip", skip(vp, &message))?;
    let header = unrecoverable(vp)?;
    let rip = header.rip;
    equal(
        "access, length of the instruction",
        (header.intercept_access_type, header.instruction_length()),
        (WRITE, 2),
    )?;
    let code = guests::reset().bytes();
    let at = (rip - ENTRY) as usize;
    equal("instruction", code.get(at..at + 2), Some(&[0x0f, 0x30][..]))?;
    let again = unrecoverable(vp)?;
    ensure(again.intercept_access_type != READ, || "a read".into())?;
    equal("RIP", vp.register(HV_X64_REGISTER_RIP)?, rip)?;
    vp.start_at(ENTRY)?;
    equal("port after the reset", port(vp)?.1, 0x80)
}

/// A VP other than VP 0 waits for a start-up IPI, its synthetic registers are as after RESET.
fn of_another() -> Outcome {
    let guest = Guest::with_features(guests::knock(), 2, FLAGS, u64::MAX, Memory::new(RAM))?;
    let vp = &guest.vps[1];
    equal("port", port(vp)?.1, 0x80)?;
    spoil(vp)?;
    synthetic_are(vp, false)?;
    store_reset(vp)?;
    // Nothing is at the reset vector: if it ran there, there would be a message.
    interrupted(run_once(vp).interrupt()?)?;
    let activity = vp.register(HV_REGISTER_INTERNAL_ACTIVITY_STATE)?;
    equal("activity", activity, STARTUP_SUSPEND)?;
    equal("RIP", vp.register(HV_X64_REGISTER_RIP)?, 0xfff0)?;
    synthetic_are(vp, true)?;
    vp.start_at(ENTRY)?;
    equal("port after the reset", port(vp)?.1, 0x80)
}

/// With VP 0, what the partition has once is reset, too.
fn of_the_first() -> Outcome {
    let guest = Guest::with_features(guests::knock(), 1, FLAGS, u64::MAX, Memory::new(RAM))?;
    let vp = guest.vp();
    equal("port", port(vp)?.1, 0x80)?;
    spoil(vp)?;
    vp.set_register(GUEST_OS_ID, 7)?;
    store_reset(vp)?;
    // Nothing is at the reset vector: running there gives a message.
    vp.message()?;
    synthetic_are(vp, true)?;
    equal("GUEST_OS_ID", vp.register(GUEST_OS_ID)?, 0)
}

/// With VP 0, its local APIC is reset, unless the VMM stores it behind the registers, or the VP has never run: then all is
/// as the VMM stored it. CR8 is a register that it stores.
fn local_apic(has_run: bool, stored_again: bool) -> Outcome {
    const LAPIC: u8 = 0;
    const CR8: u32 = 0x4_0004;
    let is_reset = has_run && !stored_again;
    let guest = Guest::with_features(guests::knock(), 1, FLAGS, u64::MAX, Memory::new(RAM))?;
    let vp = guest.vp();
    if has_run {
        equal("port", port(vp)?.1, 0x80)?;
    }
    let (reset, mut spoiled) = (Memory::new(PAGE), Memory::new(PAGE));
    let size = get_state(vp, LAPIC, &reset)?;
    get_state(vp, LAPIC, &spoiled)?;
    for (byte, value) in SPOILED_APIC {
        spoiled.write(*byte, &[*value]);
    }
    let store = |state: &Memory| -> Outcome {
        let (stored, _) = transfer(vp, SET_VP_STATE, LAPIC, PAGE as u32, state.addr());
        good("SET_VP_STATE", stored).map(|_| ())
    };
    store(&spoiled)?;
    store_reset(vp)?;
    vp.set_register(CR8, 3)?;
    if stored_again {
        store(&spoiled)?;
        vp.set_register(CR8, 3)?;
    }
    // Nothing is at the reset vector: running there gives a message.
    vp.message()?;
    let after = Memory::new(PAGE);
    get_state(vp, LAPIC, &after)?;
    if is_reset {
        spoiled = reset;
    }
    for (byte, _) in SPOILED_APIC {
        let bytes = |from: &Memory| from.word(byte & !3).to_le_bytes()[byte & 3];
        equal(
            &format!("byte {byte} of {size}"),
            bytes(&after),
            bytes(&spoiled),
        )?;
    }
    equal("CR8", vp.register(CR8)?, 3)
}

/// Bytes of the local APIC's state and what they become: LDR, ISR 0x31, IRR 0x41.
const SPOILED_APIC: &[(usize, u8)] = &[(11, 0x20), (20 + 4 + 2, 2), (84 + 8, 2)];

/// What a VMM stores behind RESET's registers, before the VP runs, stays: it restores a saved VP.
fn restored() -> Outcome {
    let guest = Guest::with_features(guests::knock(), 2, FLAGS, u64::MAX, Memory::new(RAM))?;
    for vp in &guest.vps {
        store_reset(vp)?;
        spoil(vp)?;
        vp.set_register(GUEST_OS_ID, 7)?;
        vp.start_at(ENTRY)?;
        equal("port", port(vp)?.1, 0x80)?;
        synthetic_are(vp, false)?;
        equal("GUEST_OS_ID", vp.register(GUEST_OS_ID)?, 7)?;
    }
    Ok(())
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        case(
            "a guest's reset is told like a triple fault, as a write [F-RS1 M-03]",
            by_guest,
        ),
        case(
            "a VP with RESET's registers waits for SIPI, and is reset [F-RS1]",
            of_another,
        ),
        case(
            "with VP 0, RESET's registers reset the partition's, too [F-RS1]",
            of_the_first,
        ),
        case("what is stored behind RESET's registers stays", restored),
        case(
            "with VP 0, RESET's registers reset its local APIC [V-C1]",
            || local_apic(true, false),
        ),
        case(
            "a local APIC that is stored behind RESET's registers stays",
            || local_apic(true, true),
        ),
        case(
            "RESET's registers of a VP that never ran leave its local APIC",
            || local_apic(false, false),
        ),
    ]
}
