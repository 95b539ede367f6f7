// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ports and connections: a guest posts messages and signals events to another partition, or to its VMM. The guest is one
//! VMCALL, the registers are the test's.

#![allow(clippy::precedence)] // Words, field by field.

use std::os::fd::AsRawFd;

use mshv_bindings::hv_message;

use crate::cases::messages::io;
use crate::cases::state::get_state;
use crate::cases::synic::listening;
use crate::guests;
use crate::hvrs;
use crate::run::{case, ensure, equal, eventually, good, Case, Outcome, Stop};
use crate::sys::Memory;
use crate::threads::{run_once, skip};
use crate::vm::names::*;
use crate::vm::*;

const SYNTHETIC_PROC_FEATURES: u32 = 0x0001_0001;
const GUEST_OS_ID: u32 = 0x9_0002;
const SINT2: u32 = 0xa_0002;
const SCONTROL: u32 = 0xa_0010;
const SIEFP: u32 = 0xa_0012;
const SIMP: u32 = 0xa_0013;

/// hypervisor_present, hv1.
const BARE: u64 = 3;
const SIGNAL_EVENTS: u64 = 1 << 29;

const POST: u64 = 0x5c;
const SIGNAL: u64 = 0x5d;
const FAST: u64 = 1 << 16;

const INVALID_ALIGNMENT: u16 = 4;
const INVALID_PARAMETER: u16 = 5;
const ACCESS_DENIED: u16 = 6;
const UNKNOWN_PROPERTY: u16 = 9;
const INVALID_PARTITION_STATE: u16 = 7;
const INVALID_PARTITION_ID: u16 = 0xd;
const INVALID_VP_INDEX: u16 = 0xe;
const INVALID_PORT_ID: u16 = 0x11;
const INVALID_CONNECTION_ID: u16 = 0x12;
const INSUFFICIENT_BUFFERS: u16 = 0x13;
const INVALID_SYNIC_STATE: u16 = 0x18;

const UNMAPPED_GPA: u32 = 0x8000_0000;
const HYPERCALL_INTERCEPT: u32 = 0x8000_0050;

const ANY_VP: u64 = u32::MAX as u64;
const INPUT: usize = 0x4000;

/// A guest that makes calls.
struct Sender {
    partition: Partition,
    memory: Memory,
    vp: Vp,
    id: u64,
}

/// Of the newest of this process' partitions.
fn newest() -> u64 {
    let ids = hvrs::mine().into_iter().map(|p| p.id);
    ids.max().expect("a partition")
}

impl Sender {
    fn new(features: u64) -> Result<Self, Stop> {
        let partition = Partition::create(FLAGS).expect("CREATE_PARTITION");
        Hvcall::set_property(SYNTHETIC_PROC_FEATURES, features)
            .make(&partition)
            .map_err(|e| Stop::Fail(format!("features: {e:?}")))?;
        partition.initialize().expect("INITIALIZE_PARTITION");
        let id = newest();
        let memory = Memory::new(RAM);
        memory.write(ENTRY as usize, guests::hypercall().bytes());
        partition.map(0, &memory, RWX);
        let vp = partition.vp(0);
        vp.start_at(ENTRY)?;
        vp.set_register(GUEST_OS_ID, 1)?;
        let mut registers = vec![
            (HV_X64_REGISTER_CR0, (0x11, 0)),
            (HV_X64_REGISTER_CS, segment(8, 0, u32::MAX, 0xc09b)),
        ];
        for name in [HV_X64_REGISTER_DS, HV_X64_REGISTER_ES, HV_X64_REGISTER_SS] {
            registers.push((name, segment(16, 0, u32::MAX, 0xc093)));
        }
        vp.set(&registers)
            .map_err(|e| Stop::Fail(format!("protected mode: {e:?}")))?;
        Ok(Self {
            partition,
            memory,
            vp,
            id,
        })
    }

