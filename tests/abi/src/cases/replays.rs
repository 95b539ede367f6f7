// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What VMMs do, in their order and with their arguments, with guests of a few instructions: Cloud Hypervisor, OpenVMM
//! and Hyperlight.

use mshv_bindings::*;

use super::intercepts::{install, CONNECTION, EXCEPTION, EXECUTE, HYPERCALL, RETARGET};
use super::messages::io;
use super::page::Page;
use super::state::{cpuid_call, result_call, transfer, GET_VP_STATE, SET_VP_STATE};
use crate::events::{edge, level, EventFd, DATAMATCH, IRQFD_RESAMPLE};
use crate::guests::{self, Code};
use crate::run::{case, ensure, equal, eventually, good, Case, Outcome, Stop};
use crate::sys::{self, Memory, PAGE};
use crate::threads::run_once;
use crate::vm::names::*;
use crate::vm::*;

const VECTOR: u8 = 0x41;
/// In the guest: what its interrupt handler counts.
const INTERRUPTS: usize = 0x2010;

/// Names by which VMMs set registers.
mod name {
    pub const PENDING_INTERRUPTION: u32 = 0x1_0002;
    pub const INTERRUPT_STATE: u32 = 0x1_0003;
    pub const PENDING_EVENT0: u32 = 0x1_0004;
    pub const PENDING_EVENT1: u32 = 0x1_0005;
    pub const NOTIFICATIONS: u32 = 0x1_0006;
    pub const XFEM: u32 = 0x4_0005;
    pub const INTERMEDIATE_CR0: u32 = 0x4_1000;
    pub const INTERMEDIATE_CR3: u32 = 0x4_1002;
    pub const INTERMEDIATE_CR4: u32 = 0x4_1003;
    pub const APIC_BASE: u32 = 0x8_0003;
    pub const INITIAL_APIC_ID: u32 = 0x8_000c;
    pub const APIC_ID: u32 = 0x8_4802;
    pub const GUEST_OS_ID: u32 = 0x9_0002;
}

fn fail(e: HvcallError) -> Stop {
    Stop::Fail(format!("{e:?}"))
}

fn get(fd: &impl std::os::fd::AsRawFd, code: u32) -> Result<u64, Stop> {
    let call = Hvcall::get_property(code).make(fd);
    let output = call.map_err(|e| Stop::Fail(format!("property {code:#x}: {e:?}")))?;
    Ok(u64::from_le_bytes(output[..8].try_into().expect("8 bytes")))
}

fn set(partition: &Partition, code: u32, value: u64) -> Outcome {
    let call = Hvcall::set_property(code, value).make(partition);
    call.map(|_| ())
        .map_err(|e| Stop::Fail(format!("property {code:#x}: {e:?}")))
}

/// CREATE_PARTITION of version 2.
fn create(flags: u64, disabled: [u64; 2], disabled_xsave: u64) -> Result<Partition, Stop> {
    let mut argument = mshv_create_partition_v2 {
        pt_flags: flags | (1 << MSHV_PT_BIT_CPU_AND_XSAVE_FEATURES),
        pt_num_cpu_fbanks: 2,
        pt_cpu_fbanks: disabled,
        pt_disabled_xsave: disabled_xsave,
        ..Default::default()
    };
    let fd = sys::ioctl_on(&device(), CREATE_PARTITION, &mut argument);
    let fd = good("CREATE_PARTITION", fd)?;
    Ok(Partition(std::sync::Arc::new(sys::owned(fd))))
}

/// Guest memory with page tables (linear = physical below 2 MiB and at the APIC, 1 GiB is physical 16 MiB), a GDT, an IDT whose entry
/// `VECTOR` is ENTRY + 2, and the code.
fn long_mode_memory(code: Code) -> Memory {
    let memory = Memory::new(RAM);
    memory.write(ENTRY as usize, code.bytes());
    let gate = |address: u64| {
        [
            (address & 0xffff) | (8 << 16) | (0x8e << 40) | (((address >> 16) & 0xffff) << 48),
            address >> 32,
        ]
    };
    let idt = 0x1_5000 + 16 * usize::from(VECTOR);
    let [low, high] = gate(ENTRY + 2);
    for (at, word) in [
        (0x1_0000, 0x1_1003u64),
        (0x1_1000, 0x1_2003),
        (0x1_1008, 0x1_3003),
        (0x1_2000, 0x83),
        (0x1_3000, 0x100_0083),
        // The APIC's page.
        (0x1_1018, 0x1_6003),
        (0x1_6fb8, 0xfee0_0083),
        (0x1_4008, 0x00af_9b00_0000_ffff),
        (0x1_4010, 0x00cf_9300_0000_ffff),
        (idt, low),
        (idt + 8, high),
    ] {
        memory.write(at, &word.to_le_bytes());
    }
    memory
}

