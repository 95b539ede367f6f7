// SPDX-License-Identifier: Apache-2.0 OR MIT
//! SET_GUEST_MEMORY: what it refuses, and maps that come and go.

use mshv_bindings::mshv_user_mem_region;

use crate::hvrs;
use crate::run::{case, ensure, equal, errno, good, Case, Outcome};
use crate::sys::{self, edge, Memory, KERNEL, NOWHERE, PAGE};
use crate::vm::*;

const P: u64 = PAGE as u64;

/// A call on a partition that has 16 pages of memory, U, at guest page 0x100: what to change in a valid region (4 pages
/// of other memory at guest page 0x1000), and the errno (0: success).
struct Row {
    name: &'static str,
    change: Change,
    wanted: i32,
}

enum Change {
    /// Of a call that maps; gets the address of U.
    Map(fn(&mut mshv_user_mem_region, u64)),
    /// Of a call that unmaps U.
    Unmap(fn(&mut mshv_user_mem_region)),
}

const fn row(name: &'static str, change: fn(&mut mshv_user_mem_region, u64), wanted: i32) -> Row {
    let change = Change::Map(change);
    Row {
        name,
        change,
        wanted,
    }
}

const fn unmap(name: &'static str, change: fn(&mut mshv_user_mem_region), wanted: i32) -> Row {
    let change = Change::Unmap(change);
    Row {
        name,
        change,
        wanted,
    }
}

/// The guest page at which the partition has memory already.
const TAKEN: u64 = 0x100;

const ROWS: &[Row] = &[
    row("valid", |_, _| {}, 0),
    row("size 0", |r, _| r.size = 0, libc::EINVAL),
    row("size not of pages", |r, _| r.size = P + 1, libc::EINVAL),
    row("size of half a page", |r, _| r.size = P / 2, libc::EINVAL),
    row(
        "address not of pages",
        |r, _| r.userspace_addr += 8,
        libc::EINVAL,
    ),
    row(
        "size and address off by as much",
        |r, _| {
            r.size += 16;
            r.userspace_addr += 16
        },
        libc::EINVAL,
    ),
    row(
        "user range wraps",
        |r, _| r.size = 0u64.wrapping_sub(P),
        libc::EINVAL,
    ),
    row(
        "user range ends at 2^64",
        |r, _| {
            r.userspace_addr = 0u64.wrapping_sub(P);
            r.size = P
        },
        libc::EINVAL,
    ),
    row(
        "guest page number wraps",
        |r, _| r.guest_pfn = 1 << 52,
        libc::EINVAL,
    ),
    row(
        "guest page number of all ones",
        |r, _| r.guest_pfn = u64::MAX,
        libc::EINVAL,
    ),
    row("begins at 2^48", |r, _| r.guest_pfn = 1 << 36, libc::EINVAL),
    row(
        "ends beyond 2^48",
        |r, _| r.guest_pfn = (1 << 36) - 1,
        libc::EINVAL,
    ),
    row("ends at 2^48", |r, _| r.guest_pfn = (1 << 36) - 4, 0),
    row(
        "user range in the kernel",
        |r, _| r.userspace_addr = KERNEL as u64 & !0xfff,
        libc::EINVAL,
    ),
    row(
        "user range where nothing is mapped",
        |r, _| r.userspace_addr = P,
        libc::EINVAL,
    ),
    row("size 2^63", |r, _| r.size = 1 << 63, libc::EINVAL),
    row("unknown flag 3", |r, _| r.flags |= 8, libc::EINVAL),
    row("unknown flag 7", |r, _| r.flags |= 0x80, libc::EINVAL),
    row("reserved byte 0", |r, _| r.rsvd[0] = 1, libc::EINVAL),
    row("reserved byte 6", |r, _| r.rsvd[6] = 1, libc::EINVAL),
    row("no rights but reading", |r, _| r.flags = 0, 0),
    row("only execution", |r, _| r.flags = EXECUTABLE, 0),
    row(
        "on top of another",
        |r, _| {
            r.guest_pfn = TAKEN;
            r.size = 16 * P
        },
        libc::EEXIST,
    ),
    row("in another", |r, _| r.guest_pfn = TAKEN + 4, libc::EEXIST),
    row(
        "around another",
        |r, _| {
            r.guest_pfn = TAKEN - 1;
            r.size = 18 * P
        },
        libc::EEXIST,
    ),
    row(
        "over another's first page",
        |r, _| r.guest_pfn = TAKEN - 3,
        libc::EEXIST,
    ),
    row(
        "over another's last page",
        |r, _| r.guest_pfn = TAKEN + 15,
        libc::EEXIST,
    ),
    row("just below another", |r, _| r.guest_pfn = TAKEN - 4, 0),
    row("just above another", |r, _| r.guest_pfn = TAKEN + 16, 0),
    row(
        "another's memory at a second place",
        |r, u| r.userspace_addr = u,
        0,
    ),
    unmap("unmap", |_| {}, 0),
    unmap("unmap with the rights named", |r| r.flags |= RWX, 0),
    row("unmap of nothing", |r, _| r.flags = UNMAP, libc::ENOENT),
    unmap("unmap of less", |r| r.size -= P, libc::EINVAL),
    unmap("unmap of more", |r| r.size += P, libc::EINVAL),
    unmap(
        "unmap from another page",
        |r| r.guest_pfn += 1,
        libc::EINVAL,
    ),
    unmap(
        "unmap of other memory",
        |r| r.userspace_addr += P,
        libc::EINVAL,
    ),
    unmap("unmap just below it", |r| r.guest_pfn -= 1, libc::ENOENT),
    unmap("unmap just above it", |r| r.guest_pfn += 16, libc::ENOENT),
    unmap("unmap of size 0", |r| r.size = 0, libc::EINVAL),
    unmap(
        "unmap with a reserved byte",
        |r| r.rsvd[3] = 1,
        libc::EINVAL,
    ),
];

