// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The reference time (TLFS, chapter "Timers"; row F-TM9).

/// Ticks of the reference counter in a second: one is 100 ns.
pub const HV_CLOCK_HZ: u64 = 10_000_000;

/// Sequence that tells the guest to use the MSR instead.
pub const HV_REFERENCE_TSC_SEQUENCE_INVALID: u32 = 0;

wire_struct! {
    /// `HV_REFERENCE_TSC_PAGE`: `time = (tsc * tsc_scale >> 64) + tsc_offset`. The rest of the page is zero.
    pub struct HvReferenceTscPage: 24 {
        /// Changes with the other two; [`HV_REFERENCE_TSC_SEQUENCE_INVALID`] if they are not valid.
        pub tsc_sequence: u32,
        /// Zero.
        pub reserved1: u32,
        /// 64-bit binary fraction of 100 ns per TSC tick.
        pub tsc_scale: u64,
        /// 100 ns.
        pub tsc_offset: i64,
    }
}
