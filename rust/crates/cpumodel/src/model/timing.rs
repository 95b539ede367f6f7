// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Leaves 0x15 and 0x16: frequencies that agree with the TSC and the APIC timer, or nothing.

use crate::Machine;

/// Greatest common divisor; at most 93 steps for 64-bit numbers.
const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Leaf 0x15: TSC = ECX * EBX / EAX. The crystal clock in ECX is also the one of the APIC timer.
pub(super) const fn leaf_15(machine: &Machine) -> [u32; 4] {
    let (tsc, apic) = (machine.tsc_hz, machine.apic_hz);
    if tsc == 0 || apic == 0 {
        return [0; 4];
    }
    let divisor = gcd(tsc, apic);
    let (numerator, denominator) = (tsc / divisor, apic / divisor);
    let max = u32::MAX as u64;
    if numerator > max || denominator > max || apic > max {
        return [0; 4];
    }
    [denominator as u32, numerator as u32, apic as u32, 0]
}

/// Leaf 0x16: base, maximum and bus frequency in MHz.
pub(super) const fn leaf_16(machine: &Machine) -> [u32; 4] {
    let mhz = machine.tsc_hz.saturating_add(500_000) / 1_000_000;
    if mhz == 0 || mhz > 0xffff {
        return [0; 4];
    }
    let bus = (machine.apic_hz / 1_000_000) as u32 & 0xffff;
    [mhz as u32, mhz as u32, bus, 0]
}
