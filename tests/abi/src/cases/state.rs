// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What VMMs save and restore beside general registers: lists of MSRs, events, CPUID results, and the components of
//! MSHV_GET_VP_STATE and MSHV_SET_VP_STATE.

use mshv_bindings::*;

use crate::guests;
use crate::run::{case, ensure, equal, errno, good, Case, Outcome, Stop};
use crate::sys::{self, sleep_ms, Errno, Memory, Sys, NOWHERE, PAGE};
use crate::threads::{interrupted, run_once};
use crate::vm::names::*;
use crate::vm::*;

pub const GET_VP_STATE: u32 = 0xc010_b801;
pub const SET_VP_STATE: u32 = 0xc010_b802;
const LAPIC: u8 = 0;
const XSAVE: u8 = 1;

const INVALID_PARAMETER: u16 = 5;
const INVALID_VP_INDEX: u16 = 14;

fn fail(e: HvcallError) -> Stop {
    Stop::Fail(format!("{e:?}"))
}

fn refused<T: std::fmt::Debug>(got: Result<T, HvcallError>, status: u16) -> Outcome {
    match got {
        Err(e) => equal("status", e.status, status),
        Ok(value) => Err(Stop::Fail(format!("{value:?} instead of status {status}"))),
    }
}

/// The names of QEMU 11's one call, and those that depend on features.
pub fn msr_names() -> Vec<u32> {
    let mut names = vec![
        0x8_0001, 0x8_0004, 0x8_0005, 0x8_0006, 0x8_0007, 0x8_0008, 0x8_0009, 0x8_000a, 0x8_000b,
        0x8_0002, 0x8_0000, 0x8_007b, 0x9_0001, 0x9_0002, 0x9_0017, 0xa_0010, 0xa_0012, 0xa_0013,
        0x8_000e,
    ];
    names.extend(0x8_0010..=0x8_0017);
    names.extend(0x8_0040..=0x8_0047);
    names.extend(0x8_0070..=0x8_007a);
    names.extend(0x8_008b..=0x8_0093);
    names.extend([0x8_0096, 0x8_0084]);
    names
}

/// Names that other VMMs use.
const OTHERS: &[u32] = &[
    0x8_007c, 0x8_007d, 0x8_007e, 0x8_007f, 0x8_0086, 0x8_0088, 0x8_0095, 0x8_0098, 0x8_0099,
    0x8_009a, 0x8_00a0, 0x8_00a1, 0x8_000d, 0x9_0013, 0xa_0000, 0xa_000f, 0xa_0011, 0xa_0014,
    0xb_0000, 0xb_0007, 0x5, 0x1_0002, 0x1_0003, 0x1_0004, 0x1_0005, 0x1_0006, 0x4, 0x0, 0x1,
    0x8_000c, 0x4_0005,
];

/// Each list can be read in one call and stored as read.
fn lists() -> Outcome {
    for synthetic in [0, 3, u64::MAX] {
        let partition = Partition::create(FLAGS).expect("CREATE_PARTITION");
        Hvcall::set_property(0x0001_0001, synthetic)
            .make(&partition)
            .map_err(fail)?;
        partition.initialize().expect("INITIALIZE_PARTITION");
        let vp = partition.vp(0);
        let others: Vec<u32> = OTHERS.iter().copied().filter(|&n| n != 5).collect();
        for names in [msr_names(), others] {
            let values = vp.get(&names).map_err(fail)?;
            let list: Vec<_> = names.iter().copied().zip(values.clone()).collect();
            vp.set(&list).map_err(fail)?;
            let again = vp.get(&names).map_err(fail)?;
            for ((name, a), b) in list.iter().zip(again) {
                // The TSC goes on.
                if *name != 0x8_0000 {
                    equal(&format!("register {name:#x}"), b, *a)?;
                }
            }
        }
    }
    Ok(())
}

