// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The APIC by synthetic MSRs, and the VP assist page (TLFS 10, 7.8.7).
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::apic::{self, ICR_ASSERT, ICR_NMI, IRR, ISR};
use guest::expect::{rdmsr_gp, wrmsr_gp};
use guest::hv::*;
use guest::{
    cpu, cpuid, hv, idt, image, paging, probe, record, require, smp, test, time, Pass, Verdict,
};

fn there() -> bool {
    hv::privilege(4)
}

fn eoi() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    apic::init();
    static AFTER: AtomicU64 = AtomicU64::new(9);
    idt::hook(0x51, |_| {
        assert!(apic::vector_bit(ISR, 0x51));
        cpu::wrmsr(HV_X64_MSR_EOI, 0);
        AFTER.store(apic::vector_bit(ISR, 0x51).into(), Ordering::Release);
    });
    for round in 1..=50 {
        apic::send_self(0x51);
        cpu::take_interrupts();
        assert_eq!(
            (idt::count(0x51), AFTER.load(Ordering::Acquire)),
            (round, 0)
        );
    }
    rdmsr_gp(HV_X64_MSR_EOI);
    wrmsr_gp(HV_X64_MSR_EOI, 1 << 32);
    Pass
}

fn icr() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    apic::init();
    record::start(&[0x51, 0x61]);
    // The xAPIC's form: the destination in bits 63:56.
    let destination = u64::from(apic::id()) << 56;
    cpu::wrmsr(HV_X64_MSR_ICR, destination | u64::from(0x51 | ICR_ASSERT));
    assert!(apic::vector_bit(IRR, 0x51), "not pending at once");
    cpu::wrmsr(
        HV_X64_MSR_ICR,
        u64::from(0x61 | ICR_ASSERT | apic::ICR_SELF),
    );
    cpu::take_interrupts();
    record::expect(&[0x61, 0x51]);
    assert!(probe::rdmsr(HV_X64_MSR_ICR).is_ok());
    Pass
}

fn icr_nmi() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    apic::init();
    idt::hook(idt::NMI, |_| ());
    cpu::wrmsr(
        HV_X64_MSR_ICR,
        u64::from(apic::id()) << 56 | u64::from(ICR_NMI | ICR_ASSERT),
    );
    assert!(time::reached(|| idt::count(idt::NMI) == 1));
    Pass
}

fn tpr() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    apic::init();
    record::start(&[0x51]);
    for class in 0..16 {
        cpu::wrmsr(HV_X64_MSR_TPR, class << 4);
        assert_eq!(
            (cpu::cr8(), cpu::rdmsr(HV_X64_MSR_TPR)),
            (class, class << 4)
        );
    }
    apic::send_self(0x51);
    cpu::take_interrupts();
    record::expect(&[]);
    cpu::sti();
    cpu::wrmsr(HV_X64_MSR_TPR, 0);
    let at_once = record::len();
    cpu::cli();
    assert_eq!(at_once, 1, "not taken at the write that let it through");
    Pass
}

fn tpr_reserved_bits() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    apic::init();
    for bit in 8..64 {
        wrmsr_gp(HV_X64_MSR_TPR, 1 << bit);
    }
    Pass
}