/// Registers of long mode; control registers by these names.
fn long_mode(cr0: u32, cr3: u32, cr4: u32) -> Vec<(u32, Value)> {
    let code = segment(8, 0, 0xffff_ffff, 0xa09b);
    let data = segment(16, 0, 0xffff_ffff, 0xc093);
    vec![
        (HV_X64_REGISTER_CS, code),
        (HV_X64_REGISTER_DS, data),
        (HV_X64_REGISTER_ES, data),
        (0x6_0004, data),
        (0x6_0005, data),
        (HV_X64_REGISTER_SS, data),
        (HV_X64_REGISTER_TR, segment(24, 0, 0x67, 0x8b)),
        (0x6_0006, segment(0, 0, 0xffff, 0x82)),
        (HV_X64_REGISTER_GDTR, (0x17 << 48, 0x1_4000)),
        (HV_X64_REGISTER_IDTR, (0xfff << 48, 0x1_5000)),
        (cr0, (0x8000_0011, 0)),
        (cr3, (0x1_0000, 0)),
        (cr4, (0x20, 0)),
        (HV_X64_REGISTER_EFER, (0x500, 0)),
    ]
}

/// The state of a partition's VP is stored as it was read.
fn store_back(vp: &Vp, kind: u8) -> Outcome {
    let buffer = Memory::new(PAGE);
    for ioctl in [GET_VP_STATE, SET_VP_STATE] {
        let (result, size) = transfer(vp, ioctl, kind, PAGE as u32, buffer.addr());
        good(&format!("VP state {kind}"), result)?;
        ensure((1..=4096).contains(&size), || format!("{size} bytes"))?;
    }
    Ok(())
}

/// Goes on behind an instruction by the register page, with another RAX.
fn skip_by_page(page: &Page, rip: u64, rax: Option<u64>) {
    let mut p = page.read();
    // SAFETY: Plain registers.
    unsafe {
        let registers = &mut p.__bindgen_anon_1.__bindgen_anon_1;
        registers.rip = rip;
        if let Some(rax) = rax {
            registers.__bindgen_anon_1.__bindgen_anon_1.rax = rax;
        }
    }
    // IP, and the general registers.
    p.dirty = 2 | u32::from(rax.is_some());
    page.write(p);
}

/// The next message is of a port, which is completed by the register page.
fn port(vp: &Vp, page: &Page, number: u16, write: bool, answer: Option<u64>) -> Result<u64, Stop> {
    let message = vp.message()?;
    let info = io(&message)?;
    let kind = info.header.intercept_access_type;
    equal(
        "port, access",
        (info.port_number, kind),
        (number, write.into()),
    )?;
    let behind = info.header.rip + u64::from(info.header.instruction_length());
    skip_by_page(page, behind, answer);
    Ok(info.rax)
}

/// An MMIO access, which is completed; the instruction is of this length.
fn mmio(vp: &Vp, page: &Page, gpa: u64, length: u64) -> Outcome {
    let message = vp.message()?;
    let info = message
        .to_memory_info()
        .map_err(|_| Stop::Fail("another message".into()))?;
    // SAFETY: A union of bits.
    let valid = unsafe { info.memory_access_info.as_uint8 } & 3;
    let (address, count) = (info.guest_physical_address, info.instruction_byte_count);
    equal("GPA, valid", (address, valid), (gpa, 3))?;
    ensure(u64::from(count) >= length, || format!("{count} bytes"))?;
    skip_by_page(page, info.header.rip + length, None);
    Ok(())
}

/// Synthetic features that Cloud Hypervisor asks for.
const CLOUD_HYPERVISOR: u64 = 0x0640_0ffb | (1 << 38);

