// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Partitions whose local APICs are the VMM's: HLT and interrupts by messages and registers; and notices of
//! deliverability, which also partitions with local APICs have.

use mshv_bindings::*;

use super::messages::{io, long_mode_in};
use crate::events::EventFd;
use crate::guests::{self, Code, COUNTER};
use crate::run::{case, ensure, equal, errno, good, Case, Outcome, Stop};
use crate::sys::{Errno, Memory, PAGE};
use crate::threads::{interrupted, run_once, skip, started};
use crate::vm::names::*;
use crate::vm::*;

const PENDING_INTERRUPTION: u32 = 0x1_0002;
const INTERRUPT_STATE: u32 = 0x1_0003;
const PENDING_EVENT0: u32 = 0x1_0004;
const NOTIFICATIONS: u32 = 0x1_0006;
const CR8: u32 = 0x4_0004;
const APIC_BASE: u32 = 0x8_0003;

const NOTIFY_NMI: u64 = 1;
const NOTIFY_INTERRUPT: u64 = 2;
const TYPE_INTERRUPT: u32 = 0;
const TYPE_NMI: u32 = 2;

const INVALID_PARAMETER: u16 = 5;
const INVALID_PARTITION_STATE: u16 = 7;

const VECTOR: u64 = 0x41;
/// Where the handlers are.
const HANDLER: u32 = 0x1800;
/// An ExtINT in PENDING_EVENT0.
const EXTINT: u64 = 1 | (5 << 1) | (VECTOR << 8);

/// A guest with a handler for `VECTOR`, NMI and #GP that writes to port 0x81.
fn guest(code: Code, flags: u64) -> Result<Guest, Stop> {
    let guest = Guest::with(code, 1, flags, Memory::new(RAM))?;
    for vector in [2, 13, VECTOR as usize] {
        guest.memory.write(vector * 4, &HANDLER.to_le_bytes());
    }
    let handler = guests::report_fault();
    guest.memory.write(HANDLER as usize, handler.bytes());
    Ok(guest)
}

/// The next message is of this type; its header.
fn wanted(vp: &Vp, message_type: u32) -> Result<hv_message, Stop> {
    let message = vp.message()?;
    equal("message", message.header.message_type, message_type)?;
    Ok(message)
}

fn halted(vp: &Vp) -> Result<hv_x64_intercept_message_header, Stop> {
    let message = wanted(vp, hv_message_type_HVMSG_X64_HALT)?;
    // SAFETY: What the payload of this type is.
    let payload = unsafe {
        std::ptr::read_unaligned(
            std::ptr::addr_of!(message.u.payload).cast::<hv_x64_halt_message>(),
        )
    };
    Ok(payload.header)
}

fn deliverable(vp: &Vp) -> Result<hv_x64_interruption_deliverable_message, Stop> {
    let message = wanted(vp, hv_message_type_HVMSG_X64_INTERRUPTION_DELIVERABLE)?;
    message
        .to_interruption_deliverable_info()
        .map_err(|_| Stop::Fail("no such payload".into()))
}

/// The next message is of an access to this port; it is skipped.
fn port(vp: &Vp, number: u16) -> Outcome {
    let message = vp.message()?;
    equal("port", io(&message)?.port_number, number)?;
    good("skip", skip(vp, &message))?;
    Ok(())
}

/// The handler has run, and this is what it will return to.
fn handled(guest: &Guest, return_to: u64) -> Outcome {
    let message = guest.vp().message()?;
    equal("port", io(&message)?.port_number, 0x81)?;
    let sp = guest.vp().register(HV_X64_REGISTER_RSP)? as usize;
    equal(
        "return address",
        u64::from(guest.memory.word(sp) & 0xffff),
        return_to,
    )
}

fn refused(got: Result<(), HvcallError>, status: u16) -> Outcome {
    match got {
        Err(e) => equal("status", e.status, status),
        Ok(()) => Err(Stop::Fail(format!("success instead of status {status}"))),
    }
}

