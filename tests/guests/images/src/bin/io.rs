// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Ports and unmapped addresses: sizes, string instructions, widths.
#![no_std]
#![no_main]

use core::arch::asm;
use guest::{cpu, hv, idt, image, paging, percpu, require, test, user, Pass, Verdict};

/// The UART's scratch register keeps a byte: the one port here with a memory.
const SCRATCH: u16 = 0x3ff;
/// Nobody answers here.
const NOBODY: u16 = 0x2a0;
/// No memory and no device: a hole below the APICs.
const HOLE: u64 = 0xe000_0000;

fn bytes() -> Verdict {
    for value in [0u8, 0x55, 0xaa, 0xff, 0x5a] {
        cpu::outb(SCRATCH, value);
        assert_eq!(cpu::inb(SCRATCH), value);
    }
    // The immediate form, and that AL alone changes.
    let rax: u64;
    // SAFETY: a port read.
    unsafe { asm!("mov rax, -1", "mov dx, 0x3ff", "in al, dx", out("rax") rax, out("rdx") _) };
    assert_eq!(rax, 0xffff_ffff_ffff_ff5a);
    Pass
}

fn absent() -> Verdict {
    assert_eq!(cpu::inb(NOBODY), 0xff);
    assert_eq!(cpu::inw(NOBODY), 0xffff);
    assert_eq!(cpu::inl(NOBODY), 0xffff_ffff);
    cpu::outb(NOBODY, 0);
    cpu::outw(NOBODY, 0);
    cpu::outl(NOBODY, 0);
    // AX keeps the rest, EAX clears the upper half.
    let (word, long): (u64, u64);
    // SAFETY: port reads.
    unsafe {
        asm!("mov rax, 0x1122334455667788", "in ax, dx", in("dx") NOBODY, out("rax") word);
        asm!("mov rax, 0x1122334455667788", "in eax, dx", in("dx") NOBODY, out("rax") long);
    }
    assert_eq!((word, long), (0x1122_3344_5566_ffff, 0xffff_ffff));
    Pass
}

fn strings_in() -> Verdict {
    cpu::outb(SCRATCH, 0x3c);
    let mut buffer = [0u8; 64];
    let (rdi, rcx): (u64, u64);
    // SAFETY: writes 40 bytes of `buffer`.
    unsafe {
        asm!("rep insb", in("dx") SCRATCH, inout("rdi") buffer.as_mut_ptr() => rdi, inout("rcx") 40u64 => rcx);
    }
    assert_eq!((rdi, rcx), (buffer.as_ptr() as u64 + 40, 0));
    assert!(
        buffer[..40].iter().all(|&b| b == 0x3c) && buffer[40..].iter().all(|&b| b == 0),
        "{buffer:x?}"
    );
    // Backwards.
    buffer = [0; 64];
    let end: u64;
    // SAFETY: writes bytes 8 to 15 of `buffer`.
    unsafe {
        asm!("std", "rep insb", "cld", in("dx") SCRATCH, inout("rdi") buffer.as_mut_ptr().add(15) => end,
             inout("rcx") 8u64 => _);
    }
    assert_eq!(end, buffer.as_ptr() as u64 + 7);
    assert!(
        buffer[8..16].iter().all(|&b| b == 0x3c) && buffer[7] == 0 && buffer[16] == 0,
        "{buffer:x?}"
    );
    // Words and longs, count 0 as well.
    let mut words = [0u32; 4];
    // SAFETY: writes `words`, the last one nothing.
    unsafe {
        asm!("rep insw", in("dx") NOBODY, inout("rdi") words.as_mut_ptr() => _, inout("rcx") 3u64 => _);
        asm!("insd", in("dx") NOBODY, inout("rdi") words.as_mut_ptr().add(2) => _);
        asm!("rep insd", in("dx") NOBODY, inout("rdi") words.as_mut_ptr().add(3) => _, inout("rcx") 0u64 => _);
    }
    assert_eq!(words, [0xffff_ffff, 0xffff, 0xffff_ffff, 0]);
    Pass
}

fn strings_out() -> Verdict {
    let bytes = *b"0123456789";
    let (rsi, rcx): (u64, u64);
    // SAFETY: reads `bytes`.
    unsafe {
        asm!("rep outsb", in("dx") SCRATCH, inout("rsi") bytes.as_ptr() => rsi, inout("rcx") bytes.len() as u64 => rcx);
    }
    assert_eq!((rsi, rcx), (bytes.as_ptr() as u64 + 10, 0));
    assert_eq!(cpu::inb(SCRATCH), b'9', "the last byte");
    // Through a segment with a base.
    cpu::wrmsr(guest::msr::IA32_FS_BASE, bytes.as_ptr() as u64);
    // SAFETY: reads `bytes` by FS.
    unsafe { asm!("outs dx, byte ptr fs:[rsi]", in("dx") SCRATCH, inout("rsi") 4u64 => _) };
    cpu::wrmsr(guest::msr::IA32_FS_BASE, 0);
    assert_eq!(cpu::inb(SCRATCH), b'4', "FS override");
    Pass
}

