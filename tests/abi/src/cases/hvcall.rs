// SPDX-License-Identifier: Apache-2.0 OR MIT
//! MSHV_ROOT_HVCALL: the argument, the statuses with their errno, what is copied back.

use mshv_bindings::mshv_root_hvcall;

use crate::run::{case, ensure, equal, errno, Case, Outcome, Stop};
use crate::sys::{self, edge, Errno, KERNEL, NOWHERE, PAGE};
use crate::vm::names::*;
use crate::vm::*;

/// HV_STATUS_*.
const INVALID_HYPERCALL_CODE: u16 = 2;
const INVALID_HYPERCALL_INPUT: u16 = 3;
const INVALID_PARAMETER: u16 = 5;
const INVALID_PARTITION_STATE: u16 = 7;
const OPERATION_DENIED: u16 = 8;
const UNKNOWN_PROPERTY: u16 = 9;
const INVALID_VP_INDEX: u16 = 14;
const INVALID_PORT_ID: u16 = 0x11;
const INVALID_CONNECTION_ID: u16 = 0x12;
const NOT_ACKNOWLEDGED: u16 = 0x14;

const SYNTHETIC_PROC_FEATURES: u32 = 0x0001_0001;
const TIME_FREEZE: u32 = 0x0003_0003;
const PRIVILEGE_FLAGS: u32 = 0x0001_0000;

/// Where a call is made.
#[derive(Clone, Copy)]
enum On {
    Device,
    /// Not initialized.
    New,
    Partition,
    Vp,
}

struct Row {
    name: &'static str,
    on: On,
    call: fn() -> Hvcall,
    /// Status, errno, repetitions done; None: success.
    wanted: Option<(u16, i32, u16)>,
}

const fn row(
    name: &'static str,
    on: On,
    call: fn() -> Hvcall,
    wanted: Option<(u16, i32, u16)>,
) -> Row {
    Row {
        name,
        on,
        call,
        wanted,
    }
}

fn get(names: &[u32]) -> Hvcall {
    let mut call = Hvcall::registers(0x50, 0, names.len());
    for name in names {
        call.input.extend_from_slice(&name.to_le_bytes());
    }
    call.output = 16 * names.len();
    call
}

fn set(names: &[u32]) -> Hvcall {
    let mut call = Hvcall::registers(0x51, 0, names.len());
    for name in names {
        call.put(&[u64::from(*name), 0, 0, 0]);
    }
    call
}

/// A call with changes.
fn with(mut call: Hvcall, change: fn(&mut Hvcall)) -> Hvcall {
    change(&mut call);
    call
}

const BAD_NAME: u32 = 0x0666_0666;
const RAX: u32 = HV_X64_REGISTER_RAX;

