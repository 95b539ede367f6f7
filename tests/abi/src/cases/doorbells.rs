// SPDX-License-Identifier: Apache-2.0 OR MIT
//! IOEVENTFD: rules, and writes of a guest that never reach the VMM.

use std::os::fd::AsRawFd;

use mshv_bindings::*;

use super::messages::{io, long_mode};
use crate::events::*;
use crate::guests::{self, Code, COUNTER};
use crate::run::{case, equal, errno, good, Case, Outcome, Stop};
use crate::sys::{self, edge, Memory, KERNEL, NOWHERE};
use crate::threads::{interrupted, moves, run_on, skip, started};
use crate::vm::*;

/// Where the guests write; no memory is there.
const BELL: u64 = 0xd_0000;

fn wrong(partition: &Partition, what: &str, argument: mshv_user_ioeventfd) -> Outcome {
    let mut argument = argument;
    errno(
        what,
        sys::ioctl_on(partition, IOEVENTFD, &mut argument),
        libc::EINVAL,
    )
}

/// IOEVENTFD, which must succeed.
fn attach(guest: &Guest, fd: &EventFd, addr: u64, len: u32, flags: u32, value: u64) -> Outcome {
    let set = guest
        .partition
        .ioeventfd(fd.number(), addr, len, flags, value);
    good("IOEVENTFD", set).map(|_| ())
}

fn errors() -> Outcome {
    let partition = Partition::ready();
    let fd = EventFd::new();
    let right = mshv_user_ioeventfd {
        addr: BELL,
        len: 4,
        fd: fd.number(),
        ..Default::default()
    };
    for flags in [8, 1 << 31, 8 | DEASSIGN, u32::MAX] {
        wrong(
            &partition,
            &format!("flags {flags:#x}"),
            mshv_user_ioeventfd { flags, ..right },
        )?;
    }
    for byte in 0..4 {
        for flags in [0, DEASSIGN] {
            let mut rsvd = [0; 4];
            rsvd[byte] = 0x80;
            let argument = mshv_user_ioeventfd {
                rsvd,
                flags,
                ..right
            };
            wrong(&partition, &format!("reserved byte {byte}"), argument)?;
        }
    }
    for len in [3, 5, 6, 7, 9, 16, 1 << 31, u32::MAX] {
        wrong(
            &partition,
            &format!("{len} bytes"),
            mshv_user_ioeventfd { len, ..right },
        )?;
    }
    for (addr, len) in [(u64::MAX, 1), (u64::MAX - 3, 4), (u64::MAX - 6, 8)] {
        let argument = mshv_user_ioeventfd { addr, len, ..right };
        wrong(&partition, &format!("{addr:#x} + {len}"), argument)?;
    }
    for (addr, len) in [
        (0x1_0000, 1),
        (0x1_0000, 0),
        (0xffff, 2),
        (1 << 32, 1),
        (0, 8),
    ] {
        let argument = mshv_user_ioeventfd {
            addr,
            len,
            flags: PIO,
            ..right
        };
        wrong(&partition, &format!("port {addr:#x} + {len}"), argument)?;
    }
    for (what, bad, wanted) in [
        ("-1", -1, libc::EBADF),
        ("9999", 9999, libc::EBADF),
        ("not an eventfd", partition.as_raw_fd(), libc::EINVAL),
    ] {
        for flags in [0, DEASSIGN] {
            errno(what, partition.ioeventfd(bad, BELL, 4, flags, 0), wanted)?;
        }
    }
    for addr in [0, NOWHERE, KERNEL, edge(31).1] {
        errno(
            &format!("{addr:#x}"),
            sys::ioctl(&partition, IOEVENTFD, addr),
            libc::EFAULT,
        )?;
    }
    // None of that left anything behind.
    errno(
        "deassign",
        partition.ioeventfd(fd.number(), BELL, 4, DEASSIGN, 0),
        libc::ENOENT,
    )
}

