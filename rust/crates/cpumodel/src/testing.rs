// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Hosts for the tests of this crate.

use crate::{CpuModel, Machine, SpeculationControl, VmxLimits};
use std::boxed::Box;

/// Marsaglia's xorshift64.
pub(crate) fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A host that has everything there is, also what no guest is to see.
pub(crate) fn everything(leaf: u32, subleaf: u32) -> [u32; 4] {
    match (leaf, subleaf) {
        (0, _) => [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        (1, _) => [0x806f8, 0x0020_0800, !0, !0],
        (2, _) => [0x00fe_ff01, 0xf0, 0, 0],
        (4, 0) => [0x1c00_4121, 0x02c0_003f, 63, 0],
        (4, 1) => [0x1c00_4122, 0x01c0_003f, 63, 0],
        (4, 2) => [0x1c01_c143, 0x03c0_003f, 2047, 0],
        (4, 3) => [0x1c03_c163, 0x02c0_003f, 0xffff, 4],
        (4, _) => [0; 4],
        (7, 0) => [2, !0, !0, !0],
        (0xd, 0) => [0x602e7, 0x980, 11008, 0],
        (0xd, 1) => [0x1f, 0x980, 0x1900, 0],
        (0xd, 2) => [256, 576, 0, 0],
        (0xd, 5) => [64, 1088, 0, 0],
        (0xd, 6) => [512, 1152, 0, 0],
        (0xd, 7) => [1024, 1664, 0, 0],
        (0xd, 9) => [8, 2688, 0, 0],
        (0xd, 17) => [64, 2752, 2, 0],
        (0xd, 18) => [8192, 2816, 6, 0],
        (0xd, _) => [0; 4],
        (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
        (0x8000_0008, _) => [0x3934, !0, !0, !0],
        _ => [!0; 4],
    }
}

/// A host that has what random numbers say.
pub(crate) fn random(seed: u64) -> impl Fn(u32, u32) -> [u32; 4] {
    move |leaf, subleaf| {
        let all = everything(leaf, subleaf);
        match (leaf, subleaf) {
            (0, _) => [0xd + (seed % 20) as u32, all[1], all[2], all[3]],
            (1 | 0xd | 0x8000_0001, 0) | (7, 0 | 1) | (0xd, 1) => {
                let mut state = seed ^ (u64::from(leaf) << 20) ^ (u64::from(subleaf) << 50) | 1;
                for _ in 0..4 {
                    xorshift(&mut state);
                }
                // Half of the hosts have most bits, half have few.
                let mut bits = || {
                    let (a, b) = (xorshift(&mut state) as u32, xorshift(&mut state) as u32);
                    if seed & 1 == 0 {
                        a | b
                    } else {
                        a
                    }
                };
                let mut r = all.map(|v| v & bits());
                if (leaf, subleaf) == (7, 0) {
                    r[0] = 1;
                }
                if leaf == 0xd && subleaf == 0 {
                    r[0] |= 3;
                }
                r
            }
            _ => all,
        }
    }
}

/// A machine with everything.
pub(crate) fn machine() -> Machine {
    Machine {
        vmx: VmxLimits {
            descriptor_exits: true,
            rdtscp: true,
            invpcid: true,
        },
        speculation: SpeculationControl {
            spec_ctrl: true,
            stibp: true,
            ssbd: true,
            md_clear: true,
            l1d_flush: true,
            arch_capabilities: Some(0x2b),
        },
        physical_address_bits: 39,
        tsc_hz: 2_900_000_000,
        apic_hz: 200_000_000,
        invariant_tsc: true,
        lapic: true,
        x2apic: true,
        hypervisor_present: true,
        ..Machine::default()
    }
}

/// The CPUID of a partition.
pub(crate) fn build(host: &dyn Fn(u32, u32) -> [u32; 4], machine: &Machine) -> Box<CpuModel> {
    let mut model = Box::new(CpuModel::new());
    model.build(host, machine);
    model
}