const ROWS: &[Row] = &[
    row(
        "code 0",
        On::Partition,
        || Hvcall::new(0, &[0], 0),
        Some((INVALID_HYPERCALL_CODE, libc::EINVAL, 0)),
    ),
    row(
        "code 0x7777",
        On::Partition,
        || Hvcall::new(0x7777, &[0], 0),
        Some((INVALID_HYPERCALL_CODE, libc::EINVAL, 0)),
    ),
    row(
        "code 0xffff",
        On::Vp,
        || Hvcall::new(0xffff, &[0], 0),
        Some((INVALID_HYPERCALL_CODE, libc::EINVAL, 0)),
    ),
    row(
        "code of guests only",
        On::Partition,
        || Hvcall::new(0x8, &[0], 0),
        Some((INVALID_HYPERCALL_CODE, libc::EINVAL, 0)),
    ),
    row(
        "code 0x7777 with repetitions",
        On::Partition,
        || with(Hvcall::new(0x7777, &[0], 0), |c| c.reps = 9),
        Some((INVALID_HYPERCALL_CODE, libc::EINVAL, 0)),
    ),
    row(
        "property with repetitions",
        On::Partition,
        || {
            with(Hvcall::get_property(SYNTHETIC_PROC_FEATURES), |c| {
                c.reps = 1
            })
        },
        Some((INVALID_HYPERCALL_INPUT, libc::EINVAL, 0)),
    ),
    row(
        "registers without repetitions",
        On::Partition,
        || with(get(&[RAX]), |c| c.reps = 0),
        Some((INVALID_HYPERCALL_INPUT, libc::EINVAL, 0)),
    ),
    row(
        "registers, 4096 repetitions",
        On::Partition,
        || with(get(&[RAX]), |c| c.reps = 4096),
        Some((INVALID_HYPERCALL_INPUT, libc::EINVAL, 0)),
    ),
    row(
        "registers, more repetitions than input",
        On::Vp,
        || with(get(&[RAX]), |c| c.reps = 2),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "registers, output too small",
        On::Vp,
        || with(get(&[RAX, RAX]), |c| c.output = 31),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "registers, more input and output than needed",
        On::Vp,
        || {
            with(get(&[RAX]), |c| {
                c.put(&[1, 2]);
                c.output = 64
            })
        },
        None,
    ),
    row(
        "property, input of 8 bytes",
        On::Partition,
        || Hvcall::new(0x44, &[0], 8),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "property, no output",
        On::Partition,
        || {
            with(Hvcall::get_property(SYNTHETIC_PROC_FEATURES), |c| {
                c.output = 0
            })
        },
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "another partition's id: overwritten",
        On::Partition,
        || {
            with(Hvcall::get_property(SYNTHETIC_PROC_FEATURES), |c| {
                c.input[..8].fill(0xee)
            })
        },
        None,
    ),
    row(
        "unknown property",
        On::Partition,
        || Hvcall::get_property(0x7777_7777),
        Some((UNKNOWN_PROPERTY, libc::EIO, 0)),
    ),
    row(
        "unknown property, set",
        On::New,
        || Hvcall::set_property(0x7777_7777, 0),
        Some((UNKNOWN_PROPERTY, libc::EIO, 0)),
    ),
    row(
        "unknown property of the host",
        On::Device,
        || Hvcall::get_property(0x7777_7777),
        Some((UNKNOWN_PROPERTY, libc::EIO, 0)),
    ),
    row(
        "property before INITIALIZE_PARTITION, set",
        On::New,
        || Hvcall::set_property(SYNTHETIC_PROC_FEATURES, 0),
        None,
    ),
    row(
        "property after INITIALIZE_PARTITION, set",
        On::Partition,
        || Hvcall::set_property(SYNTHETIC_PROC_FEATURES, 0),
        Some((INVALID_PARTITION_STATE, libc::EIO, 0)),
    ),
    row(
        "privileges after INITIALIZE_PARTITION, set",
        On::Partition,
        || Hvcall::set_property(PRIVILEGE_FLAGS, u64::MAX),
        Some((INVALID_PARTITION_STATE, libc::EIO, 0)),
    ),
    row(
        "host's synthetic features",
        On::Device,
        || Hvcall::get_property(SYNTHETIC_PROC_FEATURES),
        None,
    ),
    row(
        "on the device: setting a property",
        On::Device,
        || Hvcall::set_property(SYNTHETIC_PROC_FEATURES, 0),
        Some((INVALID_HYPERCALL_CODE, libc::EINVAL, 0)),
    ),
    row(
        "on the device: registers",
        On::Device,
        || get(&[RAX]),
        Some((INVALID_HYPERCALL_CODE, libc::EINVAL, 0)),
    ),
    row(
        "on the device: a property with an input of 8 bytes",
        On::Device,
        || Hvcall::new(0x44, &[0], 8),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "on a partition: a property of the host",
        On::Partition,
        || Hvcall::new(0x101, &[0, 0x9_0007, 0], 16),
        Some((UNKNOWN_PROPERTY, libc::EIO, 0)),
    ),
    row(
        "on a VP: setting a property",
        On::Vp,
        || Hvcall::set_property(TIME_FREEZE, 0),
        Some((INVALID_HYPERCALL_CODE, libc::EINVAL, 0)),
    ),
    row(
        "on a VP: getting a property",
        On::Vp,
        || Hvcall::get_property(SYNTHETIC_PROC_FEATURES),
        None,
    ),
    row(
        "a port that is not there",
        On::Partition,
        || Hvcall::new(0x58, &[0, 7], 0),
        Some((INVALID_PORT_ID, libc::EINVAL, 0)),
    ),
    row(
        "a connection that is not there",
        On::Partition,
        || Hvcall::new(0x5b, &[0, 7], 0),
        Some((INVALID_CONNECTION_ID, libc::EINVAL, 0)),
    ),
    row(
        "clearing an interrupt that is not there",
        On::Partition,
        || Hvcall::new(0x56, &[0], 0),
        Some((NOT_ACKNOWLEDGED, libc::EIO, 0)),
    ),
    row(
        "an intercept that cannot be removed",
        On::Partition,
        || Hvcall::new(0x4d, &[0, 0, 0x80], 0),
        Some((OPERATION_DENIED, libc::EIO, 0)),
    ),
    row(
        "a register's value that no CPU takes",
        On::Vp,
        || {
            let mut call = Hvcall::registers(0x51, 0, 2);
            call.put(&[
                RAX.into(),
                0,
                1,
                0,
                HV_X64_REGISTER_CR0.into(),
                0,
                1 << 32,
                0,
            ]);
            call
        },
        Some((INVALID_PARAMETER, libc::EINVAL, 1)),
    ),
    row(
        "unknown register",
        On::Vp,
        || get(&[BAD_NAME]),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "unknown register, third of four",
        On::Vp,
        || get(&[RAX, RAX, BAD_NAME, RAX]),
        Some((INVALID_PARAMETER, libc::EINVAL, 2)),
    ),
    row(
        "unknown register, set",
        On::Vp,
        || set(&[BAD_NAME]),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "unknown register, second of two, set",
        On::Vp,
        || set(&[RAX, BAD_NAME]),
        Some((INVALID_PARAMETER, libc::EINVAL, 1)),
    ),
    row(
        "VP that is not there",
        On::Partition,
        || with(get(&[RAX]), |c| c.input[8] = 9),
        Some((INVALID_VP_INDEX, libc::EINVAL, 0)),
    ),
    row(
        "VP 2^31, set",
        On::Partition,
        || with(set(&[RAX]), |c| c.input[11] = 0x80),
        Some((INVALID_VP_INDEX, libc::EINVAL, 0)),
    ),
    row(
        "the VP's own file, itself by HV_VP_INDEX_SELF",
        On::Vp,
        || {
            with(get(&[RAX]), |c| {
                c.input[8..12].copy_from_slice(&0xffff_fffeu32.to_le_bytes())
            })
        },
        None,
    ),
    row(
        "virtual trust level 1",
        On::Vp,
        || with(get(&[RAX]), |c| c.input[12] = 1),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "reserved byte of the header",
        On::Vp,
        || with(get(&[RAX]), |c| c.input[15] = 1),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "registers of a partition that is not initialized",
        On::New,
        || get(&[RAX]),
        Some((INVALID_VP_INDEX, libc::EINVAL, 0)),
    ),
    // HvCallAssertVirtualInterrupt: partition, control, destination, vector and the rest.
    row(
        "interrupt: vector 0x41, fixed, to nobody",
        On::Partition,
        || Hvcall::new(0x94, &[0, 0, 0x77, 0x41], 0),
        None,
    ),
    row(
        "interrupt: vector 15",
        On::Partition,
        || Hvcall::new(0x94, &[0, 0, 0, 15], 0),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "interrupt: vector 256",
        On::Partition,
        || Hvcall::new(0x94, &[0, 0, 0, 256], 0),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "interrupt: destination 2^32",
        On::Partition,
        || Hvcall::new(0x94, &[0, 0, 1 << 32, 0x41], 0),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "interrupt: virtual trust level 1",
        On::Partition,
        || Hvcall::new(0x94, &[0, 0, 0, 0x41 | (1 << 32)], 0),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "interrupt: unknown type",
        On::Partition,
        || Hvcall::new(0x94, &[0, 0x7fff_ffff, 0, 0x41], 0),
        Some((INVALID_PARAMETER, libc::EINVAL, 0)),
    ),
    row(
        "interrupt: NMI",
        On::Partition,
        || Hvcall::new(0x94, &[0, 4, 0, 0], 0),
        None,
    ),
    row(
        "interrupt: ExtINT, vector 0",
        On::Partition,
        || Hvcall::new(0x94, &[0, 7, 0, 0], 0),
        None,
    ),
];

