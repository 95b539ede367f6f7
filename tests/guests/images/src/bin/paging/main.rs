// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Paging in all modes, and the ways between the modes (SDM 3A chapters 4 and 10).
#![no_std]
#![no_main]

mod legacy;
mod long;

use guest::{image, test};

image!(
    "paging",
    [
        test!(accessed_and_dirty, "-", long::accessed_and_dirty),
        test!(large_pages, "-", long::large_pages),
        test!(no_execute, "-", long::no_execute),
        test!(user_rights, "-", long::user_rights),
        test!(other_root, "-", long::other_root),
        test!(aliases, "-", long::aliases),
        test!(invlpg, "-", long::invlpg),
        test!(compatibility_mode, "-", long::compatibility_mode),
        test!(protected_unpaged, "-", legacy::unpaged),
        test!(paging_32, "-", legacy::paging_32),
        test!(paging_pae, "-", legacy::paging_pae),
        test!(pae_pointers, "-", legacy::pae_pointers),
        test!(modes_in_turn, "-", legacy::modes_in_turn),
        test!(real_mode, "-", legacy::real_mode),
        // Last: it fills what is left.
        test!(all_memory, "-", long::all_memory),
    ]
);