fn duplicates() -> Outcome {
    let partition = Partition::ready();
    let (fd, other) = (EventFd::new(), EventFd::new());
    let add = |addr, len, flags, value| partition.ioeventfd(fd.number(), addr, len, flags, value);
    good("value 1", add(BELL, 4, DATAMATCH, 1))?;
    good("value 2", add(BELL, 4, DATAMATCH, 2))?;
    errno("value 1 again", add(BELL, 4, DATAMATCH, 1), libc::EEXIST)?;
    errno(
        "value 1, another eventfd",
        partition.ioeventfd(other.number(), BELL, 4, DATAMATCH, 1),
        libc::EEXIST,
    )?;
    errno("any value", add(BELL, 4, 0, 0), libc::EEXIST)?;
    good("another length", add(BELL, 2, 0, 0))?;
    errno("a value of it", add(BELL, 2, DATAMATCH, 1), libc::EEXIST)?;
    good("any length", add(BELL, 0, 0, 0))?;
    errno("any length again", add(BELL, 0, 0, 0), libc::EEXIST)?;
    good("another address", add(BELL + 4, 4, 0, 0))?;
    good("a port", add(0x500, 4, PIO, 0))?;
    good("the address of that number", add(0x500, 4, 0, 0))?;
    errno("the port again", add(0x500, 4, PIO, 7), libc::EEXIST)?;
    let gone = DEASSIGN | DATAMATCH;
    for (what, fd, addr, len, flags, value) in [
        ("another eventfd", &other, BELL, 4, gone, 1),
        ("another address", &fd, BELL + 8, 4, gone, 1),
        ("another length", &fd, BELL, 8, gone, 1),
        ("another value", &fd, BELL, 4, gone, 3),
        ("no value", &fd, BELL, 4, DEASSIGN, 1),
        ("a port", &fd, BELL, 4, gone | PIO, 1),
    ] {
        errno(
            &format!("deassign: {what}"),
            partition.ioeventfd(fd.number(), addr, len, flags, value),
            libc::ENOENT,
        )?;
    }
    good("deassign", add(BELL, 4, gone, 1))?;
    errno("deassign again", add(BELL, 4, gone, 1), libc::ENOENT)?;
    good("once more", add(BELL, 4, DATAMATCH, 1))?;
    good("deassign the port", add(0x500, 4, DEASSIGN | PIO, 0))?;
    good("deassign any length", add(BELL, 0, DEASSIGN, 0)).map(|_| ())
}

fn limit() -> Outcome {
    let partition = Partition::ready();
    let fd = EventFd::new();
    let mut added = 0;
    let end = loop {
        match partition.ioeventfd(fd.number(), BELL + added, 1, 0, 0) {
            Ok(_) => added += 1,
            Err(e) => break e,
        }
        if added > 5000 {
            break sys::Errno(0);
        }
    };
    equal("number, errno", (added, end.0), (1024, libc::ENOSPC))?;
    good(
        "deassign",
        partition.ioeventfd(fd.number(), BELL, 1, DEASSIGN, 0),
    )?;
    good("one more", partition.ioeventfd(fd.number(), BELL, 1, 0, 0))?;
    Ok(())
}

fn small(code: Code) -> Result<Guest, Stop> {
    Guest::with(code, 1, FLAGS, Memory::new(0x2_0000))
}

fn address(message: &hv_message) -> Result<u64, Stop> {
    message
        .to_memory_info()
        .map(|info| info.guest_physical_address)
        .map_err(|_| Stop::Fail(format!("message {:#x}", { message.header.message_type })))
}

/// Runs to port 0x80: no message came before.
fn to_port(guest: &Guest, port: u16) -> Outcome {
    let message = guest.vp().message()?;
    equal("port", io(&message)?.port_number, port)
}

fn memory_sizes() -> Outcome {
    let guest = small(guests::stores())?;
    let sizes = [1, 2, 4].map(|len| (len, EventFd::new()));
    for (len, fd) in &sizes {
        attach(&guest, fd, BELL, *len, 0, 0)?;
    }
    to_port(&guest, 0x80)?;
    equal("stores", guest.memory.word(COUNTER), 4)?;
    // MOV and STOSD of four bytes.
    equal(
        "signals for 1, 2 and 4 bytes",
        sizes.map(|(_, fd)| fd.take()),
        [1, 1, 2],
    )
}

