// SPDX-License-Identifier: GPL-2.0 OR MIT

//! CPUID leaves 0x40000000 to 0x400000ff (section 1 of the matrix).

use crate::PartitionFeatures;
use hvdef::{
    HvSyntheticProcessorFeatures, HV_SPIN_WAIT_NEVER, HYPERV_CPUID_ENLIGHTMENT_INFO,
    HYPERV_CPUID_FEATURES, HYPERV_CPUID_HARDWARE_FEATURES, HYPERV_CPUID_IMPLEMENT_LIMITS,
    HYPERV_CPUID_INTERFACE, HYPERV_CPUID_RANGE, HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS,
    HYPERV_CPUID_VERSION, HYPERV_INTERFACE_SIGNATURE, HYPERV_VENDOR_SIGNATURE,
};

/// Highest leaf with contents (C-R2 wants at least 0x40000005).
pub const MAX_LEAF: u32 = HYPERV_CPUID_HARDWARE_FEATURES;

/// Spins after which a guest reports a long wait (C-4B).
pub const SPIN_WAIT_COUNT: u32 = 0xfff;

/// EAX, EBX, ECX, EDX of a hypervisor leaf; `None` if the leaf is not one, or the partition has no interface.
///
/// Leaf 0x40000002 does not wait for the guest's identity: the TLFS of 2012 to 2018 had it do so, today's does not, and
/// guests that read it first show that Hyper-V itself does not (C-R3).
#[inline(always)]
pub fn cpuid(leaf: u32, features: &PartitionFeatures) -> Option<[u32; 4]> {
    if !HYPERV_CPUID_RANGE.contains(&leaf) || !features.hv1() {
        return None;
    }
    let [ebx, ecx, edx] = HYPERV_VENDOR_SIGNATURE;
    Some(match leaf {
        HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS => [MAX_LEAF, ebx, ecx, edx],
        HYPERV_CPUID_INTERFACE => [HYPERV_INTERFACE_SIGNATURE, 0, 0, 0],
        HYPERV_CPUID_VERSION => {
            let v = features.version;
            [
                v.build,
                (u32::from(v.major) << 16) | u32::from(v.minor),
                0,
                0,
            ]
        }
        HYPERV_CPUID_FEATURES => [
            features.privileges.low(),
            features.privileges.high(),
            0,
            features.edx.bits(),
        ],
        HYPERV_CPUID_ENLIGHTMENT_INFO => {
            let spin = features
                .synthetic
                .contains(HvSyntheticProcessorFeatures::NOTIFY_LONG_SPIN_WAIT);
            [
                features.recommendations.bits(),
                if spin {
                    SPIN_WAIT_COUNT
                } else {
                    HV_SPIN_WAIT_NEVER
                },
                u32::from(features.limits.physical_address_bits) & 0x7f,
                0,
            ]
        }
        // C-5; the number of logical processors is not told (HV#1 allows 0).
        HYPERV_CPUID_IMPLEMENT_LIMITS => [features.limits.max_vps, 0, 0, 0],
        HYPERV_CPUID_HARDWARE_FEATURES => [features.limits.hardware.bits(), 0, 0, 0],
        // C-R5: what is not documented or not there is zero.
        _ => [0; 4],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{all, limits};
    use hvdef::{HvRecommendations, HvSyntheticProcessorFeatures as Synthetic};

    /// C-00A, C-00B, C-01, C-R2.
    #[test]
    fn signatures() {
        let [max, b, c, d] = cpuid(0x4000_0000, &all()).unwrap();
        assert!(max >= 0x4000_0005);
        let mut name = std::vec::Vec::new();
        for r in [b, c, d] {
            name.extend_from_slice(&r.to_le_bytes());
        }
        assert_eq!(name, b"Microsoft Hv");
        assert_eq!(
            cpuid(0x4000_0001, &all()).unwrap()[0].to_le_bytes(),
            *b"Hv#1"
        );
    }

    /// C-R3.
    #[test]
    fn identity() {
        let [build, version, ..] = cpuid(0x4000_0002, &all()).unwrap();
        assert_eq!((build, version), (20348, 0x000a_0000));
    }

    /// C-3A, C-3D8: exactly the granted privileges.
    #[test]
    fn features() {
        assert_eq!(
            cpuid(0x4000_0003, &all()),
            Some([0x1fff, 0x2a_0830, 0, 0x8e_cd32])
        );
        let least =
            PartitionFeatures::new(Synthetic::HYPERVISOR_PRESENT | Synthetic::HV1, limits());
        assert_eq!(
            cpuid(0x4000_0003, &least),
            Some([0x11e0, 0x800, 0, 0x4_0c12])
        );
    }

    /// C-4A2, C-4A5, C-4A10, C-4A11, C-4B, C-4C, C-5, C-6; E13.
    #[test]
    fn recommendations_and_limits() {
        let all_of_them = HvRecommendations::USE_RELAXED_TIMING
            | HvRecommendations::USE_HYPERCALL_FOR_REMOTE_FLUSH
            | HvRecommendations::USE_SYNTHETIC_CLUSTER_IPI
            | HvRecommendations::USE_EX_PROCESSOR_MASKS;
        assert_eq!(
            cpuid(0x4000_0004, &all()),
            Some([all_of_them.bits(), 0xfff, 39, 0])
        );
        let f = PartitionFeatures::new(Synthetic::HYPERVISOR_PRESENT | Synthetic::HV1, limits());
        assert_eq!(cpuid(0x4000_0004, &f).unwrap()[1], u32::MAX);
        assert_eq!(cpuid(0x4000_0005, &all()), Some([64, 0, 0, 0]));
        assert_eq!(
            cpuid(0x4000_0006, &all()),
            Some([(1 << 1) | (1 << 3), 0, 0, 0])
        );
    }

    /// C-R5, C-C: the rest of the range is zero; other leaves are not ours.
    #[test]
    fn the_rest() {
        for leaf in 0x4000_0007..=0x4000_00ff {
            assert_eq!(cpuid(leaf, &all()), Some([0; 4]));
        }
        for leaf in [0, 1, 0x3fff_ffff, 0x4000_0100, 0x8000_0000] {
            assert_eq!(cpuid(leaf, &all()), None);
        }
        let none = PartitionFeatures::new(Synthetic::HYPERVISOR_PRESENT, limits());
        assert_eq!(cpuid(0x4000_0000, &none), None);
    }
}