    /// Makes a call; what RUN_VP gives.
    fn run(&self, control: u64, input: u64) -> Result<hv_message, Stop> {
        let low = |value: u64| (value & 0xffff_ffff, 0);
        let high = |value: u64| (value >> 32, 0);
        let gpr = |n: u32, value| (HV_X64_REGISTER_RAX + n, value);
        // EDX:EAX control, EBX:ECX input, EDI:ESI output.
        let registers = [
            gpr(0, low(control)),
            gpr(2, high(control)),
            gpr(1, low(input)),
            gpr(3, high(input)),
            gpr(6, (0, 0)),
            gpr(7, (0, 0)),
            (HV_X64_REGISTER_RIP, (ENTRY, 0)),
        ];
        self.vp
            .set(&registers)
            .map_err(|e| Stop::Fail(format!("arguments: {e:?}")))?;
        self.vp.message()
    }

    /// Makes a call to its end: the status.
    fn call(&self, control: u64, input: u64) -> Result<u16, Stop> {
        let message = self.run(control, input)?;
        let info = io(&message)?;
        equal("port", info.port_number, 0x80)?;
        Ok(self.vp.register(HV_X64_REGISTER_RAX)? as u16)
    }

    /// HvCallPostMessage with one word of payload.
    fn post(&self, connection: u64, kind: u64, size: u64, word: u64) -> Result<u16, Stop> {
        for (i, value) in [connection, kind | size << 32, word].iter().enumerate() {
            self.memory.write(INPUT + 8 * i, &value.to_le_bytes());
        }
        self.call(POST, INPUT as u64)
    }

    /// HvCallSignalEvent, in registers and in memory: both must give the same.
    fn signal(&self, connection: u64, flag: u64) -> Result<u16, Stop> {
        let word = connection | flag << 32;
        let fast = self.call(SIGNAL | FAST, word)?;
        self.memory.write(INPUT, &word.to_le_bytes());
        let slow = self.call(SIGNAL, INPUT as u64)?;
        equal("status in memory and in registers", slow, fast)?;
        Ok(slow)
    }
}

fn status(call: &Hvcall, fd: &impl AsRawFd) -> u16 {
    call.make(fd).map_or_else(|e| e.status, |_| 0)
}

/// HvCallCreatePort: id and reserved bits, who may connect, type, SINT and VP, flags.
fn create(port: u64, peer: u64, kind: u64, sint: u64, vp: u64, flags: u64) -> Hvcall {
    Hvcall::new(0x95, &[0, port, peer, kind, sint | vp << 32, flags, 0], 0)
}

/// HvCallConnectPort.
fn connect(connection: u64, owner: u64, port: u64, kind: u64) -> Hvcall {
    let words = [0, connection, owner, port, kind, 0, 0, 0, 0];
    Hvcall::new(0x96, &words, 0)
}

fn delete_port(port: u64) -> Hvcall {
    Hvcall::new(0x58, &[0, port], 0)
}

fn disconnect(connection: u64) -> Hvcall {
    Hvcall::new(0x5b, &[0, connection], 0)
}

/// A message port 5 and connection 7, an event port 6 with flags 8 to 11 and connection 8, both for VP 0 and SINT 2; a
/// message port for any VP and connection 9.
fn wire(sender: &Sender, receiver: &Partition, receiver_id: u64) -> Outcome {
    for (port, kind, vp, flags) in [(5, 1, 0, 0), (6, 2, 0, 8 | 4 << 16), (10, 1, ANY_VP, 0)] {
        let made = status(&create(port, sender.id, kind, 2, vp, flags), receiver);
        equal("CreatePort", made, 0)?;
    }
    for (connection, port, kind) in [(7, 5, 1), (8, 6, 2), (9, 10, 1)] {
        let call = connect(connection, receiver_id, port, kind);
        equal("ConnectPort", status(&call, &sender.partition), 0)?;
    }
    Ok(())
}

