// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Properties of partitions and of the host, and what setting one does.

use super::device::{create_v2, v2};
use crate::guests;
use crate::run::{case, ensure, equal, good, Case, Outcome, Stop};
use crate::sys::{sleep_ms, Errno};
use crate::threads::{interrupted, moves, run_on, started};
use crate::vm::*;

const SYNTHETIC_PROC_FEATURES: u32 = 0x0001_0001;
const TIME_FREEZE: u32 = 0x0003_0003;
const REFERENCE_TIME: u32 = 0x0003_0005;
const PROCESSORS_PER_SOCKET: u32 = 0x0005_0003;
const UNIMPLEMENTED_MSR_ACTION: u32 = 0x0005_0017;
const PROCESSOR_VENDOR: u32 = 0x0006_0000;
const XSAVE_FEATURES: u32 = 0x0006_0002;
const PHYSICAL_ADDRESS_WIDTH: u32 = 0x0006_0006;
const XSAVE_STATES: u32 = 0x0006_0007;
const MAX_XSAVE_DATA_SIZE: u32 = 0x0006_0008;
const CLOCK_FREQUENCY: u32 = 0x0006_0009;
const PROCESSOR_FEATURES0: u32 = 0x0006_000a;
const PROCESSOR_FEATURES1: u32 = 0x0006_000b;
const VMM_CAPABILITIES: u32 = 0x0009_0007;
const ASSIGNABLE_SYNTHETIC_PROC_FEATURES: u32 = 0x0009_0009;

const INVALID_PARAMETER: u16 = 5;
const INVALID_HYPERCALL_CODE: u16 = 2;
const INVALID_PARTITION_STATE: u16 = 7;
const UNKNOWN_PROPERTY: u16 = 9;

const TIME_REF_COUNT: u32 = 0x0009_0004;
const TSC: u32 = 0x0008_0000;

