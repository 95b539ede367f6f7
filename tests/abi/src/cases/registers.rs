// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HvCallGetVpRegisters and HvCallSetVpRegisters: what is set can be read, what cannot be is refused, the state after
//! RESET.

use crate::run::{case, ensure, equal, Case, Outcome, Stop};
use crate::sys::Errno;
use crate::vm::*;

/// Register names: first, last, step is 1.
struct Row {
    label: &'static str,
    first: u32,
    last: u32,
    /// What is set, and what is then read.
    values: &'static [(Value, Value)],
}

const fn row(label: &'static str, first: u32, last: u32, values: &'static [(Value, Value)]) -> Row {
    Row {
        label,
        first,
        last,
        values,
    }
}

/// A register of its own.
const fn one(label: &'static str, name: u32, values: &'static [(Value, Value)]) -> Row {
    row(label, name, name, values)
}

/// Read as set.
const fn same(low: u64, high: u64) -> (Value, Value) {
    ((low, high), (low, high))
}

/// Read as set, 64 bits.
const fn low(value: u64) -> (Value, Value) {
    same(value, 0)
}

/// Read as something else.
const fn becomes(set: u64, read: u64) -> (Value, Value) {
    ((set, 0), (read, 0))
}

const ANY: &[(Value, Value)] = &[low(0), low(u64::MAX), low(0x0123_4567_89ab_cdef)];
const CANONICAL: &[(Value, Value)] = &[low(0x7fff_ffff_f000), low(0xffff_8000_0000_0000), low(0)];
const SEGMENT: &[(Value, Value)] = &[
    same(0x1234_5000, 0xffff | (0x10 << 32) | (0x93 << 48)),
    same(0xffff_0000, 0xf_ffff | (0xfff8 << 32) | (0xc09b << 48)),
    // Unusable.
    same(0, 0x1_0000 << 48),
];
const TABLE: &[(Value, Value)] = &[
    same(0xffff << 48, 0xffff_8000_1234_5678),
    same(0x7 << 48, 0),
];
const PAGE: &[(Value, Value)] = &[low(0x10_2001), low(u64::MAX), low(0)];
const XMM: &[(Value, Value)] = &[
    same(u64::MAX, u64::MAX),
    same(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210),
    same(0, 0),
];
const MTRR_FIXED: &[(Value, Value)] = &[
    low(0x0606_0606_0606_0606),
    low(0x0001_0405_0600_0104),
    low(0),
];

