// SPDX-License-Identifier: Apache-2.0 OR MIT
//! RUN_VP's messages: ports, memory, stops.

use mshv_bindings::*;

use crate::guests::{self, Code};
use crate::run::{case, ensure, equal, errno, good, Case, Outcome, Stop};
use crate::sys::{Memory, KERNEL, NOWHERE, PAGE};
use crate::threads::skip;
use crate::vm::names::*;
use crate::vm::*;

const READ: u8 = 0;
const WRITE: u8 = 1;
const EXECUTE: u8 = 2;

fn kind(message: &hv_message) -> u32 {
    message.header.message_type
}

pub fn io(message: &hv_message) -> Result<hv_x64_io_port_intercept_message, Stop> {
    message
        .to_ioport_info()
        .map_err(|_| Stop::Fail(format!("message {:#x} instead of a port's", kind(message))))
}

/// What a port access is to look like: port, size, access, RAX, how far behind the entry.
struct Port(u16, u8, u8, u64, u64, u8);

/// What the guest `ports` does: port, size, access, RAX, offset of the instruction, its length.
const PORTS: &[Port] = &[
    Port(0x3f8, 1, WRITE, 0x1234_5678, 9, 1),
    Port(0x3f8, 2, WRITE, 0x1234_5678, 10, 1),
    Port(0x3f8, 4, WRITE, 0x1234_5678, 11, 2),
    Port(0x80, 1, WRITE, 0x1234_5678, 13, 2),
    Port(0x81, 4, WRITE, 0x1234_5678, 15, 3),
    Port(0xcf8, 1, READ, 0x1234_5678, 21, 1),
    Port(0xcf8, 2, READ, 0x1234_56a0, 22, 1),
    Port(0xcf8, 4, READ, 0x1234_a1a1, 23, 2),
    Port(0x71, 1, READ, 0xa2a2_a2a2, 25, 2),
];

fn ports() -> Outcome {
    let guest = Guest::new(guests::ports())?;
    let vp = guest.vp();
    for (n, Port(port, size, access, rax, offset, length)) in PORTS.iter().enumerate() {
        let message = vp.message()?;
        let info = io(&message)?;
        let header = info.header;
        // SAFETY: A union of bits.
        let flags = unsafe { info.access_info.as_uint8 };
        equal(
            &format!("access {n}: port, flags and size, access, RAX, RIP, length"),
            (
                info.port_number,
                flags,
                header.intercept_access_type,
                info.rax,
                header.rip,
                header.instruction_length(),
            ),
            (*port, *size, *access, *rax, ENTRY + offset, *length),
        )?;
        equal("VP", header.vp_index, 0)?;
        let mut rax = info.rax;
        if *access == READ {
            // What the device answers; the VMM merges it into RAX.
            let mask = u64::MAX >> (64 - 8 * u32::from(*size));
            let answer = 0x0101_0101 * (0xa0 + n as u64 - 5);
            rax = if *size == 4 {
                answer & mask
            } else {
                rax & !mask | answer & mask
            };
        }
        vp.set_register(HV_X64_REGISTER_RAX, rax)?;
        good("skip", skip(vp, &message))?;
    }
    // HLT ends it: the guest has stored what it read.
    let halted = crate::threads::run_once(vp);
    crate::run::eventually("the guest stores EAX", 5, || {
        guest.memory.word(0x2000) == 0xa2a2_a2a3
    })?;
    crate::threads::interrupted(halted.interrupt()?)
}

fn strings() -> Outcome {
    let guest = Guest::new(guests::strings())?;
    let vp = guest.vp();
    let message = vp.message()?;
    let info = io(&message)?;
    // SAFETY: A union of bits.
    let flags = unsafe { info.access_info.as_uint8 };
    equal(
        "REP OUTSB: port, flags and size, access, RCX, RSI, RIP",
        (
            info.port_number,
            flags,
            info.header.intercept_access_type,
            info.rcx,
            info.rsi,
            info.header.rip,
        ),
        (0x3f8, 1 | 8 | 16, WRITE, 5, 0x3000, ENTRY + 9),
    )?;
    equal(
        "bytes",
        info.instruction_bytes[..2].to_vec(),
        vec![0xf3, 0x6e],
    )?;
    good("skip", skip(vp, &message))?;
    let info = io(&vp.message()?)?;
    // SAFETY: A union of bits.
    let flags = unsafe { info.access_info.as_uint8 };
    equal(
        "INSW: port, flags and size, access, RDI, ES base",
        (
            info.port_number,
            flags,
            info.header.intercept_access_type,
            info.rdi,
            info.es_segment.base,
        ),
        (0x3f8, 2 | 8, READ, 0x4000, 0x1_0000),
    )
}

