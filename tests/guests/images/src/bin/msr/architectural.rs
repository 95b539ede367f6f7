// SPDX-License-Identifier: GPL-2.0 OR MIT
//! MSRs of the SDM, volume 4, and the faults of WRMSR in volume 2.

use guest::expect::{rdmsr_gp, wrmsr_gp, wrmsr_sticks};
use guest::msr::*;
use guest::{apic, cpu, cpuid, hv, probe, require, Pass, Verdict};

/// The first address above the canonical lower half.
const NON_CANONICAL: u64 = 0x0000_8000_0000_0000;

/// Linear addresses of 57 bits move the border; no image turns LA57 on.
fn non_canonical() -> u64 {
    if cpuid::LA57.present() {
        0x0100_0000_0000_0000
    } else {
        NON_CANONICAL
    }
}

pub fn efer() -> Verdict {
    let efer = cpu::rdmsr(IA32_EFER);
    assert_eq!(efer & (EFER_LMA | EFER_LME), EFER_LMA | EFER_LME);
    require!(!hv::tcg(), "TCG ignores reserved bits of EFER");
    for bit in [1, 2, 7, 9, 12, 16, 32, 63] {
        wrmsr_gp(IA32_EFER, efer | 1 << bit);
    }
    wrmsr_gp(IA32_EFER, efer & !EFER_LME); // LME with paging on
    wrmsr_sticks(IA32_EFER, efer | EFER_SCE);
    wrmsr_sticks(IA32_EFER, efer);
    Pass
}

pub fn pat() -> Verdict {
    const AT_RESET: u64 = 0x0007_0406_0007_0406;
    assert_eq!(cpu::rdmsr(IA32_PAT), AT_RESET);
    for kind in [0u64, 1, 4, 5, 6, 7] {
        wrmsr_sticks(IA32_PAT, AT_RESET & !(0xff << 56) | kind << 56);
    }
    cpu::wrmsr(IA32_PAT, AT_RESET);
    require!(!hv::tcg(), "TCG takes any PAT");
    for kind in [2u64, 3, 8, 0x40, 0x80] {
        for entry in 0..8 {
            wrmsr_gp(
                IA32_PAT,
                AT_RESET & !(0xff << (entry * 8)) | kind << (entry * 8),
            );
        }
    }
    assert_eq!(
        cpu::rdmsr(IA32_PAT),
        AT_RESET,
        "a refused write had an effect"
    );
    Pass
}

pub fn mtrr_variable() -> Verdict {
    require!(cpuid::MTRR.present(), "no MTRRs");
    let count = (cpu::rdmsr(IA32_MTRRCAP) & 0xff) as u32;
    assert!(count <= 32, "{count} variable ranges");
    let address = (1u64 << cpuid::physical_address_bits()) - 0x1000;
    for range in 0..count {
        let (base, mask) = (
            IA32_MTRR_PHYSBASE0 + 2 * range,
            IA32_MTRR_PHYSMASK0 + 2 * range,
        );
        let before = (cpu::rdmsr(base), cpu::rdmsr(mask));
        wrmsr_sticks(base, 0xe000_0000);
        wrmsr_sticks(mask, address & !0xfff_ffff); // valid bit clear: no effect
        cpu::wrmsr(base, before.0);
        cpu::wrmsr(mask, before.1);
    }
    require!(!hv::tcg(), "TCG takes any MTRR");
    if count > 0 {
        for kind in [2u64, 3, 7, 8] {
            wrmsr_gp(IA32_MTRR_PHYSBASE0, kind);
        }
        wrmsr_gp(IA32_MTRR_PHYSBASE0, 1 << cpuid::physical_address_bits());
        wrmsr_gp(IA32_MTRR_PHYSMASK0, 1 << cpuid::physical_address_bits());
    }
    rdmsr_gp(IA32_MTRR_PHYSBASE0 + 2 * 32);
    Pass
}

pub fn mtrr_fixed() -> Verdict {
    require!(cpuid::MTRR.present(), "no MTRRs");
    require!(cpu::rdmsr(IA32_MTRRCAP) >> 8 & 1 != 0, "no fixed ranges");
    for msr in [0x250, 0x258, 0x259].into_iter().chain(0x268..=0x26f) {
        let before = cpu::rdmsr(msr);
        wrmsr_sticks(msr, 0x0606_0505_0404_0100);
        cpu::wrmsr(msr, before);
    }
    require!(!hv::tcg(), "TCG takes any MTRR");
    for kind in [2u64, 3, 7, 8] {
        wrmsr_gp(IA32_MTRR_FIX64K_00000, kind << 16);
    }
    Pass
}

