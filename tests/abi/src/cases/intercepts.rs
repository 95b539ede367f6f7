// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HvCallInstallIntercept: what goes to the VMM, what its messages say, and that it no longer does afterwards.

use mshv_bindings::*;

use super::messages::{io, long_mode_in};
use crate::guests::{self, Code};
use crate::run::{case, ensure, equal, eventually, good, Case, Outcome, Stop};
use crate::sys::Errno;
use crate::threads::{interrupted, run_once, skip};
use crate::vm::names::*;
use crate::vm::*;

const NONE: u32 = 0;
const READ: u32 = 1;
const WRITE: u32 = 2;
pub const EXECUTE: u32 = 4;

const IO_PORT: u32 = 0;
const MSR: u32 = 1;
const CPUID: u32 = 2;
pub const EXCEPTION: u32 = 3;
pub const HYPERCALL: u32 = 8;
const MSR_INDEX: u32 = 0xc;
pub const CONNECTION: u32 = 0xd;
pub const RETARGET: u32 = 0xf;

const INVALID_PARAMETER: u16 = 5;
const INVALID_PARTITION_STATE: u16 = 7;
const OPERATION_DENIED: u16 = 8;
const INSUFFICIENT_MEMORY: u16 = 0xb;

const PENDING_INTERRUPTION: u32 = 0x1_0002;
const PENDING_EVENT0: u32 = 0x1_0004;
const GUEST_OS_ID: u32 = 0x9_0002;
const IDTR: u32 = HV_X64_REGISTER_IDTR;
const RCX: u32 = HV_X64_REGISTER_RAX + 1;
const RDX: u32 = HV_X64_REGISTER_RAX + 2;
const R8: u32 = HV_X64_REGISTER_RAX + 8;
const XMM1: u32 = 0x3_0001;
const DR6: u32 = 0x5_0004;

/// Where the handlers are.
const HANDLER: u32 = 0x1800;

fn fail(e: HvcallError) -> Stop {
    Stop::Fail(format!("{e:?}"))
}

fn call(access: u32, kind: u32, parameter: u64) -> Hvcall {
    let words = [0, u64::from(access) | (u64::from(kind) << 32), parameter];
    Hvcall::new(0x4d, &words, 0)
}

pub fn install(partition: &Partition, access: u32, kind: u32, parameter: u64) -> Outcome {
    let made = call(access, kind, parameter).make(partition);
    made.map(|_| ()).map_err(fail)
}

/// A guest in real mode whose exceptions are reported at port 0x81.
fn guest(code: Code) -> Result<Guest, Stop> {
    guest_with(code, 0)
}

/// The same with these synthetic features.
fn guest_with(code: Code, features: u64) -> Result<Guest, Stop> {
    let guest = Guest::with_features(code, 1, FLAGS, features, crate::sys::Memory::new(RAM))?;
    for vector in (0..32).chain([0x41]) {
        guest.memory.write(vector * 4, &HANDLER.to_le_bytes());
    }
    let handler = guests::report_fault();
    guest.memory.write(HANDLER as usize, handler.bytes());
    Ok(guest)
}

/// The next message is of an access to this port; RAX.
fn port(vp: &Vp, number: u16) -> Result<u64, Stop> {
    let message = vp.message()?;
    let info = io(&message)?;
    equal("port", info.port_number, number)?;
    let rax = info.rax;
    good("skip", skip(vp, &message))?;
    Ok(rax)
}

fn of_type(message: &hv_message, wanted: u32) -> Outcome {
    equal("message", message.header.message_type, wanted)
}

/// The next message is of this MSR and this access, with these RDX and RAX; it is completed with others.
fn msr(vp: &Vp, number: u32, write: bool, value: (u64, u64), answer: (u64, u64)) -> Outcome {
    let message = vp.message()?;
    of_type(&message, hv_message_type_HVMSG_X64_MSR_INTERCEPT)?;
    let info = message
        .to_msr_info()
        .map_err(|_| Stop::Fail("no such payload".into()))?;
    equal(
        "MSR, access, length, reserved",
        (
            info.msr_number,
            info.header.intercept_access_type,
            info.header.instruction_length(),
            info.reserved,
        ),
        (number, u8::from(write), 2, 0),
    )?;
    equal("RDX, RAX", (info.rdx, info.rax), value)?;
    let rip = info.header.rip + 2;
    vp.set(&[
        (HV_X64_REGISTER_RIP, (rip, 0)),
        (RDX, (answer.0, 0)),
        (HV_X64_REGISTER_RAX, (answer.1, 0)),
    ])
    .map_err(fail)
}

