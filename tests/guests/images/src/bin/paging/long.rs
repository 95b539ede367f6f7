// SPDX-License-Identifier: GPL-2.0 OR MIT
//! 4-level paging: sizes, rights, accessed and dirty, other roots.

use core::sync::atomic::Ordering;
use guest::msr::{EFER_NXE, IA32_EFER};
use guest::paging::{self, A, D, NX, P, PS, RW, US, WINDOW};
use guest::{cpu, hv, idt, probe, require, user, Pass, Verdict};

const VA: u64 = WINDOW + 0x1_0000_0000;

fn outcome<T>(result: Result<T, probe::Fault>) -> Result<(), (u8, u64)> {
    result.map(drop).map_err(|f| (f.vector, f.error))
}

fn filled(value: u64) -> u64 {
    let page = paging::frame();
    // SAFETY: a page of this test.
    unsafe { (page as *mut u64).write_volatile(value) };
    page
}

pub fn accessed_and_dirty() -> Verdict {
    let page = filled(7);
    paging::map(VA, page, P | RW);
    let levels = [1, 2, 3, 4].map(|level| paging::entry(paging::root(), VA, level));
    for entry in &levels[1..3] {
        entry.fetch_and(!(A | D), Ordering::AcqRel);
    }
    cpu::set_cr3(cpu::cr3());
    let bits = || levels.map(|entry| entry.load(Ordering::Acquire) & (A | D));
    assert_eq!(bits()[0], 0);
    assert_eq!(probe::read(VA), Ok(7));
    assert_eq!(bits(), [A, A, A, A], "after a read");
    // SAFETY: a page of this test.
    assert_eq!(unsafe { probe::write(VA, 8) }, Ok(()));
    assert_eq!(bits(), [A | D, A, A, A], "after a write");
    paging::unmap(VA);
    Pass
}

pub fn large_pages() -> Verdict {
    // 2 MiB at 32 MiB: RAM; reached by both sizes.
    const PA: u64 = 46 << 20;
    let va = VA + 0x4000_0000;
    // SAFETY: RAM that `frames` has not handed out yet, checked below by value only.
    unsafe { ((PA + 0x12_3450) as *mut u64).write_volatile(0x2222_3333) };
    let slot = paging::entry(paging::root(), va, 2);
    slot.store(PA | P | RW | PS, Ordering::Release);
    assert_eq!(probe::read(va + 0x12_3450), Ok(0x2222_3333));
    assert_eq!(slot.load(Ordering::Acquire) & (A | D), A);
    // Reserved bits 20:13 of a 2 MiB entry.
    slot.store(PA | P | RW | PS | 1 << 13, Ordering::Release);
    cpu::invlpg(va);
    let reserved = outcome(probe::read(va));
    slot.store(0, Ordering::Release);
    cpu::invlpg(va);
    require!(
        !hv::tcg(),
        "TCG leaves out the present bit of the error code"
    );
    assert_eq!(reserved, Err((idt::PF, 9)));
    Pass
}

pub fn no_execute() -> Verdict {
    let page = filled(0xc3);
    paging::map(VA, page, P | RW | NX);
    // SAFETY: a RET is there.
    let call = || outcome(unsafe { probe::call(VA) });
    assert_eq!(call(), Err((idt::PF, 0x11)));
    assert_eq!(probe::read(VA), Ok(0xc3));
    // With EFER.NXE = 0 the bit is reserved.
    let efer = cpu::rdmsr(IA32_EFER);
    cpu::wrmsr(IA32_EFER, efer & !EFER_NXE);
    cpu::invlpg(VA);
    let without = outcome(probe::read(VA));
    cpu::wrmsr(IA32_EFER, efer);
    cpu::invlpg(VA);
    paging::map(VA, page, P | RW);
    assert_eq!(call(), Ok(()));
    paging::unmap(VA);
    require!(
        !hv::tcg(),
        "TCG leaves out the present bit of the error code"
    );
    assert_eq!(without, Err((idt::PF, 9)), "NX with NXE = 0");
    Pass
}