/// What no processor here has stays 0.
fn absent() -> Outcome {
    let partition = Partition::ready();
    let vp = partition.vp(0);
    for name in [0x8_007c, 0x8_0086, 0x8_008c, 0x8_0093, 0x8_0098, 0x8_0099] {
        equal("value", vp.register(name)?, 0)?;
        refused(vp.set(&[(name, (1, 0))]), INVALID_PARAMETER)?;
        vp.set_register(name, 0)?;
    }
    for (name, value) in [
        (0x1_0005, 1),
        (0x1_0006, 1),
        (0x1_0006, 1 << 6),
        (0x0, 0),
        (0x1, 2),
        // Reserved type.
        (0x1_0004, 1 | (7 << 1)),
        // ExtINT with a reserved bit.
        (0x1_0004, 1 | (5 << 1) | (0x41 << 8) | (1 << 16)),
        // Leaves of CPUID.
        (0x100, 1),
        (0x203, 1),
    ] {
        refused(vp.set(&[(name, (value, 0))]), INVALID_PARAMETER)?;
    }
    Ok(())
}

/// The hypervisor's leaves as registers.
fn leaves() -> Outcome {
    let partition = Partition::ready();
    let vp = partition.vp(0);
    let call = cpuid_call(0, 3, &[(0x4000_0003, 0), (0x4000_0005, 0)]);
    let output = call.make(&vp).map_err(fail)?;
    let values = vp.get(&[0x200, 0x202]).map_err(fail)?;
    for (n, value) in values.iter().enumerate() {
        let half = |at: usize| u64::from_le_bytes(output[at..at + 8].try_into().expect("8 bytes"));
        equal("leaf", *value, (half(16 * n), half(16 * n + 8)))?;
    }
    Ok(())
}

fn suspend() -> Outcome {
    let guest = Guest::new(guests::knock())?;
    let vp = guest.vp();
    equal(
        "after CREATE_VP",
        (vp.register(0)?, vp.register(1)?),
        (1, 0),
    )?;
    vp.message()?;
    equal("with a message", (vp.register(0)?, vp.register(1)?), (1, 1))
}

/// An ExtINT by PENDING_EVENT0: read back, then delivered.
fn extint() -> Outcome {
    let guest = Guest::new(guests::spin())?;
    guest.memory.write(0x41 * 4, &0x1800u32.to_le_bytes());
    guest.memory.write(0x1800, guests::report_fault().bytes());
    let event = 1 | (5 << 1) | (0x41 << 8);
    let vp = guest.vp();
    equal("before", vp.register(0x1_0004)?, 0)?;
    vp.set_register(0x1_0004, event)?;
    equal("pending", vp.register(0x1_0004)?, event)?;
    let message = vp.message()?;
    let port = message
        .to_ioport_info()
        .map_err(|_| Stop::Fail("another message".into()))?
        .port_number;
    equal("port", port, 0x81)?;
    equal("after", vp.register(0x1_0004)?, 0)
}

/// The VMM sets TSC and TSC_ADJUST in any order and on any VP: VPs stay synchronized, the reference counter goes on.
fn tsc() -> Outcome {
    const TSC: u32 = 0x8_0000;
    const ADJUST: u32 = 0x8_0096;
    const REFERENCE: u32 = 0x9_0004;
    let partition = Partition::ready();
    let vps: Vec<Vp> = (0..3).map(|n| partition.vp(n)).collect();
    let before = vps[0].register(REFERENCE)?;
    for order in [[2, 0, 1], [0, 1, 2]] {
        let target = 1 << (40 + order[0]);
        for &n in &order {
            sleep_ms(3);
            vps[n]
                .set(&[(TSC, (target, 0)), (ADJUST, (5, 0))])
                .map_err(fail)?;
        }
        let mut last = target;
        for &n in [0, 1, 2, 1, 0, 2].iter() {
            let tsc = vps[n].register(TSC)?;
            ensure(tsc >= last && tsc < target + (1 << 33), || {
                format!("VP {n}: {tsc:#x} after {last:#x}")
            })?;
            last = tsc;
            equal("TSC_ADJUST", vps[n].register(ADJUST)?, 5)?;
        }
    }
    let after = vps[1].register(REFERENCE)?;
    ensure(after > before && after - before < 600_000_000, || {
        format!("reference counter {after} after {before}")
    })
}

