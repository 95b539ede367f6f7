// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Extended state: XCR0 and its faults, and registers that survive exits and other VPs.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};
use guest::cpuid::{self, subleaf};
use guest::expect::fault;
use guest::{
    apic, cpu, guarded_asm, idt, image, paging, probe, require, smp, test, time, user, xstate,
    Pass, Verdict,
};

#[repr(C, align(64))]
struct Area([u8; 4096]);

fn xcr0_values() -> Verdict {
    require!(cpuid::XSAVE.present(), "no XSAVE");
    let supported = xstate::supported();
    cpu::set_cr4(cpu::cr4() | cpu::CR4_OSXSAVE);
    let mut values = [
        xstate::X87,
        xstate::X87 | xstate::SSE,
        supported & 7,
        supported,
    ];
    if cpuid::AVX512F.present() {
        values[2] = 0xe7;
    }
    for value in values {
        assert_eq!(probe::xsetbv(0, value), Ok(()), "XCR0 = {value:#x}");
        assert_eq!(probe::xgetbv(0), Ok(value));
    }
    xstate::disable();
    Pass
}

fn xcr0_faults() -> Verdict {
    require!(cpuid::XSAVE.present(), "no XSAVE");
    let supported = xstate::supported();
    cpu::set_cr4(cpu::cr4() | cpu::CR4_OSXSAVE);
    fault(probe::xsetbv(0, 0), idt::GP, "XCR0 without x87");
    fault(probe::xsetbv(0, xstate::SSE), idt::GP, "XCR0 without x87");
    fault(
        probe::xsetbv(0, xstate::X87 | xstate::AVX),
        idt::GP,
        "AVX without SSE",
    );
    fault(probe::xsetbv(1, 1), idt::GP, "XCR1");
    fault(probe::xsetbv(0, 1 << 63 | 1), idt::GP, "bit 63");
    for bit in 0..63 {
        if supported >> bit & 1 == 0 {
            fault(
                probe::xsetbv(0, xstate::X87 | xstate::SSE | 1 << bit),
                idt::GP,
                "an unsupported bit",
            );
        }
    }
    if supported & xstate::AVX512 != 0 {
        fault(probe::xsetbv(0, 7 | 1 << 5), idt::GP, "a part of AVX-512");
        fault(
            probe::xsetbv(0, 3 | xstate::AVX512),
            idt::GP,
            "AVX-512 without AVX",
        );
    }
    fault(probe::xgetbv(2), idt::GP, "XGETBV 2");
    let frame = user::run(&[0x0f, 0x01, 0xd1], 0);
    assert_eq!(
        (frame.vector as u8, frame.error),
        (idt::GP, 0),
        "XSETBV at CPL 3"
    );
    xstate::disable();
    fault(probe::xsetbv(0, 1), idt::UD, "XSETBV with CR4.OSXSAVE = 0");
    fault(probe::xgetbv(0), idt::UD, "XGETBV with CR4.OSXSAVE = 0");
    Pass
}

/// AVX is #UD until XCR0 lets it; a bit off again is effective at once.
fn avx_needs_xcr0() -> Verdict {
    require!(cpuid::AVX.present(), "no AVX");
    let run = || {
        // SAFETY: uses YMM0 only.
        unsafe { guarded_asm!("vpxor ymm0, ymm0, ymm0", out("xmm0") _) }.map_err(|f| f.vector)
    };
    let short = || {
        // SAFETY: uses XMM0 only.
        unsafe { guarded_asm!("vxorps xmm0, xmm0, xmm0", out("xmm0") _) }.map_err(|f| f.vector)
    };
    assert_eq!(short(), Err(idt::UD), "CR4.OSXSAVE = 0");
    xstate::enable(xstate::SSE);
    assert_eq!(short(), Err(idt::UD), "XCR0 = 3");
    xstate::enable(xstate::SSE | xstate::AVX);
    assert_eq!(short(), Ok(()));
    if cpuid::AVX2.present() {
        assert_eq!(run(), Ok(()));
    }
    xstate::enable(xstate::SSE);
    assert_eq!(short(), Err(idt::UD), "XCR0 = 3 again");
    xstate::disable();
    Pass
}