/// A string instruction over a page that is not there: the bytes before are done, registers tell where it stopped.
fn strings_fault() -> Verdict {
    const VA: u64 = paging::WINDOW + 0x60_0000;
    let page = paging::frame();
    paging::map(VA, page, paging::P | paging::RW);
    paging::unmap(VA + 4096);
    cpu::outb(SCRATCH, 0x77);
    let (rdi, rcx): (u64, u64);
    // SAFETY: writes the end of the page, then faults.
    let result = unsafe {
        guest::guarded_asm!("rep insb", in("dx") SCRATCH, inout("rdi") VA + 4096 - 5 => rdi, inout("rcx") 20u64 => rcx)
    };
    assert_eq!(
        result.map_err(|f| (f.vector, f.error, f.cr2)),
        Err((idt::PF, 2, VA + 4096))
    );
    assert_eq!((rdi, rcx), (VA + 4096, 15));
    Pass
}

fn mmio_hole() -> Verdict {
    require!(!hv::tcg(), "a PC has devices there");
    // SAFETY: nothing is there.
    unsafe {
        assert_eq!((HOLE as *const u8).read_volatile(), 0xff);
        assert_eq!((HOLE as *const u16).read_volatile(), 0xffff);
        assert_eq!((HOLE as *const u32).read_volatile(), 0xffff_ffff);
        assert_eq!((HOLE as *const u64).read_volatile(), u64::MAX);
        (HOLE as *mut u8).write_volatile(0);
        (HOLE as *mut u16).write_volatile(0);
        (HOLE as *mut u32).write_volatile(0);
        (HOLE as *mut u64).write_volatile(0);
        assert_eq!(
            (HOLE as *const u64).read_volatile(),
            u64::MAX,
            "kept what was written"
        );
    }
    Pass
}

/// Loads from the hole in the forms that compilers use.
fn mmio_forms() -> Verdict {
    require!(!hv::tcg(), "a PC has devices there");
    let (zx8, zx16, sx8, sx16, al, imm): (u64, u64, u64, u64, u64, u64);
    // SAFETY: nothing is there.
    unsafe {
        asm!("movzx eax, byte ptr [{0}]", in(reg) HOLE, out("rax") zx8);
        asm!("movzx eax, word ptr [{0}]", in(reg) HOLE, out("rax") zx16);
        asm!("movsx rax, byte ptr [{0}]", in(reg) HOLE, out("rax") sx8);
        asm!("movsxd rax, dword ptr [{0}]", in(reg) HOLE, out("rax") sx16);
        asm!("xor eax, eax", "mov al, [{0}]", in(reg) HOLE, out("rax") al);
        asm!("mov dword ptr [{0}], 0x12345678", "mov eax, [{0}]", in(reg) HOLE, out("rax") imm);
    }
    assert_eq!(
        (zx8, zx16, sx8, sx16, al, imm),
        (0xff, 0xffff, u64::MAX, u64::MAX, 0xff, 0xffff_ffff)
    );
    let (cmp, test, or): (u8, u8, u32);
    // SAFETY: nothing is there.
    unsafe {
        asm!("cmp dword ptr [{0}], -1", "sete {1}", in(reg) HOLE, out(reg_byte) cmp);
        asm!("test byte ptr [{0}], 1", "setnz {1}", in(reg) HOLE, out(reg_byte) test);
        asm!("mov {1:e}, 0", "or {1:e}, [{0}]", in(reg) HOLE, out(reg) or);
    }
    assert_eq!((cmp, test, or), (1, 1, 0xffff_ffff));
    Pass
}

/// CPL 3 reaches the ports that the TSS lets through, and no others.
fn permission_bitmap() -> Verdict {
    let tss = percpu::this().tss();
    // in al, 0x80; in al, 0x81
    let code = [0xe4, 0x80, 0xe4, 0x81];
    // SAFETY: this processor's own TSS.
    unsafe {
        let bitmap = core::ptr::addr_of_mut!((*tss).io_bitmap).cast::<u8>();
        bitmap.add(0x10).write(0xfe); // port 0x80
        let frame = user::run(&code, 0);
        bitmap.add(0x10).write(0xff);
        assert_eq!(
            (frame.vector as u8, frame.error, frame.rip),
            (idt::GP, 0, user::CODE + 2),
            "port 0x80 only"
        );
    }
    let frame = user::run(&code, 0);
    assert_eq!(frame.rip, user::CODE);
    let frame = user::run(&code, 3 << 12); // IOPL 3
    assert_eq!((frame.vector as u8, frame.rip), (idt::BP, user::CODE + 5));
    Pass
}

image!(
    "io",
    [
        test!(bytes, "-", bytes),
        test!(absent_ports, "-", absent),
        test!(string_in, "-", strings_in),
        test!(string_out, "-", strings_out),
        test!(string_fault, "-", strings_fault),
        test!(mmio_hole, "-", mmio_hole),
        test!(mmio_forms, "-", mmio_forms),
        test!(permission_bitmap, "-", permission_bitmap),
    ]
);