/// TSCs that were read one after the other while time went on, and are set while it is frozen: they read as they were set, and when
/// time goes on they are one again. What the guest itself has written to its TSC, which TSC_ADJUST tells, stays.
fn tscs_read_apart() -> Outcome {
    const TSC: u32 = 0x8_0000;
    const ADJUST: u32 = 0x8_0096;
    const TIME_FREEZE: u32 = 0x3_0003;
    const APART: u64 = 50_000_000;
    let partition = Partition::ready();
    let vps: Vec<Vp> = (0..3).map(|n| partition.vp(n)).collect();
    let freeze = |on: u64| {
        let call = Hvcall::set_property(TIME_FREEZE, on).make(&partition);
        call.map(|_| ()).map_err(fail)
    };
    for round in 0..3 {
        freeze(1)?;
        // As after a reset, then as saved.
        for start in [0, 1 << (40 + round)] {
            for (tsc, vp) in (start..).step_by(APART as usize).zip(&vps) {
                let adjust = u64::from(vp.index == 2);
                vp.set(&[(TSC, (tsc, 0)), (ADJUST, (adjust, 0))])
                    .map_err(fail)?;
                equal("TSC while time stands", vp.register(TSC)?, tsc)?;
            }
        }
        freeze(0)?;
        let ahead = vps[1].register(TSC)?;
        let first = vps[0].register(TSC)?;
        let own = vps[2].register(TSC)?;
        ensure(ahead <= first && first - ahead < APART, || {
            format!("VP 1: {ahead:#x}, then VP 0: {first:#x}")
        })?;
        ensure(own >= first + 2 * APART && own < first + 3 * APART, || {
            format!("VP 2: {own:#x} after VP 0: {first:#x}")
        })?;
    }
    Ok(())
}

/// HvCallGetVpCpuidValues.
pub fn cpuid_call(vp: u32, flags: u32, leaves: &[(u32, u32)]) -> Hvcall {
    let mut call = Hvcall::new(
        0xf4,
        &[0, u64::from(vp) | (u64::from(flags) << 32), 0],
        16 * leaves.len(),
    );
    call.reps = leaves.len() as u16;
    for &(eax, ecx) in leaves {
        call.put(&[u64::from(eax) | (u64::from(ecx) << 32), 3, 0]);
    }
    call
}

fn values(vp: &Vp, flags: u32, leaf: (u32, u32)) -> Result<[u32; 4], Stop> {
    let output = cpuid_call(vp.index, flags, &[leaf])
        .make(vp)
        .map_err(fail)?;
    Ok(std::array::from_fn(|n| {
        u32::from_le_bytes(output[4 * n..4 * n + 4].try_into().expect("4 bytes"))
    }))
}

/// HvCallRegisterInterceptResult for CPUID; `registers` are value and mask of EAX to EDX.
pub fn result_call(
    vp: u32,
    kind: u32,
    leaf: u32,
    subleaf: Option<u32>,
    registers: [(u32, u32); 4],
    size: usize,
) -> Hvcall {
    let mut call = Hvcall::new(0x91, &[0, u64::from(vp) | (u64::from(kind) << 32)], 0);
    for word in [leaf, subleaf.unwrap_or(0), u32::from(subleaf.is_some())] {
        call.input.extend_from_slice(&word.to_le_bytes());
    }
    for (value, mask) in registers {
        call.input.extend_from_slice(&value.to_le_bytes());
        call.input.extend_from_slice(&mask.to_le_bytes());
    }
    call.input.resize(size, 0);
    call
}

const CPUID: u32 = 2;
const ANY: u32 = u32::MAX;
const NAME: [(u32, u32); 4] = [
    (0x1111_1111, !0),
    (0x2222_2222, 0xffff),
    (0, 0),
    (0x4444_4444, !0),
];

