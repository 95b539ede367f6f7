// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Where input may lie and what the control word may say, seen through calls that have input.

use crate::call::*;
use core::arch::asm;
use guest::hv::{self, *};
use guest::{cpu, cpuid, paging, require, Pass, Verdict};

const IPI_NOBODY: [u64; 2] = [0x71, 0];

fn begin() {
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
}

fn end() -> Verdict {
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}

pub fn place() -> Verdict {
    require!(ipis() && flushes(), "no calls with input");
    begin();
    let page = paging::frames(2);
    // SAFETY: the test's pages.
    unsafe { (page as *mut [u64; 2]).write_volatile(IPI_NOBODY) };
    let at = |gpa| hv::vmcall(SEND_IPI, gpa, 1).expect("VMCALL");
    assert_eq!(
        at(page),
        SUCCESS,
        "the address of an output that is none matters"
    );
    for gpa in [
        page + 1,
        page + 4,
        page + 7,
        page + 0xff8,
        page + 0xfff,
        !7,
        1 << 52,
        1 << 63,
    ] {
        assert_eq!(at(gpa), INVALID_ALIGNMENT, "{gpa:#x}");
    }
    // With its list it would cross the page's end.
    let list = |n, gpa| hv::vmcall(FLUSH_LIST | reps(n), gpa, 0).expect("VMCALL");
    assert_eq!(list(1, page + 4096 - 24), INVALID_ALIGNMENT);
    assert_eq!(list(510, page), INVALID_ALIGNMENT);
    end()
}

pub fn words() -> Verdict {
    require!(ipis() && flushes(), "no calls with input");
    begin();
    let ipi = |control| call(Form::Memory, control, &IPI_NOBODY);
    for bit in [27, 28, 29, 30, 31, 44, 45, 46, 47, 60, 61, 62, 63] {
        assert_eq!(
            ipi(SEND_IPI | 1 << bit),
            INVALID_HYPERCALL_INPUT,
            "bit {bit}"
        );
    }
    for control in [SEND_IPI | reps(1), SEND_IPI | 1 << 48, SEND_IPI | header(1)] {
        assert_eq!(ipi(control), INVALID_HYPERCALL_INPUT, "{control:#x}");
    }
    for (count, start) in [(0, 0), (0, 1), (1, 1), (2, 3)] {
        let control = FLUSH_LIST | reps(count) | start << 48;
        assert_eq!(
            call(Form::Memory, control, &[0, 2, 1, 0x1000, 0x2000]) & 0xffff,
            INVALID_HYPERCALL_INPUT,
            "start {start} of {count}"
        );
    }
    // The control word comes before the address, the address before the parameters.
    assert_eq!(
        hv::vmcall(SEND_IPI | 1 << 27, 1, 0),
        Ok(INVALID_HYPERCALL_INPUT)
    );
    end()
}

pub fn fast() -> Verdict {
    require!(flushes(), "no flushes");
    require!(cpuid::leaf(0x4000_0003).edx >> 4 & 1 != 0, "no XMM input");
    begin();
    let list = |n: usize, input: &[u64; FAST_WORDS]| {
        hv::vmcall_fast(FLUSH_LIST | FAST | reps(n), input).expect("VMCALL")
    };
    let mut input = [0x1000; FAST_WORDS];
    input[..3].copy_from_slice(&[0, 2, 1]);
    assert_eq!(list(11, &input), SUCCESS | reps(11));
    assert_eq!(
        list(12, &input),
        INVALID_HYPERCALL_INPUT,
        "more than registers hold"
    );
    // Each word comes from its register: bad flags in the second, a bad set format in the third.
    input[1] = 1 << 40;
    assert_eq!(list(11, &input) & 0xffff, INVALID_PARAMETER);
    end()
}

/// HvCallSendSyntheticClusterIpi has three bytes of padding.
pub fn padding() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    begin();
    for form in FORMS {
        for bit in 40..64 {
            let words = [0x71 | 1 << bit, 0];
            assert_eq!(call(form, SEND_IPI, &words), SUCCESS, "bit {bit}");
        }
    }
    end()
}

