// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guest memory that changes under a running guest: it never uses a page that the VMM gave away.

use std::os::fd::AsRawFd;

use mshv_bindings::*;

use crate::cases::memory_file;
use crate::guests::{self, COUNTER, PLAYGROUND};
use crate::run::{case, ensure, equal, eventually, Case, Outcome, Stop};
use crate::sys::{self, sleep_ms, Errno, Memory, Random, Sys, PAGE};
use crate::threads::{interrupted, moves, run_on, run_once, started, Running};
use crate::vm::*;

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Memory for a guest: of small pages, of large ones, of a file.
#[derive(Clone, Copy)]
enum Backing {
    Small,
    Huge,
    File,
}

/// A running guest that increments PLAYGROUND, then COUNTER.
struct Player {
    guest: Guest,
    running: Running<Sys<hv_message>>,
}

impl Player {
    fn on(backing: Backing) -> Result<Self, Stop> {
        let memory = match backing {
            Backing::Small => Memory::new(RAM),
            Backing::Huge => Memory::huge(4 << 20),
            Backing::File => Memory::with(RAM, READ_WRITE, memory_file(RAM).as_raw_fd()),
        };
        Self::with(memory)
    }

    fn with(memory: Memory) -> Result<Self, Stop> {
        let guest = Guest::with(guests::play(), 1, SUPER_PAGES, memory)?;
        let running = run_on(guest.vp());
        started(&guest.memory)?;
        Ok(Self { guest, running })
    }

    fn again(guest: Guest) -> Result<Self, Stop> {
        let running = run_on(guest.vp());
        moves(&guest.memory, PLAYGROUND)?;
        Ok(Self { guest, running })
    }

    fn end(self) -> Outcome {
        moves(&self.guest.memory, PLAYGROUND)?;
        interrupted(self.running.interrupt()?)
    }

    /// The guest's next access to PLAYGROUND must end RUN_VP: with EFAULT, or as a message about that memory.
    fn refused(self) -> Result<Guest, Stop> {
        match self.running.wait(5)? {
            Err(Errno(libc::EFAULT)) => Ok(self.guest),
            Ok(message) => {
                let info = message
                    .to_memory_info()
                    .map_err(|_| Stop::Fail("another message".into()))?;
                equal("GPA", info.guest_physical_address, PLAYGROUND as u64)?;
                Ok(self.guest)
            }
            Err(e) => Err(Stop::Fail(format!("RUN_VP: {e:?} instead of EFAULT"))),
        }
    }
}

/// Memory that is given away is zero for the guest, at once, and goes on from there.
fn given_away(backing: Backing) -> Outcome {
    let advice = match backing {
        Backing::File => libc::MADV_REMOVE,
        _ => libc::MADV_DONTNEED,
    };
    let player = Player::on(backing)?;
    let memory = &player.guest.memory;
    let mut random = Random(3);
    for round in 0..100 {
        let before = memory.word(COUNTER);
        memory.advise(PLAYGROUND, PAGE, advice);
        let (value, after) = (memory.word(PLAYGROUND), memory.word(COUNTER));
        let most = after.wrapping_sub(before) + 1;
        ensure(value <= most, || {
            format!("round {round}: {value} after at most {most} increments from 0")
        })?;
        moves(memory, PLAYGROUND)?;
        std::thread::sleep(std::time::Duration::from_micros(random.below(300)));
    }
    player.end()
}

fn read_only(backing: Backing, protection: i32) -> Outcome {
    let player = Player::on(backing)?;
    player.guest.memory.protect(PLAYGROUND, PAGE, protection);
    let guest = player.refused()?;
    guest.memory.protect(PLAYGROUND, PAGE, libc::PROT_READ);
    let value = guest.memory.word(PLAYGROUND);
    sleep_ms(20);
    equal(
        "while it was read-only",
        guest.memory.word(PLAYGROUND),
        value,
    )?;
    guest.memory.protect(PLAYGROUND, PAGE, READ_WRITE);
    Player::again(guest)?.end()
}