/// The guest `msr` from its start.
fn access_msr(vp: &Vp, number: u32) -> Outcome {
    vp.start_at(ENTRY)?;
    vp.set_register(RCX, number.into())
}

const ONES: (u64, u64) = (0xffff_ffff, 0xffff_ffff);

/// RDMSR and WRMSR of one MSR, by access: of a register that exits anyway, and of those that the CPU gives to the guest.
fn msr_index(number: u32, name: u32, value: u64) -> Outcome {
    let guest = guest(guests::msr())?;
    let (partition, vp) = (&guest.partition, guest.vp());
    vp.set_register(name, value)?;
    let (high, low) = (value >> 32, value & 0xffff_ffff);
    // Once without, so that the VP has its bitmap.
    access_msr(vp, number)?;
    equal("EAX", port(vp, 0x80)?, low)?;

    install(partition, READ | WRITE, MSR_INDEX, number.into())?;
    access_msr(vp, number)?;
    msr(vp, number, false, ONES, (7, 9))?;
    msr(vp, number, true, (7, 9), (7, 9))?;
    equal("EAX", port(vp, 0x80)?, 9)?;
    equal("the register itself", vp.register(name)?, value)?;

    install(partition, WRITE, MSR_INDEX, number.into())?;
    access_msr(vp, number)?;
    msr(vp, number, true, (high, low), (0, 0))?;
    port(vp, 0x80)?;

    install(partition, READ, MSR_INDEX, number.into())?;
    access_msr(vp, number)?;
    msr(vp, number, false, ONES, (high, low))?;
    port(vp, 0x80)?;

    install(partition, NONE, MSR_INDEX, number.into())?;
    access_msr(vp, number)?;
    equal("EAX", port(vp, 0x80)?, low)?;
    equal("the register itself", vp.register(name)?, value)
}

/// A synthetic MSR, also with another intercept, goes to the VMM only if the guest has the privilege.
fn privileged(number: u32, features: u64, told: bool) -> Outcome {
    let guest = guest_with(guests::msr(), features)?;
    let (partition, vp) = (&guest.partition, guest.vp());
    install(partition, READ | WRITE, MSR_INDEX, number.into())?;
    for other in [NONE, READ] {
        install(partition, other, MSR_INDEX, 0x277)?;
        access_msr(vp, number)?;
        if told {
            // Those of a crash leave the hot tier in any case.
            msr(vp, number, false, ONES, (1, 2))?;
            msr(vp, number, true, (1, 2), (0, 0))?;
        }
        port(vp, if told { 0x80 } else { 0x81 })?;
    }
    Ok(())
}

/// MSR, synthetic features, whether the VMM is told.
const PRIVILEGED: &[(&str, u32, u64, bool)] = &[
    ("CRASH_CTL without hv1", 0x4000_0105, 0, false),
    ("CRASH_CTL", 0x4000_0105, 3, true),
    ("CRASH_P0 without hv1", 0x4000_0100, 0, false),
    ("CRASH_P0", 0x4000_0100, 3, true),
    ("SCONTROL without the SynIC", 0x4000_0080, 3, false),
    ("SCONTROL", 0x4000_0080, u64::MAX, true),
    ("one that is not there", 0x4000_0033, 3, true),
];

/// MSRs that nobody implements; those that hvrs does are not among them.
fn unimplemented() -> Outcome {
    const NOBODYS: u32 = 0x1234;
    let guest = guest(guests::msr())?;
    let (partition, vp) = (&guest.partition, guest.vp());
    access_msr(vp, NOBODYS)?;
    port(vp, 0x81)?;

    install(partition, READ, MSR, 0)?;
    access_msr(vp, NOBODYS)?;
    msr(vp, NOBODYS, false, ONES, (1, 2))?;
    // The write is #GP.
    port(vp, 0x81)?;

    // It goes before the property.
    let ignore = Hvcall::set_property(0x5_0017, 1);
    ignore.make(partition).map_err(fail)?;
    install(partition, READ | WRITE, MSR, 0)?;
    for number in [NOBODYS, 0xc000_1234, 0x4000_0200 + 0x1_0000] {
        access_msr(vp, number)?;
        msr(vp, number, false, ONES, (1, 2))?;
        msr(vp, number, true, (1, 2), (0, 0))?;
        port(vp, 0x80)?;
    }
    // PAT is hvrs'.
    access_msr(vp, 0x277)?;
    port(vp, 0x80)?;

    install(partition, NONE, MSR, 0)?;
    access_msr(vp, NOBODYS)?;
    equal("EAX", port(vp, 0x80)?, 0)
}