fn cloud_hypervisor() -> Outcome {
    // What the crate asks the host.
    for code in [0x6_000a, 0x6_000b, 0x6_0002] {
        get(&device(), code)?;
    }
    let assignable = Hvcall::new(0x101, &[0, 0x9_0009, 0], 4072);
    assignable.make(&device()).map_err(fail)?;
    let (bank0, bank1) = (get(&device(), 0x6_000a)?, get(&device(), 0x6_000b)?);
    let xsave = get(&device(), 0x6_0002)?;
    let flags = SUPER_PAGES | (1 << MSHV_PT_BIT_NESTED_VIRTUALIZATION);
    let partition = create(flags, [!bank0, !bank1], !xsave)?;
    set(&partition, 0x1_0001, CLOUD_HYPERVISOR)?;
    good("INITIALIZE_PARTITION", partition.initialize())?;
    set(&partition, 0x5_0017, 1)?;
    set(&partition, 0x3_0003, 1)?;
    equal("vendor", get(&partition, 0x6_0000)?, 1)?;
    equal("features", get(&partition, 0x6_000a)?, bank0)?;
    ensure(get(&partition, 0x6_0008)? <= 4096, || "XSAVE size".into())?;

    // Interrupts and doorbells before memory and VPs.
    let (edge_fd, level_fd, resample, bell) = (
        EventFd::new(),
        EventFd::new(),
        EventFd::new(),
        EventFd::new(),
    );
    good("routes", partition.set_routes(&[]))?;
    let routes = [edge(4, VECTOR), level(5, VECTOR)];
    good("routes", partition.set_routes(&routes))?;
    good("irqfd", partition.irqfd(edge_fd.number(), 4, 0, 0))?;
    let flags = IRQFD_RESAMPLE;
    let resampled = partition.irqfd(level_fd.number(), 5, flags, resample.number());
    good("irqfd with resample", resampled)?;
    let rung = partition.ioeventfd(bell.number(), 0x100_0010, 2, DATAMATCH, 3);
    good("ioeventfd", rung)?;
    let memory = long_mode_memory(guests::client_64());
    partition.map(0, &memory, RWX);
    let vp = partition.vp(0);
    let page = Page::map(&vp)?;

    // CPUID: OR'ed into what is there.
    let own =
        |leaf| -> Result<Vec<u8>, Stop> { cpuid_call(0, 1, &[(leaf, 0)]).make(&vp).map_err(fail) };
    for leaf in [1, 0xb, 0x1f, 0x8000_0002, 0x8000_0003, 0x8000_0004] {
        own(leaf)?;
        let nothing = [(0, 0); 4];
        let call = result_call(0, 2, leaf, None, nothing, 64);
        call.make(&partition).map_err(fail)?;
    }
    // Each MSR in the list can be read and stored.
    let msrs = [
        0x8_0005, 0x8_0006, 0x8_0007, 0x8_0008, 0x8_000a, 0x8_0009, 0x8_0002, 0x8_000b, 0x8_0000,
        0x8_000d, 0x8_0004, 0x8_007b, 0x9_0001, 0x9_0002, 0x9_0017, 0xa_0010, 0xa_0012, 0xa_0013,
    ];
    for name in msrs {
        let value = vp.get(&[name]).map_err(fail)?[0];
        vp.set(&[(name, value)]).map_err(fail)?;
    }
    let mut registers = long_mode(
        name::INTERMEDIATE_CR0,
        name::INTERMEDIATE_CR3,
        name::INTERMEDIATE_CR4,
    );
    registers.extend([
        (HV_X64_REGISTER_RIP, (ENTRY, 0)),
        (HV_X64_REGISTER_RSP, (STACK, 0)),
        (HV_X64_REGISTER_RFLAGS, (2, 0)),
    ]);
    vp.set(&registers).map_err(fail)?;
    for kind in 0..5 {
        store_back(&vp, kind)?;
    }
    set(&partition, 0x3_0003, 0)?;
    // Nothing was dirty in the page, so what was set stands.
    port(&vp, &page, 0x3f8, true, None)?;
    port(&vp, &page, 0x3f8, false, Some(u64::from(b'z')))?;
    mmio(&vp, &page, 0x100_0000, 2)?;
    // The doorbell is silent with another value, and is the VMM's then.
    mmio(&vp, &page, 0x100_0010, 6)?;
    equal("bell", bell.take(), 0)?;
    let running = run_once(&vp);
    eventually("the bell", 10, || bell.take() == 1)?;
    eventually("the guest waits", 10, || memory.word(0x2000) != 0)?;
    edge_fd.signal();
    let message = good("RUN_VP", running.wait(10)?)?;
    let info = io(&message)?;
    equal("port", (info.port_number, info.rax & 0xff), (0x80, 1))?;
    let behind = info.header.rip + u64::from(info.header.instruction_length());
    skip_by_page(&page, behind, None);
    equal("interrupts", memory.word(INTERRUPTS), 1)?;
    let running = run_once(&vp);
    eventually("the guest waits", 10, || memory.word(0x2000) > 1)?;
    level_fd.signal();
    let message = good("RUN_VP", running.wait(10)?)?;
    equal("port", io(&message)?.port_number, 0x80)?;
    equal("interrupts", memory.word(INTERRUPTS), 2)?;
    // Its handler has ended it: the device may assert again.
    equal("resampled", resample.take(), 1)?;
    equal("character", memory.word(0x2004) & 0xff, u32::from(b'z'))
}

