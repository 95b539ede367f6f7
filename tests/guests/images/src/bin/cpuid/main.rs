// SPDX-License-Identifier: GPL-2.0 OR MIT
//! CPUID: what it shows works, and the hypervisor leaves keep their rules.
#![no_std]
#![no_main]

mod consistency;
mod features;
mod hypervisor;

use guest::{image, test};

image!(
    "cpuid",
    [
        test!(hypervisor_bit, "C-R1", hypervisor::bit),
        test!(
            hypervisor_leaves,
            "C-R2 C-00A C-00B C-01",
            hypervisor::leaves
        ),
        test!(
            hypervisor_required_privileges,
            "C-3A5 C-3A6",
            hypervisor::required_privileges
        ),
        test!(
            hypervisor_masked_privileges,
            "C-3B0 C-3B1 C-3B2 C-3B3 C-3B6 C-3B8 C-3B12 C-3B13",
            hypervisor::masked_privileges
        ),
        test!(
            hypervisor_undocumented_bits,
            "C-R5",
            hypervisor::undocumented_bits
        ),
        test!(
            hypervisor_recommendations,
            "C-4A0 C-4A1 C-4A5 C-4A8 C-4B C-4C C-6 C-R9",
            hypervisor::recommendations
        ),
        test!(hypervisor_vp_limit, "C-R6 C-5", hypervisor::vp_limit),
        test!(hypervisor_identity, "C-R3 C-02", hypervisor::identity),
        test!(
            hypervisor_same_on_all_vps,
            "C-R4",
            hypervisor::same_on_all_vps
        ),
        test!(
            privileges_open_msrs,
            "C-3A0 C-3A1 C-3A2 C-3A3 C-3A4 C-3A5 C-3A6 C-3A9 C-3A11",
            hypervisor::privileges_open_msrs
        ),
        test!(
            frequency_bits_agree,
            "C-3A11 C-3D8",
            hypervisor::frequency_bits_agree
        ),
        test!(integer_instructions, "-", features::integer),
        test!(sse_instructions, "-", features::sse),
        test!(avx_instructions, "-", features::avx),
        test!(avx512_instructions, "-", features::avx512),
        test!(system_instructions, "-", features::system),
        test!(absent_instructions_fault, "C-R11", features::absent),
        test!(monitor_mwait, "C-R11", features::monitor),
        test!(leaf_limits, "-", consistency::limits),
        test!(osxsave_follows_cr4, "-", consistency::osxsave),
        test!(apic_bit_and_ids, "-", consistency::apic),
        test!(cr4_bits_follow_features, "-", consistency::cr4),
        test!(efer_bits_follow_features, "-", consistency::efer),
        test!(msrs_follow_features, "-", consistency::msrs),
        test!(xsave_leaf, "-", consistency::xsave_leaf),
        test!(one_gib_pages, "-", consistency::one_gib_pages),
        test!(topology_ids_unique, "-", consistency::topology),
    ]
);