fn cpuid_results() -> Outcome {
    let partition = Partition::ready();
    let first = partition.vp(0);
    let own = values(&first, 3, (0x8000_0002, 0))?;
    for (n, size) in [60, 64].into_iter().enumerate() {
        let leaf = 0x8000_0002 + n as u32;
        result_call(ANY, CPUID, leaf, None, NAME, size)
            .make(&partition)
            .map_err(fail)?;
    }
    // Also for a VP that comes later.
    let second = partition.vp(1);
    let wanted = [
        0x1111_1111,
        own[1] & 0xffff_0000 | 0x2222,
        own[2],
        0x4444_4444,
    ];
    for vp in [&first, &second] {
        equal("registered", values(vp, 3, (0x8000_0002, 0))?, wanted)?;
        equal("not applied", values(vp, 1, (0x8000_0002, 0))?, own)?;
    }
    // One VP, one subleaf; no feature that is not there; nothing of the hypervisor's.
    result_call(1, CPUID, 4, Some(3), [(7, !0); 4], 60)
        .make(&partition)
        .map_err(fail)?;
    equal("VP 1", values(&second, 3, (4, 3))?, [7; 4])?;
    equal(
        "VP 0",
        values(&first, 3, (4, 3))?,
        values(&first, 1, (4, 3))?,
    )?;
    let all = [(!0, !0); 4];
    for leaf in [1, 0x4000_0000, 0x4000_0003] {
        result_call(ANY, CPUID, leaf, None, all, 60)
            .make(&partition)
            .map_err(fail)?;
    }
    let (with, without) = (values(&first, 3, (1, 0))?, values(&first, 1, (1, 0))?);
    // VMX and MONITOR are not there; OSXSAVE follows CR4.
    equal("leaf 1 ECX", with[2] & 0x0800_0028, 0)?;
    equal("leaf 1 EDX", with[3] & !(1 << 28), without[3] & !(1 << 28))?;
    for leaf in [0x4000_0000, 0x4000_0003] {
        equal(
            "own leaf",
            values(&first, 3, (leaf, 0))?,
            values(&first, 1, (leaf, 0))?,
        )?;
    }
    refused(
        result_call(9, CPUID, 1, None, NAME, 60).make(&partition),
        INVALID_VP_INDEX,
    )?;
    for (kind, size) in [(CPUID, 59), (CPUID, 16), (1, 60), (3, 60)] {
        refused(
            result_call(ANY, kind, 1, None, NAME, size).make(&partition),
            INVALID_PARAMETER,
        )?;
    }
    refused(
        cpuid_call(0, 4, &[(0, 0)]).make(&partition),
        INVALID_PARAMETER,
    )?;
    refused(
        cpuid_call(7, 3, &[(0, 0)]).make(&partition),
        INVALID_VP_INDEX,
    )
}

/// The guest sees what is registered.
fn cpuid_in_guest() -> Outcome {
    let guest = Guest::new(guests::cpuid_once())?;
    result_call(ANY, CPUID, 0x8000_0002, None, NAME, 60)
        .make(&guest.partition)
        .map_err(fail)?;
    guest.vp().set_register(HV_X64_REGISTER_RAX, 0x8000_0002)?;
    let message = guest.vp().message()?;
    let rax = message
        .to_ioport_info()
        .map_err(|_| Stop::Fail("another message".into()))?
        .rax;
    equal("EAX", rax, 0x1111_1111)
}

/// HvCallInstallIntercept.
fn intercept_call(access: u32, kind: u32, parameter: u64) -> Hvcall {
    let words = [0, u64::from(access) | (u64::from(kind) << 32), parameter];
    Hvcall::new(0x4d, &words, 0)
}

const EXECUTE: u32 = 4;