fn save_and_restore() -> Verdict {
    require!(cpuid::XSAVE.present(), "no XSAVE");
    let xcr0 = xstate::enable(u64::MAX & !xstate::AMX);
    assert!(subleaf(0xd, 0).ebx as usize <= 4096);
    let page = paging::frames(1);
    let (value, low): (u64, u64);
    // SAFETY: the area is a page of this test, large enough by the leaf.
    unsafe {
        asm!("movq xmm3, {0}", "xsave64 [{2}]", "pxor xmm3, xmm3", "xrstor64 [{2}]", "movq {1}, xmm3",
             in(reg) 0x1122_3344_5566_7788u64, out(reg) value, in(reg) page,
             in("eax") xcr0 as u32, in("edx") (xcr0 >> 32) as u32, out("xmm3") _);
        low = ((page + 512) as *const u64).read_volatile();
    }
    assert_eq!(value, 0x1122_3344_5566_7788);
    assert_eq!(low & !xcr0, 0, "XSTATE_BV {low:#x} beyond XCR0 {xcr0:#x}");
    assert!(low & xstate::SSE != 0, "XSTATE_BV {low:#x}");
    // A header with a bit beyond XCR0, or with reserved bytes set, is refused.
    // SAFETY: as above.
    unsafe {
        ((page + 512) as *mut u64).write_volatile(1 << 62);
        let result =
            guarded_asm!("xrstor64 [{0}]", in(reg) page, in("eax") u32::MAX, in("edx") u32::MAX);
        fault(result, idt::GP, "XRSTOR of a bit beyond XCR0");
        ((page + 512) as *mut u64).write_volatile(0);
        ((page + 512 + 16) as *mut u64).write_volatile(1);
        let result =
            guarded_asm!("xrstor64 [{0}]", in(reg) page, in("eax") u32::MAX, in("edx") u32::MAX);
        fault(result, idt::GP, "XRSTOR with reserved bytes");
    }
    xstate::disable();
    Pass
}

/// Fills all of YMM or ZMM, exits in many ways, and looks again.
fn kept(seed: u64) {
    apic::init_best();
    let wide = cpuid::AVX512F.present();
    let xcr0 = xstate::enable(xstate::SSE | xstate::AVX | xstate::AVX512 | xstate::PKRU);
    let mut before = Area([0; 4096]);
    let mut after = Area([0; 4096]);
    for (i, byte) in before.0.iter_mut().enumerate() {
        *byte = (i as u64 * 37 + seed * 101 + 7) as u8;
    }
    apic::write(apic::LVT_TIMER, 0x40);
    for round in 0..30u32 {
        apic::write(apic::TIMER_INITIAL, if round % 3 == 0 { 20_000 } else { 0 });
        // Loads, exits and stores in one block: Rust code in between would use the registers.
        // SAFETY: the areas are this function's; every vector register is declared.
        unsafe {
            if wide {
                asm!(
                    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                    "vmovdqu64 zmm\\n, [{before} + \\n * 64]",
                    ".endr",
                    "kmovw k1, {mask:e}",
                    "cmp {round:e}, 0", "jne 2f",
                    "sti", "hlt", "cli",
                    "2:", "mov rsi, rbx", "xor eax, eax", "cpuid", "mov rbx, rsi",
                    "mov dx, 0x3fd", "in al, dx",
                    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                    "vmovdqu64 [{after} + \\n * 64], zmm\\n",
                    ".endr",
                    "kmovw {mask:e}, k1",
                    "vzeroupper",
                    before = in(reg) &before, after = in(reg) &mut after, round = in(reg) round % 3,
                    mask = inout(reg) 0x5a5au32 ^ round => _,
                    out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                    out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                );
            } else {
                asm!(
                    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                    "vmovdqu ymm\\n, [{before} + \\n * 32]",
                    ".endr",
                    "cmp {round:e}, 0", "jne 2f",
                    "sti", "hlt", "cli",
                    "2:", "mov rsi, rbx", "xor eax, eax", "cpuid", "mov rbx, rsi",
                    "mov dx, 0x3fd", "in al, dx",
                    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                    "vmovdqu [{after} + \\n * 32], ymm\\n",
                    ".endr",
                    "vzeroupper",
                    before = in(reg) &before, after = in(reg) &mut after, round = in(reg) round % 3,
                    out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                    out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                );
            }
        }
        let length = if wide { 32 * 64 } else { 16 * 32 };
        for i in 0..length {
            assert!(
                before.0[i] == after.0[i],
                "round {round}: byte {i} of {length} is {:#x}",
                after.0[i]
            );
        }
        assert_eq!(probe::xgetbv(0), Ok(xcr0), "XCR0");
    }
    xstate::disable();
}

fn survives_exits() -> Verdict {
    require!(cpuid::AVX.present(), "no AVX");
    idt::hook(0x40, |_| apic::eoi());
    kept(1);
    Pass
}

