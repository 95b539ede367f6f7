// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Architectural and synthetic MSRs: values, faults, and that they stay what they were.
#![no_std]
#![no_main]

mod architectural;
mod preserved;
mod synthetic;

use guest::{image, test};

image!(
    "msr",
    [
        test!(efer, "-", architectural::efer),
        test!(pat, "-", architectural::pat),
        test!(mtrr_variable, "-", architectural::mtrr_variable),
        test!(mtrr_fixed, "-", architectural::mtrr_fixed),
        test!(mtrr_default, "-", architectural::mtrr_default),
        test!(sysenter, "-", architectural::sysenter),
        test!(syscall, "-", architectural::syscall),
        test!(segment_bases, "-", architectural::segment_bases),
        test!(tsc_aux, "-", architectural::tsc_aux),
        test!(apic_base, "-", architectural::apic_base),
        test!(misc_enable, "-", architectural::misc_enable),
        test!(platform, "-", architectural::platform),
        test!(speculation, "-", architectural::speculation),
        test!(debugctl, "-", architectural::debugctl),
        test!(unknown, "-", architectural::unknown),
        test!(read_only, "-", architectural::read_only),
        test!(preserved_across_exits, "-", preserved::across_exits),
        test!(private_to_each_vp, "-", preserved::private),
        test!(
            synthetic_unadvertised_fault,
            "C-R8 C-R5 K-03",
            synthetic::unadvertised_fault
        ),
        test!(synthetic_unknown_fault, "C-R5", synthetic::unknown_fault),
        test!(
            synthetic_read_only,
            "M-02 M-10 M-20 M-22 M-23",
            synthetic::read_only
        ),
        test!(synthetic_initial, "M-00 M-01 M-03 M-21", synthetic::initial),
        test!(npiep, "M-40 C-3D12 F-NP1", synthetic::npiep),
        test!(synthetic_reset, "M-03 C-3A7", synthetic::reset),
        test!(
            tsc_invariant,
            "M-118 C-3A15 F-TM15",
            synthetic::tsc_invariant
        ),
        test!(crash, "M-100 M-105 F-CR1 C-3D10 K-23", synthetic::crash),
        test!(guest_os_id, "M-00", synthetic::guest_os_id),
        test!(vp_index, "M-02", synthetic::vp_index),
        test!(vp_runtime, "M-10 C-3A0 K-19", synthetic::vp_runtime),
        // Last: not every emulator turns an APIC on again that was off.
        test!(
            apic_base_transitions,
            "-",
            architectural::apic_base_transitions
        ),
    ]
);