const ROWS: &[Row] = &[
    row("general registers and RIP", 0x2_0000, 0x2_0010, ANY),
    one(
        "RFLAGS",
        0x2_0011,
        &[
            low(2),
            low(0x246),
            becomes(0, 2),
            becomes(u64::MAX, 0x3f_7fd7),
            low(2),
        ],
    ),
    row("XMM0 to XMM15", 0x3_0000, 0x3_000f, XMM),
    row(
        "FP_MMX0 to FP_MMX7",
        0x3_0010,
        0x3_0017,
        &[same(0x8000_0000_0000_0000, 0x3fff), same(0, 0)],
    ),
    one(
        "FP_CONTROL_STATUS",
        0x3_0018,
        &[same(0x1ff_0011_037f, 0x1234), same(0x40, 0)],
    ),
    one(
        "XMM_CONTROL_STATUS: RDP",
        0x3_0019,
        &[same(0x5678, 0x1f80), same(0, 0x9fc0), same(0, 0x1f80)],
    ),
    one(
        "CR0",
        0x4_0000,
        &[
            low(0x6000_0010),
            low(0x8005_0033),
            low(0x11),
            low(0x31),
            becomes(0, 0x10),
        ],
    ),
    one(
        "CR0, intermediate name",
        0x4_1000,
        &[low(0x8005_0033), low(0x6000_0010)],
    ),
    one("CR2", 0x4_0001, ANY),
    one("CR3", 0x4_0002, &[low(0x1000), low(0)]),
    one(
        "CR3, intermediate name",
        0x4_1002,
        &[low(0x1234_5000), low(0)],
    ),
    one("CR4", 0x4_0003, &[low(0x6b0), low(0x20), low(0)]),
    one("CR4, intermediate name", 0x4_1003, &[low(0x6b0), low(0)]),
    one("CR8", 0x4_0004, &[low(15), low(7), low(0)]),
    one("XFEM", 0x4_0005, &[low(3), low(7), low(1)]),
    row(
        "DR0 to DR3",
        0x5_0000,
        0x5_0003,
        &[low(0xffff_8000_0000_1234), low(0x1000), low(0)],
    ),
    one(
        "DR6",
        0x5_0004,
        &[low(0xffff_0ff1), becomes(0, 0xffff_0ff0)],
    ),
    one(
        "DR7",
        0x5_0005,
        &[low(0xf_0403), low(0x400), becomes(0, 0x400)],
    ),
    row("segment registers, LDTR, TR", 0x6_0000, 0x6_0007, SEGMENT),
    row("IDTR, GDTR", 0x7_0000, 0x7_0001, TABLE),
    one("EFER", 0x8_0001, &[low(0xd01), low(0x801), low(0)]),
    one("KERNEL_GS_BASE", 0x8_0002, CANONICAL),
    one("APIC_BASE", 0x8_0003, &[low(0xfee0_0d00), low(0xfee0_0900)]),
    one(
        "PAT",
        0x8_0004,
        &[low(0x0105_0407_0600_0106), low(0x0007_0406_0007_0406)],
    ),
    one("SYSENTER_CS", 0x8_0005, &[low(0x10), low(0)]),
    row("SYSENTER_EIP, SYSENTER_ESP", 0x8_0006, 0x8_0007, CANONICAL),
    one("STAR", 0x8_0008, ANY),
    row("LSTAR, CSTAR", 0x8_0009, 0x8_000a, CANONICAL),
    one(
        "SFMASK",
        0x8_000b,
        &[low(0x4_7700), low(0xffff_ffff), low(0)],
    ),
    one("MTRR_DEF_TYPE", 0x8_000e, &[low(0xc06), low(0)]),
    row(
        "MTRR_PHYS_BASE0 to 7",
        0x8_0010,
        0x8_0017,
        &[low(0xc000_0000), low(0x12_3456_7006), low(0)],
    ),
    row(
        "MTRR_PHYS_MASK0 to 7",
        0x8_0040,
        0x8_0047,
        &[low(0xff_c000_0800), low(0)],
    ),
    row("MTRR_FIX64K, FIX16K, FIX4K", 0x8_0070, 0x8_007a, MTRR_FIXED),
    one("TSC_AUX", 0x8_007b, &[low(0x1234_5678), low(0)]),
    one("DEBUG_CTL", 0x8_007d, &[low(2), low(0)]),
    one(
        "TSC_ADJUST",
        0x8_0096,
        &[low(0x1000_0000), low(0u64.wrapping_sub(0x1000)), low(0)],
    ),
    one(
        "PENDING_INTERRUPTION",
        0x1_0002,
        &[
            low((0x41 << 16) | 1),
            low((0x1234 << 32) | (13 << 16) | (1 << 4) | (3 << 1) | 1),
            low(0),
        ],
    ),
    one(
        "INTERRUPT_STATE",
        0x1_0003,
        &[low(1), low(2), low(3), low(0)],
    ),
    one("INTERNAL_ACTIVITY_STATE", 0x4, &[low(1), low(2), low(0)]),
    one("INITIAL_APIC_ID", 0x8_000c, &[low(0)]),
    one(
        "HYPERCALL, before GUEST_OS_ID",
        0x9_0001,
        &[low(0x10_0001), low(0)],
    ),
    one(
        "GUEST_OS_ID",
        0x9_0002,
        &[low(0x8100_0000_0006_0102), low(0)],
    ),
    one("REFERENCE_TSC", 0x9_0017, &[low(0x10_1001), low(0)]),
    one("VP_ASSIST_PAGE", 0x9_0013, PAGE),
    row(
        "SINT0 to SINT15",
        0xa_0000,
        0xa_000f,
        &[low(0x2_0055), low(0x4_0010), low(0x1_0000)],
    ),
    one("SCONTROL", 0xa_0010, &[low(1), low(0)]),
    one("SVERSION", 0xa_0011, &[low(1)]),
    row("SIEFP, SIMP", 0xa_0012, 0xa_0013, PAGE),
    one("EOM", 0xa_0014, &[low(0), becomes(7, 0)]),
    one(
        "STIMER0_CONFIG",
        0xb_0000,
        &[low(0x2_000e), becomes(1, 0), low(0)],
    ),
    one("STIMER3_COUNT", 0xb_0007, &[low(u64::MAX), low(0)]),
];

