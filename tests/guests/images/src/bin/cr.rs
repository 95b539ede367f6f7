// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Control registers: values, reserved bits, what the bits do (SDM 3A 2.5).
#![no_std]
#![no_main]

use core::arch::asm;
use guest::cpuid;
use guest::expect::fault;
use guest::paging::{self, A, D, G, P, RW, US, WINDOW};
use guest::{cpu, guarded_asm, hv, idt, image, probe, require, test, user, Pass, Verdict};

const VA: u64 = WINDOW + 0x80_0000;

fn cr0_values() -> Verdict {
    let before = cpu::cr0();
    assert_eq!(before, 0x8001_0033);
    for bit in [
        cpu::CR0_AM,
        cpu::CR0_NE,
        cpu::CR0_MP,
        cpu::CR0_CD,
        cpu::CR0_WP,
    ] {
        assert_eq!(probe::set_cr0(before ^ bit), Ok(()), "bit {bit:#x}");
        let read = cpu::cr0();
        cpu::set_cr0(before);
        assert_eq!(read, before ^ bit, "bit {bit:#x}");
    }
    // ET is fixed to 1; reserved bits below 32 are ignored.
    cpu::set_cr0(before & !cpu::CR0_ET | 1 << 6 | 1 << 28);
    let read = cpu::cr0();
    cpu::set_cr0(before);
    assert_eq!(read | 1 << 6 | 1 << 28, before | 1 << 6 | 1 << 28, "ET");
    Pass
}

fn cr0_faults() -> Verdict {
    require!(!hv::tcg(), "TCG checks nothing");
    let before = cpu::cr0();
    fault(probe::set_cr0(before | 1 << 32), idt::GP, "CR0 bit 32");
    fault(probe::set_cr0(before | 1 << 63), idt::GP, "CR0 bit 63");
    fault(probe::set_cr0(before & !1), idt::GP, "PG without PE");
    fault(
        probe::set_cr0(before & !cpu::CR0_CD | cpu::CR0_NW),
        idt::GP,
        "NW without CD",
    );
    assert_eq!(cpu::cr0(), before);
    Pass
}

/// CR0.PG = 0 in 64-bit mode is #GP.
fn paging_off_in_64_bit() -> Verdict {
    require!(!hv::tcg(), "TCG checks nothing");
    fault(
        probe::set_cr0(cpu::cr0() & !cpu::CR0_PG),
        idt::GP,
        "PG off in 64-bit mode",
    );
    fault(
        probe::set_cr4(cpu::cr4() & !cpu::CR4_PAE),
        idt::GP,
        "PAE off in 64-bit mode",
    );
    fault(
        probe::set_cr4(cpu::cr4() ^ cpu::CR4_LA57),
        idt::GP,
        "LA57 in 64-bit mode",
    );
    Pass
}

fn lmsw_smsw() -> Verdict {
    let before = cpu::cr0();
    let (msw, set): (u64, u64);
    // SAFETY: TS is cleared by CLTS; no SSE between.
    unsafe {
        asm!("smsw {0}", out(reg) msw);
        asm!("lmsw {0:x}", "mov {1}, cr0", "clts", in(reg) (before | cpu::CR0_TS) as u32, out(reg) set);
    }
    assert_eq!(msw as u16, before as u16, "SMSW");
    assert_eq!(set, before | cpu::CR0_TS, "LMSW sets TS");
    // LMSW cannot clear PE.
    // SAFETY: only MP, EM and TS could change.
    unsafe { asm!("lmsw {0:x}", in(reg) before as u32 & 0xfffe) };
    assert_eq!(cpu::cr0(), before);
    Pass
}

fn cr4_faults() -> Verdict {
    require!(!hv::tcg(), "TCG checks nothing");
    let before = cpu::cr4();
    for bit in [15, 19, 26, 29, 30, 31, 33, 63] {
        fault(
            probe::set_cr4(before | 1 << bit),
            idt::GP,
            "a reserved bit of CR4",
        );
    }
    assert_eq!(cpu::cr4(), before);
    Pass
}

fn cr4_values() -> Verdict {
    let before = cpu::cr4();
    for bit in [0u64, 1, 2, 3, 4, 6, 7, 8, 10] {
        assert_eq!(probe::set_cr4(before ^ 1 << bit), Ok(()), "bit {bit}");
        let read = cpu::cr4();
        cpu::set_cr4(before);
        assert_eq!(read, before ^ 1 << bit, "bit {bit}");
    }
    Pass
}

