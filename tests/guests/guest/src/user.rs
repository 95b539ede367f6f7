// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Excursions to CPL 3: a few bytes of code in pages of their own, until an exception.

use crate::idt::{self, Frame, Outcome};
use crate::paging::{self, P, RW, US};
use crate::percpu::{self, SEL_USER_CODE64, SEL_USER_DATA};
use core::arch::asm;

/// Where the code lies.
pub const CODE: u64 = paging::WINDOW + 0x1000_0000;
/// Top of the stack.
pub const STACK_TOP: u64 = CODE + 0x3000;
const LEFT_USER: u64 = 0x55;

pub(crate) fn came_back(frame: &Frame) -> ! {
    // SAFETY: only this processor uses the cell.
    unsafe { *percpu::this().last.get() = Some(*frame) };
    idt::leave(LEFT_USER)
}

extern "C" fn enter(rflags: u64) {
    // SAFETY: the frame names user segments of this GDT and mapped pages; the
    // exception that ends the excursion leaves to `run`.
    unsafe {
        asm!(
            "push {ss}", "push {rsp}", "push {flags}", "push {cs}", "push {rip}",
            "xor eax, eax", "xor ecx, ecx", "xor edx, edx", "xor ebx, ebx", "xor esi, esi", "xor edi, edi",
            "iretq",
            ss = in(reg) u64::from(SEL_USER_DATA), rsp = in(reg) STACK_TOP, flags = in(reg) rflags | 2,
            cs = in(reg) u64::from(SEL_USER_CODE64), rip = in(reg) CODE, options(noreturn)
        );
    }
}

/// Runs 64-bit `code` at CPL 3 with all registers zero; the exception that ended it.
/// Interrupts are off meanwhile; `rflags` may set others, as TF or AC.
pub fn run(code: &[u8], rflags: u64) -> Frame {
    assert!(code.len() <= 256);
    let slot = paging::entry(paging::root(), CODE, 1);
    if slot.load(core::sync::atomic::Ordering::Acquire) == 0 {
        for page in 0..3 {
            paging::map(CODE + page * 4096, paging::frame(), P | RW | US);
        }
        paging::open_to_user(CODE);
    }
    // SAFETY: the page belongs to this module and is mapped writable.
    unsafe {
        core::ptr::write_bytes(CODE as *mut u8, 0xcc, 4096);
        core::ptr::copy_nonoverlapping(code.as_ptr(), CODE as *mut u8, code.len());
    }
    let outcome = idt::guarded(enter, rflags);
    assert_eq!(outcome, Outcome::Left(LEFT_USER), "no way back from CPL 3");
    // SAFETY: `came_back` stored it on this processor.
    unsafe { (*percpu::this().last.get()).take() }.expect("stored by came_back")
}
