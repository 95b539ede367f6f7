// SPDX-License-Identifier: GPL-2.0 OR MIT
//! VMCALL: control word, result, registers, modes.

use core::arch::asm;
use guest::hv::*;
use guest::{compat, cpu, cpuid, hv, idt, require, user, Pass, Verdict};

/// A code that no TLFS names.
const UNKNOWN: u64 = 0x7777;
const FAST: u64 = 1 << 16;

fn call(control: u64) -> u64 {
    hv::vmcall(control, 0, 0).expect("VMCALL")
}

fn identified() {
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
}

pub fn unknown_code() -> Verdict {
    require!(hv::present(), "no Hv#1");
    identified();
    assert_eq!(call(UNKNOWN), INVALID_HYPERCALL_CODE);
    assert_eq!(call(UNKNOWN | FAST), INVALID_HYPERCALL_CODE);
    // Pages that do not matter are not looked at.
    assert_eq!(hv::vmcall(UNKNOWN, 7, u64::MAX), Ok(INVALID_HYPERCALL_CODE));
    assert_eq!(call(0), INVALID_HYPERCALL_CODE, "code 0");
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}

pub fn extended_code() -> Verdict {
    require!(hv::present(), "no Hv#1");
    require!(
        cpuid::leaf(0x4000_0003).ebx >> 20 & 1 == 0,
        "extended calls are on"
    );
    identified();
    let status = [0x8001, 0x8002, 0xc001, 0xffff].map(call);
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    assert_eq!(status, [INVALID_HYPERCALL_CODE; 4]);
    Pass
}

/// All codes outside the tables: each returns 2, none faults or hangs.
pub fn all_codes_return() -> Verdict {
    require!(hv::present(), "no Hv#1");
    identified();
    let extended = cpuid::leaf(0x4000_0003).ebx >> 20 & 1 != 0;
    let end = if extended { 0x8000 } else { 0x1_0000 };
    for code in 0x200..end {
        let status = call(code);
        assert!(
            status == INVALID_HYPERCALL_CODE,
            "code {code:#x}: {status:#x}"
        );
    }
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}

pub fn reserved_bits() -> Verdict {
    require!(hv::present(), "no Hv#1");
    identified();
    for bit in [27, 28, 29, 30, 44, 45, 46, 47, 60, 61, 62, 63] {
        let status = call(UNKNOWN | 1 << bit);
        assert!(
            status & 0xffff == INVALID_HYPERCALL_INPUT,
            "bit {bit}: {status:#x}"
        );
    }
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}

pub fn result_fields() -> Verdict {
    require!(hv::present(), "no Hv#1");
    identified();
    for control in [UNKNOWN, UNKNOWN | FAST, UNKNOWN | 5 << 32] {
        assert_eq!(
            call(control) >> 16,
            0,
            "bits above the status for {control:#x}"
        );
    }
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}

pub fn registers_kept() -> Verdict {
    require!(hv::present(), "no Hv#1");
    identified();
    let (
        mut rcx,
        mut rdx,
        mut rsi,
        mut rdi,
        mut r8,
        mut r9,
        mut r10,
        mut r11,
        mut r12,
        mut r13,
        mut r14,
        mut r15,
    ) = (
        UNKNOWN, 2u64, 3u64, 4u64, 8u64, 9u64, 10u64, 11u64, 12u64, 13u64, 14u64, 15u64,
    );
    let xmm: u64;
    let mut rax = 1u64;
    // SAFETY: an unknown code changes no memory.
    unsafe {
        asm!("movq xmm0, r9", "vmcall", "movq {xmm}, xmm0", xmm = out(reg) xmm, inout("rax") rax, inout("rcx") rcx,
             inout("rdx") rdx, inout("rsi") rsi, inout("rdi") rdi, inout("r8") r8, inout("r9") r9, inout("r10") r10,
             inout("r11") r11, inout("r12") r12, inout("r13") r13, inout("r14") r14, inout("r15") r15, out("xmm0") _);
    }
    let registers = [
        rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15,
    ];
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    assert_eq!(
        registers,
        [
            INVALID_HYPERCALL_CODE,
            UNKNOWN,
            2,
            3,
            4,
            8,
            9,
            10,
            11,
            12,
            13,
            14,
            15
        ]
    );
    assert_eq!(xmm, 9);
    Pass
}

pub fn cpl3() -> Verdict {
    require!(hv::present(), "no Hv#1");
    identified();
    let frame = user::run(&[0x0f, 0x01, 0xc1], 0);
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    assert_eq!((frame.vector as u8, frame.rip), (idt::UD, user::CODE));
    Pass
}

/// TLFS is silent; hvrs raises #UD.
pub fn without_os_id() -> Verdict {
    require!(hv::present(), "no Hv#1");
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    let result = hv::vmcall(UNKNOWN, 0, 0);
    assert_eq!(result.map_err(|f| f.vector), Err(idt::UD));
    Pass
}

/// In 32-bit code the control word is EDX:EAX, and so is the result.
pub fn compatibility_mode() -> Verdict {
    require!(hv::present(), "no Hv#1");
    identified();
    // mov ecx, 1 << 27 (reserved in the control word, which this is not); vmcall; retf
    let result = compat::run(
        &[0xb9, 0, 0, 0, 8, 0x0f, 0x01, 0xc1, 0xcb],
        UNKNOWN as u32,
        0,
    );
    // With a reserved bit of EDX: input.
    let reserved = compat::run(&[0x0f, 0x01, 0xc1, 0xcb], UNKNOWN as u32, 1 << 31);
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    assert_eq!(result, (INVALID_HYPERCALL_CODE as u32, 0));
    assert_eq!(reserved, (INVALID_HYPERCALL_INPUT as u32, 0));
    Pass
}
