// SPDX-License-Identifier: GPL-2.0 OR MIT
//! 32-bit modes: no paging, 32-bit paging, PAE, real mode; each left again for long mode.

use core::arch::global_asm;
use guest::paging::{self, A, D, P, PS, RW};
use guest::{cpu, Pass, Verdict};

global_asm!(include_str!("legacy.S"), options(att_syntax));

type Word = *mut u32;

extern "C" {
    fn legacy_call() -> u32;
    fn legacy_read();
    fn legacy_write();
    fn legacy_exits();
    fn legacy_set_cr3();
    fn legacy_real();
    fn legacy_gp();
    fn legacy_pf();
    static mut legacy_cr0: u32;
    static mut legacy_cr3: u32;
    static mut legacy_cr4: u32;
    static mut legacy_function: u32;
    static mut legacy_arg: u32;
    static mut legacy_error: u32;
    static mut legacy_cr2: u32;
    static mut legacy_efer: u32;
    static mut legacy_idtr: [u16; 4];
}

/// CR0 with PE, ET, NE, MP; PG and WP as asked.
const PROTECTED: u32 = 0x33;
const PAGED: u32 = 0x8001_0033;
const FAULT_GP: u32 = 0xfa17_000d;
const FAULT_PF: u32 = 0xfa17_000e;
/// Where the tables here map a page of their own.
const VA: u32 = 0x4000_0000;

#[derive(Clone, Copy)]
struct Mode {
    cr0: u32,
    cr3: u64,
    cr4: u32,
}

/// A 32-bit IDT with handlers for #GP and #PF.
fn make_idt() {
    let table = paging::frame();
    for (vector, handler) in [(13u64, legacy_gp as usize), (14, legacy_pf as usize)] {
        let address = handler as u64;
        let gate = (address & 0xffff) | 0x08 << 16 | 0x8e00 << 32 | (address >> 16) << 48;
        // SAFETY: a page of this module.
        unsafe { ((table + vector * 8) as *mut u64).write_volatile(gate) };
    }
    // SAFETY: only `run` uses it, later.
    unsafe { legacy_idtr = [0x7f, table as u16, (table >> 16) as u16, 0] };
}

fn run(mode: Mode, function: unsafe extern "C" fn(), arg: u32) -> u32 {
    make_idt();
    // SAFETY: `legacy_call` uses these on this processor only, and restores the
    // mode; image, stack and tables lie below 4 GiB.
    unsafe {
        legacy_cr0 = mode.cr0;
        legacy_cr3 = mode.cr3 as u32;
        legacy_cr4 = mode.cr4;
        legacy_function = function as usize as u32;
        legacy_arg = arg;
        let result = legacy_call();
        assert_eq!(legacy_efer & 0x500, 0, "EFER.LME or LMA outside long mode");
        result
    }
}

/// Error code and CR2 of the last fault.
fn last_fault() -> (u32, u32) {
    // SAFETY: written by `legacy_call`, which has returned.
    unsafe { (legacy_error, legacy_cr2) }
}

/// 32-bit paging: 4 MiB pages for the first 64 MiB, and a page table for [`VA`].
fn tables_32() -> (Mode, Word, Word) {
    let (directory, table) = (paging::frame() as Word, paging::frame() as Word);
    // SAFETY: pages of this test.
    unsafe {
        for i in 0..16u32 {
            directory
                .add(i as usize)
                .write_volatile(i << 22 | (P | RW | PS) as u32);
        }
        directory
            .add((VA >> 22) as usize)
            .write_volatile(table as u32 | (P | RW) as u32);
    }
    (
        Mode {
            cr0: PAGED,
            cr3: directory as u64,
            cr4: cpu::CR4_PSE as u32,
        },
        directory,
        table,
    )
}

/// PAE paging: 2 MiB pages for the first GiB, and a page table for [`VA`].
fn tables_pae() -> (Mode, *mut u64, *mut u64) {
    let (pointers, low, high, table) = (
        paging::frame() as *mut u64,
        paging::frame() as *mut u64,
        paging::frame() as *mut u64,
        paging::frame() as *mut u64,
    );
    // SAFETY: pages of this test.
    unsafe {
        for i in 0..512u64 {
            low.add(i as usize).write_volatile(i << 21 | P | RW | PS);
        }
        high.write_volatile(table as u64 | P | RW);
        pointers.write_volatile(low as u64 | P);
        pointers.add(1).write_volatile(high as u64 | P);
    }
    (
        Mode {
            cr0: PAGED,
            cr3: pointers as u64,
            cr4: cpu::CR4_PAE as u32,
        },
        pointers,
        table,
    )
}

fn filled(value: u32) -> u64 {
    let page = paging::frame();
    // SAFETY: a page of this test.
    unsafe { (page as Word).write_volatile(value) };
    page
}