fn unmapped(backing: Backing) -> Outcome {
    let player = Player::on(backing)?;
    player.guest.memory.unmap(PLAYGROUND, PAGE);
    let guest = player.refused()?;
    guest.memory.map_again(PLAYGROUND, PAGE);
    equal("new memory", guest.memory.word(PLAYGROUND), 0)?;
    Player::again(guest)?.end()
}

fn moved(backing: Backing) -> Outcome {
    let player = Player::on(backing)?;
    let moved = player.guest.memory.move_away(PLAYGROUND, PAGE);
    let value = moved.word(0);
    ensure(value != 0, || "the page came without its contents".into())?;
    let guest = player.refused()?;
    equal("the page that was moved", moved.word(0), value)?;
    guest.memory.map_again(PLAYGROUND, PAGE);
    Player::again(guest)?.end()?;
    equal("the page that was moved, at last", moved.word(0), value)
}

/// A child has the memory as it was, a file as it is; the guest's is the parent's.
fn forked(backing: Backing) -> Outcome {
    let is_shared = matches!(backing, Backing::File);
    let player = Player::on(backing)?;
    let memory = &player.guest.memory;
    for _ in 0..10 {
        let addr = memory.addr() + PLAYGROUND;
        // SAFETY: The child reads memory and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: Mapped in the child, too; only calls that a child of many threads may make.
            unsafe {
                let word = addr as *const u32;
                let first = word.read_volatile();
                let pause = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 5_000_000,
                };
                libc::nanosleep(&pause, std::ptr::null_mut());
                libc::_exit(i32::from((word.read_volatile() == first) == is_shared));
            }
        }
        moves(memory, PLAYGROUND)?;
        let mut status = 0;
        // SAFETY: Our child.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        equal("status of the child: the guest's writes", status, 0)?;
    }
    player.end()
}

fn truncated() -> Outcome {
    let file = memory_file(RAM);
    let player = Player::with(Memory::with(RAM, READ_WRITE, file.as_raw_fd()))?;
    // SAFETY: A file of ours.
    unsafe { libc::ftruncate(file.as_raw_fd(), PLAYGROUND as libc::off_t) };
    let guest = player.refused()?;
    // SAFETY: As above.
    unsafe { libc::ftruncate(file.as_raw_fd(), RAM as libc::off_t) };
    equal("new memory", guest.memory.word(PLAYGROUND), 0)?;
    Player::again(guest)?.end()
}

fn shared() -> Outcome {
    let file = memory_file(RAM);
    let other = Memory::with(RAM, READ_WRITE, file.as_raw_fd());
    let player = Player::with(Memory::with(RAM, READ_WRITE, file.as_raw_fd()))?;
    moves(&other, PLAYGROUND)?;
    let before = other.word(PLAYGROUND);
    ensure(before <= player.guest.memory.word(PLAYGROUND), || {
        "the other mapping is ahead".into()
    })?;
    player.end()
}

fn region_removed() -> Outcome {
    let guest = Guest::with(guests::play(), 1, FLAGS, Memory::new(PLAYGROUND))?;
    let page = Memory::new(PAGE);
    let gpa = PLAYGROUND as u64;
    for round in 0..20 {
        guest.partition.map(gpa, &page, RWX);
        let running = run_once(guest.vp());
        moves(&page, 0)?;
        guest
            .partition
            .set_memory(gpa, page.addr(), PAGE, UNMAP)
            .map_err(|e| Stop::Fail(format!("unmap: {e:?}")))?;
        let value = page.word(0);
        let message = running
            .wait(5)?
            .map_err(|e| Stop::Fail(format!("round {round}: {e:?}")))?;
        equal(
            "message",
            message.header.message_type,
            hv_message_type_HVMSG_UNMAPPED_GPA,
        )?;
        equal("the memory afterwards", page.word(0), value)?;
    }
    Ok(())
}

