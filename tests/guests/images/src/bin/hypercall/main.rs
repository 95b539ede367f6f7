// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The hypercall page as an overlay, and the calling convention (TLFS 3, 13).
#![no_std]
#![no_main]

mod convention;
mod page;

use guest::{image, test};

image!(
    "hypercall",
    [
        test!(needs_os_id, "M-01", page::needs_os_id),
        test!(enable_and_call, "M-01 A-07", page::enable_and_call),
        test!(hides_memory, "F-OV2 M-01", page::hides_memory),
        test!(over_unmapped_address, "F-OV2", page::over_unmapped_address),
        test!(write_faults, "F-OV3 F-OV9 K-01", page::write_faults),
        test!(moves, "F-OV2 M-01", page::moves),
        test!(os_id_zero_disables, "M-00", page::os_id_zero_disables),
        test!(content_is_constant, "F-OV11", page::content_is_constant),
        test!(out_of_range, "M-01 F-OV5", page::out_of_range),
        test!(under_reference_tsc, "F-OV4", page::under_reference_tsc),
        test!(seen_by_all_vps, "M-01", page::seen_by_all_vps),
        test!(unknown_code, "A-05 A-10 A-15", convention::unknown_code),
        test!(extended_code, "A-05", convention::extended_code),
        test!(all_codes_return, "A-05", convention::all_codes_return),
        test!(reserved_bits, "A-02", convention::reserved_bits),
        test!(result_fields, "A-06", convention::result_fields),
        test!(registers_kept, "A-23", convention::registers_kept),
        test!(cpl3, "A-09", convention::cpl3),
        test!(without_os_id, "A-29", convention::without_os_id),
        test!(compatibility_mode, "A-08", convention::compatibility_mode),
        // Last: it cannot be undone.
        test!(locked, "M-01 K-02 C-3D18", page::locked),
    ]
);