/// Each status of the two calls, in the TLFS' order.
fn statuses() -> Outcome {
    let sender = Sender::new(BARE | SIGNAL_EVENTS)?;
    equal(
        "no connection",
        sender.post(7, 1, 8, 0)?,
        INVALID_CONNECTION_ID,
    )?;
    equal("no connection", sender.signal(8, 0)?, INVALID_CONNECTION_ID)?;
    let receiver = Partition::ready();
    let receiver_id = newest();
    let vp = receiver.vp(0);
    wire(&sender, &receiver, receiver_id)?;
    for connection in [6, 10, 7 | 1 << 24, 7 | 1 << 31] {
        equal(
            "id",
            sender.post(connection, 1, 8, 0)?,
            INVALID_CONNECTION_ID,
        )?;
        equal("id", sender.signal(connection, 0)?, INVALID_CONNECTION_ID)?;
    }
    equal(
        "message by an event's",
        sender.post(8, 1, 8, 0)?,
        INVALID_PORT_ID,
    )?;
    equal(
        "event by a message's",
        sender.signal(7, 0)?,
        INVALID_PORT_ID,
    )?;
    // Parameters come before the state of the receiver's SynIC, which is off.
    for (kind, size) in [
        (0, 8),
        (1 << 31, 8),
        (u64::from(u32::MAX), 8),
        (1, 241),
        (1, 1 << 31),
    ] {
        equal(
            "parameter",
            sender.post(7, kind, size, 0)?,
            INVALID_PARAMETER,
        )?;
    }
    equal(
        "reserved",
        sender.post(7 | 1 << 32, 1, 8, 0)?,
        INVALID_PARAMETER,
    )?;
    for flag in [4, 5, 0xffff, 1 << 16, 1 << 31] {
        equal("flag", sender.signal(8, flag)?, INVALID_PARAMETER)?;
    }
    equal("no SynIC", sender.post(7, 1, 8, 0)?, INVALID_SYNIC_STATE)?;
    equal("no SynIC", sender.signal(8, 0)?, INVALID_SYNIC_STATE)?;
    equal("nobody's SynIC", sender.post(9, 1, 8, 0)?, INVALID_VP_INDEX)?;
    vp.set_register(SCONTROL, 1)?;
    equal("no page", sender.post(7, 1, 8, 0)?, INVALID_SYNIC_STATE)?;
    vp.set_register(SIMP, 0x1_0001)?;
    vp.set_register(SIEFP, 0x1_1001)?;
    // Masked, as after RESET: messages come all the same, events do not.
    equal("masked", sender.signal(8, 0)?, INVALID_SYNIC_STATE)?;
    // One in the slot, sixteen in the port's buffers.
    for n in 0..17 {
        equal("post", sender.post(7, 1 + n, 8, n)?, 0)?;
    }
    equal("18th", sender.post(7, 1, 8, 0)?, INSUFFICIENT_BUFFERS)?;
    equal("another port's buffers", sender.post(9, 1, 240, 0)?, 0)?;
    vp.set_register(SINT2, 0x30)?;
    for flag in [0, 3, 3, 1] {
        equal("signal", sender.signal(8, flag)?, 0)?;
    }
    // The port goes, the connection stays, of no use; a new port of the same id is another port.
    equal("DeletePort", status(&delete_port(5), &receiver), 0)?;
    equal(
        "DeletePort twice",
        status(&delete_port(5), &receiver),
        INVALID_PORT_ID,
    )?;
    equal("deleted", sender.post(7, 1, 8, 0)?, INVALID_PORT_ID)?;
    equal(
        "again",
        status(&create(5, sender.id, 1, 2, 0, 0), &receiver),
        0,
    )?;
    equal("still", sender.post(7, 1, 8, 0)?, INVALID_PORT_ID)?;
    let gone = status(&disconnect(7), &sender.partition);
    equal("DisconnectPort", gone, 0)?;
    equal(
        "disconnected",
        sender.post(7, 1, 8, 0)?,
        INVALID_CONNECTION_ID,
    )?;
    equal(
        "DisconnectPort twice",
        status(&disconnect(7), &sender.partition),
        INVALID_CONNECTION_ID,
    )?;
    // The partition goes with its ports, also while a VP's file keeps it.
    drop(receiver);
    equal("no receiver", sender.signal(8, 0)?, INVALID_PORT_ID)?;
    equal("no receiver", sender.post(9, 1, 8, 0)?, INVALID_PORT_ID)
}