/// Each HLT is a message behind it, with interrupts on and off, on each VP.
fn halts() -> Outcome {
    let guest = Guest::with(guests::halt(), 2, 0, Memory::new(RAM))?;
    for (n, vp) in guest.vps.iter().enumerate() {
        vp.start_at(ENTRY)?;
        for round in 1..=3 {
            let header = halted(vp)?;
            let done = guest.memory.word(COUNTER) as usize;
            equal("rounds", done, 3 * n + round)?;
            let length = guests::halt().bytes().len() as u64;
            equal("VP", header.vp_index as usize, n)?;
            equal("RIP", header.rip, ENTRY + length - 2)?;
            equal(
                "activity",
                vp.register(HV_REGISTER_INTERNAL_ACTIVITY_STATE)?,
                0,
            )?;
            // With interrupts off in the last.
            if round == 2 {
                vp.set_register(HV_X64_REGISTER_RFLAGS, 2)?;
            }
        }
    }
    Ok(())
}

/// A VP that the VMM says is halted, and the event that wakes it.
fn halted_by_vmm() -> Outcome {
    let guest = guest(guests::spin(), 0)?;
    let vp = guest.vp();
    vp.set_register(HV_REGISTER_INTERNAL_ACTIVITY_STATE, 2)?;
    halted(vp)?;
    equal("executed", guest.memory.word(COUNTER), 0)?;
    vp.set_register(HV_REGISTER_INTERNAL_ACTIVITY_STATE, 2)?;
    vp.set_register(PENDING_EVENT0, EXTINT)?;
    handled(&guest, ENTRY)
}

/// PENDING_INTERRUPTION: an interrupt and an NMI, which blocks further ones.
fn pending_interruption() -> Outcome {
    let guest = guest(guests::spin(), 0)?;
    let vp = guest.vp();
    vp.set_register(PENDING_INTERRUPTION, 1 | (VECTOR << 16))?;
    handled(&guest, ENTRY)?;
    equal("pending", vp.register(PENDING_INTERRUPTION)?, 0)?;
    vp.start_at(ENTRY)?;
    vp.set_register(PENDING_INTERRUPTION, 1 | (2 << 1) | (2 << 16))?;
    handled(&guest, ENTRY)?;
    equal("NMIs masked", vp.register(INTERRUPT_STATE)?, 2)
}

/// An ExtINT waits for STI and the instruction behind it.
fn extint_waits() -> Outcome {
    let guest = guest(guests::cli_sti(), 0)?;
    let vp = guest.vp();
    // CLI, OUT, STI, NOP.
    let message = vp.message()?;
    equal("port", io(&message)?.port_number, 0x80)?;
    vp.set_register(PENDING_EVENT0, EXTINT)?;
    good("skip", skip(vp, &message))?;
    equal("pending", vp.register(PENDING_EVENT0)?, EXTINT)?;
    handled(&guest, ENTRY + 5)?;
    equal("taken", vp.register(PENDING_EVENT0)?, 0)
}

/// The value "none" takes the ExtINT back.
fn extint_cleared(flags: u64) -> Outcome {
    let guest = guest(guests::two_ports(), flags)?;
    let vp = guest.vp();
    let message = vp.message()?;
    equal("port", io(&message)?.port_number, 0x80)?;
    vp.set_register(PENDING_EVENT0, EXTINT)?;
    vp.set_register(PENDING_EVENT0, 0)?;
    equal("pending", vp.register(PENDING_EVENT0)?, 0)?;
    good("skip", skip(vp, &message))?;
    port(vp, 0x82)
}

/// INTERRUPT_STATE holds an ExtINT off for one instruction.
fn shadow() -> Outcome {
    let guest = guest(guests::two_ports(), 0)?;
    let vp = guest.vp();
    vp.set_register(INTERRUPT_STATE, 1)?;
    equal("shadow", vp.register(INTERRUPT_STATE)?, 1)?;
    vp.set_register(PENDING_EVENT0, EXTINT)?;
    // The first instruction is the OUT; behind it the shadow has ended.
    port(vp, 0x80)?;
    handled(&guest, ENTRY + 2)
}