/// Names, labels and values that must be refused, and leave the register as it was.
const REFUSED: &[(&str, u32, &[Value])] = &[
    (
        "CR0",
        0x4_0000,
        &[(1 << 32, 0), (u64::MAX, 0), (0x8000_0010, 0)],
    ),
    (
        "CR4",
        0x4_0003,
        &[(1 << 63, 0), (1 << 13, 0), (1 << 15, 0), (1 << 32, 0)],
    ),
    ("CR8", 0x4_0004, &[(16, 0), (u64::MAX, 0)]),
    ("SINT3", 0xa_0003, &[(15, 0), (0x2_0000, 0)]),
    ("SVERSION", 0xa_0011, &[(0, 0), (2, 0)]),
    (
        "STIMER1_CONFIG",
        0xb_0002,
        &[(1 << 13, 0), (0x10f1, 0), (1 << 63, 0)],
    ),
    (
        "XFEM",
        0x4_0005,
        &[
            (0, 0),
            (2, 0),
            (5, 0),
            (1 << 63, 0),
            (0x21, 0),
            (u64::MAX, 0),
        ],
    ),
    (
        "EFER",
        0x8_0001,
        &[(2, 0), (1 << 12, 0), (1 << 63, 0), (u64::MAX, 0)],
    ),
    (
        "KERNEL_GS_BASE",
        0x8_0002,
        &[(0x8000_0000_0000, 0), (1 << 63, 0)],
    ),
    (
        "APIC_BASE",
        0x8_0003,
        &[
            (u64::MAX, 0),
            ((1 << 63) | 0xfee0_0900, 0),
            (0xfee0_0901, 0),
            (0xfee0_0500, 0),
        ],
    ),
    (
        "PAT",
        0x8_0004,
        &[(2, 0), (3 << 56, 0), (8, 0), (u64::MAX, 0)],
    ),
    ("SYSENTER_EIP", 0x8_0006, &[(0x8000_0000_0000, 0)]),
    ("SYSENTER_ESP", 0x8_0007, &[(0xffff_7fff_ffff_ffff, 0)]),
    ("LSTAR", 0x8_0009, &[(0x8000_0000_0000, 0), (1 << 62, 0)]),
    ("CSTAR", 0x8_000a, &[(0x8000_0000_0000, 0)]),
    ("SFMASK", 0x8_000b, &[(1 << 32, 0)]),
    ("INITIAL_APIC_ID", 0x8_000c, &[(1 << 32, 0)]),
    ("MTRR_CAP", 0x8_000d, &[(0, 0), (u64::MAX, 0)]),
    ("MTRR_DEF_TYPE", 0x8_000e, &[(2, 0), (1 << 12, 0), (7, 0)]),
    (
        "MTRR_PHYS_BASE0",
        0x8_0010,
        &[(2, 0), (1 << 63, 0), (0x100, 0)],
    ),
    ("MTRR_PHYS_MASK7", 0x8_0047, &[(1, 0), (1 << 63, 0)]),
    ("MTRR_FIX64K00000", 0x8_0070, &[(2, 0), (0xff << 56, 0)]),
    ("TSC_AUX", 0x8_007b, &[(1 << 32, 0)]),
    ("DEBUG_CTL", 0x8_007d, &[(1 << 63, 0), (1 << 6, 0)]),
    (
        "XMM_CONTROL_STATUS",
        0x3_0019,
        &[(0, 1 << 16), (0, 0xffff_ffff)],
    ),
    (
        "PENDING_INTERRUPTION",
        0x1_0002,
        &[
            (1 | (1 << 1), 0),
            (1 | (7 << 1), 0),
            (1 | (3 << 1) | (32 << 16), 0),
            (1 | (2 << 1) | (3 << 16), 0),
            (1 | (256 << 16), 0),
            (1 | (1 << 4) | (3 << 1) | (6 << 16), 0),
        ],
    ),
    (
        "INTERNAL_ACTIVITY_STATE",
        0x4,
        &[(u64::MAX, 0), (1 << 32, 0)],
    ),
    ("VP_INDEX", 0x9_0003, &[(7, 0)]),
    ("TIME_REF_COUNT", 0x9_0004, &[(7, 0)]),
];

