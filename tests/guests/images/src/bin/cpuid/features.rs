// SPDX-License-Identifier: GPL-2.0 OR MIT
//! One instruction of each feature that CPUID shows: it runs, and where that is
//! cheap to ask, it computes the right thing.

use guest::cpuid::{self, Feature};
use guest::probe::Fault;
use guest::{cpu, guarded_asm, harness, hv, idt, require, xstate, Pass, Verdict};

type Run = fn() -> Result<(), Fault>;

/// Memory that instructions may read and write.
#[repr(C, align(64))]
struct Scratch([u64; 16]);
static mut SCRATCH: Scratch = Scratch([0; 16]);

fn scratch() -> u64 {
    core::ptr::addr_of!(SCRATCH) as u64
}

/// `runs!(FEATURE { "instruction", operands } …)`: a table of rows.
macro_rules! runs {
    ($($feature:ident { $($asm:tt)* })*) => {
        // SAFETY: the instructions change declared registers and SCRATCH only.
        &[$((stringify!($feature), cpuid::$feature, (|| unsafe { guarded_asm!($($asm)*) }) as Run)),*]
    };
}

fn check(table: &[(&'static str, Feature, Run)]) {
    for (name, feature, run) in table {
        if feature.present() {
            if let Err(fault) = run() {
                harness::fail(format_args!("{name} is shown but raises {fault:?}"));
            }
        }
    }
}

pub fn integer() -> Verdict {
    check(runs! {
        CX16 { "lock cmpxchg16b [rdi]", in("rdi") scratch(), inout("rax") 0u64 => _, inout("rdx") 0u64 => _, in("rcx") 0u64 }
        MOVBE { "movbe rax, [rdi]", in("rdi") scratch(), out("rax") _ }
        POPCNT { "popcnt rax, rdi", in("rdi") 7u64, out("rax") _ }
        LZCNT { "lzcnt rax, rdi", in("rdi") 7u64, out("rax") _ }
        BMI1 { "andn rax, rdi, rsi", in("rdi") 1u64, in("rsi") 3u64, out("rax") _ }
        BMI2 { "pdep rax, rdi, rsi", in("rdi") 1u64, in("rsi") 3u64, out("rax") _ }
        ADX { "adcx rax, rdi", in("rdi") 1u64, inout("rax") 0u64 => _ }
        RDRAND { "rdrand rax", out("rax") _ }
        RDSEED { "rdseed rax", out("rax") _ }
        LAHF { "lahf", out("rax") _ }
        PREFETCHW { "prefetchw [rdi]", in("rdi") scratch() }
        CLFSH { "clflush [rdi]", in("rdi") scratch() }
        CLFLUSHOPT { "clflushopt [rdi]", in("rdi") scratch() }
        CLWB { "clwb [rdi]", in("rdi") scratch() }
        MOVDIRI { "movdiri [rdi], rax", in("rdi") scratch(), in("rax") 0u64 }
        MOVDIR64B { "movdir64b rdi, [rsi]", in("rdi") scratch(), in("rsi") scratch() }
    });
    let (lzcnt, pdep, popcnt): (u64, u64, u64);
    // SAFETY: computes in registers; only run where shown.
    unsafe {
        if cpuid::LZCNT.present() {
            core::arch::asm!("lzcnt {0}, {1}", out(reg) lzcnt, in(reg) 0xffu64);
            assert_eq!(lzcnt, 56, "LZCNT ran as BSR");
        }
        if cpuid::BMI2.present() {
            core::arch::asm!("pdep {0}, {1}, {2}", out(reg) pdep, in(reg) 0b101u64, in(reg) 0xf0u64);
            assert_eq!(pdep, 0x50);
        }
        if cpuid::POPCNT.present() {
            core::arch::asm!("popcnt {0}, {1}", out(reg) popcnt, in(reg) 0xff00ffu64);
            assert_eq!(popcnt, 16);
        }
    }
    Pass
}

pub fn sse() -> Verdict {
    check(runs! {
        SSE3 { "haddps xmm0, xmm1", out("xmm0") _ }
        SSSE3 { "pabsb xmm0, xmm1", out("xmm0") _ }
        SSE4_1 { "pmulld xmm0, xmm1", out("xmm0") _ }
        SSE4_2 { "crc32 rax, rdi", inout("rax") 0u64 => _, in("rdi") 1u64 }
        PCLMULQDQ { "pclmulqdq xmm0, xmm1, 0", out("xmm0") _ }
        AESNI { "aesenc xmm0, xmm1", out("xmm0") _ }
        SHA { "sha1nexte xmm0, xmm1", out("xmm0") _ }
        GFNI { "gf2p8mulb xmm0, xmm1", out("xmm0") _ }
    });
    Pass
}

pub fn avx() -> Verdict {
    require!(cpuid::AVX.present(), "no AVX");
    assert_eq!(xstate::supported() & 7, 7, "AVX without XCR0 bits 0 to 2");
    xstate::enable(xstate::SSE | xstate::AVX);
    check(runs! {
        AVX { "vaddps ymm0, ymm1, ymm2", out("xmm0") _ }
        AVX2 { "vpaddd ymm0, ymm1, ymm2", out("xmm0") _ }
        FMA { "vfmadd132ps ymm0, ymm1, ymm2", out("xmm0") _ }
        F16C { "vcvtph2ps ymm0, xmm1", out("xmm0") _ }
        VAES { "vaesenc ymm0, ymm1, ymm2", out("xmm0") _ }
    });
    xstate::disable();
    Pass
}

pub fn avx512() -> Verdict {
    require!(cpuid::AVX512F.present(), "no AVX-512");
    assert_eq!(
        xstate::supported() & 0xe7,
        0xe7,
        "AVX-512 without its XCR0 bits"
    );
    xstate::enable(xstate::SSE | xstate::AVX | xstate::AVX512);
    check(runs! {
        AVX512F { "vpaddd zmm0, zmm1, zmm2", out("xmm0") _ }
    });
    xstate::disable();
    Pass
}

pub fn system() -> Verdict {
    // Flat descriptor: type 2 drops everything, all contexts.
    let invpcid = [0u64; 2];
    // SAFETY: only aligned, static memory is written.
    unsafe { SCRATCH.0[0] = invpcid[0] };
    check(runs! {
        RDTSCP { "rdtscp", out("rax") _, out("rcx") _, out("rdx") _ }
        RDPID { "rdpid rax", out("rax") _ }
        INVPCID { "invpcid rax, [rdi]", in("rax") 2u64, in("rdi") scratch() }
        SERIALIZE { "serialize" }
        WAITPKG { "umonitor rax", in("rax") scratch() }
    });
    if cpuid::FSGSBASE.present() {
        cpu::set_cr4(cpu::cr4() | cpu::CR4_FSGSBASE);
        // SAFETY: reads FS.base.
        let result = unsafe { guarded_asm!("rdfsbase rax", out("rax") _) };
        cpu::set_cr4(cpu::cr4() & !cpu::CR4_FSGSBASE);
        result.expect("RDFSBASE");
        // SAFETY: faults.
        let result = unsafe { guarded_asm!("rdfsbase rax", out("rax") _) };
        assert_eq!(result.expect_err("CR4.FSGSBASE = 0").vector, idt::UD);
    }
    if cpuid::XSAVE.present() {
        xstate::enable(xstate::SSE | xstate::AVX);
        check(runs! {
            XGETBV1 { "xgetbv", in("ecx") 1u32, out("rax") _, out("rdx") _ }
        });
        xstate::disable();
    }
    Pass
}

/// Instructions that a hypervisor can and must make #UD when CPUID hides them.
pub fn absent() -> Verdict {
    // SAFETY: each of them faults or changes declared registers.
    let table: [(&str, Feature, Run); 4] = unsafe {
        [
            (
                "RDTSCP",
                cpuid::RDTSCP,
                || guarded_asm!("rdtscp", out("rax") _, out("rcx") _, out("rdx") _),
            ),
            (
                "INVPCID",
                cpuid::INVPCID,
                || guarded_asm!("invpcid rax, [rdi]", in("rax") 2u64, in("rdi") scratch()),
            ),
            (
                "WAITPKG",
                cpuid::WAITPKG,
                || guarded_asm!("umonitor rax", in("rax") scratch()),
            ),
            ("VMX", cpuid::VMX, || guarded_asm!("vmxoff")),
        ]
    };
    for (name, feature, run) in table {
        let unchecked = name == "WAITPKG" && hv::tcg();
        if !feature.present() && !unchecked {
            let vector = run().map_err(|fault| fault.vector);
            assert_eq!(vector, Err(idt::UD), "{name} is hidden but runs");
        }
    }
    Pass
}

pub fn monitor() -> Verdict {
    // SAFETY: MONITOR only arms; nothing waits.
    let result =
        unsafe { guarded_asm!("monitor", in("rax") scratch(), in("ecx") 0u32, in("edx") 0u32) };
    if cpuid::MONITOR.present() {
        assert_eq!(result, Ok(()));
    } else {
        assert_eq!(
            result.map_err(|fault| fault.vector),
            Err(idt::UD),
            "hidden MONITOR runs"
        );
    }
    Pass
}
