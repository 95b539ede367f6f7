// SPDX-License-Identifier: GPL-2.0 OR MIT
//! MSRs 0x40000000 to 0x400001ff: there when their privilege is, else #GP.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest::cpuid::leaf;
use guest::expect::{rdmsr_gp, wrmsr_gp, wrmsr_sticks};
use guest::hv::*;
use guest::{cpu, hv, idt, probe, require, smp, time, user, Pass, Verdict};

/// The register and bit of leaf 3 that opens an MSR; `None` for MSRs that no
/// privilege opens.
fn gate(msr: u32) -> Option<(bool, u32)> {
    const EAX: bool = false;
    const EDX: bool = true;
    Some(match msr & 0x1ff {
        0x000 | 0x001 => (EAX, 5),
        0x002 => (EAX, 6),
        0x003 => (EAX, 7),
        0x010 => (EAX, 0),
        0x020 => (EAX, 1),
        0x021 => (EAX, 9),
        0x022 | 0x023 => (EAX, 11),
        0x040 => (EDX, 12),
        0x070..=0x073 => (EAX, 4),
        0x080..=0x085 | 0x090..=0x09f => (EAX, 2),
        0x0b0..=0x0b7 => (EAX, 3),
        0x0e0..=0x0e3 => (EAX, 8),
        0x0f0 => (EAX, 10),
        0x0f1..=0x0f5 | 0x0ff => (EDX, 11),
        0x100..=0x105 => (EDX, 10),
        0x106..=0x108 => (EAX, 13),
        0x114 | 0x115 => (EDX, 23),
        0x118 => (EAX, 15),
        0x0c1..=0x0c3 | 0x0d1..=0x0d3 => (EDX, 31), // CpuManagement: never an ordinary guest's
        _ => return None,
    })
}

fn open(msr: u32) -> bool {
    let l = leaf(0x4000_0003);
    match gate(msr) {
        Some((false, bit)) => l.eax >> bit & 1 != 0,
        Some((true, 31)) => l.ebx >> 12 & 1 != 0,
        Some((true, bit)) => l.edx >> bit & 1 != 0,
        None => false,
    }
}

pub fn unadvertised_fault() -> Verdict {
    require!(hv::present(), "no Hv#1");
    for msr in (0x4000_0000..=0x4000_01ff).filter(|&m| gate(m).is_some() && !open(m)) {
        rdmsr_gp(msr);
        wrmsr_gp(msr, 0);
    }
    Pass
}

pub fn unknown_fault() -> Verdict {
    require!(hv::present(), "no Hv#1");
    for msr in (0x4000_0000..=0x4000_01ff).filter(|&m| gate(m).is_none()) {
        rdmsr_gp(msr);
        wrmsr_gp(msr, 0);
    }
    Pass
}

pub fn read_only() -> Verdict {
    require!(hv::present(), "no Hv#1");
    for msr in [
        HV_X64_MSR_VP_INDEX,
        HV_X64_MSR_VP_RUNTIME,
        HV_X64_MSR_TIME_REF_COUNT,
        HV_X64_MSR_TSC_FREQUENCY,
        HV_X64_MSR_APIC_FREQUENCY,
    ] {
        wrmsr_gp(msr, 0);
    }
    Pass
}

pub fn initial() -> Verdict {
    require!(hv::present(), "no Hv#1");
    for msr in [
        HV_X64_MSR_GUEST_OS_ID,
        HV_X64_MSR_HYPERCALL,
        HV_X64_MSR_RESET,
        HV_X64_MSR_REFERENCE_TSC,
    ] {
        if open(msr) {
            assert_eq!(probe::rdmsr(msr), Ok(0), "MSR {msr:#x}");
        }
    }
    if hv::privilege(2) {
        for sint in 0x4000_0090..=0x4000_009f {
            assert_eq!(probe::rdmsr(sint), Ok(0x10000), "MSR {sint:#x}");
        }
        assert_eq!(probe::rdmsr(0x4000_0081), Ok(1), "SVERSION");
    }
    Pass
}