/// The state after RESET (SDM table 10-1) of VP 0.
const RESET: &[(&str, u32, Value)] = &[
    ("RIP", 0x2_0010, (0xfff0, 0)),
    ("RFLAGS", 0x2_0011, (2, 0)),
    (
        "CS",
        0x6_0001,
        (0xffff_0000, 0xffff | (0xf000 << 32) | (0x9b << 48)),
    ),
    ("DS", 0x6_0003, (0, 0xffff | (0x93 << 48))),
    ("SS", 0x6_0002, (0, 0xffff | (0x93 << 48))),
    ("GDTR", 0x7_0001, (0xffff << 48, 0)),
    ("IDTR", 0x7_0000, (0xffff << 48, 0)),
    ("CR0", 0x4_0000, (0x6000_0010, 0)),
    ("CR2", 0x4_0001, (0, 0)),
    ("CR3", 0x4_0002, (0, 0)),
    ("CR4", 0x4_0003, (0, 0)),
    ("CR8", 0x4_0004, (0, 0)),
    ("XFEM", 0x4_0005, (1, 0)),
    ("EFER", 0x8_0001, (0, 0)),
    ("APIC_BASE", 0x8_0003, (0xfee0_0900, 0)),
    ("PAT", 0x8_0004, (0x0007_0406_0007_0406, 0)),
    ("DR6", 0x5_0004, (0xffff_0ff0, 0)),
    ("DR7", 0x5_0005, (0x400, 0)),
    ("RSP", 0x2_0004, (0, 0)),
    ("FP_CONTROL_STATUS", 0x3_0018, (0x37f, 0)),
    ("INTERRUPT_STATE", 0x1_0003, (0, 0)),
    ("PENDING_INTERRUPTION", 0x1_0002, (0, 0)),
    ("INTERNAL_ACTIVITY_STATE", 0x4, (0, 0)),
    ("INITIAL_APIC_ID", 0x8_000c, (0, 0)),
    ("VP_INDEX", 0x9_0003, (0, 0)),
    ("GUEST_OS_ID", 0x9_0002, (0, 0)),
];

fn fail(what: &str) -> impl Fn(HvcallError) -> Stop + '_ {
    move |e| Stop::Fail(format!("{what}: {e:?}"))
}

fn round_trip(row: &Row) -> Outcome {
    let vp = Partition::ready().vp(0);
    for name in row.first..=row.last {
        for &(set, wanted) in row.values {
            let what = format!("{name:#x} := {set:x?}");
            vp.set(&[(name, set)]).map_err(fail(&what))?;
            let got = vp.get(&[name]).map_err(fail(&what))?[0];
            equal(&what, got, wanted)?;
        }
    }
    Ok(())
}

