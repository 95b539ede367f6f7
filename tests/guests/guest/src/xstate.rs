// SPDX-License-Identifier: GPL-2.0 OR MIT
//! XCR0 and the states it names.

use crate::{cpu, cpuid, probe};

/// XCR0: x87.
pub const X87: u64 = 1;
/// XCR0: SSE.
pub const SSE: u64 = 1 << 1;
/// XCR0: AVX.
pub const AVX: u64 = 1 << 2;
/// XCR0: BNDREGS and BNDCSR.
pub const MPX: u64 = 3 << 3;
/// XCR0: opmask, ZMM_Hi256, Hi16_ZMM.
pub const AVX512: u64 = 7 << 5;
/// XCR0: PKRU.
pub const PKRU: u64 = 1 << 9;
/// XCR0: TILECFG and TILEDATA.
pub const AMX: u64 = 3 << 17;

/// The XCR0 bits that CPUID offers.
pub fn supported() -> u64 {
    if !cpuid::XSAVE.present() {
        return 0;
    }
    let leaf = cpuid::subleaf(0xd, 0);
    (u64::from(leaf.edx) << 32) | u64::from(leaf.eax)
}

/// Turns XSAVE on with as much of `wanted` as there is; the XCR0 set.
pub fn enable(wanted: u64) -> u64 {
    if !cpuid::XSAVE.present() {
        return 0;
    }
    cpu::set_cr4(cpu::cr4() | cpu::CR4_OSXSAVE);
    let value = supported() & wanted | X87;
    probe::xsetbv(0, value).expect("a supported XCR0");
    value
}

/// Back to XCR0 = x87 and CR4.OSXSAVE off.
pub fn disable() {
    if cpuid::XSAVE.present() && cpu::cr4() & cpu::CR4_OSXSAVE != 0 {
        probe::xsetbv(0, X87).expect("the reset value");
        cpu::set_cr4(cpu::cr4() & !cpu::CR4_OSXSAVE);
    }
}
