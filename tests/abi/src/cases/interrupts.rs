// SPDX-License-Identifier: Apache-2.0 OR MIT
//! SET_MSI_ROUTING and IRQFD: rules, and interrupts that a running guest takes.

use std::os::fd::AsRawFd;

use mshv_bindings::*;

use crate::events::*;
use crate::guests::{self, Code};
use crate::run::{case, ensure, equal, errno, eventually, good, Case, Outcome, Stop};
use crate::sys::{self, edge as edge_of_memory, sleep_ms, Memory, Random, Sys, KERNEL, NOWHERE};
use crate::threads::{interrupted, run_on, started, Running};
use crate::vm::names::HV_X64_REGISTER_DS;
use crate::vm::*;

const VECTOR: u8 = 0x41;
/// Where the guests' handler is.
const HANDLER: u32 = 0x3000;
/// It ends the interrupt when this is not 0.
const GO: usize = 0x2100;
/// Interrupts taken by each VP.
const TAKEN: usize = 0x2200;

/// SET_MSI_ROUTING with a wrong table: what is wrong, the words.
const WRONG_TABLES: &[(&str, &[u32])] = &[
    ("more than 4096 entries", &[4097, 0]),
    ("2^32 - 1 entries", &[u32::MAX, 0]),
    ("a reserved bit", &[0, 1]),
    ("the highest reserved bit", &[0, 1 << 31]),
    ("GSI 4096", &[1, 0, 4096, 0xfee0_0000, 0, 0x41]),
    ("GSI 2^32 - 1", &[1, 0, u32::MAX, 0xfee0_0000, 0, 0x41]),
    ("an address above 4 GiB", &[1, 0, 5, 0xfee0_0000, 1, 0x41]),
    (
        "a wrong entry after a right one",
        &[2, 0, 5, 0, 0, 0, 6, 0, 1 << 31, 0],
    ),
    ("a GSI twice", &[2, 0, 5, 0, 0, 0x41, 5, 0, 0, 0x41]),
];

/// Whether `gsi` has a level-triggered route: only then may an irqfd resample.
fn is_level(partition: &Partition, gsi: u32) -> Result<bool, Stop> {
    let (fd, resample) = (EventFd::new(), EventFd::new());
    match partition.irqfd(fd.number(), gsi, IRQFD_RESAMPLE, resample.number()) {
        Ok(_) => {
            good(
                "deassign",
                partition.irqfd(fd.number(), gsi, IRQFD_DEASSIGN, -1),
            )?;
            Ok(true)
        }
        Err(sys::Errno(libc::EINVAL)) => Ok(false),
        Err(e) => Err(Stop::Fail(format!("IRQFD with resample: {e:?}"))),
    }
}

fn routing() -> Outcome {
    let partition = Partition::ready();
    equal("no table", is_level(&partition, 5)?, false)?;
    good("one route", partition.set_routes(&[level(5, 0x41)]))?;
    equal("its route", is_level(&partition, 5)?, true)?;
    for (what, words) in WRONG_TABLES {
        let result = sys::ioctl(&partition, SET_MSI_ROUTING, words.as_ptr() as usize);
        errno(what, result, libc::EINVAL)?;
        equal(
            &format!("after {what}: the old route"),
            is_level(&partition, 5)?,
            true,
        )?;
    }
    // The whole table is replaced.
    good("another", partition.set_routes(&[level(6, 0x42)]))?;
    equal("old route", is_level(&partition, 5)?, false)?;
    equal("new route", is_level(&partition, 6)?, true)?;
    let zeros: Vec<Route> = (0..24).map(|gsi| (gsi, 0, 0, 0)).collect();
    good("zeros", partition.set_routes(&zeros))?;
    equal("route 6", is_level(&partition, 6)?, false)?;
    let all: Vec<Route> = (0..4096).rev().map(|gsi| level(gsi, 0x41)).collect();
    good("4096 entries", partition.set_routes(&all))?;
    equal("route 4095", is_level(&partition, 4095)?, true)?;
    equal("route 0", is_level(&partition, 0)?, true)?;
    good("none", partition.set_routes(&[]))?;
    equal("route 0", is_level(&partition, 0)?, false)
}

