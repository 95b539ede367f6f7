// SPDX-License-Identifier: GPL-2.0 OR MIT
//! CPUID against control registers, MSRs and the APIC.

use core::sync::atomic::{AtomicU32, Ordering};
use guest::cpuid::{self, leaf, subleaf, Feature};
use guest::{apic, cpu, harness, hv, idt, msr, paging, probe, require, smp, xstate, Pass, Verdict};

pub fn limits() -> Verdict {
    let basic = leaf(0).eax;
    assert!(
        (0x2..=0x40).contains(&basic),
        "maximum basic leaf {basic:#x}"
    );
    let extended = leaf(0x8000_0000).eax;
    assert!(
        (0x8000_0008..=0x8000_00ff).contains(&extended),
        "maximum extended leaf {extended:#x}"
    );
    let bits = cpuid::physical_address_bits();
    assert!((32..=52).contains(&bits), "{bits} physical-address bits");
    let linear = leaf(0x8000_0008).eax >> 8 & 0xff;
    assert!(
        linear == if cpuid::LA57.present() { 57 } else { 48 },
        "{linear} linear-address bits"
    );
    for feature in [cpuid::LM, cpuid::NX, cpuid::SYSCALL, cpuid::PGE, cpuid::PAT] {
        assert!(feature.present(), "{feature:?}");
    }
    Pass
}

pub fn osxsave() -> Verdict {
    require!(cpuid::XSAVE.present(), "no XSAVE");
    assert!(!cpuid::OSXSAVE.present());
    cpu::set_cr4(cpu::cr4() | cpu::CR4_OSXSAVE);
    let on = cpuid::OSXSAVE.present();
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_OSXSAVE);
    assert!(on, "OSXSAVE does not follow CR4");
    assert!(!cpuid::OSXSAVE.present());
    Pass
}

pub fn apic() -> Verdict {
    const APIC: Feature = Feature(1, 0, cpuid::Reg::Edx, 9);
    apic::init();
    assert!(APIC.present());
    assert_eq!(leaf(1).ebx >> 24, apic::id() & 0xff, "initial APIC id");
    if leaf(0).eax >= 0xb && subleaf(0xb, 0).ebx != 0 {
        assert_eq!(subleaf(0xb, 0).edx, apic::id(), "leaf 0xB");
    }
    Pass
}

/// A CR4 bit can be set exactly when its feature is shown.
pub fn cr4() -> Verdict {
    let before = cpu::cr4();
    for (name, feature, bit) in [
        ("UMIP", cpuid::UMIP, cpu::CR4_UMIP),
        ("FSGSBASE", cpuid::FSGSBASE, cpu::CR4_FSGSBASE),
        ("PCIDE", cpuid::PCID, cpu::CR4_PCIDE),
        ("OSXSAVE", cpuid::XSAVE, cpu::CR4_OSXSAVE),
        ("SMEP", cpuid::SMEP, cpu::CR4_SMEP),
        ("SMAP", cpuid::SMAP, cpu::CR4_SMAP),
        ("PKE", cpuid::PKU, cpu::CR4_PKE),
        ("VMXE", cpuid::VMX, cpu::CR4_VMXE),
        ("CET", Feature(7, 0, cpuid::Reg::Ecx, 7), 1 << 23),
        ("LAM_SUP", Feature(7, 1, cpuid::Reg::Eax, 26), 1 << 28),
        ("FRED", Feature(7, 1, cpuid::Reg::Eax, 17), 1 << 32),
    ] {
        if name == "CET" && subleaf(7, 0).edx & 1 << 20 != 0 {
            continue; // Either of shadow stacks and branch tracking allows CR4.CET.
        }
        if hv::tcg() && !feature.present() {
            continue; // TCG takes reserved bits, and hangs on VMXE.
        }
        let result = probe::set_cr4(before | bit);
        let stuck = cpu::cr4() & bit != 0;
        let _ = probe::set_cr4(before);
        match (feature.present(), result) {
            (true, Ok(())) if stuck => {}
            (true, result) => harness::fail(format_args!(
                "CR4.{name}: {result:?}, reads {stuck}, but shown"
            )),
            (false, Err(fault)) if fault.vector == idt::GP => {}
            (false, result) => harness::fail(format_args!("CR4.{name}: {result:?}, but hidden")),
        }
    }
    Pass
}

pub fn efer() -> Verdict {
    let before = cpu::rdmsr(msr::IA32_EFER);
    for bit in [msr::EFER_SCE, msr::EFER_NXE] {
        probe::wrmsr(msr::IA32_EFER, before ^ bit).expect("a feature that is shown");
        assert_eq!(cpu::rdmsr(msr::IA32_EFER), before ^ bit);
        cpu::wrmsr(msr::IA32_EFER, before);
    }
    Pass
}

