// SPDX-License-Identifier: GPL-2.0 OR MIT
//! 32-bit code under long mode (compatibility mode), at CPL 0.

use crate::{paging, percpu};
use core::arch::asm;

/// What a far call reads: an offset and a selector.
#[repr(C, packed)]
struct FarPointer {
    offset: u32,
    selector: u16,
}

/// Runs `code`, 32-bit and ending in RETF, with `eax` and `edx`; gives both back.
/// It may change EAX, ECX and EDX.
pub fn run(code: &[u8], eax: u32, edx: u32) -> (u32, u32) {
    let page = paging::frame();
    let target = FarPointer {
        offset: page as u32,
        selector: percpu::SEL_CODE32,
    };
    let (mut rax, mut rdx) = (u64::from(eax), u64::from(edx));
    // SAFETY: a fresh page below 4 GiB, as the stack is; RETF takes what the
    // 32-bit far call pushed. The red zone is skipped. The registers that only
    // 64-bit code has are undefined afterwards by the SDM, so all are declared.
    unsafe {
        core::ptr::copy_nonoverlapping(code.as_ptr(), page as *mut u8, code.len());
        asm!(
            "push rbx", "push rbp", "sub rsp, 128",
            "call fword ptr [rsi]",
            "add rsp, 128", "pop rbp", "pop rbx",
            inout("rsi") &target => _, inout("rax") rax, inout("rdx") rdx, out("rcx") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _
        );
    }
    (rax as u32, rdx as u32)
}
