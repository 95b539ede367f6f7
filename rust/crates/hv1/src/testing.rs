// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the tests of this crate share.

use crate::{PartitionFeatures, PartitionLimits};
use hvdef::{HvHardwareFeatures, HvPartitionPrivilege, HvSyntheticProcessorFeatures};

/// A machine: 3 GHz, 39 address bits.
pub(crate) fn limits() -> PartitionLimits {
    PartitionLimits {
        max_vps: 64,
        physical_address_bits: 39,
        tsc_hz: 3_000_000_000,
        lapic: true,
        apic_hz: 200_000_000,
        tsc_reliable: true,
        hardware: HvHardwareFeatures::MSR_BITMAPS
            | HvHardwareFeatures::SECOND_LEVEL_ADDRESS_TRANSLATION,
        asked: HvPartitionPrivilege::all(),
    }
}

/// A partition with everything.
pub(crate) fn all() -> PartitionFeatures {
    PartitionFeatures::new(HvSyntheticProcessorFeatures(u64::MAX), limits())
}

/// Marsaglia's xorshift64.
pub(crate) fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