/// Two VPs walk through memory that is changed at random; where they get EFAULT they go on when it is back.
fn chaos() -> Outcome {
    let guest = Guest::with(guests::walk(), 2, SUPER_PAGES, Memory::huge(2 << 20))?;
    let vps: Vec<_> = guest
        .vps
        .iter()
        .map(|vp| {
            let vp = vp.clone();
            Running::start(move |stop| loop {
                match vp.run() {
                    Err(Errno(libc::EINTR)) if stop.load(std::sync::atomic::Ordering::Relaxed) => {
                        return Ok(())
                    }
                    Err(Errno(libc::EINTR | libc::EFAULT)) => {}
                    other => return Err(format!("{:?}", other.map(|m| m.header.message_type))),
                }
            })
        })
        .collect();
    started(&guest.memory)?;
    let mut random = Random(11);
    for _ in 0..400 {
        let at = PLAYGROUND + PAGE * random.below(0xe0) as usize;
        let len = PAGE * (1 + random.below(16) as usize);
        match random.below(4) {
            0 => guest.memory.advise(at, len, libc::MADV_DONTNEED),
            1 => {
                guest.memory.protect(at, len, libc::PROT_READ);
                guest.memory.protect(at, len, READ_WRITE);
            }
            2 => {
                guest.memory.unmap(at, len);
                guest.memory.map_again(at, len);
            }
            _ => guest.memory.protect(at, len, libc::PROT_NONE),
        }
        guest.memory.protect(at, len, READ_WRITE);
    }
    moves(&guest.memory, COUNTER)?;
    for vp in vps {
        vp.interrupt()?.map_err(Stop::Fail)?;
    }
    Ok(())
}

/// After UNMAP the VMM has its memory for itself: no call whose output was to go there writes any more. The VMM's thread
/// interrupts the VP's wherever it is, which needs one CPU for both.
fn output_removed() -> Outcome {
    const INPUT: usize = 0x5000;
    const OUTPUT: u64 = 0x18_0000;
    const REGISTERS: u64 = 200;
    const MARK: u32 = 0xa5a5_5a5a;
    const GUEST_OS_ID: u32 = 0x9_0002;
    let guest = super::messages::long_mode_in(guests::calls_64(), FLAGS, u64::MAX)?;
    let vp = guest.vp().clone();
    let mut input = vec![u64::MAX, 0xffff_fffe];
    input.extend((0..REGISTERS / 2).map(|_| 0x2_0000 | (0x2_0000u64 << 32)));
    for (at, word) in (INPUT..).step_by(8).zip(input) {
        guest.memory.write(at, &word.to_le_bytes());
    }
    let output = Memory::new(PAGE);
    guest.partition.map(OUTPUT, &output, RWX);
    vp.set(&[
        (GUEST_OS_ID, (1 << 63, 0)),
        (0x2_0001, (0x50 | (REGISTERS << 32), 0)),
        (0x2_0002, (INPUT as u64, 0)),
        (0x2_0008, (OUTPUT, 0)),
    ])
    .map_err(|e| Stop::Fail(format!("registers: {e:?}")))?;
    pin_to_one_cpu()?;
    let running = Running::start(move |stop| loop {
        match vp.run() {
            Ok(message)
                if message.header.message_type == hv_message_type_HVMSG_UNMAPPED_GPA
                    && !stop.load(std::sync::atomic::Ordering::Relaxed) =>
            {
                sleep_ms(1)
            }
            Err(Errno(libc::EINTR)) if !stop.load(std::sync::atomic::Ordering::Relaxed) => {}
            other => return other,
        }
    });
    started(&guest.memory)?;
    // RAX, which tells of the call before.
    eventually("a call succeeds", 10, || {
        (output.word(0), output.word(4)) == (0, REGISTERS as u32)
    })?;
    ahead_of_others()?;
    let mut random = Random(5);
    for round in 0..1000 {
        std::thread::sleep(std::time::Duration::from_nanos(
            20_000 + random.below(200_000),
        ));
        guest
            .partition
            .set_memory(OUTPUT, output.addr(), PAGE, UNMAP)
            .map_err(|e| format!("UNMAP: {e:?}"))?;
        for at in (0..PAGE).step_by(4) {
            output.set_word(at, MARK);
        }
        std::thread::sleep(std::time::Duration::from_micros(300));
        for at in (0..PAGE).step_by(4) {
            let word = output.word(at);
            ensure(word == MARK, || {
                format!("round {round}: {word:#x} at {at:#x} after UNMAP")
            })?;
        }
        guest.partition.map(OUTPUT, &output, RWX);
    }
    moves(&guest.memory, COUNTER)?;
    interrupted(running.interrupt()?)
}

