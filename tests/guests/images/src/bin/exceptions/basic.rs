// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Each exception by an instruction that raises it.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest::paging::{self, P, RW, US};
use guest::probe::{self, Fault};
use guest::{cpu, guarded_asm, guarded_sequence, hv, idt, percpu, require, user, Pass, Verdict};

#[track_caller]
fn is(result: Result<(), Fault>, vector: u8, error: u64) {
    match result {
        Err(f) if f.vector == vector && f.error == error => {}
        other => panic!(
            "{other:?} in place of {}({error:#x})",
            idt::vector_name(vector)
        ),
    }
}

pub fn divide_error() -> Verdict {
    // SAFETY: both fault.
    unsafe {
        let by_zero =
            guarded_asm!("div {0:e}", in(reg) 0u32, inout("eax") 1u32 => _, inout("edx") 0u32 => _);
        is(by_zero, idt::DE, 0);
        let too_large =
            guarded_asm!("div {0:e}", in(reg) 1u32, inout("eax") 1u32 => _, inout("edx") 1u32 => _);
        is(too_large, idt::DE, 0);
    }
    Pass
}

pub fn breakpoint() -> Verdict {
    static RIP: AtomicU64 = AtomicU64::new(0);
    idt::hook(idt::BP, |frame| RIP.store(frame.rip, Ordering::Relaxed));
    let behind: u64;
    // SAFETY: the hook returns.
    unsafe { asm!("lea {0}, [rip + 2f]", "int3", "2:", out(reg) behind) };
    assert_eq!(RIP.load(Ordering::Relaxed), behind, "not a trap");
    Pass
}

pub fn invalid_opcode() -> Verdict {
    // SAFETY: each faults.
    unsafe {
        is(guarded_asm!("ud2"), idt::UD, 0);
        is(guarded_asm!(".byte 0xf0, 0x90"), idt::UD, 0); // LOCK NOP
        is(guarded_asm!(".byte 0x06"), idt::UD, 0); // PUSH ES
        is(guarded_asm!(".byte 0x0f, 0xff, 0xc0"), idt::UD, 0); // UD0
    }
    Pass
}

pub fn device_not_available() -> Verdict {
    let cr0 = cpu::cr0();
    // SAFETY: each faults; CR0 is put back within the block.
    unsafe {
        let ts = guarded_sequence!(["mov cr0, {0}"], "fninit", ["mov cr0, {1}"], in(reg) cr0 | cpu::CR0_TS, in(reg) cr0);
        is(ts, idt::NM, 0);
        let wait = guarded_sequence!(["mov cr0, {0}"], "fwait", ["mov cr0, {1}"], in(reg) cr0 | cpu::CR0_TS, in(reg) cr0);
        is(wait, idt::NM, 0);
        let em = guarded_sequence!(["mov cr0, {0}"], "fninit", ["mov cr0, {1}"], in(reg) cr0 | cpu::CR0_EM, in(reg) cr0);
        is(em, idt::NM, 0);
        let sse = guarded_sequence!(["mov cr0, {0}"], "xorps xmm0, xmm0", ["mov cr0, {1}"],
            in(reg) cr0 | cpu::CR0_EM, in(reg) cr0, out("xmm0") _);
        is(sse, idt::UD, 0);
        let clts = guarded_sequence!(["mov cr0, {0}", "clts"], "fninit", ["mov cr0, {1}"], in(reg) cr0 | cpu::CR0_TS, in(reg) cr0);
        assert_eq!(clts, Ok(()), "CLTS");
    }
    Pass
}

pub fn general_protection() -> Verdict {
    // SAFETY: each faults.
    unsafe {
        // A selector beyond the GDT: the error code names it.
        is(
            guarded_asm!("mov es, {0:e}", in(reg) 0x1008u32),
            idt::GP,
            0x1008,
        );
        // A code segment that cannot be read is no stack; null is none either at CPL 3 only.
        is(
            guarded_asm!("mov ss, {0:e}", in(reg) u32::from(percpu::SEL_CODE64)),
            idt::GP,
            percpu::SEL_CODE64.into(),
        );
        is(
            guarded_asm!("mov rax, [{0}]", in(reg) 0x8000_0000_0000_0000u64, out("rax") _),
            idt::GP,
            0,
        );
        is(
            guarded_asm!("movaps xmm0, [{0}]", in(reg) 0x10_0001u64, out("xmm0") _),
            idt::GP,
            0,
        );
        is(
            guarded_asm!("ltr {0:x}", in(reg) percpu::SEL_DATA),
            idt::GP,
            percpu::SEL_DATA.into(),
        );
    }
    Pass
}