/// CPUID goes to the VMM, which completes it; no longer, once the intercept is removed.
fn cpuid_intercept() -> Outcome {
    let guest = Guest::new(guests::cpuid_once())?;
    let vp = guest.vp();
    let install = |access| intercept_call(access, CPUID, 0x8000_0002).make(&guest.partition);
    install(EXECUTE).map_err(fail)?;
    install(EXECUTE).map_err(fail)?;
    vp.set_register(HV_X64_REGISTER_RAX, 0x8000_0002)?;
    let message = vp.message()?;
    equal(
        "type",
        message.header.message_type,
        hv_message_type_HVMSG_X64_CPUID_INTERCEPT,
    )?;
    let info = message
        .to_cpuid_info()
        .map_err(|_| Stop::Fail("no CPUID message".into()))?;
    let own = values(vp, 3, (0x8000_0002, 0))?;
    equal("RAX", info.rax, 0x8000_0002)?;
    equal("default", info.default_result_rax, u64::from(own[0]))?;
    equal("length", info.header.instruction_length(), 2)?;
    let rip = info.header.rip + 2;
    vp.set(&[
        (HV_X64_REGISTER_RIP, (rip, 0)),
        (HV_X64_REGISTER_RAX, (0x1234, 0)),
    ])
    .map_err(fail)?;
    let rax = |message: hv_message| {
        let info = message.to_ioport_info();
        info.map(|info| info.rax)
            .map_err(|_| Stop::Fail("another message".into()))
    };
    equal("EAX", rax(vp.message()?)?, 0x1234)?;
    install(0).map_err(fail)?;
    vp.start_at(ENTRY)?;
    vp.set_register(HV_X64_REGISTER_RAX, 0x8000_0002)?;
    equal(
        "EAX, not intercepted",
        rax(vp.message()?)?,
        u64::from(own[0]),
    )?;
    for (access, kind, parameter) in [
        (1, CPUID, 1),
        (EXECUTE, CPUID, 0x4000_0000),
        (EXECUTE, CPUID, 1 << 32),
        (1, 0x77, 0),
    ] {
        refused(
            intercept_call(access, kind, parameter).make(&guest.partition),
            INVALID_PARAMETER,
        )?;
    }
    Ok(())
}

pub fn transfer(vp: &Vp, ioctl: u32, kind: u8, size: u32, addr: usize) -> (Sys<i32>, u32) {
    let mut argument = mshv_get_set_vp_state {
        type_: kind,
        buf_sz: size,
        buf_ptr: addr as u64,
        ..Default::default()
    };
    let result = sys::ioctl_on(vp, ioctl, &mut argument);
    (result, argument.buf_sz)
}

pub fn get_state(vp: &Vp, kind: u8, buffer: &Memory) -> Result<usize, Stop> {
    let (result, size) = transfer(vp, GET_VP_STATE, kind, PAGE as u32, buffer.addr());
    match result {
        Ok(_) => Ok(size as usize),
        Err(e) => Err(Stop::Fail(format!("GET_VP_STATE {kind}: {e:?}"))),
    }
}

/// Contents that differ from the reset state come back as they were set.
fn round_trip(kind: u8, at: usize, byte: u8, wanted_size: usize) -> Outcome {
    let partition = Partition::ready();
    let vp = partition.vp(0);
    let (buffer, again) = (Memory::new(PAGE), Memory::new(PAGE));
    let size = get_state(&vp, kind, &buffer)?;
    if wanted_size != 0 {
        equal("size", size, wanted_size)?;
    }
    buffer.write(at, &[byte]);
    let (result, reported) = transfer(&vp, SET_VP_STATE, kind, PAGE as u32, buffer.addr());
    ensure(result.is_ok(), || format!("SET_VP_STATE: {result:?}"))?;
    equal("size of SET", reported as usize, size)?;
    equal("size again", get_state(&vp, kind, &again)?, size)?;
    for n in 0..PAGE / 4 {
        equal(&format!("word {n}"), again.word(4 * n), buffer.word(4 * n))?;
    }
    Ok(())
}