/// Statuses of the calls that make ports and connections.
fn objects() -> Outcome {
    let sender = Sender::new(BARE | SIGNAL_EVENTS)?;
    let new = Partition::create(FLAGS).expect("CREATE_PARTITION");
    let call = create(1, sender.id, 1, 1, ANY_VP, 0);
    equal(
        "not initialized",
        status(&call, &new),
        INVALID_PARTITION_STATE,
    )?;
    let receiver = Partition::ready();
    let id = newest();
    let vp = receiver.vp(0);
    let peer = sender.id;
    let ports = [
        (create(1 << 24, peer, 1, 1, 0, 0), INVALID_PORT_ID),
        (create(1, id, 1, 1, 0, 0), INVALID_PARTITION_ID),
        (create(1, 0, 1, 1, 0, 0), INVALID_PARTITION_ID),
        (create(1, peer, 1, 0, 0, 0), INVALID_PARAMETER),
        (create(1, peer, 1, 16, 0, 0), INVALID_PARAMETER),
        (create(1, peer, 0, 1, 0, 0), INVALID_PARAMETER),
        (create(1, peer, 3, 1, 0, 0), INVALID_ALIGNMENT),
        (create(1, peer, 3, 0x1000, 0, 1), INVALID_PARAMETER),
        (create(1, peer, 3, 0x1000, 1 << 31, 0), INVALID_PARAMETER),
        (create(1, peer, 1, 1, 0, 1), INVALID_PARAMETER),
        (create(1, peer, 2, 1, 0, 0), INVALID_PARAMETER),
        (create(1, peer, 2, 1, 0, 1 | 2048 << 16), INVALID_PARAMETER),
        (create(1 | 1 << 32, peer, 1, 1, 0, 0), INVALID_PARAMETER),
        (create(1 | 1 << 48, peer, 1, 1, 0, 0), INVALID_PARAMETER),
        (create(1, peer, 1, 1, 1, 0), INVALID_VP_INDEX),
        (create(1, peer, 2, 15, 0, 2048 << 16), 0),
        (create(1, peer, 1, 1, 0, 0), INVALID_PORT_ID),
    ];
    for (n, (call, wanted)) in ports.into_iter().enumerate() {
        let got = status(&call, &receiver);
        ensure(got == wanted, || format!("port {n}: status {got:#x}"))?;
    }
    let on_vp = status(&create(2, peer, 1, 1, 0, 0), &vp);
    equal("by the VP's file", on_vp, ACCESS_DENIED)?;
    let connections = [
        (connect(1 << 24, id, 1, 2), INVALID_CONNECTION_ID),
        (connect(1, id, 2, 2), INVALID_PORT_ID),
        (connect(1, id + 1, 1, 2), INVALID_PORT_ID),
        (connect(1, id, 1, 1), INVALID_PARAMETER),
        (connect(1 | 1 << 32, id, 1, 2), INVALID_PARAMETER),
        (connect(1 | 1 << 40, id, 1, 2), INVALID_PARAMETER),
        (connect(1, id, 1 | 1 << 32, 2), INVALID_PARAMETER),
        (connect(1, id, 1, 2), 0),
        (connect(2, id, 1, 2), INVALID_PORT_ID),
    ];
    for (n, (call, wanted)) in connections.into_iter().enumerate() {
        let got = status(&call, &sender.partition);
        ensure(got == wanted, || format!("connection {n}: status {got:#x}"))?;
    }
    // Only the partition that the port names may connect.
    let stranger = Partition::ready();
    let got = status(&connect(1, id, 1, 2), &stranger);
    equal("a stranger", got, INVALID_PORT_ID)
}

/// Seventeen messages arrive in order, each after the one before was ended; then an event.
fn arrive() -> Outcome {
    let sender = Sender::new(BARE | SIGNAL_EVENTS)?;
    let receiver = listening()?;
    wire(&sender, &receiver.partition, newest())?;
    // Its APIC must take interrupts first.
    let running = run_once(receiver.vp());
    eventually("the guest waits", 5, || {
        receiver.memory.word(guests::COUNTER) > 0
    })?;
    for n in 1..=17 {
        equal("post", sender.post(7, 100 + n, 8, 3 * n)?, 0)?;
    }
    let mut first = Some(good("RUN_VP", running.wait(5)?)?);
    let mut told = || -> Result<[u32; 3], Stop> {
        let mut told = [0; 3];
        for _ in 0..3 {
            let message = match first.take() {
                Some(message) => message,
                None => receiver.vp().message()?,
            };
            let info = io(&message)?;
            let port = usize::from(info.port_number);
            let at = told.get_mut(port.wrapping_sub(0x80));
            *at.ok_or_else(|| Stop::Fail(format!("port {port:#x}")))? = info.rax as u32;
            skip(receiver.vp(), &message).map_err(|e| Stop::Fail(format!("OUT: {e:?}")))?;
        }
        Ok(told)
    };
    for n in 1..=17 {
        equal("the guest saw", told()?, [100 + n, 3 * n, 0])?;
        // There is room again: later messages come behind those that wait.
        if n == 3 {
            equal("post", sender.post(7, 118, 8, 54)?, 0)?;
        }
    }
    equal("the guest saw", told()?, [118, 54, 0])?;
    equal("signal", sender.signal(8, 2)?, 0)?;
    equal("the guest saw", told()?, [0, 0, 1 << 10])
}