pub fn stack_fault() -> Verdict {
    require!(!hv::tcg(), "TCG raises #GP");
    // SAFETY: faults on a non-canonical stack access; RSP itself does not change.
    let result = unsafe {
        guarded_sequence!(["xchg rbp, {0}"], "mov rax, [rbp]", ["xchg rbp, {0}"],
        inout(reg) 0x8000_0000_0000_0000u64 => _, out("rax") _)
    };
    is(result, idt::SS, 0);
    Pass
}

pub fn segment_not_present() -> Verdict {
    let gdt = percpu::this().gdt();
    // SAFETY: a free entry of this processor's GDT.
    unsafe {
        let entry = &mut (*gdt)[usize::from(percpu::SEL_FREE / 8)];
        *entry = 0x00cf_1300_0000_ffff; // data, not present
        let selector = u32::from(percpu::SEL_FREE);
        is(
            guarded_asm!("mov es, {0:e}", in(reg) selector),
            idt::NP,
            selector.into(),
        );
        is(
            guarded_asm!("mov ss, {0:e}", in(reg) selector),
            idt::SS,
            selector.into(),
        );
        (*gdt)[usize::from(percpu::SEL_FREE / 8)] = 0x00cf_9300_0000_ffff;
        assert_eq!(
            guarded_asm!("mov es, {0:e}", in(reg) selector),
            Ok(()),
            "present now"
        );
        asm!("mov es, {0:e}", in(reg) u32::from(percpu::SEL_DATA));
    }
    Pass
}

pub fn page_fault() -> Verdict {
    const VA: u64 = paging::WINDOW + 0x20_0000;
    paging::unmap(VA);
    let page = paging::frame();
    let check = |result: Result<(), Fault>, error: u64, cr2: u64| {
        assert_eq!(
            result,
            Err(Fault {
                vector: idt::PF,
                error,
                cr2
            })
        );
    };
    check(probe::read(VA + 0x123).map(drop), 0, VA + 0x123);
    // SAFETY: nothing is mapped, or a page of this test.
    unsafe {
        check(probe::write(VA + 0x88, 0), 2, VA + 0x88);
        paging::map(VA, page, P);
        check(probe::write(VA + 8, 0), 3, VA + 8);
        paging::map(VA, page, P | RW | paging::NX);
        check(probe::call(VA), 0x11, VA);
        assert_eq!(probe::write(VA, 0xc3), Ok(()));
        paging::map(VA, page, P | RW | US);
        assert_eq!(probe::call(VA), Ok(()), "a RET there");
    }
    // A reserved bit.
    paging::map(VA, page | 1 << 51, P | RW);
    if guest::cpuid::physical_address_bits() < 52 && !hv::tcg() {
        check(probe::read(VA).map(drop), 9, VA);
    }
    paging::unmap(VA);
    Pass
}

pub fn alignment_check() -> Verdict {
    require!(!hv::tcg(), "TCG has no #AC");
    let cr0 = cpu::cr0();
    cpu::set_cr0(cr0 | cpu::CR0_AM);
    // mov eax, [rsp - 7]
    let frame = user::run(&[0x8b, 0x44, 0x24, 0xf9], cpu::RFLAGS_AC);
    let quiet = user::run(&[0x8b, 0x44, 0x24, 0xf9, 0x0f, 0x0b], 0);
    cpu::set_cr0(cr0);
    assert_eq!(
        (frame.vector as u8, frame.error, frame.rip),
        (idt::AC, 0, user::CODE)
    );
    assert_eq!(
        (quiet.vector as u8, quiet.rip),
        (idt::UD, user::CODE + 4),
        "without RFLAGS.AC"
    );
    Pass
}