fn memory(message: &hv_message) -> Result<hv_x64_memory_intercept_message, Stop> {
    message
        .to_memory_info()
        .map_err(|_| Stop::Fail(format!("message {:#x} instead of memory", kind(message))))
}

/// What a memory message is to say: type, access, GPA, and the instruction's bytes at this place in the code.
fn memory_is(
    what: &str,
    message: &hv_message,
    wanted: (u32, u8, u64),
    code: &[u8],
) -> Result<(), Stop> {
    let info = memory(message)?;
    let header = info.header;
    equal(
        &format!("{what}: type, access, GPA"),
        (
            kind(message),
            header.intercept_access_type,
            info.guest_physical_address,
        ),
        wanted,
    )?;
    equal("reserved, VP", (info.reserved1, header.vp_index), (0, 0))?;
    let count = usize::from(info.instruction_byte_count);
    ensure(count <= 16, || format!("{count} instruction bytes"))?;
    if !code.is_empty() {
        ensure(count >= code.len().min(15), || {
            format!("{what}: {count} instruction bytes")
        })?;
        let want = &code[..count.min(code.len())];
        equal(
            &format!("{what}: instruction bytes"),
            &info.instruction_bytes[..want.len()],
            want,
        )?;
    }
    // SAFETY: A union of bits. In real mode the linear address is the physical one.
    let valid = unsafe { info.memory_access_info.as_uint8 } & 1 != 0;
    ensure(!valid || info.guest_virtual_address == wanted.2, || {
        format!("{what}: linear address {:#x}", {
            info.guest_virtual_address
        })
    })
}

fn jump(vp: &Vp, message: &hv_message, length: u64) -> Outcome {
    let rip = memory(message)?.header.rip;
    vp.set_register(HV_X64_REGISTER_RIP, rip + length)
}

fn beyond() -> Outcome {
    let code = guests::beyond();
    let guest = Guest::with(code, 1, FLAGS, Memory::new(0x2_0000))?;
    let (vp, bytes) = (guest.vp(), code.bytes());
    let unmapped = hv_message_type_HVMSG_UNMAPPED_GPA;
    let message = vp.message()?;
    memory_is("load", &message, (unmapped, READ, 0x2_0010), &bytes[5..])?;
    equal("RIP", memory(&message)?.header.rip, ENTRY + 5)?;
    // Without a change it comes again.
    let again = vp.message()?;
    memory_is(
        "load again",
        &again,
        (unmapped, READ, 0x2_0010),
        &bytes[5..],
    )?;
    jump(vp, &message, 4)?;
    let message = vp.message()?;
    memory_is("store", &message, (unmapped, WRITE, 0x2_0020), &bytes[9..])?;
    jump(vp, &message, 6)?;
    let message = vp.message()?;
    memory_is("jump", &message, (unmapped, EXECUTE, 0x2_0030), &[])
}

fn read_only() -> Outcome {
    let code = guests::read_only();
    let guest = Guest::with(code, 1, FLAGS, Memory::new(0x1_0000))?;
    let rom = Memory::new(PAGE);
    rom.set_word(0x44, 0xcafe);
    guest.partition.map(0x1_0000, &rom, EXECUTABLE);
    let vp = guest.vp();
    let message = vp.message()?;
    memory_is(
        "store",
        &message,
        (hv_message_type_HVMSG_GPA_INTERCEPT, WRITE, 0x1_0044),
        &code.bytes()[14..],
    )?;
    equal("loaded before", guest.memory.word(0x2000), 0xcafe)?;
    jump(vp, &message, 9)?;
    let info = io(&vp.message()?)?;
    equal("loaded after", info.rax, 0xcafe)?;
    equal("the memory", rom.word(0x44), 0xcafe)
}