/// Installed and removed while the VP runs.
fn while_running() -> Outcome {
    const SYSENTER_CS: u32 = 0x174;
    let guest = guest(guests::rdmsr_loop())?;
    let (partition, vp) = (&guest.partition, guest.vp());
    vp.set_register(RCX, SYSENTER_CS.into())?;
    for _ in 0..20 {
        let running = run_once(vp);
        let from = guest.memory.word(guests::COUNTER);
        eventually("the guest runs", 10, || {
            guest.memory.word(guests::COUNTER) != from
        })?;
        install(partition, READ, MSR_INDEX, SYSENTER_CS.into())?;
        let message = good("RUN_VP", running.wait(10)?)?;
        of_type(&message, hv_message_type_HVMSG_X64_MSR_INTERCEPT)?;
        install(partition, NONE, MSR_INDEX, SYSENTER_CS.into())?;
    }
    let running = run_once(vp);
    let from = guest.memory.word(guests::COUNTER);
    eventually("the guest runs", 10, || {
        guest.memory.word(guests::COUNTER) != from
    })?;
    interrupted(running.interrupt()?)
}

/// What an exception's message is to say.
struct Wanted {
    vector: u16,
    flags: u8,
    error_code: u32,
    parameter: u64,
    rip: u64,
    length: u8,
}

fn exception(vp: &Vp, wanted: Wanted) -> Result<hv_x64_exception_intercept_message, Stop> {
    let message = vp.message()?;
    of_type(&message, hv_message_type_HVMSG_X64_EXCEPTION_INTERCEPT)?;
    let info = message
        .to_exception_info()
        .map_err(|_| Stop::Fail("no such payload".into()))?;
    // SAFETY: A union of bits.
    let flags = unsafe { info.exception_info.as_uint8 };
    equal(
        "vector, flags, error code, parameter",
        (
            info.exception_vector,
            flags,
            info.error_code,
            info.exception_parameter,
        ),
        (
            wanted.vector,
            wanted.flags,
            wanted.error_code,
            wanted.parameter,
        ),
    )?;
    equal(
        "RIP, length, access",
        (
            info.header.rip,
            info.header.instruction_length(),
            info.header.intercept_access_type,
        ),
        (wanted.rip, wanted.length, 2),
    )?;
    Ok(info)
}

const PLAIN: Wanted = Wanted {
    vector: 6,
    flags: 0,
    error_code: 0,
    parameter: 0,
    rip: ENTRY,
    length: 0,
};

/// #UD: skipped, given to the guest, and not intercepted; and INT 6, which is none.
fn invalid_opcode() -> Outcome {
    let guest = guest(guests::ud2_int6())?;
    let (partition, vp) = (&guest.partition, guest.vp());
    port(vp, 0x81)?;
    install(partition, EXECUTE, EXCEPTION, 6)?;
    for _ in 0..2 {
        vp.start_at(ENTRY)?;
        vp.set_register(HV_X64_REGISTER_RAX + 15, 0x1515)?;
        let info = exception(vp, PLAIN)?;
        equal(
            "bytes",
            info.instruction_bytes[..2].to_vec(),
            vec![0xf, 0xb],
        )?;
        equal("count", info.instruction_byte_count, 15)?;
        let (rsp, r15) = (info.rsp, info.r15);
        equal("RSP, R15", (rsp, r15), (STACK, 0x1515))?;
    }
    // Given to the guest.
    vp.set_register(PENDING_EVENT0, 1 | (6 << 16))?;
    port(vp, 0x81)?;
    equal("return address", return_to(&guest)?, ENTRY)?;
    // Behind it: INT 6 is not intercepted.
    vp.start_at(ENTRY + 2)?;
    port(vp, 0x81)?;
    equal("return address", return_to(&guest)?, ENTRY + 4)?;
    install(partition, NONE, EXCEPTION, 6)?;
    vp.start_at(ENTRY)?;
    port(vp, 0x81)?;
    Ok(())
}

