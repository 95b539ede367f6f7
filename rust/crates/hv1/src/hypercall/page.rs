// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Contents of the hypercall page (M-01). They never change while it is mapped (F-OV11).

use hvdef::HV_HYP_PAGE_SIZE;

/// `VMCALL`, `RET`: the same bytes in 32-bit and 64-bit code.
const ENTRY: [u8; 4] = [0x0f, 0x01, 0xc1, 0xc3];
/// `INT3`: whoever jumps elsewhere into the page is told.
const FILL: u8 = 0xcc;

/// The page for VMX.
pub static HYPERCALL_PAGE_VMX: [u8; HV_HYP_PAGE_SIZE] = {
    let mut page = [FILL; HV_HYP_PAGE_SIZE];
    let mut i = 0;
    while i < ENTRY.len() {
        page[i] = ENTRY[i];
        i += 1;
    }
    page
};