/// Input in an overlay: here it is read as the guest would read it.
pub fn in_overlay() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    require!(hv::privilege(4), "no VP assist page");
    begin();
    let page = paging::frame();
    // SAFETY: the test's page. What is hidden is wrong, what shows is right.
    unsafe { (page as *mut [u64; 2]).add(8).write_volatile([0, 0]) };
    cpu::wrmsr(0x4000_0073, page | 1);
    // SAFETY: the assist page, behind its fields.
    unsafe { (page as *mut [u64; 2]).add(8).write_volatile(IPI_NOBODY) };
    let shown = hv::vmcall(SEND_IPI, page + 128, 0);
    cpu::wrmsr(0x4000_0073, 0);
    assert_eq!(shown, Ok(SUCCESS));
    assert_eq!(hv::vmcall(SEND_IPI, page + 128, 0), Ok(INVALID_PARAMETER));
    // The hypercall page has nothing that would be right.
    hv::enable_page(page).expect("enable");
    let code = hv::vmcall(SEND_IPI, page, 0);
    hv::disable_page().expect("disable");
    assert_eq!(code, Ok(INVALID_PARAMETER));
    end()
}

/// The longest list, from its beginning and from the middle: all done, the number absolute.
pub fn list() -> Verdict {
    require!(flushes(), "no flushes");
    begin();
    let page = paging::frame();
    // SAFETY: the test's page.
    unsafe {
        (page as *mut [u64; 3]).write_volatile([0, 3, 0]);
        for i in 3..512 {
            // As many pages as an element can have.
            ((page + 8 * i) as *mut u64).write_volatile(i << 24 | 0xfff);
        }
    }
    for start in [0u64, 1, 255, 508] {
        assert_eq!(
            hv::vmcall(FLUSH_LIST | reps(509) | start << 48, page, 0),
            Ok(SUCCESS | reps(509)),
            "from {start}"
        );
    }
    end()
}

/// A hint: whatever the count, in registers and in memory, it succeeds.
pub fn spin_wait() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let every = cpuid::leaf(0x4000_0004).ebx;
    assert_ne!(every, 0, "0 turns the call off");
    begin();
    for form in FORMS {
        for word in [0, u64::from(every), u64::from(u32::MAX), u64::MAX] {
            assert_eq!(call(form, 8, &[word]), SUCCESS, "{form:?} {word:#x}");
        }
    }
    assert_eq!(
        call(Form::Memory, 8 | reps(1), &[1]),
        INVALID_HYPERCALL_INPUT
    );
    assert_eq!(hv::vmcall(8, 1, 0), Ok(INVALID_ALIGNMENT));
    end()
}

/// Input in memory that nobody has touched: the page comes, the call goes on. It is all zeros: vector 0.
pub fn untouched() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    begin();
    let base = paging::untouched(64);
    for i in 40..64 {
        let gpa = base + (i << 12) + 0x100;
        assert_eq!(
            hv::vmcall(SEND_IPI, gpa, 0),
            Ok(INVALID_PARAMETER),
            "page {i}"
        );
    }
    end()
}

/// XMM registers and general ones are the caller's.
pub fn registers_kept() -> Verdict {
    require!(flushes(), "no flushes");
    begin();
    let (mut a, mut b): ([u64; 2], [u64; 2]) = ([0; 2], [0; 2]);
    let wanted = [u64::MAX, 0x1234_5678_9abc_def0];
    let (mut rax, mut rcx, mut rdx, mut r8) = (1u64, FLUSH_SPACE | FAST, 0u64, 3u64);
    let (mut r9, mut r10, mut r11) = (9u64, 10u64, 11u64);
    // SAFETY: a fast call without output; the registers are declared.
    unsafe {
        asm!("movups xmm0, [{w}]", "movups xmm5, [{w}]", "vmcall",
             "movups [{a}], xmm0", "movups [{b}], xmm5",
             w = in(reg) wanted.as_ptr(), a = in(reg) a.as_mut_ptr(), b = in(reg) b.as_mut_ptr(),
             inout("rax") rax, inout("rcx") rcx, inout("rdx") rdx, inout("r8") r8, inout("r9") r9,
             inout("r10") r10, inout("r11") r11, out("xmm0") _, out("xmm5") _);
    }
    assert_eq!(
        [rax, rcx, rdx, r8, r9, r10, r11],
        [0, FLUSH_SPACE | FAST, 0, 3, 9, 10, 11]
    );
    assert_eq!((a, b), (wanted, wanted));
    end()
}