/// Each of the four instructions: #GP at CPL 3 if and only if its bit is set, the same as ever at CPL 0, where also what
/// loads the registers works.
pub fn npiep() -> Verdict {
    const CONFIG: u32 = 0x4000_0040;
    require!(open(CONFIG), "no NPIEP");
    // Into memory at RSP - 16, or into EAX; UD2 behind.
    const SGDT: [u8; 7] = [0x0f, 0x01, 0x44, 0x24, 0xf0, 0x0f, 0x0b];
    const SIDT: [u8; 7] = [0x0f, 0x01, 0x4c, 0x24, 0xf0, 0x0f, 0x0b];
    const SLDT: [u8; 7] = [0x0f, 0x00, 0x44, 0x24, 0xf0, 0x0f, 0x0b];
    const STR: [u8; 7] = [0x0f, 0x00, 0x4c, 0x24, 0xf0, 0x0f, 0x0b];
    const SLDT_EAX: [u8; 7] = [0x0f, 0x00, 0xc0, 0x90, 0x90, 0x0f, 0x0b];
    const STR_EAX: [u8; 7] = [0x0f, 0x00, 0xc8, 0x90, 0x90, 0x0f, 0x0b];
    const SMSW_EAX: [u8; 7] = [0x0f, 0x01, 0xe0, 0x90, 0x90, 0x0f, 0x0b];
    let user_runs = |code: &[u8; 7]| {
        let end = user::run(code, 0);
        match (end.vector as u8, end.rip - user::CODE) {
            (idt::UD, 5) => true,
            (idt::GP, 0) => {
                assert_eq!(end.error, 0);
                false
            }
            other => panic!("{code:x?}: {other:x?}"),
        }
    };
    fn tables() -> ([u8; 10], [u8; 10], u16, u16) {
        let (mut gdt, mut idt) = ([0; 10], [0; 10]);
        let (ldt, task): (u64, u64);
        // SAFETY: stores what the registers have, and loads it again.
        unsafe {
            asm!(
                "sgdt [{g}]", "sidt [{i}]", "sldt {l}", "str {t}",
                "lgdt [{g}]", "lidt [{i}]", "lldt {l:x}",
                g = in(reg) gdt.as_mut_ptr(), i = in(reg) idt.as_mut_ptr(), l = out(reg) ldt, t = out(reg) task,
            );
        }
        (gdt, idt, ldt as u16, task as u16)
    }
    assert_eq!(cpu::rdmsr(CONFIG), 0);
    for bit in 4..64 {
        wrmsr_gp(CONFIG, 1 << bit);
    }
    let before = tables();
    for config in (0..16).chain([0]) {
        wrmsr_sticks(CONFIG, config);
        for (code, bit) in [
            (&SGDT, 0),
            (&SIDT, 1),
            (&SLDT, 2),
            (&SLDT_EAX, 2),
            (&STR, 3),
            (&STR_EAX, 3),
        ] {
            let allowed = config >> bit & 1 == 0;
            let runs = user_runs(code);
            if runs != allowed {
                cpu::wrmsr(CONFIG, 0);
                panic!("{config:#x}: {code:x?}: {runs}");
            }
        }
        assert!(user_runs(&SMSW_EAX), "SMSW, {config:#x}");
        let now = tables();
        if now != before {
            cpu::wrmsr(CONFIG, 0);
            panic!("{config:#x}: {now:?}, {before:?}");
        }
    }
    Pass
}

/// It reads zero, and only bit 0 does something. That is the image `reset`'s.
pub fn reset() -> Verdict {
    require!(hv::privilege(ACCESS_RESET), "no RESET");
    assert_eq!(probe::wrmsr(HV_X64_MSR_RESET, 0), Ok(()));
    assert_eq!(probe::rdmsr(HV_X64_MSR_RESET), Ok(0));
    for bit in 1..64 {
        wrmsr_gp(HV_X64_MSR_RESET, 1 << bit);
        wrmsr_gp(HV_X64_MSR_RESET, 1 | 1 << bit);
    }
    Pass
}

/// The TSC's bit in leaf 0x80000007 comes with the control, on all VPs, and stays.
pub fn tsc_invariant() -> Verdict {
    const CONTROL: u32 = 0x4000_0118;
    require!(open(CONTROL), "no TSC_INVARIANT_CONTROL");
    static SHOWN: AtomicU64 = AtomicU64::new(0);
    extern "C" fn look(cpu: u64) {
        let edx = leaf(0x8000_0007).edx;
        assert_eq!(edx & !(1 << 8), 0, "leaf 0x80000007");
        SHOWN.fetch_or(u64::from(edx >> 8 & 1) << cpu, Ordering::AcqRel);
    }
    let shown = || {
        SHOWN.store(0, Ordering::Release);
        look(0);
        for other in 1..smp::start() {
            smp::on(other, look, other as u64);
        }
        SHOWN.load(Ordering::Acquire)
    };
    let cpus = smp::start();
    let all = (1u64 << cpus) - 1;
    if cpu::rdmsr(CONTROL) == 0 {
        assert_eq!(shown(), 0, "shown without being asked for");
        assert_eq!(probe::wrmsr(CONTROL, 0), Ok(()));
        for bit in 1..64 {
            wrmsr_gp(CONTROL, 1 << bit);
            wrmsr_gp(CONTROL, 1 | 1 << bit);
        }
        assert_eq!((cpu::rdmsr(CONTROL), shown()), (0, 0));
    }
    wrmsr_sticks(CONTROL, 1);
    wrmsr_sticks(CONTROL, 1);
    assert_eq!(shown(), all);
    wrmsr_gp(CONTROL, 0);
    assert_eq!((cpu::rdmsr(CONTROL), shown()), (1, all));
    Pass
}