/// In x2APIC mode the architecture's MSRs and the synthetic ones are the same APIC's, whichever is used for what.
fn beside_x2apic() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    require!(cpuid::X2APIC.present(), "no x2APIC");
    apic::init_best();
    let x2 = |register| apic::x2apic_msr(register);
    let (x2_tpr, x2_icr) = (x2(apic::TPR), x2(apic::ICR));
    for class in 0..16 {
        cpu::wrmsr(HV_X64_MSR_TPR, class << 4);
        assert_eq!((cpu::rdmsr(x2_tpr), cpu::cr8()), (class << 4, class));
        cpu::wrmsr(x2_tpr, (15 - class) << 4);
        assert_eq!(cpu::rdmsr(HV_X64_MSR_TPR), (15 - class) << 4);
    }
    cpu::wrmsr(HV_X64_MSR_TPR, 0);
    static BY_SYNTHETIC: AtomicU64 = AtomicU64::new(0);
    idt::hook(0x51, |_| {
        assert!(apic::vector_bit(ISR, 0x51));
        if BY_SYNTHETIC.load(Ordering::Acquire) != 0 {
            cpu::wrmsr(HV_X64_MSR_EOI, 0);
        } else {
            cpu::wrmsr(apic::x2apic_msr(apic::EOI), 0);
        }
        assert!(!apic::vector_bit(ISR, 0x51), "still in service");
    });
    let (id, command) = (u64::from(apic::id()), u64::from(0x51 | ICR_ASSERT));
    let mut sent = 0;
    for (icr, value) in [
        // The synthetic register has the xAPIC's form.
        (HV_X64_MSR_ICR, id << 56 | command),
        (x2_icr, id << 32 | command),
    ] {
        for eoi in [0, 1] {
            BY_SYNTHETIC.store(eoi, Ordering::Release);
            cpu::wrmsr(icr, value);
            assert!(apic::vector_bit(IRR, 0x51), "not pending at once");
            let read = (cpu::rdmsr(HV_X64_MSR_ICR), cpu::rdmsr(x2_icr));
            assert_eq!(read, (id << 56 | command, id << 32 | command));
            cpu::take_interrupts();
            sent += 1;
            assert_eq!(idt::count(0x51), sent);
        }
    }
    apic::set_mode(apic::Mode::Disabled);
    apic::set_mode(apic::Mode::Xapic);
    apic::init();
    Pass
}

/// Readable, writable, and what lies below comes back.
fn assist_page() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    let page = paging::frame();
    // SAFETY: a page of this test.
    unsafe { ((page + 0x800) as *mut u64).write_volatile(0x1111) };
    cpu::wrmsr(HV_X64_MSR_VP_ASSIST_PAGE, page | 1);
    let msr = cpu::rdmsr(HV_X64_MSR_VP_ASSIST_PAGE);
    let first = probe::read(page + 0x800);
    // SAFETY: a page of this test, overlaid.
    let write = unsafe { probe::write(page + 0x800, 0x2222) };
    let second = probe::read(page + 0x800);
    cpu::wrmsr(HV_X64_MSR_VP_ASSIST_PAGE, 0);
    let below = probe::read(page + 0x800);
    assert_eq!(msr, page | 1);
    assert_eq!((write, second), (Ok(()), Ok(0x2222)), "it can be written");
    assert_eq!(first, Ok(0), "the RAM shows through");
    assert_eq!(below, Ok(0x1111), "the RAM below was changed");
    Pass
}

/// Each VP's page is its own, wherever it lies.
fn assist_page_private() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    require!(smp::start() > 1, "one processor");
    static SEEN: AtomicU64 = AtomicU64::new(0);
    extern "C" fn look(_: u64) {
        SEEN.store(cpu::rdmsr(HV_X64_MSR_VP_ASSIST_PAGE), Ordering::Release);
    }
    let page = paging::frame();
    cpu::wrmsr(HV_X64_MSR_VP_ASSIST_PAGE, page | 1);
    smp::on(1, look, 0);
    cpu::wrmsr(HV_X64_MSR_VP_ASSIST_PAGE, 0);
    assert_eq!(SEEN.load(Ordering::Acquire), 0);
    Pass
}

fn assist_page_out_of_range() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    let above = 1u64 << cpuid::physical_address_bits().min(51);
    assert_eq!(
        probe::wrmsr(HV_X64_MSR_VP_ASSIST_PAGE, above | 1),
        Ok(()),
        "accepted, and unreachable"
    );
    cpu::wrmsr(HV_X64_MSR_VP_ASSIST_PAGE, 0);
    Pass
}

/// Takes "no EOI required" as guests do.
fn take_no_eoi() -> bool {
    let page = ASSIST_PAGE.load(Ordering::Acquire) as *const AtomicU32;
    // SAFETY: the assist page.
    let word = unsafe { &*page };
    word.fetch_and(!1, Ordering::AcqRel) & 1 != 0
}

