// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HVRS_GET_STATS: the counters of partitions and VPs, which guests and debugfs show, too.

use crate::guests;
use crate::hvrs::{self, Stats, GET_STATS};
use crate::run::{case, ensure, equal, errno, good, Case, Outcome, Stop};
use crate::sys::{self, Memory, Sys, KERNEL, NOWHERE};
use crate::vm::*;

/// HV_STATS_OBJECT_TYPE.
/// HV_STATUS_ACCESS_DENIED.
const ACCESS_DENIED: u16 = 6;
const PARTITION: u32 = 0x1_0001;
const VP: u32 = 0x1_0002;
/// HV_PARTITION_PROPERTY_PRIVILEGE_FLAGS.
const PRIVILEGE_FLAGS: u32 = 0x1_0000;
/// AccessStatsReg.
const STATS_REG: u64 = 1 << 8;

/// Words of the pages.
const VIRTUAL_PROCESSORS: usize = 1;
const GPA_PAGES: usize = 6;
const MODIFICATIONS: usize = 7;
const IO_INSTRUCTIONS: usize = 13;
const IO_MESSAGES: usize = 40;
const DISPATCHES: usize = 74;

fn ask(stats: Stats) -> Sys<i32> {
    let mut stats = stats;
    sys::ioctl_on(&hvrs::open(), GET_STATS, &mut stats)
}

/// The 512 words of an object of this process's only partition.
fn page(object: u32, vp_index: u32) -> Result<Vec<u64>, Stop> {
    let memory = Memory::new(4096);
    let stats = Stats {
        id: hvrs::mine()[0].id,
        object,
        vp_index,
        buffer: memory.addr() as u64,
        reserved: 0,
    };
    good("HVRS_GET_STATS", ask(stats))?;
    Ok((0..512)
        .map(|i| u64::from(memory.word(8 * i)) | (u64::from(memory.word(8 * i + 4)) << 32))
        .collect())
}

fn counts() -> Outcome {
    let guest = Guest::new(guests::out_loop())?;
    for _ in 0..10 {
        guest.vp().message()?;
        // Behind the OUT, which is 2 bytes long.
        let rip = guest.vp().register(names::HV_X64_REGISTER_RIP)?;
        guest
            .vp()
            .set_register(names::HV_X64_REGISTER_RIP, rip + 2)?;
    }
    let vp = page(VP, 0)?;
    equal("OUTs", vp[IO_INSTRUCTIONS], 10)?;
    equal("messages", vp[IO_MESSAGES], 10)?;
    ensure(vp[DISPATCHES] >= 10, || {
        format!("{} windows", vp[DISPATCHES])
    })?;
    // Type 3, version 1.0, so that word 7 is the hypercalls'.
    equal("header", vp[6] & 0xffff_ffff_ffff, 0x1_0000_0003)?;
    let partition = page(PARTITION, 0)?;
    equal("VPs", partition[VIRTUAL_PROCESSORS], 1)?;
    equal("pages", partition[GPA_PAGES], RAM as u64 / 4096)?;
    equal("changes", partition[MODIFICATIONS], 1)?;
    let info = hvrs::mine()[0];
    ensure(info.exits >= 10, || format!("{} exits", info.exits))?;
    equal("windows", info.windows, vp[DISPATCHES])
}

/// The file in debugfs shows the same, and goes with the partition.
fn debugfs() -> Outcome {
    let root = std::path::Path::new("/sys/kernel/debug/hvrs/partition");
    if !root.exists() {
        return Err(Stop::Skip("no debugfs here".into()));
    }
    let guest = Guest::new(guests::out_loop())?;
    guest.vp().message()?;
    let file = root.join(hvrs::mine()[0].id.to_string());
    let text = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(": ").nth(1))
            .map(str::to_owned)
    };
    equal("OUTs", value("VpIoInstructionsCount"), Some("1".into()))?;
    equal("VPs", value("PtVirtualProcessors"), Some("1".into()))?;
    drop(guest);
    ensure(!file.exists(), || "the file outlives the partition".into())
}

fn arguments() -> Outcome {
    let partition = Partition::ready();
    let _vp = partition.vp(3);
    let memory = Memory::new(4096);
    let right = Stats {
        id: hvrs::mine()[0].id,
        object: VP,
        vp_index: 3,
        buffer: memory.addr() as u64,
        reserved: 0,
    };
    good("the right one", ask(right))?;
    for (what, wrong, error) in [
        (
            "no such partition",
            Stats {
                id: u64::MAX,
                ..right
            },
            libc::ENOENT,
        ),
        ("partition 0", Stats { id: 0, ..right }, libc::ENOENT),
        (
            "no such VP",
            Stats {
                vp_index: 2,
                ..right
            },
            libc::ENOENT,
        ),
        (
            "no VP's index",
            Stats {
                vp_index: u32::MAX,
                ..right
            },
            libc::ENOENT,
        ),
        ("no object", Stats { object: 0, ..right }, libc::EINVAL),
        ("the hypervisor", Stats { object: 1, ..right }, libc::EINVAL),
        (
            "a partition with a VP",
            Stats {
                object: PARTITION,
                ..right
            },
            libc::EINVAL,
        ),
        (
            "reserved",
            Stats {
                reserved: 1,
                ..right
            },
            libc::EINVAL,
        ),
        (
            "nowhere",
            Stats {
                buffer: NOWHERE as u64,
                ..right
            },
            libc::EFAULT,
        ),
        (
            "the kernel",
            Stats {
                buffer: KERNEL as u64,
                ..right
            },
            libc::EFAULT,
        ),
    ] {
        errno(what, ask(wrong), error)?;
    }
    Ok(())
}

/// No synthetic feature brings AccessStatsReg: the VMM asks for it, and for nothing that hvrs does not grant so.
fn privilege() -> Outcome {
    let denied = |value| {
        let partition = good("create", Partition::create(FLAGS))?;
        let result = Hvcall::set_property(PRIVILEGE_FLAGS, value).make(&partition);
        ensure(
            result.as_ref().is_err_and(|e| e.status == ACCESS_DENIED),
            || format!("{value:#x}: {result:?}"),
        )
    };
    for value in [1 << 32, 1 << 40, STATS_REG | 1, u64::MAX] {
        denied(value)?;
    }
    for (asked, features) in [(STATS_REG, 3), (0, 3), (STATS_REG, 1)] {
        let partition = good("create", Partition::create(FLAGS))?;
        let set = |code, value| {
            let result = Hvcall::set_property(code, value).make(&partition);
            result.map_err(|e| Stop::Fail(format!("property {code:#x}: {e:?}")))
        };
        set(PRIVILEGE_FLAGS, asked)?;
        set(0x1_0001, features)?;
        good("INITIALIZE_PARTITION", partition.initialize())?;
        let got = Hvcall::get_property(PRIVILEGE_FLAGS).make(&partition);
        let got = got.map_err(|e| Stop::Fail(format!("get: {e:?}")))?;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&got[..8]);
        // Without Hv#1 there are no privileges.
        let wanted = if features == 3 { asked } else { 0 };
        equal(
            "AccessStatsReg",
            u64::from_le_bytes(bytes) & STATS_REG,
            wanted,
        )?;
    }
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "statistics: exits, messages, memory [F-ST3 F-ST6 F-ST7]",
            counts,
        ),
        case("statistics: debugfs", debugfs),
        case("statistics: bad arguments", arguments),
        case("statistics: the privilege [C-3A8]", privilege),
    ]
}