fn cr3_reserved() -> Verdict {
    require!(!hv::tcg(), "TCG checks nothing");
    let before = cpu::cr3();
    let width = cpuid::physical_address_bits();
    require!(width < 52, "no reserved bits below 52");
    fault(
        probe::set_cr3(before | 1 << width),
        idt::GP,
        "CR3 above the physical width",
    );
    fault(probe::set_cr3(before | 1 << 62), idt::GP, "CR3 bit 62");
    fault(
        probe::set_cr3(before | 1 << 63),
        idt::GP,
        "CR3 bit 63 without PCIDE",
    );
    assert_eq!(cpu::cr3(), before);
    assert_eq!(probe::set_cr3(before | 0x18), Ok(()), "PWT and PCD");
    assert_eq!(cpu::cr3(), before | 0x18);
    cpu::set_cr3(before);
    Pass
}

fn cr8_values() -> Verdict {
    for value in 0..16 {
        cpu::set_cr8(value);
        assert_eq!(cpu::cr8(), value);
    }
    cpu::set_cr8(0);
    require!(!hv::tcg(), "TCG checks nothing");
    fault(probe::set_cr8(16), idt::GP, "CR8 = 16");
    fault(probe::set_cr8(1 << 63), idt::GP, "CR8 bit 63");
    Pass
}

fn write_protect() -> Verdict {
    let page = paging::frame();
    // Dirty already: Bochs 3.0 gives up on models with CET if it has to set D here.
    paging::map(VA, page, P | A | D);
    // SAFETY: a page of this test.
    let store = || unsafe { probe::write(VA, 1) }.map_err(|f| (f.vector, f.error));
    assert_eq!(store(), Err((idt::PF, 3)), "CR0.WP = 1");
    cpu::set_cr0(cpu::cr0() & !cpu::CR0_WP);
    let free = store();
    cpu::set_cr0(cpu::cr0() | cpu::CR0_WP);
    let again = store();
    paging::unmap(VA);
    assert_eq!(free, Ok(()), "CR0.WP = 0");
    assert_eq!(again, Err((idt::PF, 3)), "CR0.WP = 1 again");
    Pass
}

/// Turning PGE off and on drops global translations, a load of CR3 does not have to.
fn global_pages() -> Verdict {
    let (first, second) = (paging::frame(), paging::frame());
    // SAFETY: pages of this test.
    unsafe {
        (first as *mut u64).write_volatile(1);
        (second as *mut u64).write_volatile(2);
    }
    cpu::set_cr4(cpu::cr4() | cpu::CR4_PGE);
    for round in 0..20 {
        paging::map(VA, first, P | RW | G);
        assert_eq!(probe::read(VA), Ok(1));
        // Changed without INVLPG.
        paging::entry(paging::root(), VA, 1)
            .store(second | P | RW | G, core::sync::atomic::Ordering::Release);
        cpu::set_cr4(cpu::cr4() & !cpu::CR4_PGE);
        cpu::set_cr4(cpu::cr4() | cpu::CR4_PGE);
        assert_eq!(
            probe::read(VA),
            Ok(2),
            "round {round}: stale after PGE changed"
        );
        paging::map(VA, first, P | RW);
        assert_eq!(probe::read(VA), Ok(1));
        paging::entry(paging::root(), VA, 1)
            .store(second | P | RW, core::sync::atomic::Ordering::Release);
        cpu::set_cr3(cpu::cr3());
        assert_eq!(probe::read(VA), Ok(2), "round {round}: stale after MOV CR3");
    }
    paging::unmap(VA);
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_PGE);
    Pass
}