static ASSIST_PAGE: AtomicU64 = AtomicU64::new(0);
/// EOIs that were not required.
static SKIPPED: AtomicU64 = AtomicU64::new(0);

fn with_assist_page(run: impl FnOnce()) {
    apic::init();
    let page = paging::frame();
    ASSIST_PAGE.store(page, Ordering::Release);
    cpu::wrmsr(HV_X64_MSR_VP_ASSIST_PAGE, page | 1);
    SKIPPED.store(0, Ordering::Release);
    run();
    cpu::wrmsr(HV_X64_MSR_VP_ASSIST_PAGE, 0);
}

fn end() {
    if take_no_eoi() {
        SKIPPED.fetch_add(1, Ordering::AcqRel);
    } else {
        cpu::wrmsr(HV_X64_MSR_EOI, 0);
    }
}

/// An interrupt on whose end nothing waits needs no EOI.
fn eoi_assist() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    idt::hook(0x51, |_| end());
    with_assist_page(|| {
        for round in 1..=200 {
            apic::send_self(0x51);
            cpu::take_interrupts();
            assert_eq!(
                idt::count(0x51),
                round,
                "an EOI that was not required was missed"
            );
        }
    });
    assert!(!apic::vector_bit(ISR, 0x51), "left in service");
    // Another interrupt may come between.
    let skipped = SKIPPED.load(Ordering::Acquire);
    assert!(skipped >= 190, "{skipped} of 200 EOIs were not required");
    Pass
}

/// While a lower one waits, the EOI is required; the last of them needs none.
fn eoi_required() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    static ORDER: AtomicU64 = AtomicU64::new(0);
    fn note(vector: u64) {
        let order = ORDER.load(Ordering::Acquire);
        let skips = take_no_eoi();
        ORDER.store(
            order << 16 | vector << 8 | u64::from(skips),
            Ordering::Release,
        );
        if !skips {
            cpu::wrmsr(HV_X64_MSR_EOI, 0);
        }
    }
    idt::hook(0x41, |_| note(0x41));
    idt::hook(0x51, |_| note(0x51));
    idt::hook(0x61, |_| note(0x61));
    with_assist_page(|| {
        for vector in [0x41, 0x51, 0x61] {
            apic::send_self(vector);
        }
        cpu::take_interrupts();
    });
    assert_eq!(ORDER.load(Ordering::Acquire), 0x6100_5100_4101);
    Pass
}

/// A plain EOI works in spite of the offer, and the offer does not outlive it.
fn eoi_in_spite() -> Verdict {
    require!(there(), "no AccessIntrCtrlRegs");
    idt::hook(0x52, |_| {
        cpu::wrmsr(HV_X64_MSR_EOI, 0);
        if take_no_eoi() {
            SKIPPED.fetch_add(1, Ordering::AcqRel);
        }
    });
    with_assist_page(|| {
        for round in 1..=20 {
            apic::send_self(0x52);
            cpu::take_interrupts();
            assert_eq!(idt::count(0x52), round);
        }
    });
    assert_eq!(SKIPPED.load(Ordering::Acquire), 0, "offered for nothing");
    assert!(!apic::vector_bit(ISR, 0x52), "left in service");
    Pass
}

image!(
    "hvapic",
    [
        test!(eoi, "M-70 C-3A4", eoi),
        test!(icr, "M-71 F-AP1", icr),
        test!(icr_nmi, "M-71", icr_nmi),
        test!(tpr, "M-72", tpr),
        test!(tpr_reserved_bits, "M-72", tpr_reserved_bits),
        test!(beside_x2apic, "F-AP4 M-70 M-71 M-72", beside_x2apic),
        test!(assist_page, "M-73 F-OV2 F-OV3", assist_page),
        test!(assist_page_private, "M-73", assist_page_private),
        test!(
            assist_page_out_of_range,
            "M-73 F-OV5",
            assist_page_out_of_range
        ),
        test!(eoi_assist, "F-AP2", eoi_assist),
        test!(eoi_required, "F-AP2", eoi_required),
        test!(eoi_in_spite, "F-AP2", eoi_in_spite),
    ]
);
