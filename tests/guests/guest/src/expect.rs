// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Assertions about instructions that may fault.

use crate::idt::{vector_name, GP};
use crate::probe::{self, Fault};

/// Asserts that `result` is the exception `vector`.
#[track_caller]
pub fn fault<T: core::fmt::Debug>(result: Result<T, Fault>, vector: u8, what: &str) {
    match result {
        Err(fault) if fault.vector == vector => {}
        other => panic!("{what}: {other:x?} in place of {}", vector_name(vector)),
    }
}

/// Asserts that RDMSR raises #GP(0).
#[track_caller]
pub fn rdmsr_gp(msr: u32) {
    match probe::rdmsr(msr) {
        Err(f) if f.vector == GP && f.error == 0 => {}
        other => panic!("RDMSR {msr:#x}: {other:x?} in place of #GP(0)"),
    }
}

/// Asserts that WRMSR raises #GP(0).
#[track_caller]
pub fn wrmsr_gp(msr: u32, value: u64) {
    match probe::wrmsr(msr, value) {
        Err(f) if f.vector == GP && f.error == 0 => {}
        other => panic!("WRMSR {msr:#x} {value:#x}: {other:?} in place of #GP(0)"),
    }
}

/// Asserts that an MSR takes `value` and gives it back; leaves it so.
#[track_caller]
pub fn wrmsr_sticks(msr: u32, value: u64) {
    if let Err(f) = probe::wrmsr(msr, value) {
        panic!("WRMSR {msr:#x} {value:#x}: {f:?}");
    }
    let read = probe::rdmsr(msr);
    assert!(
        read == Ok(value),
        "MSR {msr:#x} was given {value:#x}, reads {read:x?}"
    );
}