fn taken(addr: u64) -> mshv_user_mem_region {
    mshv_user_mem_region {
        size: 16 * P,
        guest_pfn: TAKEN,
        userspace_addr: addr,
        flags: RWX,
        rsvd: [0; 7],
    }
}

fn try_row(row: &Row) -> Outcome {
    let partition = Partition::ready();
    let (u, other) = (Memory::new(16 * PAGE), Memory::new(16 * PAGE));
    let mut first = taken(u.addr() as u64);
    good(
        "first region",
        sys::ioctl_on(&partition, SET_GUEST_MEMORY, &mut first),
    )?;
    let mut region = mshv_user_mem_region {
        size: 4 * P,
        guest_pfn: 0x1000,
        userspace_addr: other.addr() as u64,
        flags: RWX,
        rsvd: [0; 7],
    };
    match row.change {
        Change::Map(change) => change(&mut region, u.addr() as u64),
        Change::Unmap(change) => {
            region = first;
            region.flags = UNMAP;
            change(&mut region);
        }
    }
    let result = sys::ioctl_on(&partition, SET_GUEST_MEMORY, &mut region);
    let bytes = hvrs::mine()[0].memory_bytes;
    if row.wanted != 0 {
        errno("SET_GUEST_MEMORY", result, row.wanted)?;
        return equal("bytes afterwards", bytes, 16 * P);
    }
    good("SET_GUEST_MEMORY", result)?;
    let wanted = if region.flags & UNMAP != 0 {
        0
    } else {
        16 * P + region.size
    };
    equal("bytes afterwards", bytes, wanted)
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ROWS
        .iter()
        .map(|row| {
            case(format!("SET_GUEST_MEMORY: {} [V-I6]", row.name), || {
                try_row(row)
            })
        })
        .collect();
    cases.extend([
        case("SET_GUEST_MEMORY: bad addresses give EFAULT [V-I6]", || {
            let partition = Partition::ready();
            for addr in [0, NOWHERE, KERNEL, edge(31).1] {
                errno(
                    &format!("{addr:#x}"),
                    sys::ioctl(&partition, SET_GUEST_MEMORY, addr),
                    libc::EFAULT,
                )?;
            }
            Ok(())
        }),
        case("SET_GUEST_MEMORY: before INITIALIZE_PARTITION", || {
            let partition = good("create", Partition::create(FLAGS))?;
            partition.map(0, &Memory::new(PAGE), RWX);
            Ok(())
        }),
        case(
            "SET_GUEST_MEMORY: unmap, twice: the second gives ENOENT; then map again",
            || {
                let partition = Partition::ready();
                let memory = Memory::new(PAGE);
                for _ in 0..3 {
                    partition.map(0, &memory, RWX);
                    good("unmap", partition.set_memory(0, memory.addr(), PAGE, UNMAP))?;
                    errno(
                        "again",
                        partition.set_memory(0, memory.addr(), PAGE, UNMAP),
                        libc::ENOENT,
                    )?;
                }
                Ok(())
            },
        ),
        case(
            "SET_GUEST_MEMORY: one user range at ten places [V-I6]",
            || {
                let partition = Partition::ready();
                let memory = Memory::new(4 * PAGE);
                for n in 0..10 {
                    partition.map(n * 4 * P, &memory, RWX);
                }
                equal("bytes", hvrs::mine()[0].memory_bytes, 40 * P)
            },
        ),
        case("SET_GUEST_MEMORY: 2000 times map and unmap", || {
            let partition = Partition::ready();
            let memory = Memory::new(8 * PAGE);
            for n in 0..2000 {
                let gpa = (n % 7) * P;
                partition.map(gpa, &memory, RWX);
                good(
                    "unmap",
                    partition.set_memory(gpa, memory.addr(), memory.len(), UNMAP),
                )?;
            }
            equal("bytes", hvrs::mine()[0].memory_bytes, 0)
        }),
        case(
            "SET_GUEST_MEMORY: too many regions give an error, none is lost",
            || {
                let partition = Partition::ready();
                let memory = Memory::new(PAGE);
                let mut mapped = 0;
                let refused = loop {
                    match partition.set_memory(mapped * P, memory.addr(), PAGE, RWX) {
                        Ok(_) => mapped += 1,
                        Err(e) => break e,
                    }
                    ensure(mapped < 100_000, || "no end of regions".into())?;
                };
                ensure(mapped >= 32, || format!("only {mapped} regions"))?;
                equal("errno", refused.0, libc::ENOSPC)?;
                for n in 0..mapped {
                    good(
                        "unmap",
                        partition.set_memory(n * P, memory.addr(), PAGE, UNMAP),
                    )?;
                }
                equal("bytes", hvrs::mine()[0].memory_bytes, 0)
            },
        ),
        case(
            "SET_GUEST_MEMORY: 8 GiB that are never touched cost nothing [V-I7]",
            || {
                let before = crate::cases::meminfo("MemAvailable")?;
                let partition = Partition::ready();
                let memory = Memory::new(8 << 30);
                partition.map(4 << 30, &memory, RWX);
                let after = crate::cases::meminfo("MemAvailable")?;
                ensure(before < after + 4096, || {
                    format!("{before} KiB available, then {after}")
                })
            },
        ),
        case("SET_GUEST_MEMORY: from another process gives EIO", || {
            let partition = Partition::ready();
            let memory = Memory::new(PAGE);
            crate::cases::in_child(move || {
                errno(
                    "map",
                    partition.set_memory(0, memory.addr(), PAGE, RWX),
                    libc::EIO,
                )
            })
        }),
    ]);
    cases
}