/// Synthetic features that OpenVMM asks for.
const OPENVMM: u64 = 0x7f44_8fff;

fn openvmm() -> Outcome {
    let flags = (1 << MSHV_PT_BIT_LAPIC) | (1 << MSHV_PT_BIT_GPA_SUPER_PAGES);
    let partition = create(flags, [0xffff << 48, 0xff << 56], 0)?;
    set(&partition, 0x1_0001, OPENVMM)?;
    good("INITIALIZE_PARTITION", partition.initialize())?;
    set(&partition, 0x5_0003, 2)?;
    let vps = [partition.vp(0), partition.vp(1)];
    for kind in [HYPERCALL, CONNECTION, RETARGET] {
        install(&partition, EXECUTE, kind, 0)?;
    }
    // A leaf for all VPs that are and come; `always_override` is set.
    let mut call = result_call(u32::MAX, 2, 0x8000_0002, Some(0), [(0x41, !0); 4], 64);
    call.input[24..28].copy_from_slice(&0x101u32.to_le_bytes());
    call.make(&partition).map_err(fail)?;
    for vp in &vps {
        let call = cpuid_call(vp.index, 0, &[(1, 0)]).make(vp);
        let apic_id = call.map_err(fail)?[7];
        equal("APIC id", u32::from(apic_id), vp.index)?;
        let base = 0xfee0_0800 | if vp.index == 0 { 0x100 } else { 0 };
        vp.set(&[
            (name::INITIAL_APIC_ID, (vp.index.into(), 0)),
            (name::APIC_BASE, (base, 0)),
            (name::APIC_ID, (vp.index.into(), 0)),
        ])
        .map_err(fail)?;
        equal("APIC id", vp.register(name::APIC_ID)?, vp.index.into())?;
    }
    let memory = long_mode_memory(guests::vmbus_64());
    partition.map(0, &memory, RWX);
    let vp = &vps[0];
    let page = Page::map(vp)?;
    Page::map(&vps[1])?;
    let mut registers = long_mode(
        HV_X64_REGISTER_CR0,
        HV_X64_REGISTER_CR3,
        HV_X64_REGISTER_CR4,
    );
    registers.extend([
        (HV_X64_REGISTER_RIP, (ENTRY, 0)),
        (HV_X64_REGISTER_RSP, (STACK, 0)),
        (HV_X64_REGISTER_RFLAGS, (2, 0)),
        (name::GUEST_OS_ID, (1, 0)),
        (name::PENDING_INTERRUPTION, (0, 0)),
        (name::INTERRUPT_STATE, (0, 0)),
        (name::PENDING_EVENT0, (0, 0)),
        (name::PENDING_EVENT1, (0, 0)),
    ]);
    vp.set(&registers).map_err(fail)?;
    // HvCallPostMessage: done with the register page alone.
    let message = vp.message()?;
    let wanted = hv_message_type_HVMSG_HYPERCALL_INTERCEPT;
    equal("message", message.header.message_type, wanted)?;
    let p = page.read();
    // SAFETY: Plain registers.
    let (rip, gprs) = unsafe {
        let registers = p.__bindgen_anon_1.__bindgen_anon_1;
        (registers.rip, registers.__bindgen_anon_1.__bindgen_anon_1)
    };
    equal("RCX, RDX", (gprs.rcx, gprs.rdx), (0x5c, 0x3000))?;
    skip_by_page(&page, rip + 3, Some(0x12));
    equal(
        "status in the guest",
        port(vp, &page, 0x80, true, None)?,
        0x12,
    )?;
    // The PIC: a notice, then the vector.
    vp.set_register(name::NOTIFICATIONS, 2)?;
    let message = vp.message()?;
    let wanted = hv_message_type_HVMSG_X64_INTERRUPTION_DELIVERABLE;
    equal("message", message.header.message_type, wanted)?;
    vp.set_register(name::NOTIFICATIONS, 0)?;
    let extint = 1 | (5 << 1) | (u64::from(VECTOR) << 8);
    vp.set_register(name::PENDING_EVENT0, extint)?;
    port(vp, &page, 0x81, true, None)?;
    equal("interrupts", memory.word(INTERRUPTS), 1)?;
    // The IOAPIC: a level-triggered interrupt by hypercall, and the message of its end.
    let running = run_once(vp);
    eventually("the guest waits", 10, || memory.word(0x2000) != 0)?;
    let control = 1 << 32;
    let assert = Hvcall::new(0x94, &[0, control, 0, VECTOR.into()], 0);
    assert.make(&partition).map_err(fail)?;
    let message = good("RUN_VP", running.wait(10)?)?;
    let wanted = hv_message_type_HVMSG_X64_APIC_EOI;
    equal("message", message.header.message_type, wanted)?;
    let eoi = message
        .to_apic_eoi_info()
        .map_err(|_| Stop::Fail("no such payload".into()))?;
    let (index, vector) = (eoi.vp_index, eoi.interrupt_vector);
    equal("VP, vector", (index, vector), (0, VECTOR.into()))?;
    port(vp, &page, 0x81, true, None)?;
    equal("interrupts", memory.word(INTERRUPTS), 2)
}