/// The VMM is told once when an interrupt can be delivered.
fn notice(flags: u64) -> Outcome {
    let guest = guest(guests::cli_sti(), flags)?;
    let vp = guest.vp();
    let message = vp.message()?;
    equal("port", io(&message)?.port_number, 0x80)?;
    vp.set_register(NOTIFICATIONS, NOTIFY_INTERRUPT)?;
    equal("wanted", vp.register(NOTIFICATIONS)?, NOTIFY_INTERRUPT)?;
    good("skip", skip(vp, &message))?;
    let info = deliverable(vp)?;
    equal(
        "type, RIP, rsvd",
        (info.deliverable_type, info.header.rip, info.rsvd),
        (TYPE_INTERRUPT, ENTRY + 5, 0),
    )?;
    equal("no longer wanted", vp.register(NOTIFICATIONS)?, 0)?;
    vp.set_register(PENDING_EVENT0, EXTINT)?;
    handled(&guest, ENTRY + 5)
}

/// At once, where nothing is in the way; not for an interrupt while an event is to be injected.
fn notice_at_once() -> Outcome {
    let guest = guest(guests::spin(), 0)?;
    let vp = guest.vp();
    vp.set_register(NOTIFICATIONS, NOTIFY_INTERRUPT | NOTIFY_NMI)?;
    let first = deliverable(vp)?.deliverable_type;
    equal("first", first, TYPE_NMI)?;
    let second = deliverable(vp)?.deliverable_type;
    equal("second", second, TYPE_INTERRUPT)?;
    equal("executed", guest.memory.word(COUNTER), 0)?;
    vp.set_register(NOTIFICATIONS, NOTIFY_INTERRUPT)?;
    vp.set_register(PENDING_INTERRUPTION, 1 | (VECTOR << 16))?;
    // Interrupts are off in the handler.
    handled(&guest, ENTRY)?;
    equal(
        "still wanted",
        vp.register(NOTIFICATIONS)?,
        NOTIFY_INTERRUPT,
    )
}

/// An interrupt of a class is deliverable when CR8 is below it.
fn priority() -> Outcome {
    let guest = long_mode_in(guests::two_priorities(), 0, 0)?;
    let vp = guest.vp();
    let message = vp.message()?;
    equal("port", io(&message)?.port_number, 0x80)?;
    equal("CR8", vp.register(CR8)?, 5)?;
    vp.set_register(NOTIFICATIONS, NOTIFY_INTERRUPT | (6 << 2))?;
    equal("CR8 of the message", deliverable(vp)?.header.cr8(), 5)?;
    vp.set_register(NOTIFICATIONS, NOTIFY_INTERRUPT | (4 << 2))?;
    good("skip", skip(vp, &message))?;
    equal("CR8 of the message", deliverable(vp)?.header.cr8(), 3)?;
    equal("CR8", vp.register(CR8)?, 3)?;
    port(vp, 0x81)
}

/// With a local APIC, in HLT: the notice comes, and the ExtINT wakes.
fn notice_in_hlt() -> Outcome {
    let guest = guest(guests::halt(), FLAGS)?;
    let vp = guest.vp();
    let running = run_once(vp);
    started(&guest.memory)?;
    interrupted(running.interrupt()?)?;
    vp.set_register(NOTIFICATIONS, NOTIFY_INTERRUPT)?;
    let behind = deliverable(vp)?.header.rip;
    equal("rounds", guest.memory.word(COUNTER), 1)?;
    vp.set_register(PENDING_EVENT0, EXTINT)?;
    handled(&guest, behind)
}

/// What only local APICs could do is refused.
fn refusals() -> Outcome {
    let partition = Partition::ready_with(0);
    let vp = partition.vp(0);
    for (name, value) in [
        (HV_REGISTER_INTERNAL_ACTIVITY_STATE, 1),
        (NOTIFICATIONS, 1 << 6),
        (NOTIFICATIONS, 1 << 47),
        (NOTIFICATIONS, 1 << 63),
    ] {
        refused(vp.set(&[(name, (value, 0))]), INVALID_PARAMETER)?;
    }
    let assert = Hvcall::new(0x94, &[0, 0, 0, VECTOR], 0).make(&partition);
    refused(assert.map(|_| ()), INVALID_PARTITION_STATE)?;
    let eventfd = EventFd::new();
    errno(
        "IRQFD",
        partition.irqfd(eventfd.number(), 1, 0, -1),
        libc::EOPNOTSUPP,
    )?;
    let buffer = Memory::new(PAGE);
    let mut state = mshv_get_set_vp_state {
        type_: 0,
        buf_sz: PAGE as u32,
        buf_ptr: buffer.addr() as u64,
        ..Default::default()
    };
    errno(
        "GET_VP_STATE of the local APIC",
        crate::sys::ioctl_on(&vp, 0xc010_b801, &mut state),
        libc::EINVAL,
    )?;
    let with_lapic = Partition::ready().vp(0);
    refused(
        with_lapic.set(&[(NOTIFICATIONS, (NOTIFY_NMI, 0))]),
        INVALID_PARAMETER,
    )
}

