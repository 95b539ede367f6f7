// SPDX-License-Identifier: GPL-2.0

//! What the host kernel tells about itself.

use super::bindings;
use kernel::str::CStrExt;

/// Number of possible CPUs; CPU numbers are below it.
pub(crate) fn nr_cpu_ids() -> usize {
    // SAFETY: Reads a variable of the kernel that does not change after boot.
    unsafe { bindings::hvrs_nr_cpu_ids() as usize }
}

/// The CPU this code runs on at this moment.
#[inline]
pub(crate) fn cpu_id() -> u32 {
    // SAFETY: Reads a per-CPU variable.
    unsafe { bindings::hvrs_cpu_id() }
}

/// Base of the TSS of `cpu`, as GUEST_TR_BASE's counterpart HOST_TR_BASE wants it.
pub(crate) fn tss_base(cpu: u32) -> u64 {
    // SAFETY: `cpu` comes from the kernel; the area exists for every possible CPU.
    unsafe { bindings::hvrs_tss_base(cpu) }
}

/// Frequency of the TSC in kHz.
pub(crate) fn tsc_khz() -> u32 {
    // SAFETY: Reads a variable of the kernel.
    unsafe { bindings::hvrs_tsc_khz() }
}

/// FRED event delivery is on: `int $2` would be fatal.
pub(crate) fn fred_enabled() -> bool {
    // SAFETY: Reads CPU features.
    unsafe { bindings::hvrs_fred_enabled() }
}

/// The kernel is PREEMPT_RT.
pub(crate) fn preempt_rt() -> bool {
    // SAFETY: A constant.
    unsafe { bindings::hvrs_preempt_rt() }
}

/// Large executable pages must not be given to guests (ITLB_MULTIHIT).
pub(crate) fn itlb_multihit() -> bool {
    // SAFETY: Reads CPU bugs.
    unsafe { bindings::hvrs_mitigate_itlb_multihit() }
}

/// IBPB is there and needed between guests.
pub(crate) fn spectre_v2() -> bool {
    // SAFETY: Reads CPU features and bugs.
    unsafe { bindings::hvrs_mitigate_spectre_v2() }
}

/// An L1D flush is there and needed before a guest runs.
pub(crate) fn l1tf() -> bool {
    // SAFETY: Reads CPU features and bugs.
    unsafe { bindings::hvrs_mitigate_l1tf() }
}

/// Makes `cpu` leave guest mode, if it is in it, by a reschedule interrupt.
pub(crate) fn kick_cpu(cpu: u32) {
    // SAFETY: `cpu` is a CPU that ran a VP, so it exists.
    unsafe { bindings::hvrs_kick_cpu(cpu) }
}

/// One turn of a busy wait.
#[inline]
pub(crate) fn cpu_relax() {
    core::hint::spin_loop();
}

/// Address space of the calling task: compared, never followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct MmId(usize);

impl MmId {
    /// That of the calling task.
    pub(crate) fn current() -> Self {
        // SAFETY: Reads `current->mm`.
        Self(unsafe { bindings::hvrs_current_mm() } as usize)
    }
}

/// Process id and name of the caller.
pub(crate) fn current_process() -> (i32, [u8; 16]) {
    let mut comm = [0u8; 16];
    // SAFETY: `comm` has TASK_COMM_LEN bytes.
    unsafe {
        bindings::hvrs_current_comm(comm.as_mut_ptr().cast());
        (bindings::hvrs_current_tgid(), comm)
    }
}

/// Rate-limited line about a guest in the kernel log.
pub(crate) fn log_guest(text: &'static kernel::str::CStr, partition: u64, vp: u32, a: u64, b: u64) {
    // SAFETY: `text` is a C string.
    unsafe { bindings::hvrs_log_guest(text.as_char_ptr(), partition, vp, a, b) }
}

/// Rate-limited line about a guest's crash in the kernel log.
pub(crate) fn log_crash(partition: u64, parameters: &[u64; 5]) {
    // SAFETY: Five parameters, as declared.
    unsafe { bindings::hvrs_log_crash(partition, parameters.as_ptr()) }
}

/// Rate-limited line with a guest's text, which is escaped, in the kernel log.
pub(crate) fn log_guest_text(partition: u64, text: &[u8]) {
    // SAFETY: `text` is of that length.
    unsafe { bindings::hvrs_log_guest_text(partition, text.as_ptr(), text.len() as u32) }
}

/// The TSC runs at a constant rate and is the same on all CPUs.
pub(crate) fn tsc_reliable() -> bool {
    // SAFETY: Reads variables of the kernel.
    unsafe { bindings::hvrs_tsc_reliable() }
}