fn hyperlight() -> Outcome {
    let partition = create(0, [0; 2], 0)?;
    set(&partition, 0x1_0001, 0)?;
    good("INITIALIZE_PARTITION", partition.initialize())?;
    let vp = partition.vp(0);
    let page = Page::map(&vp)?;
    let memory = long_mode_memory(guests::sandbox_64());
    let flags = RWX;
    partition.map(0, &memory, flags);
    // A region that the guest may only read and execute.
    let code = Memory::new(PAGE);
    code.set_word(0, 0xcafe);
    partition.map(0x100_0000, &code, EXECUTABLE);
    // The debugger's.
    install(&partition, EXECUTE, EXCEPTION, 1)?;
    install(&partition, EXECUTE, EXCEPTION, 3)?;
    let base = vp.register(name::APIC_BASE)?;
    let mut registers = long_mode(
        HV_X64_REGISTER_CR0,
        HV_X64_REGISTER_CR3,
        HV_X64_REGISTER_CR4,
    );
    registers.push((name::APIC_BASE, (base, 0)));
    vp.set(&registers).map_err(fail)?;
    let fpu = vp.get(&[0x3_0018, 0x3_0019]).map_err(fail)?;
    vp.set(&[(0x3_0018, (0x37f, 0)), (0x3_0019, (0, 0x1f80))])
        .map_err(fail)?;
    ensure(fpu.len() == 2, || "FPU".into())?;
    store_back(&vp, 1)?;
    equal("XFEM", vp.register(name::XFEM)? & 1, 1)?;
    // Each call of the guest sets the registers and runs to HLT; the first writes to a port on its way.
    for call in 0..3u64 {
        vp.set(&[
            (HV_X64_REGISTER_RIP, (ENTRY, 0)),
            (HV_X64_REGISTER_RSP, (STACK, 0)),
            (HV_X64_REGISTER_RFLAGS, (2, 0)),
            (HV_X64_REGISTER_RAX, (call, 0)),
        ])
        .map_err(fail)?;
        equal("RAX", port(&vp, &page, 0x65, true, None)?, call + 1)?;
        let message = vp.message()?;
        let wanted = hv_message_type_HVMSG_X64_EXCEPTION_INTERCEPT;
        equal("message", message.header.message_type, wanted)?;
        let info = message
            .to_exception_info()
            .map_err(|_| Stop::Fail("no such payload".into()))?;
        let (vector, rip) = (info.exception_vector, info.header.rip);
        equal("vector", vector, 3)?;
        skip_by_page(&page, rip + 1, None);
        // A store to what is read-only.
        let message = vp.message()?;
        let wanted = hv_message_type_HVMSG_GPA_INTERCEPT;
        equal("message", message.header.message_type, wanted)?;
        let info = message
            .to_memory_info()
            .map_err(|_| Stop::Fail("no such payload".into()))?;
        let (address, access) = (
            info.guest_physical_address,
            info.header.intercept_access_type,
        );
        equal("GPA, access", (address, access), (0x100_0000, 1))?;
        skip_by_page(&page, info.header.rip + 7, None);
        let message = vp.message()?;
        let wanted = hv_message_type_HVMSG_X64_HALT;
        equal("message", message.header.message_type, wanted)?;
        equal("the page", code.word(0), 0xcafe)?;
    }
    Ok(())
}