pub fn unpaged() -> Verdict {
    let mode = Mode {
        cr0: PROTECTED,
        cr3: 0,
        cr4: 0,
    };
    let page = filled(0x1234_5678);
    for _ in 0..20 {
        assert_eq!(run(mode, legacy_read, page as u32), 0x1234_5678);
        assert_eq!(run(mode, legacy_exits, 0), 0, "CR0.PG");
    }
    Pass
}

pub fn paging_32() -> Verdict {
    let (mode, _, table) = tables_32();
    let page = filled(0x1111_2222);
    // SAFETY: pages of this test.
    unsafe {
        table.write_volatile(page as u32 | (P | RW) as u32);
        assert_eq!(run(mode, legacy_read, VA), 0x1111_2222);
        assert_eq!(run(mode, legacy_exits, 0), 1, "CR0.PG");
        let entry = table.read_volatile();
        assert_eq!(entry as u64 & (A | D), A, "A and D after a read");
        run(mode, legacy_write, VA);
        assert_eq!(
            table.read_volatile() as u64 & (A | D),
            A | D,
            "A and D after a write"
        );
        assert_eq!((page as Word).read_volatile(), 0x57a7e);
        // Rights: not present, read-only with WP.
        assert_eq!(
            (run(mode, legacy_read, VA + 0x1004), last_fault()),
            (FAULT_PF, (0, VA + 0x1004))
        );
        table.write_volatile(page as u32 | P as u32);
        assert_eq!(
            (run(mode, legacy_write, VA), last_fault()),
            (FAULT_PF, (3, VA))
        );
    }
    Pass
}

pub fn paging_pae() -> Verdict {
    let (mode, pointers, table) = tables_pae();
    let page = filled(0x3333_4444);
    // SAFETY: pages of this test.
    unsafe {
        table.write_volatile(page | P | RW);
        assert_eq!(run(mode, legacy_read, VA), 0x3333_4444);
        assert_eq!(run(mode, legacy_exits, 0), 1, "CR0.PG");
        assert_eq!(table.read_volatile() & (A | D), A, "A and D after a read");
        run(mode, legacy_write, VA);
        assert_eq!(
            table.read_volatile() & (A | D),
            A | D,
            "A and D after a write"
        );
        assert_eq!(
            (run(mode, legacy_read, VA + 0x1004), last_fault()),
            (FAULT_PF, (0, VA + 0x1004))
        );
        table.write_volatile(page | P);
        assert_eq!(
            (run(mode, legacy_write, VA), last_fault()),
            (FAULT_PF, (3, VA))
        );
        // No execute: EFER.NXE stays on outside long mode. The read still works.
        table.write_volatile(page | P | paging::NX);
        assert_eq!(run(mode, legacy_read, VA), 0x57a7e);
        // Another pointer entry for the same address.
        pointers.add(1).write_volatile(0);
        assert_eq!(
            (run(mode, legacy_read, VA), last_fault()),
            (FAULT_PF, (0, VA))
        );
    }
    Pass
}

/// MOV CR3 loads the four pointer entries, and checks them.
pub fn pae_pointers() -> Verdict {
    guest::require!(!guest::hv::tcg(), "TCG does not check the pointers");
    let (mode, _, _) = tables_pae();
    let (other, pointers, _) = tables_pae();
    assert_eq!(run(mode, legacy_set_cr3, other.cr3 as u32), 0);
    // SAFETY: pages of this test.
    unsafe { pointers.add(2).write_volatile(P | RW) }; // RW is reserved there
    assert_eq!(
        (run(mode, legacy_set_cr3, other.cr3 as u32), last_fault().0),
        (FAULT_GP, 0)
    );
    Pass
}

/// Several modes in turn: nothing of one is left in the next.
pub fn modes_in_turn() -> Verdict {
    let (two, _, table_32) = tables_32();
    let (three, _, table_pae) = tables_pae();
    let (a, b) = (filled(0xaaaa), filled(0xbbbb));
    // SAFETY: pages of this test.
    unsafe {
        table_32.write_volatile(a as u32 | P as u32);
        table_pae.write_volatile(b | P);
    }
    let flat = Mode {
        cr0: PROTECTED,
        cr3: 0,
        cr4: 0,
    };
    for _ in 0..50 {
        assert_eq!(run(two, legacy_read, VA), 0xaaaa);
        assert_eq!(run(three, legacy_read, VA), 0xbbbb);
        assert_eq!(run(flat, legacy_read, a as u32), 0xaaaa);
        assert_eq!(guest::probe::read(b), Ok(0xbbbb), "long mode");
    }
    Pass
}

pub fn real_mode() -> Verdict {
    let mode = Mode {
        cr0: PROTECTED,
        cr3: 0,
        cr4: 0,
    };
    for _ in 0..20 {
        assert_eq!(run(mode, legacy_real, 0), 0x360, "INT, segments, CR0.PE");
    }
    Pass
}