/// What CPL 3 may do with pages of each kind; every error code says user.
pub fn user_rights() -> Verdict {
    let page = filled(0);
    paging::map(VA, page, P | RW | US);
    paging::open_to_user(VA);
    // movabs rax, VA; mov rcx, [rax] / mov [rax], rcx / jmp rax
    let mut code = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0x0b];
    code[2..10].copy_from_slice(&VA.to_le_bytes());
    let mut act = |operation: [u8; 3], flags: u64| {
        paging::map(VA, page, flags);
        code[10..13].copy_from_slice(&operation);
        let frame = user::run(&code, 0);
        (frame.vector as u8, frame.error)
    };
    let (load, store, jump) = ([0x48, 0x8b, 0x08], [0x48, 0x89, 0x08], [0xff, 0xe0, 0x90]);
    let fine = (idt::UD, 0);
    assert_eq!(act(load, P | US), fine, "load");
    assert_eq!(act(store, P | RW | US), fine, "store");
    assert_eq!(
        act(store, P | US),
        (idt::PF, 7),
        "store to a read-only page"
    );
    assert_eq!(
        act(load, P | RW),
        (idt::PF, 5),
        "load from a supervisor page"
    );
    assert_eq!(
        act(store, P | RW),
        (idt::PF, 7),
        "store to a supervisor page"
    );
    assert_eq!(act(load, 0), (idt::PF, 4), "load from nothing");
    assert_eq!(
        act(jump, P | RW | US | NX),
        (idt::PF, 0x15),
        "fetch from a no-execute page"
    );
    paging::unmap(VA);
    Pass
}

/// Another root shows other memory at the same address, at once.
pub fn other_root() -> Verdict {
    let (here, there) = (filled(1), filled(2));
    let other = paging::frame();
    // SAFETY: pages of this test; the copy shares the identity map.
    unsafe { core::ptr::copy_nonoverlapping(paging::root() as *const u8, other as *mut u8, 4096) };
    let top = VA + (1 << 39); // a top-level entry of its own in each root
    paging::entry(other, top, 1).store(there | P | RW, Ordering::Release);
    paging::map(top, here, P | RW);
    let before = cpu::cr3();
    for _ in 0..100 {
        cpu::set_cr3(other);
        let seen = probe::read(top);
        cpu::set_cr3(before);
        assert_eq!((seen, probe::read(top)), (Ok(2), Ok(1)));
    }
    paging::unmap(top);
    Pass
}

/// Two addresses of one page: a write by one is read by the other.
pub fn aliases() -> Verdict {
    let page = filled(0);
    paging::map(VA, page, P | RW);
    paging::map(VA + 4096, page, P | RW);
    for value in 0..100 {
        // SAFETY: a page of this test.
        assert_eq!(unsafe { probe::write(VA, value) }, Ok(()));
        assert_eq!(
            (probe::read(VA + 4096), probe::read(page)),
            (Ok(value), Ok(value))
        );
    }
    paging::unmap(VA);
    paging::unmap(VA + 4096);
    Pass
}

/// An entry that becomes valid needs no INVLPG; one that goes does.
pub fn invlpg() -> Verdict {
    let pages = [filled(10), filled(11)];
    let slot = paging::entry(paging::root(), VA, 1);
    for round in 0..200 {
        assert_eq!(outcome(probe::read(VA)), Err((idt::PF, 0)));
        slot.store(pages[round % 2] | P | RW, Ordering::Release);
        assert_eq!(probe::read(VA), Ok(10 + round as u64 % 2), "a new entry");
        slot.store(0, Ordering::Release);
        cpu::invlpg(VA);
    }
    Pass
}

/// Every page of the memory that all machines have holds what it was given.
pub fn all_memory() -> Verdict {
    let first = paging::frames(1) + 4096;
    let last = paging::untouched(4096 - 512) + ((4096 - 512) << 12);
    let step = 4096;
    for page in (first..last).step_by(step) {
        // SAFETY: RAM above everything handed out so far.
        unsafe { (page as *mut u64).write_volatile(page ^ 0x5555_aaaa_1234_0000) };
    }
    for page in (first..last).step_by(step) {
        assert_eq!(
            probe::read(page),
            Ok(page ^ 0x5555_aaaa_1234_0000),
            "page {page:#x}"
        );
    }
    Pass
}

/// 32-bit code under long mode, with exits in it; EFER.LMA stays.
pub fn compatibility_mode() -> Verdict {
    for round in 0..100 {
        // push ebx; cpuid; pop ebx; mov edx, 0x3fd; in al, dx; mov ecx, 0xc0000080; rdmsr; retf
        let code = [
            0x53, 0x0f, 0xa2, 0x5b, 0xba, 0xfd, 3, 0, 0, 0xec, 0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32,
            0xcb,
        ];
        let (efer, high) = guest::compat::run(&code, 0, 0);
        assert_eq!((efer & 0x500, high), (0x500, 0), "round {round}");
    }
    Pass
}