fn routing_addresses() -> Outcome {
    let partition = Partition::ready();
    good("a route", partition.set_routes(&[level(5, 0x41)]))?;
    for addr in [0, NOWHERE, KERNEL, edge_of_memory(7).1] {
        let result = sys::ioctl(&partition, SET_MSI_ROUTING, addr);
        errno(&format!("{addr:#x}"), result, libc::EFAULT)?;
    }
    // A header, one entry and a half.
    let (memory, addr) = edge_of_memory(8 + 16 + 8);
    let at = addr - memory.addr();
    memory.set_word(at, 2);
    memory.set_word(at + 8, 7);
    memory.set_word(at + 20, 0x8041);
    errno(
        "entries that end nowhere",
        sys::ioctl(&partition, SET_MSI_ROUTING, addr),
        libc::EFAULT,
    )?;
    equal("the old route", is_level(&partition, 5)?, true)?;
    equal("no new one", is_level(&partition, 7)?, false)
}

fn irqfd_errors() -> Outcome {
    let partition = Partition::ready();
    good(
        "routes",
        partition.set_routes(&[level(5, 0x41), edge(6, 0x42)]),
    )?;
    let (fd, resample) = (EventFd::new(), EventFd::new());
    let n = fd.number();
    for flags in [4, 8, 1 << 31, 4 | IRQFD_DEASSIGN, u32::MAX] {
        errno(
            &format!("flags {flags:#x}"),
            partition.irqfd(n, 5, flags, -1),
            libc::EINVAL,
        )?;
    }
    for (what, bad, wanted) in [
        ("-1", -1, libc::EBADF),
        ("9999", 9999, libc::EBADF),
        ("not an eventfd", partition.as_raw_fd(), libc::EINVAL),
    ] {
        for flags in [0, IRQFD_DEASSIGN] {
            errno(what, partition.irqfd(bad, 5, flags, -1), wanted)?;
        }
        errno(
            &format!("{what} to resample by"),
            partition.irqfd(n, 5, IRQFD_RESAMPLE, bad),
            wanted,
        )?;
    }
    for (what, gsi) in [("edge-triggered", 6), ("without a route", 7)] {
        errno(
            &format!("resample, {what}"),
            partition.irqfd(n, gsi, IRQFD_RESAMPLE, resample.number()),
            libc::EINVAL,
        )?;
    }
    for addr in [0, NOWHERE, KERNEL, edge_of_memory(15).1] {
        errno(
            &format!("{addr:#x}"),
            sys::ioctl(&partition, IRQFD, addr),
            libc::EFAULT,
        )?;
    }
    // None of that left anything behind.
    good("assign", partition.irqfd(n, 5, 0, -1))?;
    errno("twice", partition.irqfd(n, 5, 0, -1), libc::EBUSY)?;
    errno(
        "twice, another GSI",
        partition.irqfd(n, 8, 0, -1),
        libc::EBUSY,
    )?;
    let other = Partition::ready();
    errno(
        "in another partition",
        other.irqfd(n, 5, 0, -1),
        libc::EBUSY,
    )?;
    good("deassign elsewhere", partition.irqfd(n, 8, 1, -1))?;
    errno("still there", partition.irqfd(n, 5, 0, -1), libc::EBUSY)?;
    good("deassign", partition.irqfd(n, 5, IRQFD_DEASSIGN, -1))?;
    good("deassign again", partition.irqfd(n, 5, IRQFD_DEASSIGN, -1))?;
    good("in another partition", other.irqfd(n, 5, 0, -1))?;
    drop(other);
    eventually("the other partition lets go of it", 3, || {
        partition.irqfd(n, 5, 0, -1).is_ok()
    })
}

fn lets_go() -> Outcome {
    let fd = EventFd::new();
    let partition = Partition::ready();
    let vp = partition.vp(0);
    good("assign", partition.irqfd(fd.number(), 3, 0, -1))?;
    fd.signal();
    equal("taken by the irqfd", fd.take(), 0)?;
    good(
        "deassign",
        partition.irqfd(fd.number(), 3, IRQFD_DEASSIGN, -1),
    )?;
    fd.signal();
    equal("after DEASSIGN", fd.take(), 1)?;
    good("assign", partition.irqfd(fd.number(), 3, 0, -1))?;
    // The partition's file ends it, although a VP's keeps the partition.
    drop(partition);
    fd.signal();
    equal("after close", fd.take(), 1)?;
    drop(vp);
    Ok(())
}

fn hang_up() -> Outcome {
    let partition = Partition::ready();
    for n in 0..2000 {
        let fd = EventFd::new();
        let got = partition.irqfd(fd.number(), n, 0, -1);
        good(&format!("number {n}"), got)?;
    }
    Ok(())
}

/// A guest with the handler in place.
struct Taker {
    guest: Guest,
    running: Vec<Running<Sys<hv_message>>>,
}