fn no_execute() -> Outcome {
    let guest = Guest::with(guests::no_execute(), 1, FLAGS, Memory::new(0x1_0000))?;
    let data = Memory::new(PAGE);
    guest.partition.map(0x1_0000, &data, WRITABLE);
    let message = guest.vp().message()?;
    memory_is(
        "jump",
        &message,
        (hv_message_type_HVMSG_GPA_INTERCEPT, EXECUTE, 0x1_0000),
        &[],
    )
}

/// Page tables of 2 MiB pages at 0x10000: linear = physical below 2 MiB, and 1 GiB above that is physical 16 MiB.
pub fn long_mode(code: Code) -> Result<Guest, Stop> {
    long_mode_in(code, FLAGS, 0)
}

/// The same in a partition with these flags and synthetic features.
pub fn long_mode_in(code: Code, flags: u64, features: u64) -> Result<Guest, Stop> {
    let guest = Guest::with_features(code, 1, flags, features, Memory::new(RAM))?;
    let tables = [
        (0x1_0000, 0x1_1003u64),
        (0x1_1000, 0x1_2003),
        (0x1_1008, 0x1_3003),
        (0x1_2000, 0x83),
        (0x1_3000, 0x100_0083),
    ];
    for (at, entry) in tables {
        guest.memory.write(at, &entry.to_le_bytes());
    }
    let set = guest.vp().set(&[
        (HV_X64_REGISTER_CR4, (0x20, 0)),
        (HV_X64_REGISTER_CR3, (0x1_0000, 0)),
        (HV_X64_REGISTER_EFER, (0x500, 0)),
        (HV_X64_REGISTER_CR0, (0x8000_0011, 0)),
        (HV_X64_REGISTER_CS, segment(8, 0, 0xffff_ffff, 0xa09b)),
        (HV_X64_REGISTER_SS, segment(16, 0, 0xffff_ffff, 0xc093)),
        (HV_X64_REGISTER_DS, segment(16, 0, 0xffff_ffff, 0xc093)),
        (HV_X64_REGISTER_ES, segment(16, 0, 0xffff_ffff, 0xc093)),
        (HV_X64_REGISTER_TR, segment(24, 0, 0x67, 0x8b)),
    ]);
    set.map_err(|e| Stop::Fail(format!("long mode: {e:?}")))?;
    Ok(guest)
}

fn linear_address() -> Outcome {
    let code = guests::load_64();
    let guest = long_mode(code)?;
    let message = guest.vp().message()?;
    let info = memory(&message)?;
    // SAFETY: A union of bits.
    let valid = unsafe { info.memory_access_info.as_uint8 } & 3;
    equal(
        "type, flags, linear and physical address",
        (
            kind(&message),
            valid,
            info.guest_virtual_address,
            info.guest_physical_address,
        ),
        (
            hv_message_type_HVMSG_UNMAPPED_GPA,
            3,
            0x4000_1234,
            0x100_1234,
        ),
    )?;
    let bytes = &code.bytes()[..8];
    equal("instruction bytes", &info.instruction_bytes[..8], bytes)
}

fn triple_fault() -> Outcome {
    let guest = Guest::new(guests::triple_fault())?;
    for _ in 0..3 {
        let message = guest.vp().message()?;
        equal(
            "message",
            kind(&message),
            hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION,
        )?;
    }
    Ok(())
}

/// What cannot be entered: registers, and their values.
const IMPOSSIBLE: &[(&str, &[(u32, Value)])] = &[
    ("CS with attributes 0", &[(HV_X64_REGISTER_CS, (0, 0))]),
    ("TR unusable", &[(HV_X64_REGISTER_TR, (0, 1 << 63))]),
    (
        "RIP above 4 GiB outside long mode",
        &[(HV_X64_REGISTER_RIP, (1 << 40, 0))],
    ),
    (
        "EFER.LMA without paging",
        &[(HV_X64_REGISTER_EFER, (0x500, 0))],
    ),
    (
        "paging, CR3 beyond the physical width",
        &[
            (HV_X64_REGISTER_CR3, (1 << 60, 0)),
            (HV_X64_REGISTER_CR0, (0x8000_0011, 0)),
        ],
    ),
    (
        "GDTR's base not canonical",
        &[(HV_X64_REGISTER_GDTR, (0xffff << 48, 1 << 62))],
    ),
    (
        "IDTR's base not canonical",
        &[(HV_X64_REGISTER_IDTR, (0xffff << 48, 1 << 62))],
    ),
    (
        "FS's base not canonical",
        &[(0x6_0004, segment(0, 1 << 60, 0xffff, 0x93))],
    ),
    (
        "a segment of reserved type bits",
        &[(HV_X64_REGISTER_SS, segment(0, 0, u32::MAX, 0xffff))],
    ),
    (
        "virtual-8086 mode with real-mode segments",
        &[(HV_X64_REGISTER_RFLAGS, (0x2_0002, 0))],
    ),
    (
        "an interrupt to inject while interrupts are off",
        &[
            (HV_X64_REGISTER_RFLAGS, (2, 0)),
            (0x1_0002, ((0x41 << 16) | 1, 0)),
        ],
    ),
];

