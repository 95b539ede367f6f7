// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Leaves that depend on the VP, its state, or the number of VPs. Every VP is one core of one package.

use super::VpCpuidInput;
use crate::feature::Reg;
use crate::{Feature, FeatureSet};

const LEAF1_ECX_OSXSAVE: u32 = 1 << 27;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_APIC: u32 = 1 << 9;
const LEAF1_EDX_HTT: u32 = 1 << 28;
const LEAF7_ECX_OSPKE: u32 = 1 << 4;
const LEAF_8000_0001_EDX_SYSCALL: u32 = 1 << 11;
const LEAF_8000_0007_EDX_TSC_INVARIANT: u32 = 1 << 8;

/// APIC ids that `vp_count` VPs take up in a package, as a power of two.
#[inline(always)]
fn ids(vp_count: u32) -> u32 {
    vp_count.clamp(1, 1 << 16).next_power_of_two()
}

#[inline(always)]
pub(super) fn leaf_1(mut r: [u32; 4], features: &FeatureSet, vp: &VpCpuidInput) -> [u32; 4] {
    r[1] |= (ids(vp.vp_count).min(0xff) << 16) | ((vp.apic_id & 0xff) << 24);
    if vp.cr4_osxsave && features.has(Feature::Xsave) {
        r[2] |= LEAF1_ECX_OSXSAVE;
    }
    if vp.vp_count > 1 {
        r[3] |= LEAF1_EDX_HTT;
    }
    if !vp.apic_enabled {
        r[3] &= !LEAF1_EDX_APIC;
    }
    r
}

/// Caches: the first two levels are a core's own, the others the package's.
#[inline(always)]
pub(super) fn leaf_4(mut r: [u32; 4], vp: &VpCpuidInput) -> [u32; 4] {
    if r[0] & 0x1f == 0 {
        return [0; 4];
    }
    let level = (r[0] >> 5) & 7;
    let sharing = if level >= 3 {
        ids(vp.vp_count).min(1 << 12) - 1
    } else {
        0
    };
    let cores = ids(vp.vp_count).min(1 << 6) - 1;
    r[0] = r[0] & 0x3fff | (sharing << 14) | (cores << 26);
    r
}

#[inline(always)]
pub(super) fn leaf_7(mut r: [u32; 4], features: &FeatureSet, vp: &VpCpuidInput) -> [u32; 4] {
    if vp.cr4_pke && features.has(Feature::Pku) {
        r[2] |= LEAF7_ECX_OSPKE;
    }
    r
}

/// Leaves 0xB and 0x1F.
#[inline(always)]
pub(super) fn topology(subleaf: u32, vp: &VpCpuidInput) -> [u32; 4] {
    const SMT: u32 = 1;
    const CORE: u32 = 2;
    let (shift, count, kind) = match subleaf {
        0 => (0, 1, SMT),
        1 => (
            ids(vp.vp_count).trailing_zeros(),
            vp.vp_count.max(1) & 0xffff,
            CORE,
        ),
        _ => (0, 0, 0),
    };
    [shift, count, (kind << 8) | subleaf & 0xff, vp.apic_id]
}

/// SYSCALL is shown only to 64-bit code (SDM volume 2, CPUID).
#[inline(always)]
pub(super) fn leaf_8000_0001(mut r: [u32; 4], vp: &VpCpuidInput) -> [u32; 4] {
    if !vp.mode_64_bit {
        r[3] &= !LEAF_8000_0001_EDX_SYSCALL;
    }
    r
}

/// The TSC's bit is there when the guest has asked for it (F-TM15).
#[inline(always)]
pub(super) fn leaf_8000_0007(mut r: [u32; 4], vp: &VpCpuidInput) -> [u32; 4] {
    if !vp.tsc_invariant {
        r[3] &= !LEAF_8000_0007_EDX_TSC_INVARIANT;
    }
    r
}

/// Bits of a feature register that an override may set, because they are no features.
#[inline(always)]
pub(super) const fn free_bits(leaf: u32, reg: Reg) -> u32 {
    match (leaf, reg) {
        (1, Reg::Edx) => LEAF1_EDX_HTT,
        (1, Reg::Ecx) => LEAF1_ECX_HYPERVISOR,
        _ => 0,
    }
}

/// Puts back into `result` what follows the VP's state, and limits XCR0 to what is there.
#[inline(always)]
pub(super) fn keep(leaf: u32, subleaf: u32, own: [u32; 4], result: &mut [u32; 4]) {
    let mut put = |reg: Reg, mask: u32| {
        let i = reg as usize;
        result[i] = result[i] & !mask | own[i] & mask;
    };
    match (leaf, subleaf) {
        (1, _) => {
            put(Reg::Ecx, LEAF1_ECX_OSXSAVE);
            put(Reg::Edx, LEAF1_EDX_APIC);
            // That there is a hypervisor says the partition's property. QEMU registers 0, because its host shows none.
            result[2] |= own[2] & LEAF1_ECX_HYPERVISOR;
        }
        (7, 0) => put(Reg::Ecx, LEAF7_ECX_OSPKE),
        (0xd, _) => {
            // The layout of the areas is the processor's; features of subleaf 1 can go.
            if subleaf != 1 {
                put(Reg::Eax, u32::MAX);
            }
            put(Reg::Ebx, u32::MAX);
            put(Reg::Ecx, u32::MAX);
            put(Reg::Edx, u32::MAX);
        }
        // There is no performance monitoring.
        (0xa, _) => *result = own,
        (0x8000_0001, _) => {
            let syscall = LEAF_8000_0001_EDX_SYSCALL;
            result[3] &= own[3] | !syscall;
        }
        _ => {}
    }
}