/// An MSR exists when its feature is shown, and not else.
pub fn msrs() -> Verdict {
    for (name, feature, number) in [
        ("TSC_ADJUST", cpuid::TSC_ADJUST, msr::IA32_TSC_ADJUST),
        ("TSC_DEADLINE", cpuid::TSC_DEADLINE, msr::IA32_TSC_DEADLINE),
        ("SPEC_CTRL", cpuid::SPEC_CTRL, msr::IA32_SPEC_CTRL),
        (
            "ARCH_CAPABILITIES",
            cpuid::ARCH_CAPABILITIES,
            msr::IA32_ARCH_CAPABILITIES,
        ),
        ("MTRRCAP", cpuid::MTRR, msr::IA32_MTRRCAP),
        ("PAT", cpuid::PAT, msr::IA32_PAT),
        ("TSC_AUX", cpuid::RDTSCP, msr::IA32_TSC_AUX),
        ("XSS", cpuid::XSAVES, msr::IA32_XSS),
        ("VMX_BASIC", cpuid::VMX, msr::IA32_VMX_BASIC),
    ] {
        match (feature.present(), probe::rdmsr(number)) {
            (true, Ok(_)) => {}
            (false, Err(fault)) if fault.vector == idt::GP => {}
            (false, Ok(_)) if hv::tcg() => {} // TCG reads any MSR as 0.
            // Shown by other bits too, which are not asked here.
            (false, Ok(_)) if matches!(name, "SPEC_CTRL" | "TSC_AUX") => {}
            (shown, result) => {
                harness::fail(format_args!("{name}: shown {shown}, RDMSR {result:x?}"))
            }
        }
    }
    Pass
}

/// Leaf 0xD: sizes and offsets fit together and follow XCR0.
pub fn xsave_leaf() -> Verdict {
    require!(cpuid::XSAVE.present(), "no XSAVE");
    let supported = xstate::supported();
    assert_eq!(supported & 3, 3, "XCR0 {supported:#x}");
    let all = subleaf(0xd, 0).ecx;
    assert!(all >= 576, "area of {all} bytes");
    for component in 2..63 {
        let l = subleaf(0xd, component);
        if supported >> component & 1 != 0 {
            assert!(
                l.eax != 0 && l.ebx >= 576 && l.ebx + l.eax <= all,
                "component {component}"
            );
            assert_eq!(
                l.ecx & 1,
                0,
                "component {component} is shown as supervisor state"
            );
        }
    }
    xstate::enable(xstate::SSE);
    let small = subleaf(0xd, 0).ebx;
    xstate::enable(u64::MAX);
    let large = subleaf(0xd, 0).ebx;
    xstate::disable();
    assert_eq!((small, large), (576, all), "EBX does not follow XCR0");
    Pass
}

pub fn one_gib_pages() -> Verdict {
    let slot = paging::entry(paging::root(), paging::WINDOW, 3);
    slot.store(paging::P | paging::RW | paging::PS, Ordering::Release);
    let result = probe::read(paging::WINDOW + 0x10_0000);
    slot.store(0, Ordering::Release);
    cpu::set_cr3(cpu::cr3());
    if cpuid::PDPE1GB.present() {
        assert_eq!(result, probe::read(0x10_0000));
    } else {
        assert_eq!(
            result.map_err(|f| (f.vector, f.error)),
            Err((idt::PF, 9)),
            "PS in a PDPTE is reserved"
        );
    }
    Pass
}

pub fn topology() -> Verdict {
    let cpus = smp::start();
    require!(cpus > 1, "one processor");
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn ids(_: u64) {
        SEEN.store(leaf(1).ebx >> 24 | 0x100, Ordering::Release);
        assert_eq!(leaf(1).ebx >> 24, apic::id() & 0xff, "initial APIC id");
        if leaf(0).eax >= 0xb && subleaf(0xb, 0).ebx != 0 {
            assert_eq!(subleaf(0xb, 0).edx, apic::id(), "leaf 0xB");
        }
    }
    let mut found = [0u32; 16];
    found[0] = leaf(1).ebx >> 24 | 0x100;
    for other in 1..cpus {
        smp::on(other, ids, 0);
        let id = SEEN.load(Ordering::Acquire);
        assert!(!found.contains(&id), "APIC id {:#x} twice", id & 0xff);
        found[other] = id;
    }
    Pass
}
