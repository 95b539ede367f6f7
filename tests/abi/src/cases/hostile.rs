// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guests that do what no guest should: they stop only themselves, and a signal always gets out of them.

use mshv_bindings::*;

use crate::guests::{self, Code, COUNTER};
use crate::run::{case, ensure, equal, eventually, Case, Outcome, Stop};
use crate::sys::{sleep_ms, Errno, Memory, Random, PAGE};
use crate::threads::{interrupted, moves, run_on, run_once, skip, started};
use crate::vm::names::*;
use crate::vm::*;

/// Where the handler of all vectors is.
const HANDLER: usize = 0x1800;
/// Where it counts exceptions.
const FAULTS: usize = 0x2200;

/// Real mode: all vectors lead to a handler that counts and goes on at the next 16-byte slot.
fn with_handler(code: Code) -> Result<Guest, Stop> {
    let guest = Guest::new(code)?;
    guest.memory.write(HANDLER, guests::handler().bytes());
    for vector in 0..256 {
        guest.memory.set_word(4 * vector, HANDLER as u32);
    }
    Ok(guest)
}

/// Runs to port 0x80; what the guest put in EAX.
fn to_the_end(guest: &Guest) -> Result<u64, Stop> {
    let running = run_once(guest.vp());
    let message = running
        .wait(20)?
        .map_err(|e| Stop::Fail(format!("RUN_VP: {e:?}")))?;
    let kind = message.header.message_type;
    let info = message
        .to_ioport_info()
        .map_err(|_| Stop::Fail(format!("message {kind:#x} instead of a port's")))?;
    equal("port", info.port_number, 0x80)?;
    Ok(info.rax)
}

/// The guest's instructions must fault, all of them.
fn all_fault(code: Code, wanted: u32) -> Outcome {
    let guest = with_handler(code)?;
    to_the_end(&guest)?;
    equal("exceptions", guest.memory.word(FAULTS), wanted)
}

/// Whatever it does, a signal ends it, and afterwards others run.
fn survives(guest: &Guest, ms: u64) -> Outcome {
    let vp = guest.vp().clone();
    let running = crate::threads::Running::start(move |stop| {
        for _ in 0..500 {
            match vp.run() {
                Ok(message)
                    if message.header.message_type
                        == hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT =>
                {
                    let _ = skip(&vp, &message);
                }
                Ok(_) => {}
                Err(Errno(libc::EINTR)) if !stop.load(std::sync::atomic::Ordering::Relaxed) => {}
                Err(Errno(libc::EINTR)) => break,
                Err(e) => return Err(format!("RUN_VP: {e:?}")),
            }
        }
        Ok(())
    });
    sleep_ms(ms);
    running.interrupt()?.map_err(Stop::Fail)
}

/// A guest that counts still does.
fn others_run() -> Outcome {
    let guest = Guest::new(guests::count())?;
    let running = run_on(guest.vp());
    moves(&guest.memory, COUNTER)?;
    interrupted(running.interrupt()?)
}

/// An interrupt whose handler raises it again, for ever.
fn int_storm() -> Outcome {
    let guest = Guest::new(guests::int_storm())?;
    guest.memory.set_word(4 * 0x20, ENTRY as u32);
    let running = run_on(guest.vp());
    moves(&guest.memory, COUNTER)?;
    interrupted(running.interrupt()?)
}