fn try_row(row: &Row) -> Outcome {
    let call = (row.call)();
    let result = match row.on {
        On::Device => call.make(&device()),
        On::New => call.make(&Partition::create(FLAGS).expect("CREATE_PARTITION")),
        On::Partition => {
            let partition = Partition::ready();
            let _vp = partition.vp(0);
            call.make(&partition)
        }
        On::Vp => call.make(&Partition::ready().vp(0)),
    };
    match (result, row.wanted) {
        (Ok(_), None) => Ok(()),
        (Err(e), Some((status, errno, reps))) => equal(
            "status, errno, reps",
            (e.status, e.errno, e.reps),
            (status, Errno(errno), reps),
        ),
        (got, wanted) => Err(Stop::Fail(format!("{got:?} instead of {wanted:?}"))),
    }
}

/// Calls that Linux passes on, then those that hvrs has besides: code, bytes of input and of output that are enough for
/// one element, whether it is a list's.
const CALLS: &[(u16, usize, usize, bool)] = &[
    (0x44, 16, 8, false),
    (0x45, 24, 0, false),
    (0x4d, 24, 0, false),
    (0x50, 20, 16, true),
    (0x51, 48, 0, true),
    (0x52, 32, 16, false),
    (0x56, 8, 0, false),
    (0x91, 16, 0, false),
    (0x94, 32, 0, false),
    (0xc0, 16, 8, false),
    (0xc1, 280, 0, false),
    (0xc9, 24, 1, true),
    (0xf4, 48, 16, true),
    (0x101, 24, 16, false),
    (0x53, 32, 24, false),
    (0x54, 48, 8, false),
    (0x95, 56, 0, false),
    (0x58, 16, 0, false),
    (0x96, 72, 0, false),
    (0x5a, 24, 8, false),
    (0x5b, 16, 0, false),
    (0x70, 32, 0, false),
];