fn fail(e: HvcallError) -> Stop {
    Stop::Fail(format!("{e:?}"))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn get(fd: &impl std::os::fd::AsRawFd, code: u32) -> Result<u64, Stop> {
    let output = Hvcall::get_property(code)
        .make(fd)
        .map_err(|e| Stop::Fail(format!("property {code:#x}: {e:?}")))?;
    Ok(word(&output, 0))
}

fn set(partition: &Partition, code: u32, value: u64) -> Outcome {
    Hvcall::set_property(code, value)
        .make(partition)
        .map(|_| ())
        .map_err(|e| Stop::Fail(format!("property {code:#x} := {value:#x}: {e:?}")))
}

fn refused(call: Hvcall, fd: &impl std::os::fd::AsRawFd, status: u16) -> Outcome {
    let errno = if matches!(status, INVALID_PARAMETER | INVALID_HYPERCALL_CODE) {
        libc::EINVAL
    } else {
        libc::EIO
    };
    match call.make(fd) {
        Err(e) => equal("status, errno", (e.status, e.errno), (status, Errno(errno))),
        Ok(_) => Err(Stop::Fail(format!("success instead of status {status}"))),
    }
}

/// HvCallGetPartitionPropertyEx with room for all that a property may have.
fn get_ex(code: u32, arg: u64) -> Hvcall {
    Hvcall::new(0x101, &[0, code.into(), arg], 4072)
}

/// A partition has the host's features, unless they are disabled; sizes fit.
fn features() -> Outcome {
    let partition = Partition::ready();
    for code in [
        PROCESSOR_VENDOR,
        XSAVE_FEATURES,
        PHYSICAL_ADDRESS_WIDTH,
        XSAVE_STATES,
        MAX_XSAVE_DATA_SIZE,
        CLOCK_FREQUENCY,
        PROCESSOR_FEATURES0,
        PROCESSOR_FEATURES1,
    ] {
        equal(
            &format!("property {code:#x}, partition and host"),
            get(&partition, code)?,
            get(&device(), code)?,
        )?;
    }
    equal("vendor", get(&partition, PROCESSOR_VENDOR)?, 1)?;
    let width = get(&partition, PHYSICAL_ADDRESS_WIDTH)?;
    ensure((36..=52).contains(&width), || format!("{width} bits"))?;
    let states = get(&partition, XSAVE_STATES)?;
    ensure(states & 3 == 3, || format!("XSAVE states {states:#x}"))?;
    let size = get(&partition, MAX_XSAVE_DATA_SIZE)?;
    // A client's buffer is one page.
    ensure((576..=4096).contains(&size), || format!("{size} bytes"))?;
    // SSE3 and CMPXCHG16B, which every CPU with EPT has.
    let bank0 = get(&partition, PROCESSOR_FEATURES0)?;
    ensure(bank0 & 0x101 == 0x101, || format!("bank 0 {bank0:#x}"))
}

fn host_banks() -> Outcome {
    let capabilities = get_ex(VMM_CAPABILITIES, 0).make(&device()).map_err(fail)?;
    equal("banks", word(&capabilities, 0), 1)?;
    ensure(word(&capabilities, 8) & (1 << 4) != 0, || {
        format!("VMM capabilities {:#x}", word(&capabilities, 8))
    })?;
    let assignable = get_ex(ASSIGNABLE_SYNTHETIC_PROC_FEATURES, 0)
        .make(&device())
        .map_err(fail)?;
    equal("banks", word(&assignable, 0), 1)?;
    equal(
        "assignable features",
        word(&assignable, 8),
        get(&device(), SYNTHETIC_PROC_FEATURES)?,
    )?;
    ensure(assignable[16..].iter().all(|&b| b == 0), || {
        "bytes behind the bank".into()
    })?;
    refused(get_ex(0x7777, 0), &device(), UNKNOWN_PROPERTY)?;
    refused(
        get_ex(SYNTHETIC_PROC_FEATURES, 0),
        &device(),
        UNKNOWN_PROPERTY,
    )?;
    refused(get_ex(VMM_CAPABILITIES, 1), &device(), INVALID_PARAMETER)?;
    refused(
        Hvcall::set_property(TIME_FREEZE, 0),
        &device(),
        INVALID_HYPERCALL_CODE,
    )
}

fn statuses() -> Outcome {
    let new = Partition::create(FLAGS).expect("CREATE_PARTITION");
    for code in [PROCESSOR_FEATURES0, XSAVE_STATES, REFERENCE_TIME] {
        refused(Hvcall::get_property(code), &new, INVALID_PARTITION_STATE)?;
    }
    for (code, value) in [(TIME_FREEZE, 1), (REFERENCE_TIME, 1)] {
        let call = Hvcall::set_property(code, value);
        refused(call, &new, INVALID_PARTITION_STATE)?;
    }
    let ready = Partition::ready();
    for (code, value, status) in [
        (TIME_FREEZE, 2, INVALID_PARAMETER),
        (UNIMPLEMENTED_MSR_ACTION, 2, INVALID_PARAMETER),
        (PROCESSORS_PER_SOCKET, 0, INVALID_PARAMETER),
        (PROCESSORS_PER_SOCKET, 1 << 32, INVALID_PARAMETER),
        (PROCESSOR_FEATURES0, 0, INVALID_PARTITION_STATE),
        (MAX_XSAVE_DATA_SIZE, 0, INVALID_PARTITION_STATE),
    ] {
        refused(Hvcall::set_property(code, value), &ready, status)?;
    }
    // No guest has seen the time yet.
    set(&ready, REFERENCE_TIME, 1 << 40)?;
    let time = get(&ready, REFERENCE_TIME)?;
    let least = 1 << 40;
    ensure((least..least + 600_000_000).contains(&time), || {
        format!("time {time:#x}")
    })?;
    for (code, value) in [
        (UNIMPLEMENTED_MSR_ACTION, 1),
        (UNIMPLEMENTED_MSR_ACTION, 0),
        (PROCESSORS_PER_SOCKET, 4),
        (TIME_FREEZE, 0),
        (TIME_FREEZE, 1),
        (TIME_FREEZE, 1),
        (REFERENCE_TIME, 0x1234_5678_9abc),
        (TIME_FREEZE, 0),
    ] {
        set(&ready, code, value)?;
        if code != REFERENCE_TIME {
            equal("reads back", get(&ready, code)?, value)?;
        }
    }
    let time = get(&ready, REFERENCE_TIME)?;
    ensure(time >= 0x1234_5678_9abc, || format!("time {time:#x}"))
}

/// Frozen: no VP executes, TSC and reference counter stand still; then both go on where they were.
fn freeze(vps: u32) -> Outcome {
    let memory = crate::sys::Memory::new(RAM);
    let guest = Guest::with(guests::tick(), vps, FLAGS, memory)?;
    let running: Vec<_> = guest.vps.iter().map(run_on).collect();
    started(&guest.memory)?;
    refused(
        Hvcall::set_property(REFERENCE_TIME, 5),
        &guest.partition,
        INVALID_PARTITION_STATE,
    )?;
    let counter = || guest.memory.word(guests::COUNTER);
    for round in 0..20 {
        set(&guest.partition, TIME_FREEZE, 1)?;
        let (count, time) = (counter(), get(&guest.partition, REFERENCE_TIME)?);
        sleep_ms(5);
        equal("counted while frozen", counter() - count, 0)?;
        let later = get(&guest.partition, REFERENCE_TIME)?;
        equal("reference time went on", later, time)?;
        if round == 10 {
            set(&guest.partition, REFERENCE_TIME, time + 5_000_000_000)?;
        }
        set(&guest.partition, TIME_FREEZE, 0)?;
        moves(&guest.memory, guests::COUNTER)?;
        if round == 10 {
            let later = get(&guest.partition, REFERENCE_TIME)?;
            ensure(later >= time + 5_000_000_000, || format!("time {later}"))?;
        }
    }
    set(&guest.partition, TIME_FREEZE, 1)?;
    for vp in running {
        interrupted(vp.interrupt()?)?;
    }
    equal("TSC went back", guest.memory.word(guests::COUNTER + 4), 0)?;
    let vp = guest.vp();
    for name in [TSC, TIME_REF_COUNT] {
        let before = vp.register(name)?;
        sleep_ms(5);
        equal("a stopped clock", vp.register(name)?, before)?;
    }
    let (tsc, time) = (vp.register(TSC)?, vp.register(TIME_REF_COUNT)?);
    equal("register", time, get(&guest.partition, REFERENCE_TIME)?)?;
    set(&guest.partition, TIME_FREEZE, 0)?;
    let after = vp.register(TSC)?;
    let clock = get(&guest.partition, CLOCK_FREQUENCY)?;
    ensure(after >= tsc && after - tsc < clock, || {
        format!("TSC {after:#x} after {tsc:#x}")
    })
}

/// An MSR that nobody has: #GP, or 0 and no effect, as the VMM wishes; a wrong value for one that is there is #GP always.
fn unimplemented_msr() -> Outcome {
    const DONE: u64 = 1;
    const GP: u64 = 2;
    for (action, msr, wanted) in [
        (0, 0x1234, GP),
        (1, 0x1234, DONE),
        (0, 0xc001_1029, GP),
        (1, 0xc001_1029, DONE),
        // MTRRCAP can be read, and never be written.
        (1, 0xfe, GP),
    ] {
        let guest = Guest::new(guests::msr())?;
        // Vector 13.
        guest.memory.write(13 * 4, &0x1800u32.to_le_bytes());
        guest.memory.write(0x1800, guests::report_fault().bytes());
        set(&guest.partition, UNIMPLEMENTED_MSR_ACTION, action)?;
        guest.vp().set(&[(0x2_0001, (msr, 0))]).map_err(fail)?;
        let message = guest.vp().message()?;
        let info = message
            .to_ioport_info()
            .map_err(|_| Stop::Fail("another message".into()))?;
        let (port, rax) = (info.port_number, info.rax);
        let got = if port == 0x80 { DONE } else { GP };
        equal(&format!("action {action}, MSR {msr:#x}"), got, wanted)?;
        if wanted == DONE {
            equal("value", rax & 0xffff_ffff, 0)?;
        }
    }
    Ok(())
}

/// Each feature of the host's processors alone is not there in a partition that disables it.
fn disabled() -> Outcome {
    for (bank, code) in [PROCESSOR_FEATURES0, PROCESSOR_FEATURES1, XSAVE_FEATURES]
        .into_iter()
        .enumerate()
    {
        let host = get(&device(), code)?;
        for bit in (0..64).map(|n| 1u64 << n).filter(|bit| host & bit != 0) {
            let mut argument = v2();
            let mut banks = [0; 2];
            match banks.get_mut(bank) {
                Some(word) => *word = bit,
                None => argument.pt_disabled_xsave = bit,
            }
            argument.pt_cpu_fbanks = banks;
            let what = format!("bank {bank}, {bit:#x}");
            let partition = Partition(crate::sys::owned(good(&what, create_v2(argument))?).into());
            good("initialize", partition.initialize())?;
            let has = get(&partition, code)?;
            equal(&what, (has & bit, has & !host), (0, 0))?;
        }
    }
    Ok(())
}

/// What happens to a property, by status (0: success): its code and a value that it can have; got and set before
/// INITIALIZE_PARTITION, got and set after it; got of the host.
struct Row {
    name: &'static str,
    code: u32,
    value: u64,
    new: (u16, u16),
    ready: (u16, u16),
    host: u16,
}

const fn row(
    name: &'static str,
    (code, value): (u32, u64),
    new: (u16, u16),
    ready: (u16, u16),
    host: u16,
) -> Row {
    Row {
        name,
        code,
        value,
        new,
        ready,
        host,
    }
}

const OK: u16 = 0;
const STATE: u16 = INVALID_PARTITION_STATE;
const NO: u16 = UNKNOWN_PROPERTY;

/// The processors' are fixed by CREATE_PARTITION, and known after INITIALIZE_PARTITION.
const fn of_processor(name: &'static str, code: u32) -> Row {
    row(name, (code, 0), (STATE, STATE), (OK, STATE), OK)
}

const ROWS: &[Row] = &[
    row(
        "PRIVILEGE_FLAGS [V-P1]",
        (0x1_0000, 0),
        (STATE, OK),
        (OK, STATE),
        NO,
    ),
    row(
        "SYNTHETIC_PROC_FEATURES [V-P2]",
        (SYNTHETIC_PROC_FEATURES, 3),
        (STATE, OK),
        (OK, STATE),
        OK,
    ),
    row(
        "TIME_FREEZE [V-P3]",
        (TIME_FREEZE, 1),
        (OK, STATE),
        (OK, OK),
        NO,
    ),
    row(
        "PROCESSORS_PER_SOCKET [V-P5]",
        (PROCESSORS_PER_SOCKET, 2),
        (OK, OK),
        (OK, OK),
        NO,
    ),
    row(
        "GPA_PAGE_ACCESS_TRACKING [V-P6]",
        (0x5_0005, 1),
        (OK, OK),
        (OK, OK),
        NO,
    ),
    row(
        "UNIMPLEMENTED_MSR_ACTION [V-P7]",
        (UNIMPLEMENTED_MSR_ACTION, 1),
        (OK, OK),
        (OK, OK),
        NO,
    ),
    of_processor("PROCESSOR_VENDOR [V-P8]", PROCESSOR_VENDOR),
    of_processor("PROCESSOR_FEATURES0 [V-P9]", PROCESSOR_FEATURES0),
    of_processor("PROCESSOR_FEATURES1 [V-P9]", PROCESSOR_FEATURES1),
    of_processor("PROCESSOR_XSAVE_FEATURES [V-P10]", XSAVE_FEATURES),
    of_processor("XSAVE_STATES [V-P10]", XSAVE_STATES),
    of_processor("MAX_XSAVE_DATA_SIZE [V-P10]", MAX_XSAVE_DATA_SIZE),
    of_processor("PHYSICAL_ADDRESS_WIDTH [V-P11]", PHYSICAL_ADDRESS_WIDTH),
    row(
        "PROCESSOR_CLOCK_FREQUENCY [V-P12]",
        (CLOCK_FREQUENCY, 0),
        (STATE, NO),
        (OK, NO),
        OK,
    ),
    row(
        "one that is not there [V-P13]",
        (0x7777, 0),
        (NO, NO),
        (NO, NO),
        NO,
    ),
    // NESTED_TLB_SIZE: there is no nested virtualization.
    row(
        "one of nested virtualization [V-P13]",
        (0x5_0004, 0),
        (NO, NO),
        (NO, NO),
        NO,
    ),
];

fn try_row(row: &Row) -> Outcome {
    let status =
        |call: Hvcall, partition: &Partition| call.make(partition).err().map_or(0, |e| e.status);
    let partition = Partition::create(FLAGS).expect("CREATE_PARTITION");
    let get_and_set = |partition: &Partition| {
        (
            status(Hvcall::get_property(row.code), partition),
            status(Hvcall::set_property(row.code, row.value), partition),
        )
    };
    equal("new", get_and_set(&partition), row.new)?;
    partition.initialize().expect("INITIALIZE_PARTITION");
    equal("ready", get_and_set(&partition), row.ready)?;
    if row.ready == (OK, OK) {
        equal("reads back", get(&partition, row.code)?, row.value)?;
    }
    let host = Hvcall::get_property(row.code).make(&device());
    equal("host", host.err().map_or(0, |e| e.status), row.host)
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ROWS
        .iter()
        .map(|row| case(format!("property: {}", row.name), || try_row(row)))
        .collect();
    cases.extend([
        case(
            "property: processor features that are disabled [V-I3 V-P9]",
            disabled,
        ),
        case("properties: processor features, sizes, vendor", features),
        case(
            "properties: banks of the host (HvCallGetPartitionPropertyEx)",
            host_banks,
        ),
        case("properties: statuses and values", statuses),
        case(
            "properties: TIME_FREEZE stops a VP, its TSC and the reference counter [F-TM11 V-P4]",
            || freeze(1),
        )
        .within(60),
        case("properties: TIME_FREEZE with 4 VPs", || freeze(4)).within(60),
        case("properties: UNIMPLEMENTED_MSR_ACTION", unimplemented_msr),
    ]);
    cases
}