/// Without its feature a call is denied, whatever else is wrong with it.
fn denied() -> Outcome {
    let sender = Sender::new(BARE)?;
    let list = 1 << 32;
    for control in [
        POST,
        SIGNAL,
        SIGNAL | FAST,
        0x02,
        0x03 | list,
        0x0b,
        0x13,
        0x14 | list,
        0x15,
        0x50 | list,
        0x51 | list,
        0x69,
        0x6a,
        0x6b,
        0x99,
        0x9a | list,
    ] {
        for wrong in [0, 1 << 63, 1 << 27] {
            let got = sender.call(control | wrong, 1)?;
            equal(&format!("{control:#x} {wrong:#x}"), got, ACCESS_DENIED)?;
        }
    }
    Ok(())
}

/// HvCallInstallIntercept for connections that are not known: the VMM gets the call and answers it.
fn unknown_connection() -> Outcome {
    let sender = Sender::new(BARE | SIGNAL_EVENTS)?;
    let install = |access: u64, parameter: u64| {
        let words = [0, access | 0xd << 32, parameter];
        status(&Hvcall::new(0x4d, &words, 0), &sender.partition)
    };
    equal("read access", install(1, 0), INVALID_PARAMETER)?;
    equal("parameter", install(4, 1), INVALID_PARAMETER)?;
    equal("install", install(4, 0), 0)?;
    for round in 0..3 {
        let word = 0x1234 | 9 << 32;
        let message = sender.run(SIGNAL | FAST, word)?;
        equal("type", message.header.message_type, HYPERCALL_INTERCEPT)?;
        // Header of 40 bytes, then RAX, RBX, RCX.
        // SAFETY: the union's bytes.
        let payload = |at: usize| unsafe { message.u.payload }[at / 8];
        let seen = [40, 48, 56].map(payload);
        equal("RAX, RBX, RCX", seen, [SIGNAL | FAST, 9, 0x1234])?;
        equal("RIP", payload(24), ENTRY)?;
        let answer = [
            (HV_X64_REGISTER_RAX, (0x40 + round, 0)),
            (HV_X64_REGISTER_RIP, (ENTRY + 3, 0)),
        ];
        sender
            .vp
            .set(&answer)
            .map_err(|e| Stop::Fail(format!("{e:?}")))?;
        let message = sender.vp.message()?;
        equal("answer", io(&message)?.rax & 0xff, 0x40 + round)?;
    }
    equal("remove", install(0, 0), 0)?;
    equal("removed", sender.signal(0x1234, 0)?, INVALID_CONNECTION_ID)
}

/// HvCallConnectPort for a monitor port.
fn connect_monitor(connection: u64, owner: u64, port: u64, page: u64) -> Hvcall {
    let words = [0, connection, owner, port, 3, page, 0, 0, 0];
    Hvcall::new(0x96, &words, 0)
}

/// Sets a trigger of the page at 0x6000 (connection 4), which `receiver` has at 0x7000 (port 3); its event is flag 9 at SINT 2.
fn monitored(code: guests::Code, features: u64, receiver: &Guest) -> Result<Guest, Stop> {
    let receiver_id = newest();
    let sender = Guest::with_features(code, 1, FLAGS, features, Memory::new(RAM))?;
    let sender_id = newest();
    let port = create(3, sender_id, 3, 0x7000, 0, 0);
    equal("CreatePort", status(&port, &receiver.partition), 0)?;
    let port = create(6, sender_id, 2, 2, 0, 8 | 4 << 16);
    equal("CreatePort", status(&port, &receiver.partition), 0)?;
    let call = connect_monitor(4, receiver_id, 3, 0x6000);
    equal("ConnectPort", status(&call, &sender.partition), 0)?;
    let call = connect(8, receiver_id, 6, 2);
    equal("ConnectPort", status(&call, &sender.partition), 0)?;
    Ok(sender)
}