fn status(fd: &impl std::os::fd::AsRawFd, call: &Hvcall) -> u16 {
    call.make(fd).err().map_or(0, |e| e.status)
}

/// Each file knows its calls, and no others.
fn known_calls() -> Outcome {
    let partition = Partition::ready();
    let vp = partition.vp(0);
    let device = device();
    for code in (0..0x180).chain(0x8000..0x8010).chain([0xffff]) {
        let has = CALLS.iter().any(|row| row.0 == code);
        let short = Hvcall::new(code, &[0], 0);
        let known = |status| status != INVALID_HYPERCALL_CODE;
        let got = (
            known(status(&device, &short)),
            known(status(&partition, &short)),
            known(status(&vp, &short)),
        );
        let wanted = (matches!(code, 0x44 | 0x101), has, has && code != 0x45);
        equal(&format!("{code:#x} on device, partition, VP"), got, wanted)?;
    }
    Ok(())
}

/// What is one byte too short, or has repetitions where there are none, and the other way round, is refused before
/// anything else.
fn forms() -> Outcome {
    let partition = Partition::ready();
    let _vp = partition.vp(0);
    for &(code, input, output, list) in CALLS {
        let form = |input: usize, output: usize, reps| {
            let call = Hvcall {
                code,
                reps,
                input: vec![0; input],
                output,
            };
            status(&partition, &call)
        };
        let reps = u16::from(list);
        let what = format!("{code:#x}");
        if input > 8 {
            let short = form(input - 1, output, reps);
            equal(&format!("{what}: input"), short, INVALID_PARAMETER)?;
        }
        if output > 1 {
            let short = form(input, output - 1, reps);
            equal(&format!("{what}: output"), short, INVALID_PARAMETER)?;
        }
        let other = form(input, output, 1 - reps);
        equal(&format!("{what}: reps"), other, INVALID_HYPERCALL_INPUT)?;
        let most = if list { 4096 } else { 1 };
        let many = form(input, output, most);
        equal(
            &format!("{what}: {most} reps"),
            many,
            INVALID_HYPERCALL_INPUT,
        )?;
    }
    Ok(())
}