pub fn x87_error() -> Verdict {
    let control: u16 = 0x037b; // zero-divide unmasked
                               // SAFETY: x87 state is this test's own.
    let result = unsafe {
        guarded_sequence!(["fninit", "fldcw [{0}]", "fld1", "fldz", "fdivp st(1), st"], "fwait", ["fninit"],
            in(reg) &control, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _)
    };
    is(result, idt::MF, 0);
    Pass
}

pub fn simd_error() -> Verdict {
    require!(!hv::tcg(), "TCG has no #XM");
    let (unmasked, usual): (u32, u32) = (0x1d80, 0x1f80);
    // SAFETY: MXCSR is put back.
    let result = unsafe {
        guarded_sequence!(["ldmxcsr [{0}]", "xorps xmm0, xmm0", "xorps xmm1, xmm1", "cvtsi2ss xmm1, {2:e}"],
            "divss xmm1, xmm0", ["ldmxcsr [{1}]"],
            in(reg) &unmasked, in(reg) &usual, in(reg) 1u32, out("xmm0") _, out("xmm1") _)
    };
    is(result, idt::XM, 0);
    Pass
}

pub fn software_interrupts() -> Verdict {
    idt::hook(0x77, |_| ());
    // SAFETY: hooked.
    unsafe { asm!("int 0x77") };
    assert_eq!(idt::count(0x77), 1);
    // From CPL 3 the gate's DPL counts: int 0x77, then int3.
    let frame = user::run(&[0xcd, 0x77], 0);
    assert_eq!((frame.vector as u8, frame.error), (idt::GP, 0x77 * 8 + 2));
    let frame = user::run(&[0xcc], 0);
    assert_eq!((frame.vector as u8, frame.rip), (idt::BP, user::CODE + 1));
    Pass
}

pub fn privileged_at_cpl3() -> Verdict {
    for (name, code) in [
        ("HLT", &[0xf4u8][..]),
        ("CLI", &[0xfa]),
        ("RDMSR", &[0x0f, 0x32]),
        ("WRMSR", &[0x0f, 0x30]),
        ("MOV CR0", &[0x0f, 0x20, 0xc0]),
        ("MOV CR8", &[0x44, 0x0f, 0x20, 0xc0]),
        ("MOV DR7", &[0x0f, 0x21, 0xf8]),
        ("LGDT", &[0x0f, 0x01, 0x14, 0x24]),
        ("INVLPG", &[0x0f, 0x01, 0x3c, 0x24]),
        ("WBINVD", &[0x0f, 0x09]),
        ("INVD", &[0x0f, 0x08]),
        ("IN", &[0xec]),
        ("OUT", &[0xe6, 0x80]),
    ] {
        if matches!(name, "WBINVD" | "INVD") && hv::tcg() {
            continue; // they run there
        }
        let frame = user::run(code, 0);
        assert!(
            (frame.vector as u8, frame.error, frame.rip) == (idt::GP, 0, user::CODE),
            "{name} at CPL 3: {}({:#x}) at +{}",
            idt::vector_name(frame.vector as u8),
            frame.error,
            frame.rip.wrapping_sub(user::CODE)
        );
    }
    // What CPL 3 may do goes on: CPUID, RDTSC, then UD2.
    let frame = user::run(&[0x0f, 0xa2, 0x0f, 0x31, 0x0f, 0x0b], 0);
    assert_eq!((frame.vector as u8, frame.rip), (idt::UD, user::CODE + 4));
    cpu::set_cr4(cpu::cr4() | cpu::CR4_TSD);
    let frame = user::run(&[0x0f, 0x31], 0);
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_TSD);
    assert_eq!(
        (frame.vector as u8, frame.error),
        (idt::GP, 0),
        "RDTSC with CR4.TSD"
    );
    Pass
}

pub fn cr2_only_by_page_faults() -> Verdict {
    cpu::set_cr2(0x1234_5678);
    let _ = core::hint::black_box(guest::cpuid::leaf(0));
    let _ = core::hint::black_box(cpu::inb(0x3fd));
    // SAFETY: faults.
    let _ = unsafe { guarded_asm!("ud2") };
    assert_eq!(cpu::cr2(), 0x1234_5678);
    // First touches inside the hypervisor do not show.
    let page = paging::untouched(1);
    let _ = probe::read(page + 0x1000);
    assert_eq!(cpu::cr2(), 0x1234_5678);
    Pass
}