fn refused(name: u32, values: &[Value]) -> Outcome {
    let vp = Partition::ready().vp(0);
    let before = vp.get(&[name]).map_err(fail("before"))?[0];
    for value in values {
        match vp.set(&[(name, *value)]) {
            Err(e) => equal(
                &format!("{value:x?}"),
                (e.errno, e.status, e.reps),
                (Errno(libc::EINVAL), 5, 0),
            )?,
            Ok(()) => return Err(Stop::Fail(format!("{value:x?} was taken"))),
        }
    }
    let after = vp.get(&[name]).map_err(fail("after"))?[0];
    // The clock alone goes on.
    ensure(name == 0x9_0004 || after == before, || {
        format!("{before:x?} became {after:x?}")
    })
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for row in ROWS {
        cases.push(case(
            format!("registers, set and get: {} [H-P10 V-R1]", row.label),
            || round_trip(row),
        ));
    }
    for &(label, name, values) in REFUSED {
        cases.push(case(
            format!("registers, refused: {label} [H-P11 V-R1]"),
            move || refused(name, values),
        ));
    }
    cases.extend([
        case("registers: state after RESET [V-R5]", || {
            let vp = Partition::ready().vp(0);
            let names: Vec<u32> = RESET.iter().map(|row| row.1).collect();
            let got = vp.get(&names).map_err(fail("all in one call"))?;
            for ((label, _, wanted), got) in RESET.iter().zip(got) {
                equal(label, got, *wanted)?;
            }
            Ok(())
        }),
        case(
            "registers: a VP other than 0 waits for a start-up IPI, has its own index and APIC id",
            || {
                let vp = Partition::ready().vp(5);
                equal("activity", vp.register(0x4)?, 1)?;
                equal("VP_INDEX", vp.register(0x9_0003)?, 5)?;
                equal("INITIAL_APIC_ID", vp.register(0x8_000c)?, 5)?;
                equal("APIC_BASE", vp.register(0x8_0003)?, 0xfee0_0800)
            },
        ),
        case("registers: TSC goes on from what was set", || {
            let vp = Partition::ready().vp(0);
            vp.set_register(0x8_0000, 1 << 50)?;
            let (a, b) = (vp.register(0x8_0000)?, vp.register(0x8_0000)?);
            ensure(a >= 1 << 50 && b > a && b < (1 << 50) + (1 << 40), || {
                format!("{a:#x}, {b:#x}")
            })
        }),
        case("registers: clocks of a partition go on", || {
            let vp = Partition::ready().vp(0);
            let (a, b) = (vp.register(0x9_0004)?, vp.register(0x9_0004)?);
            ensure(
                b > a || {
                    crate::sys::sleep_ms(10);
                    vp.register(0x9_0004).is_ok_and(|c| c > a)
                },
                || format!("{a}, {b}"),
            )?;
            equal(
                "VP_RUNTIME of a VP that never ran",
                vp.register(0x9_0000)?,
                0,
            )
        }),
        case("registers: 128 in one call", || {
            let vp = Partition::ready().vp(0);
            let values: Vec<(u32, Value)> = (0..112)
                .map(|n| (0x2_0000 + n % 16, (n.into(), 0)))
                .collect();
            vp.set(&values).map_err(fail("set"))?;
            let names: Vec<u32> = (0..128).map(|n| 0x2_0000 + n % 16).collect();
            let got = vp.get(&names).map_err(fail("get"))?;
            for (n, value) in got.iter().enumerate() {
                equal(&format!("register {}", n % 16), value.0, 96 + n as u64 % 16)?;
            }
            Ok(())
        }),
        case("registers: those of one VP are not another's", || {
            let partition = Partition::ready();
            let vps: Vec<Vp> = (0..4).map(|n| partition.vp(n)).collect();
            for vp in &vps {
                vp.set_register(names::HV_X64_REGISTER_RAX, 100 + u64::from(vp.index))?;
            }
            for vp in &vps {
                equal(
                    "RAX",
                    vp.register(names::HV_X64_REGISTER_RAX)?,
                    100 + u64::from(vp.index),
                )?;
            }
            Ok(())
        }),
    ]);
    cases
}