/// MSRs that Hyperlight reads, and writes back where it could read them; variable MTRRs come by MTRRCAP.
const HYPERLIGHT_MSRS: &[u32] = &[
    0x174,
    0x175,
    0x176,
    0x1d9,
    0x277,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
    0x48,
    0xc001_011f,
    0x6a0,
    0x6a2,
    0x6a4,
    0x6a5,
    0x6a6,
    0x6a7,
    0x6a8,
    0xda0,
    0x10,
    0x3b,
    0xc000_0103,
    0xe7,
    0xe8,
    0x122,
    0x1c4,
    0x1c5,
    0xe1,
    0x6e0,
    0xd90,
    0x7a0,
    0x2ff,
    0x250,
    0x258,
    0x259,
    0x268,
    0x269,
    0x26a,
    0x26b,
    0x26c,
    0x26d,
    0x26e,
    0x26f,
];

/// Hyperlight makes the first part of this map itself.
fn hyperlight_name(msr: u32) -> Result<u32, Stop> {
    Ok(match msr {
        0x200..=0x21f => 0x8_0010 + (msr & 1) * 0x30 + (msr - 0x200) / 2,
        0xda0 => 0x8_008b,
        0xe7 => 0x8_007e,
        0xe8 => 0x8_007f,
        0x122 => 0x8_0088,
        0x6e0 => 0x8_0095,
        0xe1 => 0x8_0098,
        0xd90 => 0x8_007c,
        0x1c4 => 0x8_0099,
        0x1c5 => 0x8_009a,
        0xc001_011f => 0x8_0086,
        _ => msr_to_hv_reg_name(msr).map_err(|e| Stop::Fail(format!("{msr:#x}: {e}")))?,
    })
}

/// What OpenVMM stores at a VP's reset, in one call each: activity, debug registers, XCR0, XSS, PAT, MSRs, TSC_AUX, TSC, the SynIC.
const OPENVMM_GROUPS: &[&[(u32, u64)]] = &[
    &[(0x4, 0), (0x1_0002, 0), (0x1_0003, 0), (0x1_0004, 0)],
    &[
        (0x5_0000, 0),
        (0x5_0001, 0),
        (0x5_0002, 0),
        (0x5_0003, 0),
        (0x5_0004, 0xffff_0ff0),
        (0x5_0005, 0x400),
    ],
    &[(0x4_0005, 1)],
    &[(0x8_008b, 0)],
    &[(0x8_0004, 0x0007_0406_0007_0406)],
    &[(0x8_0002, 0), (0x8_0005, 0), (0x8_0006, 0), (0x8_0007, 0)],
    &[(0x8_0008, 0), (0x8_0009, 0), (0x8_000a, 0), (0x8_000b, 0)],
    &[(0x8_007b, 0)],
    &[(0x8_0000, 0)],
    &[
        (0x9_0013, 0),
        (0xa_0010, 1),
        (0xa_0012, 0),
        (0xa_0013, 0),
        (0xa_0000, 0x1_0000),
        (0xa_0007, 0x1_0000),
        (0xa_000f, 0x1_0000),
    ],
];