fn memory_any_size() -> Outcome {
    let guest = small(guests::stores())?;
    let (any, two) = (EventFd::new(), EventFd::new());
    let add = |fd: &EventFd, len| guest.partition.ioeventfd(fd.number(), BELL, len, 0, 0);
    good("any length", add(&any, 0))?;
    good("two bytes", add(&two, 2))?;
    to_port(&guest, 0x80)?;
    equal(
        "stores, signals of any length, of two bytes",
        (guest.memory.word(COUNTER), any.take(), two.take()),
        (4, 3, 1),
    )
}

fn memory_values() -> Outcome {
    let guest = small(guests::stores())?;
    let hits = [(1, 0x78), (2, 0x5678), (4, 0x1234_5678)].map(|(len, value)| {
        let fd = EventFd::new();
        (len, value, fd)
    });
    for (len, value, fd) in &hits {
        // What differs above the store's size is another value.
        let other = EventFd::new();
        let wide = *value | (1 << 40);
        good(
            "a wider value",
            guest
                .partition
                .ioeventfd(other.number(), BELL, *len, DATAMATCH, wide),
        )?;
        let add = |flags| {
            guest
                .partition
                .ioeventfd(fd.number(), BELL, *len, flags, *value)
        };
        good("IOEVENTFD", add(DATAMATCH))?;
    }
    to_port(&guest, 0x80)?;
    equal("signals", hits.map(|(.., fd)| fd.take()), [1, 1, 2])
}

fn memory_miss() -> Outcome {
    let guest = small(guests::stores())?;
    let fd = EventFd::new();
    let add = |addr, len, flags, value| {
        guest
            .partition
            .ioeventfd(fd.number(), addr, len, flags, value)
    };
    // Neither value, nor length, nor address.
    good("value", add(BELL, 1, DATAMATCH, 0x79))?;
    good("length", add(BELL, 8, 0, 0))?;
    good("address", add(BELL + 1, 1, 0, 0))?;
    good("port", add(BELL & 0xffff, 1, PIO, 0))?;
    let message = guest.vp().message()?;
    equal("address", address(&message)?, BELL)?;
    equal(
        "stores, signals",
        (guest.memory.word(COUNTER), fd.take()),
        (0, 0),
    )?;
    // It is still there; with an ioeventfd it is done.
    good("value", add(BELL, 1, DATAMATCH, 0x78))?;
    let message = guest.vp().message()?;
    equal("address", address(&message)?, BELL)?;
    equal(
        "stores, signals",
        (guest.memory.word(COUNTER), fd.take()),
        (1, 1),
    )
}

fn deassigned() -> Outcome {
    let guest = small(guests::ring())?;
    let fd = EventFd::new();
    let set = |flags| guest.partition.ioeventfd(fd.number(), BELL, 4, flags, 0);
    good("IOEVENTFD", set(0))?;
    let running = run_on(guest.vp());
    started(&guest.memory)?;
    moves(&guest.memory, COUNTER)?;
    good("DEASSIGN", set(DEASSIGN))?;
    let signals = fd.take();
    let message = good("RUN_VP", running.wait(10)?)?;
    equal("address", address(&message)?, BELL)?;
    equal(
        "each store one signal",
        (signals, fd.take()),
        (guest.memory.word(COUNTER).into(), 0),
    )?;
    // Of two regions, of which the second hides nothing: memory there takes the stores.
    good("IOEVENTFD", set(0))?;
    let memory = Memory::new(0x1000);
    guest.partition.map(BELL, &memory, WRITABLE);
    let running = run_on(guest.vp());
    moves(&guest.memory, COUNTER)?;
    interrupted(running.interrupt()?)?;
    equal("signals with memory there", fd.take(), 0)
}

fn eight_bytes() -> Outcome {
    // Linear 0x40001230 is 0x1001230.
    let at = 0x100_1230;
    let guest = long_mode(guests::store_64())?;
    let add = |value| {
        let fd = EventFd::new();
        let flags = DATAMATCH;
        guest
            .partition
            .ioeventfd(fd.number(), at, 8, flags, value)
            .map(|_| fd)
    };
    let first = good("IOEVENTFD", add(0x1122_3344_5566_7788))?;
    let second = good("IOEVENTFD", add(u64::MAX - 1))?;
    to_port(&guest, 0x80)?;
    equal("signals", (first.take(), second.take()), (1, 1))
}