/// The guest has no local APIC: neither CPUID, nor MSR, nor page; and no feature that needs one.
fn nothing_there() -> Outcome {
    let asked = Partition::create(0).map_err(|e| Stop::Fail(format!("{e:?}")))?;
    let set = Hvcall::set_property(0x1_0001, u64::MAX).make(&asked);
    set.map_err(|e| Stop::Fail(format!("{e:?}")))?;
    good("INITIALIZE_PARTITION", asked.initialize())?;
    let got = Hvcall::get_property(0x1_0001).make(&asked);
    let got = got.map_err(|e| Stop::Fail(format!("{e:?}")))?;
    let features = u64::from_le_bytes(got[..8].try_into().expect("8 bytes"));
    // SynIC, timers, EOI/ICR/TPR, idle.
    ensure(features & 3 == 3, || format!("features {features:#x}"))?;
    let by_lapic = (7 << 4) | (1 << 10) | (1 << 22) | (1 << 26);
    equal("features of the local APIC", features & by_lapic, 0)?;
    let guest = guest(guests::msr(), 0)?;
    let vp = guest.vp();
    vp.set_register(HV_X64_REGISTER_RAX + 1, 0x1b)?;
    handled(&guest, ENTRY + 21)?;
    let before = vp.register(APIC_BASE)?;
    equal("APIC base", before, 0xfee0_0900)?;
    for value in [0xfee0_0d00, 0] {
        vp.set_register(APIC_BASE, value)?;
        equal("kept", vp.register(APIC_BASE)?, value)?;
    }
    let guest = Guest::with(guests::xapic_halt(), 1, 0, Memory::new(RAM))?;
    guest
        .vp()
        .set(&[(HV_X64_REGISTER_DS, segment(0, 0, u32::MAX, 0x8093))])
        .map_err(|e| Stop::Fail(format!("{e:?}")))?;
    let message = wanted(guest.vp(), hv_message_type_HVMSG_UNMAPPED_GPA)?;
    let info = message
        .to_memory_info()
        .map_err(|_| Stop::Fail("no such payload".into()))?;
    let address = info.guest_physical_address;
    equal("address", address, 0xfee0_00f0)
}

pub fn cases() -> Vec<Case> {
    vec![
        case("no LAPIC: CREATE_PARTITION; not with x2APIC", || {
            good("no flags", Partition::create(0))?;
            match Partition::create(1 << MSHV_PT_BIT_X2APIC) {
                Err(Errno(libc::EINVAL)) => Ok(()),
                _ => Err(Stop::Fail("x2APIC without a local APIC".into())),
            }
        }),
        case("no LAPIC: HLT is a message [V-M6]", halts),
        case("no LAPIC: a VP that the VMM halts", halted_by_vmm),
        case(
            "no LAPIC: PENDING_INTERRUPTION [V-R3]",
            pending_interruption,
        ),
        case("no LAPIC: an ExtINT waits for STI [V-R3]", extint_waits),
        case("no LAPIC: an ExtINT taken back", || extint_cleared(0)),
        case("LAPIC: an ExtINT taken back", || extint_cleared(FLAGS)),
        case("no LAPIC: INTERRUPT_STATE", shadow),
        case("no LAPIC: notice of deliverability", || notice(0)),
        case("LAPIC: notice of deliverability [V-M13]", || notice(FLAGS)),
        case("no LAPIC: notices at once", notice_at_once),
        case("no LAPIC: notices by priority", priority),
        case("LAPIC: notice of deliverability in HLT", notice_in_hlt),
        case("no LAPIC: what is refused", refusals),
        case("no LAPIC: what the guest does not have", nothing_there),
    ]
}
