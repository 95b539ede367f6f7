// SPDX-License-Identifier: GPL-2.0 OR MIT
//! HV_X64_MSR_RESET ends the VM's run. The image says so beforehand: after its `done` nothing may follow on COM1, the
//! debug-exit port is not reached, and the VMM tells of a guest that rebooted (QEMU with `-no-reboot` ends with status 0).
#![no_std]
#![no_main]

use guest::{hv, probe, say};

#[no_mangle]
extern "C" fn guest_main() -> ! {
    say!("# image reset");
    if !hv::privilege(hv::ACCESS_RESET) {
        say!("skip reset [F-RS1 M-03]: no RESET");
        say!("done 0 0");
        guest::console::exit(false)
    }
    say!("ok reset [F-RS1 M-03]");
    say!("done 1 0");
    let got = probe::wrmsr(hv::HV_X64_MSR_RESET, 1);
    say!("not ok reset [F-RS1 M-03]: goes on after a reset, {got:?}");
    guest::console::exit(true)
}