/// What the handler of a guest in real mode will return to.
fn return_to(guest: &Guest) -> Result<u64, Stop> {
    let sp = guest.vp().register(HV_X64_REGISTER_RSP)? as usize;
    Ok(u64::from(guest.memory.word(sp) & 0xffff))
}

/// INT3, as debuggers need it, and single steps.
fn breakpoint_and_steps() -> Outcome {
    let guest = guest(guests::int3_nops())?;
    let (partition, vp) = (&guest.partition, guest.vp());
    install(partition, EXECUTE, EXCEPTION, 3)?;
    install(partition, EXECUTE, EXCEPTION, 1)?;
    let int3 = Wanted {
        vector: 3,
        flags: 2,
        length: 1,
        ..PLAIN
    };
    exception(vp, int3)?;
    let dr6 = vp.register(DR6)?;
    vp.set(&[
        (HV_X64_REGISTER_RIP, (ENTRY + 1, 0)),
        (HV_X64_REGISTER_RFLAGS, (0x302, 0)),
    ])
    .map_err(fail)?;
    // Two NOPs, each a step.
    for rip in [ENTRY + 2, ENTRY + 3] {
        let step = Wanted {
            vector: 1,
            parameter: dr6 | (1 << 14),
            rip,
            ..PLAIN
        };
        exception(vp, step)?;
        equal("DR6", vp.register(DR6)?, dr6)?;
    }
    vp.set_register(HV_X64_REGISTER_RFLAGS, 0x202)?;
    port(vp, 0x80)?;
    Ok(())
}

/// #PF: the page comes, and the guest goes on. #GP with an error code.
fn page_fault() -> Outcome {
    let guest = long_mode_in(guests::load_and_out_64(), FLAGS, 0)?;
    let (partition, vp) = (&guest.partition, guest.vp());
    install(partition, EXECUTE, EXCEPTION, 14)?;
    install(partition, EXECUTE, EXCEPTION, 13)?;
    let cr2 = vp.register(0x4_0001)?;
    let fault = || Wanted {
        vector: 14,
        flags: 1,
        parameter: 0x4020_1234,
        ..PLAIN
    };
    exception(vp, fault())?;
    exception(vp, fault())?;
    equal("CR2", vp.register(0x4_0001)?, cr2)?;
    // The next 2 MiB are the first.
    guest.memory.write(0x1_3008, &0x83u64.to_le_bytes());
    guest.memory.set_word(0x1234, 0x77);
    equal("EAX", port(vp, 0x80)? & 0xff, 0x77)?;
    // A selector beyond the GDT.
    let protection = Wanted {
        vector: 13,
        flags: 1,
        error_code: 0xfff8,
        rip: vp.register(HV_X64_REGISTER_RIP)? + 5,
        ..PLAIN
    };
    exception(vp, protection)?;
    Ok(())
}

/// An interrupt whose delivery faults is not lost.
fn during_delivery() -> Outcome {
    let guest = guest(guests::spin())?;
    let (partition, vp) = (&guest.partition, guest.vp());
    install(partition, EXECUTE, EXCEPTION, 13)?;
    let idtr = vp.get(&[IDTR]).map_err(fail)?[0];
    vp.set(&[(IDTR, (16u64 << 48, 0))]).map_err(fail)?;
    vp.set_register(PENDING_INTERRUPTION, 1 | (0x41 << 16))?;
    let message = vp.message()?;
    of_type(&message, hv_message_type_HVMSG_X64_EXCEPTION_INTERCEPT)?;
    let info = message
        .to_exception_info()
        .map_err(|_| Stop::Fail("no such payload".into()))?;
    let vector = info.exception_vector;
    equal("vector", vector, 13)?;
    // SAFETY: A union of bits.
    let state = unsafe { info.header.execution_state.as_uint16 };
    ensure(state & (1 << 6) != 0, || format!("state {state:#x}"))?;
    let pending = vp.register(PENDING_INTERRUPTION)?;
    equal("pending", pending, 1 | (0x41 << 16))?;
    vp.set(&[(IDTR, idtr)]).map_err(fail)?;
    port(vp, 0x81)?;
    equal("return address", return_to(&guest)?, ENTRY)
}