/// What the receiver tells after an interrupt: the event flags.
fn flags_told(receiver: &Guest, before: impl FnOnce() -> Outcome) -> Result<u32, Stop> {
    let counter = receiver.memory.word(guests::COUNTER);
    let running = run_once(receiver.vp());
    eventually("the receiver waits", 10, || {
        receiver.memory.word(guests::COUNTER) > counter
    })?;
    before()?;
    let mut message = good("RUN_VP", running.wait(20)?)?;
    loop {
        let info = io(&message)?;
        skip(receiver.vp(), &message).map_err(|e| Stop::Fail(format!("OUT: {e:?}")))?;
        if info.port_number == 0x82 {
            return Ok(info.rax as u32);
        }
        message = receiver.vp().message()?;
    }
}

/// A guest sets a trigger, without an exit; the event arrives, the trigger is free again.
fn notified() -> Outcome {
    let receiver = listening()?;
    let sender = monitored(guests::notify(), BARE | SIGNAL_EVENTS, &receiver)?;
    for _ in 0..3 {
        let flags = flags_told(&receiver, || {
            let message = sender.vp().message()?;
            equal("taken", io(&message)?.port_number, 0x80)?;
            skip(sender.vp(), &message).map_err(|e| Stop::Fail(format!("OUT: {e:?}")))
        })?;
        equal("flags", flags, 1 << 9)?;
    }
    Ok(())
}

/// The same by a guest that sleeps afterwards.
fn notified_by_a_sleeper() -> Outcome {
    let receiver = listening()?;
    let sender = monitored(guests::notify_and_halt(), BARE | SIGNAL_EVENTS, &receiver)?;
    let mut sleeper = None;
    let flags = flags_told(&receiver, || {
        sleeper = Some(run_once(sender.vp()));
        Ok(())
    })?;
    equal("flags", flags, 1 << 9)
}

/// Errors stay with the hypervisor: without the privilege, and without the connection, a trigger is taken all the same.
fn notified_in_vain() -> Outcome {
    for features in [BARE, BARE | SIGNAL_EVENTS] {
        let receiver = listening()?;
        let sender = monitored(guests::notify(), features, &receiver)?;
        if features != BARE {
            equal(
                "DisconnectPort",
                status(&disconnect(8), &sender.partition),
                0,
            )?;
        }
        for _ in 0..2 {
            let message = sender.vp().message()?;
            equal("taken", io(&message)?.port_number, 0x80)?;
            skip(sender.vp(), &message).map_err(|e| Stop::Fail(format!("OUT: {e:?}")))?;
        }
        let page = Memory::new(4096);
        get_state(receiver.vp(), 3, &page)?;
        equal("flags", page.word(2 * 256), 0)?;
    }
    Ok(())
}

/// One page, in both partitions; under it their own memory.
fn shared_page() -> Outcome {
    let receiver = Guest::new(guests::peek())?;
    receiver.memory.set_word(0x7000, 0x1111);
    let sender = monitored(guests::notify(), BARE, &receiver)?;
    sender.memory.set_word(0x6000, 0x2222);
    sender.vp().message()?;
    let seen = || -> Result<u64, Stop> {
        let message = receiver.vp().message()?;
        skip(receiver.vp(), &message).map_err(|e| Stop::Fail(format!("OUT: {e:?}")))?;
        Ok(io(&message)?.rax & 0xffff_ffff)
    };
    equal("the sender's word", seen()?, 2)?;
    equal(
        "DeletePort",
        status(&delete_port(3), &receiver.partition),
        0,
    )?;
    // What was under way may have been read before.
    seen()?;
    equal("without the port", seen()?, 0x1111)?;
    let gone = status(&disconnect(4), &sender.partition);
    equal("DisconnectPort", gone, 0)?;
    equal("the sender's memory", sender.memory.word(0x6000), 0x2222)
}