/// The interrupt table is where no memory is: the interrupt comes again when it is there.
fn no_interrupt_table() -> Outcome {
    let guest = Guest::new(guests::int_storm())?;
    let (addr, len) = (guest.memory.addr(), guest.memory.len());
    let fail = |e| Stop::Fail(format!("SET_GUEST_MEMORY: {e:?}"));
    guest
        .partition
        .set_memory(0, addr, len, UNMAP)
        .map_err(fail)?;
    guest
        .partition
        .set_memory(PAGE as u64, addr + PAGE, len - PAGE, RWX)
        .map_err(fail)?;
    for _ in 0..3 {
        let message = guest.vp().message()?;
        let info = message
            .to_memory_info()
            .map_err(|_| Stop::Fail("another message".into()))?;
        equal(
            "type, GPA",
            ({ message.header.message_type }, info.guest_physical_address),
            (hv_message_type_HVMSG_UNMAPPED_GPA, 4 * 0x20),
        )?;
    }
    guest.memory.set_word(4 * 0x20, ENTRY as u32);
    guest
        .partition
        .set_memory(0, addr, PAGE, RWX)
        .map_err(fail)?;
    let running = run_on(guest.vp());
    moves(&guest.memory, COUNTER)?;
    interrupted(running.interrupt()?)
}

/// Paging with tables where no memory is.
fn no_page_tables() -> Outcome {
    let guest = Guest::new(guests::halt())?;
    guest
        .vp()
        .set(&[
            (HV_X64_REGISTER_CR3, (0x4000_0000, 0)),
            (HV_X64_REGISTER_CR0, (0x8000_0011, 0)),
            (HV_X64_REGISTER_TR, segment(24, 0, 0x67, 0x8b)),
        ])
        .map_err(|e| Stop::Fail(format!("{e:?}")))?;
    let message = guest.vp().message()?;
    let info = message
        .to_memory_info()
        .map_err(|_| Stop::Fail(format!("message {:#x}", { message.header.message_type })))?;
    // SAFETY: A union of bits.
    let flags = unsafe { info.memory_access_info.as_uint8 };
    equal(
        "GPA of the table",
        info.guest_physical_address & !0xfff,
        0x4000_0000,
    )?;
    equal("the GPA is the linear address's", flags & 2, 0)
}

/// Descriptor of 32-bit code or data with base 0 and limit 4 GiB.
const fn flat(access: u8) -> u64 {
    0x00cf_0000_0000_ffff | ((access as u64) << 40)
}

/// 32-bit gate of trap kind (0xf: interrupts stay on) to `offset`.
const fn trap_gate(selector: u64, offset: u64, dpl: u64) -> u64 {
    offset & 0xffff | (selector << 16) | ((0x8f00 | (dpl << 13)) << 32) | ((offset >> 16) << 48)
}

/// CVE-2015-5307: alignment checks whose delivery is not aligned, for ever. Protected mode, CPL 3 throughout.
fn ac_loop() -> Outcome {
    let guest = Guest::new(guests::push_32())?;
    let memory = &guest.memory;
    for (n, entry) in [0, flat(0x9b), flat(0x93), flat(0xfb), flat(0xf3)]
        .iter()
        .enumerate()
    {
        memory.write(0x3000 + 8 * n, &entry.to_le_bytes());
    }
    for vector in 0..32 {
        memory.write(
            0x3800 + 8 * vector,
            &trap_gate(0x1b, ENTRY, 3).to_le_bytes(),
        );
    }
    guest
        .vp()
        .set(&[
            (HV_X64_REGISTER_CR0, (0x4_0031, 0)),
            (HV_X64_REGISTER_GDTR, (0x27 << 48, 0x3000)),
            (HV_X64_REGISTER_IDTR, (0xff << 48, 0x3800)),
            (HV_X64_REGISTER_CS, segment(0x1b, 0, u32::MAX, 0xc0fb)),
            (HV_X64_REGISTER_SS, segment(0x23, 0, u32::MAX, 0xc0f3)),
            (HV_X64_REGISTER_DS, segment(0x23, 0, u32::MAX, 0xc0f3)),
            (HV_X64_REGISTER_ES, segment(0x23, 0, u32::MAX, 0xc0f3)),
            (0x6_0004, segment(0x23, 0, u32::MAX, 0xc0f3)),
            (0x6_0005, segment(0x23, 0, u32::MAX, 0xc0f3)),
            (HV_X64_REGISTER_TR, segment(0x28, 0, 0x67, 0x8b)),
            (HV_X64_REGISTER_RSP, (0x8001, 0)),
            (HV_X64_REGISTER_RFLAGS, (0x4_0202, 0)),
        ])
        .map_err(|e| Stop::Fail(format!("{e:?}")))?;
    survives(&guest, 200)?;
    others_run()
}