pub fn mtrr_default() -> Verdict {
    require!(cpuid::MTRR.present(), "no MTRRs");
    let before = cpu::rdmsr(IA32_MTRR_DEF_TYPE);
    wrmsr_sticks(IA32_MTRR_DEF_TYPE, 0xc06);
    wrmsr_sticks(IA32_MTRR_DEF_TYPE, 0x006);
    cpu::wrmsr(IA32_MTRR_DEF_TYPE, before);
    require!(!hv::tcg(), "TCG takes any MTRR");
    for value in [2u64, 3, 7, 0x106, 0x1006] {
        wrmsr_gp(IA32_MTRR_DEF_TYPE, value);
    }
    assert_eq!(cpu::rdmsr(IA32_MTRR_DEF_TYPE), before);
    Pass
}

pub fn sysenter() -> Verdict {
    for msr in [IA32_SYSENTER_ESP, IA32_SYSENTER_EIP] {
        let before = cpu::rdmsr(msr);
        wrmsr_sticks(msr, 0xffff_8000_1234_5678);
        if !hv::tcg() {
            wrmsr_gp(msr, non_canonical());
        }
        cpu::wrmsr(msr, before);
    }
    let before = cpu::rdmsr(IA32_SYSENTER_CS);
    wrmsr_sticks(IA32_SYSENTER_CS, 0x1234);
    cpu::wrmsr(IA32_SYSENTER_CS, before);
    Pass
}

pub fn syscall() -> Verdict {
    wrmsr_sticks(IA32_STAR, 0x0018_0008_0000_0000);
    wrmsr_sticks(IA32_FMASK, 0x4_7700);
    for msr in [IA32_LSTAR, IA32_CSTAR] {
        wrmsr_sticks(msr, 0xffff_8000_1234_5678);
        if !hv::tcg() {
            wrmsr_gp(msr, non_canonical());
        }
        cpu::wrmsr(msr, 0);
    }
    cpu::wrmsr(IA32_STAR, 0);
    cpu::wrmsr(IA32_FMASK, 0);
    Pass
}

pub fn segment_bases() -> Verdict {
    for msr in [IA32_FS_BASE, IA32_KERNEL_GS_BASE] {
        wrmsr_sticks(msr, 0xffff_8000_1234_5678);
        if !hv::tcg() {
            wrmsr_gp(msr, non_canonical());
        }
        cpu::wrmsr(msr, 0);
    }
    let gs = cpu::rdmsr(IA32_GS_BASE);
    cpu::wrmsr(IA32_KERNEL_GS_BASE, gs);
    // SAFETY: both bases are the same.
    unsafe { core::arch::asm!("swapgs") };
    assert_eq!(
        (cpu::rdmsr(IA32_GS_BASE), cpu::rdmsr(IA32_KERNEL_GS_BASE)),
        (gs, gs)
    );
    cpu::wrmsr(IA32_KERNEL_GS_BASE, 0);
    Pass
}

pub fn tsc_aux() -> Verdict {
    require!(cpuid::RDTSCP.present(), "no RDTSCP");
    for value in [0x1234_5678, 0xffff_ffff, 0] {
        wrmsr_sticks(IA32_TSC_AUX, value);
        assert_eq!(u64::from(cpu::rdtscp().1), value, "RDTSCP");
        if cpuid::RDPID.present() {
            let read: u64;
            // SAFETY: reads a register.
            unsafe { core::arch::asm!("rdpid {}", out(reg) read) };
            assert_eq!(read, value, "RDPID");
        }
    }
    require!(!hv::tcg(), "TCG takes any TSC_AUX");
    wrmsr_gp(IA32_TSC_AUX, 1 << 32);
    Pass
}

pub fn apic_base() -> Verdict {
    apic::init();
    let base = cpu::rdmsr(IA32_APIC_BASE);
    assert_eq!(
        base & !(APIC_BASE_EN | APIC_BASE_EXTD),
        apic::BASE | APIC_BASE_BSP
    );
    require!(!hv::tcg(), "TCG takes reserved bits");
    for bit in [0, 7, 9, cpuid::physical_address_bits(), 63] {
        wrmsr_gp(IA32_APIC_BASE, base | 1 << bit);
    }
    if !cpuid::X2APIC.present() {
        wrmsr_gp(IA32_APIC_BASE, base | APIC_BASE_EXTD);
    }
    Pass
}