fn pcid() -> Verdict {
    require!(cpuid::PCID.present(), "no PCID");
    let (cr3, cr4) = (cpu::cr3(), cpu::cr4());
    // PCIDE may be set with CR3[11:0] = 0 only.
    cpu::set_cr3(cr3 | 0x18);
    let refused = probe::set_cr4(cr4 | cpu::CR4_PCIDE);
    cpu::set_cr3(cr3);
    fault(refused, idt::GP, "PCIDE with CR3[11:0] not 0");
    assert_eq!(probe::set_cr4(cr4 | cpu::CR4_PCIDE), Ok(()));
    let (first, second) = (paging::frame(), paging::frame());
    // SAFETY: pages of this test.
    unsafe {
        (first as *mut u64).write_volatile(1);
        (second as *mut u64).write_volatile(2);
    }
    for id in [1u64, 2, 0xfff] {
        assert_eq!(probe::set_cr3(cr3 | id), Ok(()), "PCID {id}");
        assert_eq!(cpu::cr3(), cr3 | id);
        paging::map(VA, first, P | RW);
        assert_eq!(probe::read(VA), Ok(1));
        // Bit 63 keeps translations and reads as 0; without it those of the PCID go.
        assert_eq!(probe::set_cr3(cr3 | id | 1 << 63), Ok(()));
        assert_eq!(cpu::cr3(), cr3 | id, "bit 63 is not stored");
        paging::entry(paging::root(), VA, 1)
            .store(second | P | RW, core::sync::atomic::Ordering::Release);
        cpu::set_cr3(cr3 | id);
        assert_eq!(probe::read(VA), Ok(2), "stale in PCID {id}");
    }
    if cpuid::INVPCID.present() {
        paging::map(VA, first, P | RW);
        assert_eq!(probe::read(VA), Ok(1));
        paging::entry(paging::root(), VA, 1)
            .store(second | P | RW, core::sync::atomic::Ordering::Release);
        let descriptor = [0xfffu64, VA];
        // SAFETY: only drops translations.
        unsafe { asm!("invpcid {0}, [{1}]", in(reg) 0u64, in(reg) &descriptor) };
        assert_eq!(probe::read(VA), Ok(2), "stale after INVPCID");
        let bad = [0x1000u64, VA];
        // SAFETY: faults.
        unsafe {
            fault(
                guarded_asm!("invpcid {0}, [{1}]", in(reg) 0u64, in(reg) &bad),
                idt::GP,
                "INVPCID of PCID 0x1000",
            );
            fault(
                guarded_asm!("invpcid {0}, [{1}]", in(reg) 4u64, in(reg) &descriptor),
                idt::GP,
                "INVPCID type 4",
            );
        }
    }
    cpu::set_cr3(cr3);
    paging::unmap(VA);
    assert_eq!(probe::set_cr4(cr4), Ok(()), "PCIDE off with PCID 0");
    Pass
}

fn smep() -> Verdict {
    require!(cpuid::SMEP.present(), "no SMEP");
    let page = paging::frame();
    // SAFETY: a page of this test, which gets a RET.
    unsafe { (page as *mut u8).write_volatile(0xc3) };
    paging::map(VA, page, P | RW | US);
    paging::open_to_user(VA);
    // SAFETY: a RET is there.
    let call = || unsafe { probe::call(VA) }.map_err(|f| (f.vector, f.error));
    let off = call();
    cpu::set_cr4(cpu::cr4() | cpu::CR4_SMEP);
    let on = call();
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_SMEP);
    paging::unmap(VA);
    assert_eq!((off, on), (Ok(()), Err((idt::PF, 0x11))));
    Pass
}

fn smap() -> Verdict {
    require!(cpuid::SMAP.present(), "no SMAP");
    let page = paging::frame();
    paging::map(VA, page, P | RW | US);
    paging::open_to_user(VA);
    let load = || probe::read(VA).map(drop).map_err(|f| (f.vector, f.error));
    cpu::set_cr4(cpu::cr4() | cpu::CR4_SMAP);
    let on = load();
    // SAFETY: AC only.
    unsafe { asm!("stac") };
    let stac = load();
    // SAFETY: AC only.
    unsafe { asm!("clac") };
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_SMAP);
    let off = load();
    paging::unmap(VA);
    assert_eq!((on, stac, off), (Err((idt::PF, 1)), Ok(()), Ok(())));
    Pass
}

fn umip() -> Verdict {
    require!(cpuid::UMIP.present(), "no UMIP");
    // smsw eax; ud2
    let code = [0x0f, 0x01, 0xe0, 0x0f, 0x0b];
    let off = user::run(&code, 0);
    cpu::set_cr4(cpu::cr4() | cpu::CR4_UMIP);
    let on = [&code[..], &[0x0f, 0x01, 0x04, 0x24], &[0x0f, 0x00, 0xc0]]
        .map(|c| user::run(c, 0).vector as u8);
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_UMIP);
    assert_eq!(
        (off.vector as u8, off.rip),
        (idt::UD, user::CODE + 3),
        "UMIP off"
    );
    assert_eq!(on, [idt::GP; 3], "SMSW, SGDT, SLDT with UMIP");
    Pass
}

image!(
    "cr",
    [
        test!(cr0_values, "-", cr0_values),
        test!(cr0_faults, "-", cr0_faults),
        test!(paging_off_in_64_bit, "-", paging_off_in_64_bit),
        test!(lmsw_smsw, "-", lmsw_smsw),
        test!(cr3_reserved, "-", cr3_reserved),
        test!(cr4_values, "-", cr4_values),
        test!(cr4_faults, "-", cr4_faults),
        test!(cr8_values, "-", cr8_values),
        test!(write_protect, "-", write_protect),
        test!(global_pages, "-", global_pages),
        test!(pcid, "-", pcid),
        test!(smep, "-", smep),
        test!(smap, "-", smap),
        test!(umip, "-", umip),
    ]
);