/// CVE-2015-8104: a breakpoint on the stack on which #DB is delivered, for ever. Long mode, with a stack of its own
/// (IST), so that each delivery writes to the same place.
fn db_loop() -> Outcome {
    let guest = crate::cases::messages::long_mode(guests::touch_64())?;
    let memory = &guest.memory;
    for (n, entry) in [0, 0x00af_9b00_0000_ffffu64, flat(0x93)].iter().enumerate() {
        memory.write(0x3000 + 8 * n, &entry.to_le_bytes());
    }
    // Gate: trap, IST 1, selector 8.
    let gate = ENTRY & 0xffff | (8 << 16) | (1 << 32) | (0x8f << 40);
    for vector in 0..32 {
        memory.write(0x3800 + 16 * vector, &gate.to_le_bytes());
    }
    // TSS: IST 1.
    memory.write(0x5000 + 0x24, &0x7000u64.to_le_bytes());
    guest
        .vp()
        .set(&[
            (HV_X64_REGISTER_GDTR, (0x17 << 48, 0x3000)),
            (HV_X64_REGISTER_IDTR, (0x1ff << 48, 0x3800)),
            (HV_X64_REGISTER_TR, segment(24, 0x5000, 0x67, 0x8b)),
            (0x5_0000, (0x6fd8, 0)),
            // Breakpoint 0: reads and writes, 4 bytes.
            (0x5_0005, (0xf_0403, 0)),
        ])
        .map_err(|e| Stop::Fail(format!("{e:?}")))?;
    let running = run_once(guest.vp());
    sleep_ms(200);
    let loops = !running.is_over();
    let ended = running.interrupt()?;
    ensure(loops, || {
        format!("RUN_VP ended: {:?}", ended.map(|m| m.header.message_type))
    })?;
    interrupted(ended)?;
    others_run()
}

/// Control registers with garbage, a new guest for each value.
fn garbage(code: fn() -> Code) -> Outcome {
    let mut random = Random(99);
    for _ in 0..24 {
        let guest = with_handler(code())?;
        let value = (random.below(1 << 31) << 1) | random.below(2);
        guest.vp().set_register(HV_X64_REGISTER_RAX, value)?;
        survives(&guest, 5)?;
    }
    others_run()
}

/// Memory full of garbage, executed.
fn garbage_code() -> Outcome {
    let mut random = Random(1234);
    for _ in 0..40 {
        let guest = with_handler(guests::halt())?;
        for at in (ENTRY as usize..HANDLER).step_by(4) {
            guest.memory.set_word(at, random.below(1 << 32) as u32);
        }
        survives(&guest, 5)?;
    }
    others_run()
}