/// This thread, and those that it starts, run on one CPU.
fn pin_to_one_cpu() -> Outcome {
    // SAFETY: A zeroed set is an empty one.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    ensure(status == 0, || {
        format!("sched_setaffinity: {:?}", sys::last())
    })
}

/// This thread runs as soon as it can.
fn ahead_of_others() -> Outcome {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: A structure that is only read.
    let status = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) };
    ensure(status == 0, || {
        format!("sched_setscheduler: {:?}", sys::last())
    })
}

pub fn cases() -> Vec<Case> {
    const KINDS: [(&str, Backing); 3] = [
        ("small pages", Backing::Small),
        ("large pages", Backing::Huge),
        ("a file", Backing::File),
    ];
    let mut cases = Vec::new();
    for (name, backing) in KINDS {
        let give = if matches!(backing, Backing::File) {
            "MADV_REMOVE"
        } else {
            "MADV_DONTNEED"
        };
        cases.push(case(
            format!("guest memory, {name}: {give} [V-G1]"),
            move || given_away(backing),
        ));
        cases.push(case(
            format!("guest memory, {name}: fork [V-G9]"),
            move || forked(backing),
        ));
        cases.push(case(
            format!("guest memory, {name}: munmap, and memory again [V-G8]"),
            move || unmapped(backing),
        ));
        cases.push(case(
            format!("guest memory, {name}: mremap [V-G7]"),
            move || moved(backing),
        ));
        cases.push(case(
            format!("guest memory, {name}: mprotect, read-only [V-G6]"),
            move || read_only(backing, libc::PROT_READ),
        ));
        cases.push(case(
            format!("guest memory, {name}: mprotect, no access [V-G6]"),
            move || read_only(backing, libc::PROT_NONE),
        ));
    }
    cases.extend([
        case("guest memory, a file: truncated [V-G10]", truncated),
        case(
            "guest memory, a file: seen through another mapping [V-G10]",
            shared,
        ),
        case(
            "guest memory: UNMAP while the guest runs [V-I6]",
            region_removed,
        ),
        case(
            "guest memory: UNMAP while a call's output goes there [A-17]",
            output_removed,
        )
        .within(60),
        case("guest memory: 400 random changes under 2 VPs", chaos).within(60),
        case("guest memory: of the kernel is never given", || {
            let partition = Partition::ready();
            // Taken or not: the guest must not get at it.
            let taken = partition.set_memory(0xffff_f000, sys::KERNEL & !(PAGE - 1), PAGE, RWX);
            match (taken, partition.vp(0).run()) {
                (Err(e), _) => equal("errno", e.0, libc::EINVAL),
                (Ok(_), Err(e)) => equal("errno of RUN_VP", e, Errno(libc::EFAULT)),
                (Ok(_), Ok(_)) => Err(Stop::Fail("the guest ran".into())),
            }
        }),
        case(
            "guest memory: where nothing is mapped gives EFAULT [V-I7]",
            || {
                let partition = Partition::ready();
                let memory = Memory::new(PAGE);
                partition.map(0xffff_f000, &memory, RWX);
                let vp = partition.vp(0);
                memory.unmap(0, PAGE);
                for _ in 0..3 {
                    match vp.run() {
                        Err(e) => equal("errno", e, Errno(libc::EFAULT))?,
                        Ok(_) => return Err(Stop::Fail("the guest ran".into())),
                    }
                }
                Ok(())
            },
        ),
    ]);
    cases
}