impl Taker {
    fn new(code: Code, vps: u32) -> Result<Self, Stop> {
        Self::with(code, guests::interrupt(), vps)
    }

    fn with(code: Code, handler: Code, vps: u32) -> Result<Self, Stop> {
        let memory = Memory::new(RAM);
        memory.write(HANDLER as usize, handler.bytes());
        memory.set_word(usize::from(VECTOR) * 4, HANDLER);
        memory.set_word(usize::from(VECTOR + 1) * 4, HANDLER);
        memory.set_word(GO, 1);
        let guest = Guest::with(code, vps, FLAGS, memory)?;
        // The VPs share their code, not their stacks.
        for vp in &guest.vps {
            vp.set_register(
                names::HV_X64_REGISTER_RSP,
                STACK - 0x400 * u64::from(vp.index),
            )?;
            vp.set(&[(HV_X64_REGISTER_DS, segment(0, 0, u32::MAX, 0x8093))])
                .map_err(|e| Stop::Fail(format!("DS: {e:?}")))?;
        }
        let running = guest.vps.iter().map(run_on).collect();
        started(&guest.memory)?;
        Ok(Self { guest, running })
    }

    fn taken(&self, vp: usize) -> u32 {
        self.guest.memory.word(TAKEN + 4 * vp)
    }

    fn takes(&self, vp: usize, wanted: u32) -> Outcome {
        eventually(&format!("VP {vp} takes interrupt {wanted}"), 10, || {
            self.taken(vp) >= wanted
        })?;
        equal("interrupts", self.taken(vp), wanted)
    }

    fn end(self) -> Outcome {
        for running in self.running {
            interrupted(running.interrupt()?)?;
        }
        Ok(())
    }
}

fn edge_interrupts(code: Code) -> Outcome {
    let taker = Taker::new(code, 1)?;
    let partition = &taker.guest.partition;
    let fd = EventFd::new();
    // Before its route exists.
    good("IRQFD", partition.irqfd(fd.number(), 5, 0, -1))?;
    fd.signal();
    sleep_ms(20);
    equal("without a route", taker.taken(0), 0)?;
    good("route", partition.set_routes(&[edge(5, VECTOR)]))?;
    for n in 1..=200 {
        fd.signal();
        taker.takes(0, n)?;
    }
    equal("the counter", fd.take(), 0)?;
    good("zeros", partition.set_routes(&[(5, 0, 0, 0)]))?;
    fd.signal();
    good("none", partition.set_routes(&[]))?;
    fd.signal();
    sleep_ms(20);
    equal("without a route again", taker.taken(0), 200)?;
    // Back, to another vector of the same handler.
    good("route", partition.set_routes(&[edge(5, VECTOR + 1)]))?;
    fd.signal();
    taker.takes(0, 201)?;
    good("deassign", partition.irqfd(fd.number(), 5, 1, -1))?;
    fd.signal();
    sleep_ms(20);
    equal("after DEASSIGN", taker.taken(0), 201)?;
    // What was signalled before counts.
    good("IRQFD", partition.irqfd(fd.number(), 5, 0, -1))?;
    taker.takes(0, 202)?;
    taker.end()
}

fn destinations() -> Outcome {
    let taker = Taker::new(guests::apic_halt(), 3)?;
    eventually("all VPs halt", 10, || taker.guest.memory.word(0x2000) >= 3)?;
    sleep_ms(50);
    let partition = &taker.guest.partition;
    let message = |address: u32, data: u32| (1, 0xfee0_0000 | address, 0, data | u32::from(VECTOR));
    let fd = EventFd::new();
    good("IRQFD", partition.irqfd(fd.number(), 1, 0, -1))?;
    let mut wanted = [0u32; 3];
    // What a route says, and which VPs take it.
    for (what, route, targets) in [
        ("physical 1", message(1 << 12, 0), [0, 1, 0]),
        ("physical 2", message(2 << 12, 0), [0, 0, 1]),
        ("nobody", message(7 << 12, 0), [0, 0, 0]),
        ("all", message(0xff << 12, 0), [1, 1, 1]),
        ("logical 0b101", message((5 << 12) | 4, 0), [1, 0, 1]),
        ("lowest priority", message((6 << 12) | 4, 0x100), [0, 1, 0]),
        ("reserved mode", message(0xff << 12, 0x300), [0, 0, 0]),
        ("start-up", message(0xff << 12, 0x600), [0, 0, 0]),
    ] {
        good(what, partition.set_routes(&[route]))?;
        fd.signal();
        for (wanted, more) in wanted.iter_mut().zip(targets) {
            *wanted += more;
        }
        for (vp, wanted) in wanted.iter().enumerate() {
            eventually(&format!("{what}: VP {vp}"), 10, || {
                taker.taken(vp) == *wanted
            })?;
        }
        sleep_ms(10);
        equal(what, [0, 1, 2].map(|vp| taker.taken(vp)), wanted)?;
    }
    taker.end()
}