/// A pending NMI is in the LAPIC's state, as the request for vector 2: it can be moved to another partition, and taken back.
fn pending_nmi() -> Outcome {
    const IRR: usize = 84;
    const NMI: u32 = 1 << 2;
    /// RIP of the guest, a HLT; its NMI handler writes to a port.
    const WAITS: u64 = ENTRY + 0x100;
    let make = || -> Result<(Guest, Memory), Stop> {
        let guest = Guest::new(guests::knock())?;
        guest.memory.write(WAITS as usize, &[0xf4]);
        guest.memory.set_word(4 * 2, ENTRY as u32);
        guest.vp().set_register(HV_X64_REGISTER_RIP, WAITS)?;
        let buffer = Memory::new(PAGE);
        get_state(guest.vp(), LAPIC, &buffer)?;
        equal("IRR of a new VP", buffer.word(IRR), 0)?;
        Ok((guest, buffer))
    };
    let store = |guest: &Guest, buffer: &Memory| {
        let stored = transfer(guest.vp(), SET_VP_STATE, LAPIC, PAGE as u32, buffer.addr());
        good("SET_VP_STATE", stored.0).map(|_| ())
    };
    let (from, state) = make()?;
    let nmi = Hvcall::new(0x94, &[0, 4, 0, 0], 0);
    nmi.make(&from.partition).map_err(fail)?;
    get_state(from.vp(), LAPIC, &state)?;
    equal("IRR", state.word(IRR), NMI)?;
    let (to, idle) = make()?;
    store(&to, &state)?;
    let message = to.vp().message()?;
    equal(
        "message of the handler",
        message.header.message_type,
        hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT,
    )?;
    // Where it was pending it no longer is when the state says so.
    store(&from, &idle)?;
    get_state(from.vp(), LAPIC, &state)?;
    equal("IRR", state.word(IRR), 0)?;
    let running = run_once(from.vp());
    sleep_ms(20);
    ensure(!running.is_over(), || "it takes the NMI".into())?;
    interrupted(running.interrupt()?)
}

fn bad_states() -> Outcome {
    let partition = Partition::ready();
    let vp = partition.vp(0);
    let buffer = Memory::new(2 * PAGE);
    let page = PAGE as u32;
    for ioctl in [GET_VP_STATE, SET_VP_STATE] {
        for (kind, size, addr) in [
            (LAPIC, 0, buffer.addr()),
            (LAPIC, 176, buffer.addr()),
            (LAPIC, page + 1, buffer.addr()),
            (LAPIC, page, buffer.addr() + 8),
            (5, page, buffer.addr()),
            (255, page, buffer.addr()),
        ] {
            errno(
                "bad",
                transfer(&vp, ioctl, kind, size, addr).0,
                libc::EINVAL,
            )?;
        }
        errno(
            "nowhere",
            transfer(&vp, ioctl, LAPIC, page, NOWHERE & !0xfff).0,
            libc::EFAULT,
        )?;
        for byte in 0..3 {
            let mut argument = mshv_get_set_vp_state {
                buf_sz: page,
                buf_ptr: buffer.addr() as u64,
                ..Default::default()
            };
            argument.rsvd[byte] = 1;
            let result = sys::ioctl_on(&vp, ioctl, &mut argument);
            errno(&format!("rsvd[{byte}]"), result, libc::EINVAL)?;
        }
        for addr in [0, NOWHERE, sys::KERNEL, sys::edge(15).1] {
            let result = sys::ioctl(&vp, ioctl, addr);
            errno(&format!("argument at {addr:#x}"), result, libc::EFAULT)?;
        }
        // Each component is a page at most, and more room is not a mistake.
        for kind in 0..5 {
            let (result, size) = transfer(&vp, ioctl, kind, 2 * page, buffer.addr());
            ensure(result.is_ok() && size <= page, || {
                format!("state {kind}: {result:?}, {size} bytes")
            })?;
            for addr in [0, NOWHERE & !0xfff, sys::KERNEL & !0xfff] {
                let (result, _) = transfer(&vp, ioctl, kind, page, addr);
                errno(&format!("state {kind} at {addr:#x}"), result, libc::EFAULT)?;
            }
        }
    }
    // XSAVE areas that XRSTOR would refuse.
    get_state(&vp, XSAVE, &buffer)?;
    for (at, byte) in [(26, 0xff), (512 + 7, 0x80), (520 + 6, 1), (540, 1)] {
        let old = buffer.word(at & !3).to_le_bytes()[at & 3];
        buffer.write(at, &[byte]);
        let (result, _) = transfer(&vp, SET_VP_STATE, XSAVE, page, buffer.addr());
        errno(&format!("byte {at}"), result, libc::EINVAL)?;
        buffer.write(at, &[old]);
    }
    let (result, _) = transfer(&vp, SET_VP_STATE, XSAVE, page, buffer.addr());
    equal("as it was", result.map_err(|Errno(e)| e), Ok(0))
}