/// SDM 3A figure 12-27: the forbidden edges, and the way round.
pub fn apic_base_transitions() -> Verdict {
    require!(cpuid::X2APIC.present(), "no x2APIC");
    require!(!hv::tcg(), "TCG allows them");
    apic::init();
    let base = cpu::rdmsr(IA32_APIC_BASE);
    let off = base & !(APIC_BASE_EN | APIC_BASE_EXTD);
    apic::set_mode(apic::Mode::X2apic);
    wrmsr_gp(IA32_APIC_BASE, off | APIC_BASE_EN);
    wrmsr_gp(IA32_APIC_BASE, off | APIC_BASE_EXTD);
    cpu::wrmsr(IA32_APIC_BASE, off);
    wrmsr_gp(IA32_APIC_BASE, off | APIC_BASE_EN | APIC_BASE_EXTD);
    wrmsr_gp(IA32_APIC_BASE, off | APIC_BASE_EXTD);
    cpu::wrmsr(IA32_APIC_BASE, off | APIC_BASE_EN);
    apic::init();
    Pass
}

pub fn misc_enable() -> Verdict {
    let value = probe::rdmsr(IA32_MISC_ENABLE).expect("IA32_MISC_ENABLE");
    assert_eq!(
        probe::wrmsr(IA32_MISC_ENABLE, value),
        Ok(()),
        "its own value"
    );
    assert_eq!(cpu::rdmsr(IA32_MISC_ENABLE), value);
    assert_eq!(
        value >> 18 & 1 != 0,
        cpuid::MONITOR.present() || hv::tcg(),
        "ENABLE_MONITOR_FSM"
    );
    Pass
}

pub fn platform() -> Verdict {
    // What every kernel does on the way to the microcode revision.
    assert_eq!(probe::wrmsr(IA32_BIOS_SIGN_ID, 0), Ok(()));
    let _ = cpuid::leaf(1);
    assert!(probe::rdmsr(IA32_BIOS_SIGN_ID).is_ok());
    assert!(probe::rdmsr(IA32_PLATFORM_ID).is_ok());
    assert!(probe::rdmsr(IA32_MCG_CAP).is_ok());
    assert_eq!(probe::rdmsr(IA32_MCG_STATUS), Ok(0));
    Pass
}

pub fn speculation() -> Verdict {
    require!(cpuid::SPEC_CTRL.present(), "no SPEC_CTRL");
    let mut allowed = 1;
    if cpuid::STIBP.present() {
        allowed |= 2;
    }
    if cpuid::SSBD.present() {
        allowed |= 4;
    }
    wrmsr_sticks(IA32_SPEC_CTRL, allowed);
    wrmsr_sticks(IA32_SPEC_CTRL, 0);
    wrmsr_gp(IA32_SPEC_CTRL, 1 << 63);
    assert_eq!(probe::wrmsr(IA32_PRED_CMD, 1), Ok(()), "IBPB");
    wrmsr_gp(IA32_PRED_CMD, 1 << 63);
    rdmsr_gp(IA32_PRED_CMD);
    if cpuid::FLUSH_CMD.present() {
        assert_eq!(probe::wrmsr(IA32_FLUSH_CMD, 1), Ok(()), "L1D flush");
        wrmsr_gp(IA32_FLUSH_CMD, 2);
    }
    Pass
}

pub fn debugctl() -> Verdict {
    require!(
        !hv::tcg() && probe::rdmsr(IA32_DEBUGCTL).is_ok(),
        "no DEBUGCTL"
    );
    assert_eq!(cpu::rdmsr(IA32_DEBUGCTL), 0);
    wrmsr_gp(IA32_DEBUGCTL, 1 << 63);
    wrmsr_gp(IA32_DEBUGCTL, 1 << 3);
    wrmsr_sticks(IA32_DEBUGCTL, 2); // BTF
    cpu::wrmsr(IA32_DEBUGCTL, 0);
    Pass
}

pub fn unknown() -> Verdict {
    require!(!hv::tcg(), "TCG reads any MSR as 0");
    for msr in [
        0x2,
        0x5ff,
        0x1234,
        0x4000_ffff,
        0x7fff_ffff,
        0xc000_0085,
        0xc000_1fff,
        0xdead_beef,
    ] {
        rdmsr_gp(msr);
        wrmsr_gp(msr, 0);
    }
    if !cpuid::VMX.present() {
        for msr in IA32_VMX_BASIC..=IA32_VMX_BASIC + 0x11 {
            rdmsr_gp(msr);
            wrmsr_gp(msr, 0);
        }
    }
    Pass
}

pub fn read_only() -> Verdict {
    require!(!hv::tcg(), "TCG ignores writes");
    wrmsr_gp(IA32_MTRRCAP, 0);
    if cpuid::ARCH_CAPABILITIES.present() {
        wrmsr_gp(IA32_ARCH_CAPABILITIES, 0);
    }
    if cpuid::X2APIC.present() {
        rdmsr_gp(IA32_X2APIC_APICID); // x2APIC registers exist in x2APIC mode only
    }
    Pass
}