fn reset_state() -> Outcome {
    // Hyperlight: each MSR alone, then all in one call.
    for flags in [0, 1 << MSHV_PT_BIT_LAPIC] {
        let partition = create(flags, [0; 2], 0)?;
        set(&partition, 0x1_0001, 0)?;
        good("INITIALIZE_PARTITION", partition.initialize())?;
        let vp = partition.vp(0);
        let cap = vp.register(msr_to_hv_reg_name(0xfe).expect("MTRRCAP"))?;
        ensure(cap & 0xff <= 16, || format!("MTRRCAP {cap:#x}"))?;
        let variable = 0x200..0x200 + 2 * (cap & 0xff) as u32;
        let mut kept = Vec::new();
        for msr in HYPERLIGHT_MSRS.iter().copied().chain(variable) {
            let name = hyperlight_name(msr)?;
            let value = vp.register(name)?;
            vp.set_register(name, value)?;
            kept.push((name, (value, 0)));
        }
        vp.set(&kept).map_err(fail)?;
    }
    // OpenVMM: both VPs with time stopped, then the partition's registers.
    let partition = create(1 << MSHV_PT_BIT_LAPIC, [0; 2], 0)?;
    set(&partition, 0x1_0001, OPENVMM)?;
    good("INITIALIZE_PARTITION", partition.initialize())?;
    let vps = [partition.vp(0), partition.vp(1)];
    set(&partition, 0x3_0003, 1)?;
    set(&partition, 0x3_0005, 0)?;
    vps[0]
        .set(&[(0x9_0002, (0, 0)), (0x9_0001, (0, 0))])
        .map_err(fail)?;
    vps[0].set_register(0x9_0017, 0)?;
    for vp in &vps {
        for group in OPENVMM_GROUPS {
            let values: Vec<_> = group.iter().map(|&(name, v)| (name, (v, 0))).collect();
            vp.set(&values).map_err(fail)?;
            // Time is stopped, so even the TSC reads as it was set.
            for &(name, value) in *group {
                let got = vp.register(name)?;
                equal(&format!("register {name:#x}"), got, value)?;
            }
        }
        for kind in 0..5 {
            store_back(vp, kind)?;
        }
    }
    // An application processor waits again.
    vps[1].set_register(0x4, 1)?;
    equal("activity", vps[1].register(0x4)?, 1)?;
    set(&partition, 0x3_0003, 0)
}

/// OpenVMM: the guest asks for a reset by a port, whose OUT is completed in the register page. All is stored as at RESET, then as the
/// loader wants it, and nothing of what is left in the page must come through.
fn openvmm_reset_by_port() -> Outcome {
    let guest = Guest::new(guests::knock())?;
    let vp = guest.vp();
    let page = Page::map(vp)?;
    for round in 1..4 {
        port(vp, &page, 0x80, true, Some(0xdead))?;
        set(&guest.partition, 0x3_0003, 1)?;
        set(&guest.partition, 0x3_0005, 0)?;
        let data = segment(0, 0, 0xffff, 0x93);
        let mut registers: Vec<_> = (0x2_0000..0x2_0010).map(|name| (name, (0, 0))).collect();
        registers.extend([
            (HV_X64_REGISTER_RIP, (0xfff0, 0)),
            (HV_X64_REGISTER_RFLAGS, (2, 0)),
            (HV_X64_REGISTER_CR0, (0x6000_0010, 0)),
            (0x4_0001, (0, 0)),
            (HV_X64_REGISTER_CR3, (0, 0)),
            (HV_X64_REGISTER_CR4, (0, 0)),
            (0x4_0004, (0, 0)),
            (HV_X64_REGISTER_EFER, (0, 0)),
            (
                HV_X64_REGISTER_CS,
                segment(0xf000, 0xffff_0000, 0xffff, 0x9b),
            ),
            (HV_X64_REGISTER_DS, data),
            (HV_X64_REGISTER_ES, data),
            (0x6_0004, data),
            (0x6_0005, data),
            (HV_X64_REGISTER_SS, data),
            (HV_X64_REGISTER_TR, segment(0, 0, 0xffff, 0x8b)),
            (0x6_0006, segment(0, 0, 0xffff, 0x82)),
            (HV_X64_REGISTER_GDTR, (0xffff << 48, 0)),
            (HV_X64_REGISTER_IDTR, (0xffff << 48, 0)),
        ]);
        vp.set(&registers).map_err(fail)?;
        // It compares.
        for &(name, value) in &registers {
            let got = vp.get(&[name]).map_err(fail)?;
            equal(&format!("register {name:#x}"), got[0], value)?;
        }
        for group in OPENVMM_GROUPS {
            let values: Vec<_> = group.iter().map(|&(name, v)| (name, (v, 0))).collect();
            vp.set(&values).map_err(fail)?;
        }
        vp.start_at(ENTRY)?;
        vp.set_register(HV_X64_REGISTER_RAX, round)?;
        set(&guest.partition, 0x3_0003, 0)?;
        let message = vp.message()?;
        let info = io(&message)?;
        equal("RIP, RAX", (info.header.rip, info.rax), (ENTRY, round))?;
    }
    Ok(())
}