/// All VPs at once, each with values of its own.
fn survives_other_vps() -> Verdict {
    require!(cpuid::AVX.present(), "no AVX");
    let cpus = smp::start();
    require!(cpus > 1, "one processor");
    idt::hook(0x40, |_| apic::eoi());
    extern "C" fn job(seed: u64) {
        kept(seed);
    }
    for other in 1..cpus {
        smp::post(other, job, 10 + other as u64);
    }
    kept(2);
    for other in 1..cpus {
        smp::join(other);
    }
    Pass
}

/// XCR0 is each VP's own.
fn xcr0_is_private() -> Verdict {
    require!(cpuid::AVX.present(), "no AVX");
    require!(smp::start() > 1, "one processor");
    static PHASE: AtomicU32 = AtomicU32::new(0);
    PHASE.store(0, Ordering::Release);
    extern "C" fn other(_: u64) {
        xstate::enable(xstate::SSE);
        PHASE.store(1, Ordering::Release);
        assert!(time::reached(|| PHASE.load(Ordering::Acquire) == 2));
        assert_eq!(probe::xgetbv(0), Ok(3));
        xstate::disable();
    }
    xstate::enable(xstate::SSE | xstate::AVX);
    smp::post(1, other, 0);
    assert!(time::reached(|| PHASE.load(Ordering::Acquire) == 1));
    for _ in 0..10 {
        let _ = core::hint::black_box(cpuid::leaf(0));
        assert_eq!(probe::xgetbv(0), Ok(7));
    }
    PHASE.store(2, Ordering::Release);
    smp::join(1);
    xstate::disable();
    Pass
}

fn pkru() -> Verdict {
    require!(cpuid::PKU.present(), "no PKU");
    cpu::set_cr4(cpu::cr4() | cpu::CR4_PKE);
    for value in [0x5555_5554u32, 0, 0xffff_fffc] {
        let read: u32;
        // SAFETY: no user pages are in use.
        unsafe {
            asm!("wrpkru", in("eax") value, in("ecx") 0, in("edx") 0);
            let _ = core::hint::black_box(cpuid::leaf(0));
            let _ = core::hint::black_box(cpu::inb(0x3fd));
            asm!("rdpkru", out("eax") read, in("ecx") 0, out("edx") _);
        }
        assert_eq!(read, value, "PKRU after exits");
    }
    // SAFETY: back to all access.
    unsafe { asm!("wrpkru", in("eax") 0, in("ecx") 0, in("edx") 0) };
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_PKE);
    // SAFETY: faults.
    let result = unsafe { guarded_asm!("rdpkru", out("eax") _, in("ecx") 0, out("edx") _) };
    fault(result, idt::UD, "RDPKRU with CR4.PKE = 0");
    Pass
}

/// x87 and MXCSR state survive exits.
fn x87_and_mxcsr() -> Verdict {
    let (control, mxcsr): (u16, u32) = (0x027f, 0x5fc0);
    let (mut control_after, mut mxcsr_after, mut pi) = (0u16, 0u32, 0u64);
    // SAFETY: MXCSR and x87 are put back to their defaults.
    unsafe {
        asm!("fninit", "fldcw [{c}]", "fldpi", "ldmxcsr [{m}]", "mov rsi, rbx", "xor eax, eax", "cpuid", "mov rbx, rsi",
             "mov dx, 0x3fd", "in al, dx", "fstcw [{ca}]", "stmxcsr [{ma}]", "fstp qword ptr [{p}]", "fninit",
             c = in(reg) &control, m = in(reg) &mxcsr, ca = in(reg) &mut control_after, ma = in(reg) &mut mxcsr_after,
             p = in(reg) &mut pi, out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
             out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _,
             out("st(6)") _, out("st(7)") _);
        let usual = 0x1f80u32;
        asm!("ldmxcsr [{0}]", in(reg) &usual);
    }
    assert_eq!((control_after, mxcsr_after), (control, mxcsr));
    assert_eq!(f64::from_bits(pi), core::f64::consts::PI);
    Pass
}

image!(
    "xsave",
    [
        test!(x87_and_mxcsr, "-", x87_and_mxcsr),
        test!(xcr0_values, "-", xcr0_values),
        test!(xcr0_faults, "-", xcr0_faults),
        test!(avx_needs_xcr0, "-", avx_needs_xcr0),
        test!(save_and_restore, "-", save_and_restore),
        test!(survives_exits, "-", survives_exits),
        test!(survives_other_vps, "-", survives_other_vps),
        test!(xcr0_is_private, "-", xcr0_is_private),
        test!(pkru, "-", pkru),
    ]
);