/// A change to the argument of a valid call, for its addresses (of an input and an output) and the errno.
type Argument = (&'static str, fn(&mut mshv_root_hvcall), i32);
const ARGUMENTS: &[Argument] = &[
    ("valid", |_| {}, 0),
    ("status", |a| a.status = 1, libc::EINVAL),
    ("status 0xffff", |a| a.status = u16::MAX, libc::EINVAL),
    ("rsvd[0]", |a| a.rsvd[0] = 1, libc::EINVAL),
    ("rsvd[5]", |a| a.rsvd[5] = 0x80, libc::EINVAL),
    ("in_sz 0", |a| a.in_sz = 0, libc::EINVAL),
    ("in_sz 7", |a| a.in_sz = 7, libc::EINVAL),
    ("in_sz 4097", |a| a.in_sz = 4097, libc::EINVAL),
    ("in_sz 65535", |a| a.in_sz = u16::MAX, libc::EINVAL),
    ("out_sz 4097", |a| a.out_sz = 4097, libc::EINVAL),
    ("out_sz 65535", |a| a.out_sz = u16::MAX, libc::EINVAL),
    ("out_sz without out_ptr", |a| a.out_ptr = 0, libc::EINVAL),
    ("out_ptr without out_sz", |a| a.out_sz = 0, libc::EINVAL),
    ("no in_ptr", |a| a.in_ptr = 0, libc::EINVAL),
    (
        "in_ptr nowhere",
        |a| a.in_ptr = NOWHERE as u64,
        libc::EFAULT,
    ),
    (
        "in_ptr in the kernel",
        |a| a.in_ptr = KERNEL as u64,
        libc::EFAULT,
    ),
    ("in_ptr at the end", |a| a.in_ptr = u64::MAX, libc::EFAULT),
    (
        "out_ptr nowhere",
        |a| a.out_ptr = NOWHERE as u64,
        libc::EFAULT,
    ),
    (
        "out_ptr in the kernel",
        |a| a.out_ptr = KERNEL as u64,
        libc::EFAULT,
    ),
    (
        "out_ptr at the end",
        |a| a.out_ptr = u64::MAX - 3,
        libc::EFAULT,
    ),
    ("input is a page", |a| a.in_sz = 4096, 0),
    ("output is a page", |a| a.out_sz = 4096, 0),
];

fn try_argument(change: fn(&mut mshv_root_hvcall), wanted: i32) -> Outcome {
    let partition = Partition::ready();
    let call = Hvcall::get_property(SYNTHETIC_PROC_FEATURES);
    let (mut input, output) = ([0u8; PAGE], [0u8; PAGE]);
    input[..call.input.len()].copy_from_slice(&call.input);
    let mut argument = call.argument(input.as_ptr() as usize, output.as_ptr() as usize);
    change(&mut argument);
    let result = sys::ioctl_on(&partition, ROOT_HVCALL, &mut argument);
    match wanted {
        0 => ensure(result.is_ok(), || format!("{result:?}")),
        wanted => errno("ROOT_HVCALL", result, wanted),
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(name, change, wanted) in ARGUMENTS {
        cases.push(case(
            format!("ROOT_HVCALL: argument, {name} [V-I13]"),
            move || try_argument(change, wanted),
        ));
    }
    for row in ROWS {
        cases.push(case(format!("ROOT_HVCALL: {} [V-I15]", row.name), || {
            try_row(row)
        }));
    }
    cases.push(case(
        "ROOT_HVCALL: the calls of each file [V-I14]",
        known_calls,
    ));
    cases.push(case(
        "ROOT_HVCALL: sizes and repetitions of each call [V-I14]",
        forms,
    ));
    cases.push(case(
        "ROOT_HVCALL: bad addresses of the argument give EFAULT [V-I13]",
        || {
            let partition = Partition::ready();
            for addr in [0, NOWHERE, KERNEL, edge(31).1] {
                errno(
                    &format!("{addr:#x}"),
                    sys::ioctl(&partition, ROOT_HVCALL, addr),
                    libc::EFAULT,
                )?;
            }
            Ok(())
        },
    ));
    cases.push(case(
        "ROOT_HVCALL: a partition has the features asked for, and no others than the host's [H-44 H-45]",
        || {
            let value =
                |bytes: Vec<u8>| u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
            let fail = |e: HvcallError| Stop::Fail(format!("{e:?}"));
            let host = value(
                Hvcall::get_property(SYNTHETIC_PROC_FEATURES)
                    .make(&device())
                    .map_err(fail)?,
            );
            ensure(host & 3 == 3, || {
                format!("host features {host:#x} without hypervisor_present and hv1")
            })?;
            for asked in [0, 3, host, u64::MAX] {
                let partition = Partition::create(FLAGS).expect("CREATE_PARTITION");
                Hvcall::set_property(SYNTHETIC_PROC_FEATURES, asked)
                    .make(&partition)
                    .map_err(fail)?;
                partition.initialize().expect("INITIALIZE_PARTITION");
                let got = value(
                    Hvcall::get_property(SYNTHETIC_PROC_FEATURES)
                        .make(&partition)
                        .map_err(fail)?,
                );
                // HV#1 brings some with it.
                let granted = got & !host == 0 && asked & host & !got == 0;
                ensure(granted, || {
                    format!("asked for {asked:#x} of {host:#x}, got {got:#x}")
                })?;
            }
            Ok(())
        },
    ));
    cases
}