/// QEMU's reset of a VP: general registers in one call, special ones in the next, no activity state.
fn qemu_reset() -> Outcome {
    let guest = Guest::with(guests::count(), 2, FLAGS, Memory::new(RAM))?;
    let code = segment(0xf000, 0xffff_0000, 0xffff, 0x9b);
    for vp in guest.vps.iter().rev() {
        let activity = || vp.register(HV_REGISTER_INTERNAL_ACTIVITY_STATE);
        let general = [
            (HV_X64_REGISTER_RIP, (0xfff0, 0)),
            (HV_X64_REGISTER_RFLAGS, (2, 0)),
        ];
        vp.set(&general).map_err(fail)?;
        equal("activity, RIP alone", activity()?, 0)?;
        let special = [
            (HV_X64_REGISTER_CS, code),
            (HV_X64_REGISTER_CR0, (0x6000_0010, 0)),
        ];
        vp.set(&special).map_err(fail)?;
        let waits = u64::from(vp.index != 0);
        equal("activity, bit 0 is waiting for SIPI", activity()?, waits)?;
    }
    // A VMM that says that it runs has its way.
    let vp = &guest.vps[1];
    vp.set_register(HV_REGISTER_INTERNAL_ACTIVITY_STATE, 0)?;
    equal(
        "activity",
        vp.register(HV_REGISTER_INTERNAL_ACTIVITY_STATE)?,
        0,
    )?;
    vp.set_register(HV_REGISTER_INTERNAL_ACTIVITY_STATE, 1)?;
    // A start-up IPI starts it, and what is stored meanwhile changes nothing.
    vp.set_register(HV_X64_REGISTER_RAX, 7)?;
    let running = run_once(vp);
    std::thread::sleep(std::time::Duration::from_millis(20));
    ensure(!running.is_over(), || "it runs".into())?;
    let before = guest.memory.word(guests::COUNTER);
    equal("count", before, 0)?;
    let startup = Hvcall::new(0x94, &[0, 6, 1, ENTRY >> 12], 0);
    startup.make(&guest.partition).map_err(fail)?;
    crate::threads::started(&guest.memory)?;
    crate::threads::interrupted(running.interrupt()?)?;
    // Without local APICs in the module, which VP runs is the VMM's affair.
    let guest = Guest::with(guests::count(), 2, 0, Memory::new(RAM))?;
    let vp = &guest.vps[1];
    vp.set(&[
        (HV_X64_REGISTER_RIP, (0xfff0, 0)),
        (HV_X64_REGISTER_CS, code),
    ])
    .map_err(fail)?;
    equal(
        "activity",
        vp.register(HV_REGISTER_INTERNAL_ACTIVITY_STATE)?,
        0,
    )
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "replay: QEMU resets a VP that is not the first [V-C1]",
            qemu_reset,
        ),
        case("replay: what Hyperlight and OpenVMM reset", reset_state),
        case(
            "replay: OpenVMM, a reset that the guest asks for by a port",
            openvmm_reset_by_port,
        ),
        case("replay: Cloud Hypervisor [V-C2]", cloud_hypervisor),
        case("replay: OpenVMM [V-C3]", openvmm),
        case("replay: Hyperlight [V-C4]", hyperlight),
    ]
}