fn resampled(code: Code, handler: Code) -> Outcome {
    let taker = Taker::with(code, handler, 1)?;
    let partition = &taker.guest.partition;
    let memory = &taker.guest.memory;
    let (fd, resample, second, unasked) = (
        EventFd::new(),
        EventFd::new(),
        EventFd::new(),
        EventFd::new(),
    );
    good(
        "routes",
        partition.set_routes(&[level(9, VECTOR), level(10, VECTOR + 1)]),
    )?;
    good(
        "IRQFD 9",
        partition.irqfd(fd.number(), 9, IRQFD_RESAMPLE, resample.number()),
    )?;
    good(
        "IRQFD 10",
        partition.irqfd(second.number(), 10, IRQFD_RESAMPLE, unasked.number()),
    )?;
    for n in 1..=50 {
        memory.set_word(GO, 0);
        fd.signal();
        taker.takes(0, n)?;
        sleep_ms(2);
        equal("signalled before the EOI", resample.take(), 0)?;
        memory.set_word(GO, 1);
        resample.wait("the resample eventfd after the EOI")?;
    }
    equal("the other line's", unasked.take(), 0)?;
    second.signal();
    unasked.wait("the other line's eventfd")?;
    taker.takes(0, 51)?;
    // No more after DEASSIGN: then the VMM is told.
    good("deassign", partition.irqfd(fd.number(), 9, 1, -1))?;
    good("IRQFD", partition.irqfd(fd.number(), 9, 0, -1))?;
    fd.signal();
    let mut running = taker.running;
    let message = running.remove(0).wait(10)?;
    apic_eoi(good("RUN_VP", message)?)?;
    equal("after DEASSIGN", resample.take(), 0)
}