/// Calls that hvrs does not know, and what they give if they are not intercepted.
fn hypercalls() -> Outcome {
    let guest = long_mode_in(guests::vmcall_64(), FLAGS, u64::MAX)?;
    let (partition, vp) = (&guest.partition, guest.vp());
    vp.set_register(GUEST_OS_ID, 1)?;
    const POST: u64 = 0x5c;
    const SIGNAL: u64 = 0x5d;
    // Messages are in memory.
    let arguments = |code: u64| match code {
        POST => (code, 0x3000),
        _ => (code | (1 << 16), 0xdd),
    };
    let make = |code: u64| -> Outcome {
        let (control, input) = arguments(code);
        vp.set(&[
            (HV_X64_REGISTER_RIP, (ENTRY, 0)),
            (RCX, (control, 0)),
            (RDX, (input, 0)),
            (R8, (0x88, 0)),
            (XMM1, (0x1111, 0x2222)),
        ])
        .map_err(fail)
    };
    let refused = |code: u64| -> Outcome {
        make(code)?;
        // No such connection; no such call.
        let status = if matches!(code, POST | SIGNAL) {
            0x12
        } else {
            2
        };
        equal("status", port(vp, 0x80)?, status)
    };
    let told = |code: u64| -> Outcome {
        make(code)?;
        let message = vp.message()?;
        of_type(&message, hv_message_type_HVMSG_HYPERCALL_INTERCEPT)?;
        // SAFETY: What the payload of this type is.
        let info = unsafe {
            std::ptr::read_unaligned(
                std::ptr::addr_of!(message.u.payload).cast::<hv_x64_hypercall_intercept_message>(),
            )
        };
        let (control, input) = arguments(code);
        let xmm1 = info.xmmregisters[1];
        equal(
            "RCX, RDX, R8, XMM1",
            (info.rcx, info.rdx, info.r8, { xmm1.low_part }, {
                xmm1.high_part
            }),
            (control, input, 0x88, 0x1111, 0x2222),
        )?;
        equal("length", info.header.instruction_length(), 3)?;
        let rip = info.header.rip + 3;
        vp.set(&[
            (HV_X64_REGISTER_RIP, (rip, 0)),
            (HV_X64_REGISTER_RAX, (0x1234, 0)),
        ])
        .map_err(fail)?;
        equal("RAX", port(vp, 0x80)?, 0x1234)
    };
    const RETARGET_CALL: u64 = 0x7e;
    for code in [POST, SIGNAL, RETARGET_CALL, 0x98] {
        refused(code)?;
    }
    install(partition, EXECUTE, CONNECTION, 0)?;
    told(POST)?;
    told(SIGNAL)?;
    refused(RETARGET_CALL)?;
    refused(0x98)?;
    install(partition, EXECUTE, RETARGET, 0)?;
    told(RETARGET_CALL)?;
    refused(0x98)?;
    install(partition, EXECUTE, HYPERCALL, 0)?;
    told(0x98)?;
    // HvCallNotifyLongSpinWait is hvrs'.
    make(8)?;
    equal("status", port(vp, 0x80)?, 0)?;
    for kind in [CONNECTION, RETARGET, HYPERCALL] {
        install(partition, NONE, kind, 0)?;
    }
    for code in [POST, SIGNAL, RETARGET_CALL, 0x98] {
        refused(code)?;
    }
    Ok(())
}

/// Type, access, parameter, status.
const REFUSED: &[(u32, u32, u64, u16)] = &[
    (IO_PORT, EXECUTE, 0x80, INVALID_PARAMETER),
    (IO_PORT, READ, 0x1_0000, INVALID_PARAMETER),
    // Ports always go to the VMM.
    (IO_PORT, NONE, 0x80, OPERATION_DENIED),
    (MSR, EXECUTE, 0, INVALID_PARAMETER),
    (MSR, READ | EXECUTE, 0, INVALID_PARAMETER),
    (MSR, READ, 1, INVALID_PARAMETER),
    (MSR_INDEX, EXECUTE, 0x277, INVALID_PARAMETER),
    (MSR_INDEX, READ, 1 << 32, INVALID_PARAMETER),
    (CPUID, READ, 1, INVALID_PARAMETER),
    (CPUID, EXECUTE, 0x4000_0000, INVALID_PARAMETER),
    (EXCEPTION, READ, 6, INVALID_PARAMETER),
    (EXCEPTION, EXECUTE, 2, INVALID_PARAMETER),
    (EXCEPTION, EXECUTE, 18, INVALID_PARAMETER),
    (EXCEPTION, EXECUTE, 32, INVALID_PARAMETER),
    (HYPERCALL, READ, 0, INVALID_PARAMETER),
    (HYPERCALL, EXECUTE, 1, INVALID_PARAMETER),
    (CONNECTION, WRITE, 0, INVALID_PARAMETER),
    (RETARGET, EXECUTE, 1, INVALID_PARAMETER),
    (4, EXECUTE, 0, INVALID_PARAMETER),
    (5, EXECUTE, 0, INVALID_PARAMETER),
    // CPUID of all partitions, SMI, INIT and SIPI, microcode updates, writes of the local APIC, EOI (those of level-triggered
    // interrupts are told in any case), traps, ranges of ports, registers, resets: no client has messages of them.
    (6, EXECUTE, 1, INVALID_PARAMETER),
    (7, EXECUTE, 0, INVALID_PARAMETER),
    (9, EXECUTE, 0, INVALID_PARAMETER),
    (0xa, READ, 0, INVALID_PARAMETER),
    (0xb, WRITE, 0xff, INVALID_PARAMETER),
    (0xe, EXECUTE, 0, INVALID_PARAMETER),
    (0xe, WRITE, 0, INVALID_PARAMETER),
    (0x10, EXECUTE, 6, INVALID_PARAMETER),
    (0x11, READ | WRITE, 0x80_0070, INVALID_PARAMETER),
    (0x12, READ, 0, INVALID_PARAMETER),
    (0x13, EXECUTE, 0, INVALID_PARAMETER),
    (u32::MAX, EXECUTE, 0, INVALID_PARAMETER),
];