/// Parameters are kept, for all VPs; a report is no end. The lab looks for this one in the host's log.
pub fn crash() -> Verdict {
    require!(open(0x4000_0105), "no crash registers");
    /// In one page, and so in one line.
    #[repr(align(64))]
    struct Text([u8; 15]);
    static TEXT: Text = Text(*b"last words\n\x1b[0m");
    let can = cpu::rdmsr(0x4000_0105);
    assert_eq!(can & !(7 << 61) & !(7 << 58), 0, "CRASH_CTL {can:#x}");
    assert_ne!(can & 1 << 63, 0, "CRASH_CTL {can:#x}");
    let parameters = [
        0xdead_0000,
        1,
        2,
        TEXT.0.as_ptr() as u64,
        TEXT.0.len() as u64,
    ];
    for (msr, value) in (0x4000_0100..).zip(parameters) {
        wrmsr_sticks(msr, value);
    }
    assert_eq!(probe::wrmsr(0x4000_0105, can), Ok(()));
    // Nothing there to read.
    wrmsr_sticks(0x4000_0103, !0);
    assert_eq!(probe::wrmsr(0x4000_0105, can), Ok(()));
    for msr in 0x4000_0100..0x4000_0105 {
        wrmsr_sticks(msr, 0);
    }
    assert_eq!(cpu::rdmsr(0x4000_0105), can);
    Pass
}

pub fn guest_os_id() -> Verdict {
    require!(hv::present(), "no Hv#1");
    wrmsr_sticks(HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
    wrmsr_sticks(HV_X64_MSR_GUEST_OS_ID, 0x8100_0607_0c00_0000);
    static SEEN: AtomicU64 = AtomicU64::new(0);
    extern "C" fn see(_: u64) {
        SEEN.store(cpu::rdmsr(HV_X64_MSR_GUEST_OS_ID), Ordering::Release);
    }
    for other in 1..smp::start() {
        SEEN.store(0, Ordering::Release);
        smp::on(other, see, 0);
        assert_eq!(
            SEEN.load(Ordering::Acquire),
            0x8100_0607_0c00_0000,
            "the partition has one"
        );
    }
    wrmsr_sticks(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}

pub fn vp_index() -> Verdict {
    require!(hv::privilege(ACCESS_VP_INDEX), "no VP_INDEX");
    static SEEN: AtomicU64 = AtomicU64::new(0);
    extern "C" fn see(_: u64) {
        SEEN.fetch_or(1 << cpu::rdmsr(HV_X64_MSR_VP_INDEX), Ordering::AcqRel);
    }
    let cpus = smp::start();
    let limit = leaf(0x4000_0005).eax;
    SEEN.store(0, Ordering::Release);
    see(0);
    for other in 1..cpus {
        smp::on(other, see, 0);
    }
    let seen = SEEN.load(Ordering::Acquire);
    assert_eq!(seen.count_ones() as usize, cpus, "indices {seen:#b}");
    assert!(
        limit == 0 || limit >= 64 || seen >> limit == 0,
        "indices {seen:#b} of {limit}"
    );
    Pass
}

/// Grows while the VP runs, and hardly while it waits.
pub fn vp_runtime() -> Verdict {
    require!(hv::privilege(ACCESS_VP_RUNTIME), "no VP_RUNTIME");
    let mut last = cpu::rdmsr(HV_X64_MSR_VP_RUNTIME);
    let start = last;
    for _ in 0..100 {
        time::spin(200_000);
        let now = cpu::rdmsr(HV_X64_MSR_VP_RUNTIME);
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    assert!(last > start, "stands still at {start}");
    Pass
}