/// What SET_VP_STATE gives the page is the guest's, and what the VMM's memory has is below it.
fn overlay_apart() -> Outcome {
    const SIMP: u32 = 0xa_0013;
    const SIMP_STATE: u8 = 2;
    const WORD: usize = 0x2_0010;
    let guest = Guest::new(guests::peek_simp())?;
    let (vp, memory) = (guest.vp(), &guest.memory);
    memory.set_word(WORD, 0x1111);
    let told = || -> Result<u32, Stop> {
        let message = vp.message()?;
        let value = super::messages::io(&message)?.rax as u32;
        good("skip", crate::threads::skip(vp, &message))?;
        Ok(value)
    };
    equal("without an overlay", told()?, 0x1111)?;
    let page = Memory::new(PAGE);
    page.set_word(0x10, 0x2222);
    // The guest counts once more, in the page already.
    vp.set_register(SIMP, 0x2_0001)?;
    let (set, _) = transfer(vp, SET_VP_STATE, SIMP_STATE, PAGE as u32, page.addr());
    good("SET_VP_STATE", set)?;
    equal("with one", told()?, 0x2222)?;
    equal("with one", told()?, 0x2222)?;
    let (got, _) = transfer(vp, GET_VP_STATE, SIMP_STATE, PAGE as u32, page.addr());
    good("GET_VP_STATE", got)?;
    equal("saved", (page.word(0x10), page.word(0x14)), (0x2222, 2))?;
    let below = (memory.word(WORD), memory.word(WORD + 4));
    equal("below", below, (0x1111, 0))?;
    vp.set_register(SIMP, 0)?;
    equal("without an overlay", told()?, 0x1111)?;
    equal("below", memory.word(WORD + 4), 1)
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "state: lists of MSRs as VMMs name them, read and stored [V-R2]",
            lists,
        ),
        case("state: registers that are not there", absent),
        case("state: the hypervisor's leaves as registers", leaves),
        case(
            "state: EXPLICIT_SUSPEND and INTERCEPT_SUSPEND [V-R4]",
            suspend,
        ),
        case("state: ExtINT by PENDING_EVENT0", extint),
        case("state: TSC set on several VPs [V-R2]", tsc),
        case(
            "state: TSCs that were read one after the other [F-TM11]",
            tscs_read_apart,
        ),
        case("state: CPUID results", cpuid_results),
        case(
            "state: CPUID intercepts [C-R10 H-4D V-M11]",
            cpuid_intercept,
        ),
        case("state: CPUID results in a guest [V-R6]", cpuid_in_guest),
        // Task priority is CR8's; LDR, ISR 0x31 and IRR 0x41.
        case("state: LAPIC, logical id [V-S1]", || {
            round_trip(LAPIC, 11, 0x20, PAGE)
        }),
        case("state: LAPIC, in service [V-S1]", || {
            round_trip(LAPIC, 20 + 4 + 2, 2, PAGE)
        }),
        case("state: LAPIC, requested [V-S1]", || {
            round_trip(LAPIC, 84 + 8, 2, PAGE)
        }),
        case("state: LAPIC, a pending NMI", pending_nmi),
        case("state: XSAVE, FCW [V-S2]", || round_trip(XSAVE, 0, 0x7f, 0)),
        case("state: XSAVE, XMM5 [V-S2]", || {
            round_trip(XSAVE, 160 + 16 * 5 + 3, 0xaa, 0)
        }),
        case(
            "state: a message page and the memory below it are saved apart [F-OV10]",
            overlay_apart,
        ),
        case("state: SIMP [V-S3]", || round_trip(2, 0x123, 0x55, PAGE)),
        case("state: SIEFP [V-S4]", || round_trip(3, 0xfff, 0xaa, PAGE)),
        // Count of timer 1.
        case("state: synthetic timers [V-S5]", || {
            round_trip(4, 40 + 16, 0x77, 200)
        }),
        case("state: bad arguments and contents [V-I18]", bad_states),
    ]
}