fn not_a_store() -> Outcome {
    let guest = small(guests::modify())?;
    let fd = EventFd::new();
    attach(&guest, &fd, BELL, 0, 0, 0)?;
    let message = guest.vp().message()?;
    equal("address", address(&message)?, BELL)?;
    equal("signals", fd.take(), 0)
}

fn ports() -> Outcome {
    let guest = small(guests::outs())?;
    let vp = guest.vp();
    let [byte, word, dword, value, any] = [(); 5].map(|()| EventFd::new());
    let add =
        |fd: &EventFd, port, len, flags, value| attach(&guest, fd, port, len, PIO | flags, value);
    add(&byte, 0x500, 1, DATAMATCH, 0x78)?;
    add(&word, 0x500, 2, DATAMATCH, 0x5678)?;
    add(&dword, 0x500, 4, DATAMATCH, 0x1234_5678)?;
    add(&value, 0x501, 1, DATAMATCH, 0x79)?;
    // Memory of the same number.
    attach(&guest, &any, 0x501, 0, 0, 0)?;
    let message = vp.message()?;
    let info = io(&message)?;
    equal(
        "the first that misses: port, length",
        (info.port_number, info.header.instruction_length()),
        (0x501, 1),
    )?;
    equal(
        "signals",
        [&byte, &word, &dword, &value, &any].map(|fd| fd.take()),
        [1, 1, 1, 0, 0],
    )?;
    good("skip", skip(vp, &message))?;
    // IN and OUTS are the VMM's.
    for access in [0, 1] {
        let message = vp.message()?;
        let info = io(&message)?;
        equal(
            "port, access",
            (info.port_number, info.header.intercept_access_type),
            (0x500, access),
        )?;
        good("skip", skip(vp, &message))?;
    }
    equal("signals", byte.take(), 0)
}

/// What a VMM sees between two runs: an instruction that has signalled is done.
fn interrupted_between() -> Outcome {
    let guest = small(guests::ring())?;
    let fd = EventFd::new();
    attach(&guest, &fd, BELL, 4, 0, 0)?;
    let mut signals = 0;
    for n in 0..300 {
        let running = run_on(guest.vp());
        moves(&guest.memory, COUNTER)?;
        interrupted(running.interrupt()?)?;
        signals += fd.take();
        let done = u64::from(guest.memory.word(COUNTER));
        // The store is behind the first 5 bytes and 5 bytes long.
        let at_store = guest.vp().register(names::HV_X64_REGISTER_RIP)? != ENTRY + 5 + 5;
        equal(
            &format!("run {n}: signals, the next instruction stores"),
            (signals, at_store),
            (if at_store { done } else { done + 1 }, at_store),
        )?;
    }
    Ok(())
}

fn closed() -> Outcome {
    let guest = small(guests::ring())?;
    let fd = EventFd::new();
    attach(&guest, &fd, BELL, 4, 0, 0)?;
    // The partition's file ends it, although the VP's keeps the partition.
    let Guest {
        partition,
        memory: _memory,
        vps,
    } = guest;
    drop(partition);
    let message = vps[0].message()?;
    equal("address", address(&message)?, BELL)?;
    equal("signals", fd.take(), 0)
}

pub fn cases() -> Vec<Case> {
    vec![
        case("IOEVENTFD: wrong arguments [V-I10]", errors),
        case(
            "IOEVENTFD: duplicates, and what DEASSIGN finds [V-I10]",
            duplicates,
        ),
        case("IOEVENTFD: 1024 of them", limit),
        case("IOEVENTFD: memory, 1, 2 and 4 bytes", memory_sizes),
        case("IOEVENTFD: memory, any length [V-I10]", memory_any_size),
        case(
            "IOEVENTFD: memory, values that match [V-I10]",
            memory_values,
        ),
        case(
            "IOEVENTFD: memory, what does not match is the VMM's",
            memory_miss,
        ),
        case("IOEVENTFD: memory, 8 bytes", eight_bytes),
        case("IOEVENTFD: a read-modify-write is the VMM's", not_a_store),
        case("IOEVENTFD: DEASSIGN while it rings", deassigned),
        case("IOEVENTFD: ports [V-I10]", ports),
        case(
            "IOEVENTFD: a signal for the VMM finds the instruction done",
            interrupted_between,
        ),
        case("IOEVENTFD: ends with the partition's file", closed),
    ]
}