fn impossible(registers: &[(u32, Value)]) -> Outcome {
    let guest = Guest::new(guests::halt())?;
    let before: Vec<u32> = registers.iter().map(|r| r.0).collect();
    let vp = guest.vp();
    let good_values = vp.get(&before).map_err(|e| Stop::Fail(format!("{e:?}")))?;
    vp.set(registers)
        .map_err(|e| Stop::Fail(format!("{e:?}")))?;
    // What is wrong is told once; then the VP is like after a triple fault, which VMMs know that do not know this.
    for wanted in [
        hv_message_type_HVMSG_INVALID_VP_REGISTER_VALUE,
        hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION,
        hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION,
    ] {
        equal("message", kind(&vp.message()?), wanted)?;
    }
    // Mended, it runs.
    let mended: Vec<(u32, Value)> = before.into_iter().zip(good_values).rev().collect();
    vp.set(&mended).map_err(|e| Stop::Fail(format!("{e:?}")))?;
    vp.start_at(ENTRY)?;
    let running = crate::threads::run_once(vp);
    crate::threads::started(&guest.memory)?;
    crate::threads::interrupted(running.interrupt()?)
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "message: OUT and IN by DX and immediate, 1, 2 and 4 bytes [V-M3]",
            ports,
        ),
        case("message: REP OUTSB, INSW [V-M4]", strings),
        case(
            "message: loads, stores and jumps where no memory is [V-M1]",
            beyond,
        ),
        case("message: a store to read-only memory [V-M2]", read_only),
        case(
            "message: a jump to memory that is not executable [V-M2]",
            no_execute,
        ),
        case(
            "message: linear and physical address under paging [V-M1]",
            linear_address,
        ),
        case("message: IN and OUT in long mode [V-M3]", || {
            let guest = long_mode(guests::out_64())?;
            let info = io(&guest.vp().message()?)?;
            equal(
                "port, RIP",
                (info.port_number, info.header.rip),
                (0x80, ENTRY),
            )?;
            // SAFETY: A union of bits.
            let state = unsafe { info.header.execution_state.as_uint16 };
            // PE, LMA; CPL 0.
            equal("execution state", state & 0x17, 0x14)
        }),
        case(
            "message: triple fault, as often as it is run [H-P15 V-M7]",
            triple_fault,
        ),
        case(
            "RUN_VP: without memory gives UNMAPPED_GPA at the reset vector",
            || {
                let message = Partition::ready().vp(0).message()?;
                memory_is(
                    "fetch",
                    &message,
                    (hv_message_type_HVMSG_UNMAPPED_GPA, EXECUTE, 0xffff_fff0),
                    &[],
                )
            },
        ),
        case("RUN_VP: a bad address gives EFAULT [V-I16]", || {
            let guest = Guest::new(guests::out_loop())?;
            for addr in [0, NOWHERE, KERNEL, crate::sys::edge(255).1] {
                errno(
                    &format!("{addr:#x}"),
                    crate::sys::ioctl(guest.vp(), RUN_VP, addr),
                    libc::EFAULT,
                )?;
            }
            // It is still at the same instruction.
            equal("port", io(&guest.vp().message()?)?.port_number, 0x80)
        }),
    ];
    for &(name, registers) in IMPOSSIBLE {
        cases.push(case(
            format!("RUN_VP, state that cannot be entered: {name} [H-P11 H-P15 V-M8]"),
            move || impossible(registers),
        ));
    }
    cases
}