/// Registers of garbage, as far as they are taken, and then a run.
fn garbage_registers() -> Outcome {
    const NAMES: [u32; 28] = [
        0x4_0000, 0x4_0002, 0x4_0003, 0x8_0001, 0x6_0000, 0x6_0001, 0x6_0002, 0x6_0003, 0x6_0004,
        0x6_0005, 0x6_0006, 0x6_0007, 0x7_0000, 0x7_0001, 0x2_0010, 0x2_0011, 0x2_0004, 0x1_0002,
        0x1_0003, 0x1_0004, 0x5_0000, 0x5_0004, 0x5_0005, 0x4_0005, 0x3_0018, 0x3_0019, 0x8_0004,
        0x8_0003,
    ];
    let mut random = Random(77);
    for _ in 0..60 {
        let guest = with_handler(guests::count())?;
        for _ in 0..4 {
            let name = NAMES[random.below(NAMES.len() as u64) as usize];
            let mut word = || (random.below(1 << 33) << 31) ^ random.below(1 << 33);
            let shift = [0, 16, 32, 48, 60];
            let value = (word(), word());
            let by = shift[(value.1 % 5) as usize];
            // Refused or not.
            let _ = guest.vp().set(&[(name, (value.0 >> by, value.1 >> by))]);
        }
        survives(&guest, 3)?;
    }
    others_run()
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "hostile guest: VMX, SMX, MONITOR and others: #UD or #GP for each",
            || all_fault(guests::privileged(), 20),
        ),
        case(
            "hostile guest: reads and writes of all MSRs of four ranges",
            || {
                let guest = with_handler(guests::msrs())?;
                to_the_end(&guest)?;
                let faults = guest.memory.word(FAULTS);
                ensure(faults > 0x1000, || format!("only {faults} exceptions"))
            },
        ),
        case("hostile guest: all leaves of CPUID", || {
            let guest = with_handler(guests::cpuids())?;
            to_the_end(&guest)?;
            equal("exceptions", guest.memory.word(FAULTS), 0)
        }),
        case(
            "hostile guest: an interrupt in its own handler, for ever",
            int_storm,
        ),
        case(
            "hostile guest: an interrupt without memory for the table",
            no_interrupt_table,
        ),
        case(
            "hostile guest: page tables where no memory is",
            no_page_tables,
        ),
        case(
            "hostile guest: #AC whose delivery faults again (CVE-2015-5307)",
            ac_loop,
        ),
        case(
            "hostile guest: #DB whose delivery faults again (CVE-2015-8104)",
            db_loop,
        ),
        case("hostile guest: garbage in CR0", || garbage(guests::mov_cr0)).within(60),
        case("hostile guest: garbage in CR4", || garbage(guests::mov_cr4)).within(60),
        case("hostile guest: garbage in CR3, and paging", || {
            garbage(guests::mov_cr3)
        })
        .within(60),
        case("hostile guest: garbage as code", garbage_code).within(60),
        case("hostile VMM: garbage in registers", garbage_registers).within(60),
        case(
            "hostile guest: HLT with interrupts off, and NMIs from the VMM",
            || {
                let guest = with_handler(guests::halt())?;
                guest.vp().set_register(HV_X64_REGISTER_RFLAGS, 2)?;
                let running = run_on(guest.vp());
                started(&guest.memory)?;
                for n in 1..20 {
                    let nmi = Hvcall::new(0x94, &[0, 4, 0, 0], 0).make(&guest.partition);
                    ensure(nmi.is_ok(), || format!("{nmi:?}"))?;
                    eventually("the NMI's handler runs", 5, || {
                        guest.memory.word(FAULTS) >= n
                    })?;
                }
                interrupted(running.interrupt()?)
            },
        ),
        case(
            "hostile VMM: all memory unmapped under a guest, again and again",
            || {
                let guest = Guest::with(guests::walk(), 1, SUPER_PAGES, Memory::huge(2 << 20))?;
                let (addr, len) = (guest.memory.addr(), guest.memory.len());
                let vp = guest.vp().clone();
                let running = crate::threads::Running::start(move |stop| loop {
                    match vp.run() {
                        Err(Errno(libc::EINTR))
                            if stop.load(std::sync::atomic::Ordering::Relaxed) =>
                        {
                            return Ok(())
                        }
                        Err(Errno(libc::EINTR)) => {}
                        Ok(message)
                            if message.header.message_type
                                == hv_message_type_HVMSG_UNMAPPED_GPA => {}
                        other => return Err(format!("{:?}", other.map(|m| m.header.message_type))),
                    }
                });
                started(&guest.memory)?;
                for _ in 0..100 {
                    let fail = |e| Stop::Fail(format!("SET_GUEST_MEMORY: {e:?}"));
                    guest
                        .partition
                        .set_memory(0, addr, len, UNMAP)
                        .map_err(fail)?;
                    guest
                        .partition
                        .set_memory(0, addr, len, RWX)
                        .map_err(fail)?;
                }
                moves(&guest.memory, COUNTER)?;
                running.interrupt()?.map_err(Stop::Fail)
            },
        ),
    ]
}