fn refusals() -> Outcome {
    let partition = Partition::ready();
    for &(kind, access, parameter, status) in REFUSED {
        let what = format!("type {kind:#x}, access {access}, {parameter:#x}");
        match call(access, kind, parameter).make(&partition) {
            Err(e) => equal(&what, e.status, status)?,
            Ok(_) => return Err(Stop::Fail(format!("{what}: success"))),
        }
    }
    install(&partition, READ, IO_PORT, 0x80)?;
    install(&partition, READ | WRITE, IO_PORT, 0xffff)?;
    let early = Partition::create(FLAGS).expect("CREATE_PARTITION");
    match call(EXECUTE, CPUID, 1).make(&early) {
        Err(e) => equal("before INITIALIZE", e.status, INVALID_PARTITION_STATE),
        Ok(_) => Err(Stop::Fail("success before INITIALIZE".into())),
    }
}

/// There is room for 32 of a kind, also when others went before.
fn full(kind: u32, access: u32) -> Outcome {
    let partition = Partition::ready();
    for round in 0..3 {
        let first = 0x100 * round;
        for number in first..first + 32 {
            install(&partition, access, kind, number)?;
            install(&partition, access, kind, number)?;
        }
        match call(access, kind, first + 32).make(&partition) {
            Err(e) => equal(
                "the 33rd",
                (e.status, e.errno),
                (INSUFFICIENT_MEMORY, Errno(libc::ENOMEM)),
            )?,
            Ok(_) => return Err(Stop::Fail("success of the 33rd".into())),
        }
        for number in first..first + 33 {
            install(&partition, NONE, kind, number)?;
        }
    }
    Ok(())
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(name, number, features, told) in PRIVILEGED {
        cases.push(case(format!("intercept: {name}"), move || {
            privileged(number, features, told)
        }));
    }
    cases.extend([
        case("intercept: PAT by index [V-M9]", || {
            msr_index(0x277, 0x8_0004, 0x0007_0406_0007_0406)
        }),
        case("intercept: SYSENTER_CS by index", || {
            msr_index(0x174, 0x8_0005, 0x10)
        }),
        case("intercept: KERNEL_GS_BASE by index", || {
            msr_index(0xc000_0102, 0x8_0002, 0x7fff_1234_5678)
        }),
        case(
            "intercept: MSRs that nobody implements [H-P13]",
            unimplemented,
        ),
        case("intercept: an MSR, while the VP runs", while_running),
        case(
            "intercept: #UD, but not INT 6 [H-P13 H-P17 V-M10]",
            invalid_opcode,
        ),
        case("intercept: INT3 and single steps", breakpoint_and_steps),
        case("intercept: #PF and #GP with error codes", page_fault),
        case("intercept: #GP during delivery", during_delivery),
        case("intercept: hypercalls [V-M12]", hypercalls),
        case("intercept: what is refused [H-4D]", refusals),
        case("intercept: 32 leaves", || full(CPUID, EXECUTE)),
        case("intercept: 32 MSRs", || full(MSR_INDEX, READ)),
    ]);
    cases
}