/// HvCallGetPortProperty and HvCallSetPortProperty.
fn properties() -> Outcome {
    let sender = Sender::new(BARE | SIGNAL_EVENTS)?;
    let receiver = Partition::ready();
    let receiver_id = newest();
    let vps = [receiver.vp(0), receiver.vp(1)];
    wire(&sender, &receiver, receiver_id)?;
    for (vp, page) in vps.iter().zip([0x1_0001, 0x1_1001]) {
        vp.set_register(SCONTROL, 1)?;
        vp.set_register(SIMP, page)?;
    }
    let get = |port: u64, code: u64| {
        let words = [0, port, code];
        let result = Hvcall::new(0x5a, &words, 8).make(&receiver);
        result.map_or_else(
            |e| Err(e.status),
            |bytes| Ok(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"))),
        )
    };
    let set = |port: u64, code: u64, value: u64| {
        let words = [0, port, code, value];
        status(&Hvcall::new(0x70, &words, 0), &receiver)
    };
    equal("posts", get(10, 0), Ok(0))?;
    equal("preferred", get(10, 1), Ok(ANY_VP))?;
    for (what, got, wanted) in [
        ("no such port", get(99, 0), INVALID_PORT_ID),
        ("reserved", get(10 | 1 << 32, 0), INVALID_PORT_ID),
        ("no such property", get(10, 2), UNKNOWN_PROPERTY),
    ] {
        equal(what, got, Err(wanted))?;
    }
    for (what, got, wanted) in [
        ("no such port", set(99, 1, 0), INVALID_PORT_ID),
        ("a count", set(10, 0, 0), UNKNOWN_PROPERTY),
        ("no such property", set(10, 2, 0), UNKNOWN_PROPERTY),
        ("no such VP", set(10, 1, 2), INVALID_VP_INDEX),
        ("not an index", set(10, 1, 1 << 32), INVALID_VP_INDEX),
        ("a port with its VP", set(5, 1, 1), INVALID_PARAMETER),
    ] {
        equal(what, got, wanted)?;
    }
    let slot = |vp: &Vp| -> Result<u32, Stop> {
        let page = Memory::new(4096);
        get_state(vp, 2, &page)?;
        Ok(page.word(2 * 256))
    };
    equal("post", sender.post(9, 21, 8, 0)?, 0)?;
    equal("to the first", [slot(&vps[0])?, slot(&vps[1])?], [21, 0])?;
    equal("set", set(10, 1, 1), 0)?;
    equal("preferred", get(10, 1), Ok(1))?;
    equal("post", sender.post(9, 22, 8, 0)?, 0)?;
    equal(
        "to the preferred",
        [slot(&vps[0])?, slot(&vps[1])?],
        [21, 22],
    )?;
    equal("refused", sender.post(9, 0, 8, 0)?, INVALID_PARAMETER)?;
    equal("posts", get(10, 0), Ok(2))?;
    equal("other ports'", get(5, 0), Ok(0))?;
    equal("any", set(10, 1, ANY_VP), 0)?;
    equal("preferred", get(10, 1), Ok(ANY_VP))
}

/// Input where no memory is: as if the guest had read there.
fn input_is_missing() -> Outcome {
    let sender = Sender::new(BARE | SIGNAL_EVENTS)?;
    let message = sender.run(POST, 0x4000_0000)?;
    equal("type", message.header.message_type, UNMAPPED_GPA)?;
    equal("RIP", sender.vp.register(HV_X64_REGISTER_RIP)?, ENTRY)
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "ports: statuses of PostMessage and SignalEvent [H-5C H-5D H-58 H-5B C-3B4 C-3B5 K-09 K-10]",
            statuses,
        ),
        case("ports: statuses of CreatePort and ConnectPort [H-57 H-59 F-SY10]", objects),
        case("ports: messages arrive in order, and an event [F-SY8 F-SY9 H-5C H-5D]", arrive),
        case("monitored notifications: an event without an exit [F-SY11]", notified),
        case("monitored notifications: by a VP that sleeps", notified_by_a_sleeper),
        case("monitored notifications: errors are swallowed", notified_in_vain),
        case("monitored notifications: one page in both partitions", shared_page),
        case("ports: properties [H-5A H-70]", properties),
        case("hypercalls: denied without their feature [C-R8 A-25 C-3B11 C-3B4 C-3B5 C-3B17 C-3B21]", denied),
        case("ports: unknown connections are the VMM's [H-4D H-5D]", unknown_connection),
        case("hypercalls: input that is not there [A-16]", input_is_missing),
    ]
}