fn apic_eoi(message: hv_message) -> Outcome {
    equal(
        "message",
        message.header.message_type,
        hv_message_type_HVMSG_X64_APIC_EOI,
    )?;
    let bytes = message.payload_bytes();
    equal(
        "VP, vector",
        [word(&bytes, 0), word(&bytes, 4)],
        [0, u32::from(VECTOR)],
    )
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

trait Payload {
    fn payload_bytes(&self) -> [u8; 240];
}

impl Payload for hv_message {
    fn payload_bytes(&self) -> [u8; 240] {
        let mut bytes = [0; 240];
        let from = std::ptr::from_ref(self).cast::<u8>();
        // SAFETY: The payload is behind the header of 16 bytes.
        unsafe { std::ptr::copy_nonoverlapping(from.add(16), bytes.as_mut_ptr(), 240) };
        bytes
    }
}

fn closed_resampler() -> Outcome {
    let taker = Taker::new(guests::apic_halt(), 1)?;
    let partition = &taker.guest.partition;
    good("routes", partition.set_routes(&[level(9, VECTOR)]))?;
    let (gone, resample, fd) = (EventFd::new(), EventFd::new(), EventFd::new());
    good(
        "IRQFD",
        partition.irqfd(gone.number(), 9, IRQFD_RESAMPLE, resample.number()),
    )?;
    good("IRQFD", partition.irqfd(fd.number(), 9, 0, -1))?;
    fd.signal();
    resample.wait("the resample eventfd of that GSI")?;
    // An irqfd whose eventfd is closed waits for nothing.
    drop(gone);
    fd.signal();
    let mut running = taker.running;
    let message = running.remove(0).wait(10)?;
    apic_eoi(good("RUN_VP", message)?)?;
    equal("after it hung up", resample.take(), 0)
}

/// HvCallAssertVirtualInterrupt (H-94) of an ExtINT and HvCallClearVirtualInterrupt (H-56).
fn ext_int() -> Outcome {
    let assert = Hvcall::new(0x94, &[0, 7, 0, u64::from(VECTOR)], 0);
    let clear = Hvcall::new(0x56, &[0], 0);
    let fails = |what: &str, partition: &Partition, call: &Hvcall, status| {
        let result = call.make(partition).map(|_| ());
        let wanted = HvcallError {
            errno: sys::Errno(libc::EIO),
            status,
            reps: 0,
        };
        equal(what, result, Err(wanted))
    };
    let works = |what: &str, partition: &Partition, call: &Hvcall| {
        call.make(partition)
            .map(|_| ())
            .map_err(|e| Stop::Fail(format!("{what}: {e:?}")))
    };
    let new = good("create", Partition::create(FLAGS))?;
    fails("clear before INITIALIZE_PARTITION", &new, &clear, 7)?;
    drop(new);
    let taker = Taker::new(guests::apic_halt(), 1)?;
    let partition = &taker.guest.partition;
    for n in 1..20 {
        fails("clear before it is taken", partition, &clear, 0x14)?;
        works("assert", partition, &assert)?;
        taker.takes(0, n)?;
        fails("assert before it is cleared", partition, &assert, 0x16)?;
        sleep_ms(2);
        equal("interrupts", taker.taken(0), n)?;
        works("clear", partition, &clear)?;
    }
    taker.end()
}

/// Signals, new routes, irqfds that come and go, while the guest runs.
fn storm() -> Outcome {
    let taker = Taker::new(guests::apic_spin(), 2)?;
    let partition = taker.guest.partition.clone();
    let fds: Vec<EventFd> = (0..8).map(|_| EventFd::new()).collect();
    let resample = EventFd::new();
    std::thread::scope(|scope| {
        for part in fds.chunks(4) {
            scope.spawn(move || {
                for n in 0..4000 {
                    part[n % 4].signal();
                }
            });
        }
        scope.spawn(|| {
            let mut random = Random(7);
            for _ in 0..400 {
                let fd = &fds[random.below(8) as usize];
                let gsi = random.below(4) as u32;
                let flags = random.below(4) as u32;
                let _ = partition.irqfd(fd.number(), gsi, flags, resample.number());
            }
        });
        let mut random = Random(8);
        for _ in 0..400 {
            let routes: Vec<Route> = (0..4)
                .map(|gsi| {
                    let data = u32::from(VECTOR) | ((random.below(2) as u32) << 15);
                    (gsi, 0xfee0_0000 | ((random.below(3) as u32) << 12), 0, data)
                })
                .collect();
            let _ = partition.set_routes(&routes);
        }
    });
    // Level-triggered ones have ended runs with a message; go on.
    for (running, vp) in taker.running.into_iter().zip(&taker.guest.vps) {
        let _ = running.interrupt()?;
        let running = run_on(vp);
        let before = taker.guest.memory.word(guests::COUNTER);
        eventually("the guest still runs", 10, || {
            running.is_over() || taker.guest.memory.word(guests::COUNTER) != before
        })?;
        let _ = running.interrupt()?;
    }
    let taken = [0, 1].map(|vp| taker.guest.memory.word(TAKEN + 4 * vp));
    ensure(taken[0] != 0 || taken[1] != 0, || {
        "no interrupt came".to_string()
    })
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "SET_MSI_ROUTING: replaces all; wrong tables change nothing [V-I11]",
            routing,
        ),
        case(
            "SET_MSI_ROUTING: bad addresses give EFAULT [V-I11]",
            routing_addresses,
        ),
        case("IRQFD: wrong arguments, busy eventfds [V-I8]", irqfd_errors),
        case(
            "IRQFD: ends by DEASSIGN and by closing the partition",
            lets_go,
        ),
        case("IRQFD: 2000 eventfds that hang up", hang_up),
        case(
            "IRQFD: edge-triggered interrupts of a halted VP [V-I8]",
            || edge_interrupts(guests::apic_halt()),
        ),
        case(
            "IRQFD: edge-triggered interrupts of a running VP [V-I8]",
            || edge_interrupts(guests::apic_spin()),
        ),
        case(
            "IRQFD: destinations and delivery modes [V-I11]",
            destinations,
        ),
        case("IRQFD: resamples at the EOI, x2APIC [V-I9 V-M5]", || {
            resampled(guests::apic_halt(), guests::interrupt())
        }),
        case("IRQFD: resamples at the EOI, xAPIC [V-I9 V-M5]", || {
            resampled(guests::xapic_halt(), guests::interrupt_x())
        }),
        case(
            "IRQFD: an eventfd that hung up does not resample",
            closed_resampler,
        ),
        case(
            "ROOT_HVCALL: ExtINT, asserted, taken and cleared [H-55 H-56]",
            ext_int,
        ),
        case("IRQFD: signals, routes and irqfds at random", storm),
    ]
}
