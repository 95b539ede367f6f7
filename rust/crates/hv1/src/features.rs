// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a partition is granted.
//!
//! CPUID leaves, privileges and MSR access are all derived from [`PartitionFeatures`], so a bit that is shown is a
//! bit that works (C-R5).

use hvdef::{
    HvFeaturesEdx, HvHardwareFeatures, HvPartitionPrivilege, HvRecommendations,
    HvSyntheticProcessorFeatures,
};

/// What the machine and the VMM set.
#[derive(Clone, Copy, Debug)]
pub struct PartitionLimits {
    /// VPs that the partition can have.
    pub max_vps: u32,
    /// Bits of a guest-physical address.
    pub physical_address_bits: u8,
    /// Hz of the guest's TSC.
    pub tsc_hz: u64,
    /// Hz of the local APIC timer before its divider.
    pub apic_hz: u64,
    /// The hypervisor has the local APIC, and not the VMM.
    pub lapic: bool,
    /// The TSC runs at that rate for ever and is the same on all CPUs (F-TM10, F-TM12).
    pub tsc_reliable: bool,
    /// Hardware that is used for the partition.
    pub hardware: HvHardwareFeatures,
    /// Privileges asked for by name ([`BY_NAME`]).
    pub asked: HvPartitionPrivilege,
}

/// Version shown in leaf 0x40000002.
#[derive(Clone, Copy, Debug)]
pub struct HypervisorVersion {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// Build.
    pub build: u32,
}

impl HypervisorVersion {
    /// Guests choose work-arounds by this, so it is that of a hypervisor with which they were tested: the one of
    /// Windows Server 2022.
    pub const COMPATIBLE: Self = Self {
        major: 10,
        minor: 0,
        build: 20348,
    };
}

/// Features of one partition, fixed when it is initialized.
#[derive(Clone, Copy, Debug)]
pub struct PartitionFeatures {
    /// Synthetic features granted.
    pub synthetic: HvSyntheticProcessorFeatures,
    /// Privileges granted: leaf 0x40000003 EAX and EBX, and what MSRs and hypercalls check.
    pub privileges: HvPartitionPrivilege,
    /// Leaf 0x40000003 EDX.
    pub edx: HvFeaturesEdx,
    /// Leaf 0x40000004 EAX.
    pub recommendations: HvRecommendations,
    /// Leaf 0x40000002.
    pub version: HypervisorVersion,
    /// What the machine and the VMM set.
    pub limits: PartitionLimits,
}

type Synthetic = HvSyntheticProcessorFeatures;
type Privilege = HvPartitionPrivilege;

/// Synthetic features that exist here; whatever else a VMM asks for is not granted and not shown.
pub const IMPLEMENTED: HvSyntheticProcessorFeatures = Synthetic::HYPERVISOR_PRESENT
    .union(Synthetic::HV1)
    .union(Synthetic::ACCESS_VP_RUN_TIME_REG)
    .union(Synthetic::ACCESS_PARTITION_REFERENCE_COUNTER)
    .union(Synthetic::ACCESS_SYNIC_REGS)
    .union(Synthetic::ACCESS_SYNTHETIC_TIMER_REGS)
    .union(Synthetic::ACCESS_INTR_CTRL_REGS)
    .union(Synthetic::ACCESS_HYPERCALL_REGS)
    .union(Synthetic::ACCESS_VP_INDEX)
    .union(Synthetic::ACCESS_PARTITION_REFERENCE_TSC)
    .union(Synthetic::ACCESS_GUEST_IDLE_REG)
    .union(Synthetic::ACCESS_FREQUENCY_REGS)
    .union(Synthetic::DIRECT_SYNTHETIC_TIMERS)
    .union(Synthetic::SYNTHETIC_TIME_UNHALTED_TIMER)
    .union(Synthetic::ENABLE_EXTENDED_GVA_RANGES_FOR_FLUSH_VIRTUAL_ADDRESS_LIST)
    .union(Synthetic::EXTENDED_PROCESSOR_MASKS)
    .union(Synthetic::TB_FLUSH_HYPERCALLS)
    .union(Synthetic::SYNTHETIC_CLUSTER_IPI)
    .union(Synthetic::NOTIFY_LONG_SPIN_WAIT)
    .union(Synthetic::ACCESS_VP_REGS)
    .union(Synthetic::SIGNAL_EVENTS)
    .union(Synthetic::FAST_HYPERCALL_OUTPUT)
    .union(Synthetic::START_VIRTUAL_PROCESSOR);

/// Privileges that no synthetic feature brings: a VMM asks for them (property `HV_PARTITION_PROPERTY_PRIVILEGE_FLAGS`).
pub const BY_NAME: HvPartitionPrivilege = Privilege::ACCESS_STATS_REG
    .union(Privilege::ACCESS_DEBUG_REGS)
    .union(Privilege::DEBUGGING);

/// What is done by the local APIC, or waits for its interrupts.
const BY_LAPIC: HvSyntheticProcessorFeatures = Synthetic::ACCESS_SYNIC_REGS
    .union(Synthetic::ACCESS_SYNTHETIC_TIMER_REGS)
    .union(Synthetic::ACCESS_INTR_CTRL_REGS)
    .union(Synthetic::ACCESS_GUEST_IDLE_REG)
    .union(Synthetic::DIRECT_SYNTHETIC_TIMERS)
    .union(Synthetic::SYNTHETIC_TIME_UNHALTED_TIMER)
    .union(Synthetic::SYNTHETIC_CLUSTER_IPI);

/// Which privilege each synthetic feature brings.
const PRIVILEGES: [(HvSyntheticProcessorFeatures, HvPartitionPrivilege); 15] = [
    // There is no feature for the reset, and each VMM knows what to do with a guest that stops.
    (Synthetic::HV1, Privilege::ACCESS_RESET_REG),
    (
        Synthetic::ACCESS_VP_RUN_TIME_REG,
        Privilege::ACCESS_VP_RUN_TIME_REG,
    ),
    (
        Synthetic::ACCESS_PARTITION_REFERENCE_COUNTER,
        Privilege::ACCESS_PARTITION_REFERENCE_COUNTER,
    ),
    (Synthetic::ACCESS_SYNIC_REGS, Privilege::ACCESS_SYNIC_REGS),
    (
        Synthetic::ACCESS_SYNTHETIC_TIMER_REGS,
        Privilege::ACCESS_SYNTHETIC_TIMER_REGS,
    ),
    (
        Synthetic::ACCESS_GUEST_IDLE_REG,
        Privilege::ACCESS_GUEST_IDLE_REG,
    ),
    (
        Synthetic::ACCESS_INTR_CTRL_REGS,
        Privilege::ACCESS_INTR_CTRL_REGS,
    ),
    (
        Synthetic::ACCESS_HYPERCALL_REGS,
        Privilege::ACCESS_HYPERCALL_MSRS,
    ),
    (Synthetic::ACCESS_VP_INDEX, Privilege::ACCESS_VP_INDEX),
    (
        Synthetic::ACCESS_PARTITION_REFERENCE_TSC,
        Privilege::ACCESS_PARTITION_REFERENCE_TSC,
    ),
    (
        Synthetic::ACCESS_FREQUENCY_REGS,
        Privilege::ACCESS_FREQUENCY_REGS,
    ),
    // There is no feature for messages, and who connects guests wants both.
    (
        Synthetic::SIGNAL_EVENTS,
        Privilege::POST_MESSAGES.union(Privilege::SIGNAL_EVENTS),
    ),
    (
        Synthetic::FAST_HYPERCALL_OUTPUT,
        Privilege::FAST_HYPERCALL_OUTPUT,
    ),
    (Synthetic::ACCESS_VP_REGS, Privilege::ACCESS_VP_REGISTERS),
    (
        Synthetic::START_VIRTUAL_PROCESSOR,
        Privilege::START_VIRTUAL_PROCESSOR,
    ),
];

impl PartitionFeatures {
    /// What a partition gets that asks for `requested` (property `HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES`).
    pub const fn new(requested: HvSyntheticProcessorFeatures, limits: PartitionLimits) -> Self {
        let mut synthetic = requested.intersection(IMPLEMENTED);
        if !limits.lapic {
            synthetic = synthetic.difference(BY_LAPIC);
        }
        if !synthetic.contains(Synthetic::HYPERVISOR_PRESENT.union(Synthetic::HV1)) {
            // Without the interface there is nothing that its parts could be parts of.
            synthetic = synthetic.intersection(Synthetic::HYPERVISOR_PRESENT);
        } else {
            // HV#1 demands these two of everyone (C-3A5, C-3A6).
            synthetic = synthetic
                .union(Synthetic::ACCESS_HYPERCALL_REGS)
                .union(Synthetic::ACCESS_VP_INDEX);
        }

        let mut privileges = Privilege::empty();
        let mut i = 0;
        while i < PRIVILEGES.len() {
            if synthetic.contains(PRIVILEGES[i].0) {
                privileges = privileges.union(PRIVILEGES[i].1);
            }
            i += 1;
        }
        let hv1 = synthetic.contains(Synthetic::HV1);
        if hv1 {
            privileges = privileges.union(limits.asked.intersection(BY_NAME));
        }
        // Without the timers' registers they would be of no use.
        let timers = synthetic.contains(Synthetic::ACCESS_SYNTHETIC_TIMER_REGS);
        let direct = timers && synthetic.contains(Synthetic::DIRECT_SYNTHETIC_TIMERS);
        let unhalted = timers && synthetic.contains(Synthetic::SYNTHETIC_TIME_UNHALTED_TIMER);
        let flush = synthetic.contains(Synthetic::TB_FLUSH_HYPERCALLS);
        let ranges = Synthetic::ENABLE_EXTENDED_GVA_RANGES_FOR_FLUSH_VIRTUAL_ADDRESS_LIST;
        let ipi = synthetic.contains(Synthetic::SYNTHETIC_CLUSTER_IPI);
        Self {
            synthetic,
            privileges,
            edx: HvFeaturesEdx::FREQUENCY_REGS_AVAILABLE
                .when(privileges.contains(Privilege::ACCESS_FREQUENCY_REGS))
                .union(HvFeaturesEdx::HYPERCALL_MSR_LOCK_AVAILABLE.when(hv1))
                .union(HvFeaturesEdx::GUEST_CRASH_REGS_AVAILABLE.when(hv1))
                .union(HvFeaturesEdx::DIRECT_SYNTHETIC_TIMERS.when(direct))
                .union(HvFeaturesEdx::SYNTHETIC_TIME_UNHALTED_TIMER_AVAILABLE.when(unhalted))
                .union(
                    HvFeaturesEdx::SINT_POLLING_MODE_AVAILABLE
                        .when(privileges.contains(Privilege::ACCESS_SYNIC_REGS)),
                )
                .union(
                    HvFeaturesEdx::GUEST_IDLE_AVAILABLE
                        .when(privileges.contains(Privilege::ACCESS_GUEST_IDLE_REG)),
                )
                .union(
                    HvFeaturesEdx::DEBUG_REGS_AVAILABLE
                        .when(privileges.contains(Privilege::ACCESS_DEBUG_REGS)),
                )
                .union(
                    HvFeaturesEdx::GUEST_DEBUGGING_AVAILABLE
                        .when(privileges.contains(Privilege::DEBUGGING)),
                )
                .union(HvFeaturesEdx::XMM_REGISTERS_FOR_FAST_HYPERCALL_AVAILABLE.when(hv1))
                .union(
                    HvFeaturesEdx::FAST_HYPERCALL_OUTPUT_AVAILABLE
                        .when(privileges.contains(Privilege::FAST_HYPERCALL_OUTPUT)),
                )
                .union(
                    HvFeaturesEdx::EXTENDED_GVA_RANGES_FOR_FLUSH_VIRTUAL_ADDRESS_LIST_AVAILABLE
                        .when(flush && synthetic.contains(ranges)),
                ),
            recommendations: HvRecommendations::USE_RELAXED_TIMING
                .when(hv1)
                .union(HvRecommendations::USE_HYPERCALL_FOR_REMOTE_FLUSH.when(flush))
                .union(HvRecommendations::USE_SYNTHETIC_CLUSTER_IPI.when(ipi))
                .union(HvRecommendations::USE_EX_PROCESSOR_MASKS.when(
                    (flush || ipi) && synthetic.contains(Synthetic::EXTENDED_PROCESSOR_MASKS),
                )),
            version: HypervisorVersion::COMPATIBLE,
            limits,
        }
    }

    /// The processors' TSC is invariant, and CPUID shows it when the guest wants to see it (C-3A15).
    pub const fn grant_tsc_invariant(&mut self) {
        if self.hv1() {
            let bit = Privilege::ACCESS_TSC_INVARIANT_CONTROLS;
            self.privileges = self.privileges.union(bit);
        }
    }

    /// The processors can keep user mode from instructions that tell where descriptor tables are (C-3D12).
    pub const fn grant_npiep(&mut self) {
        let bit = HvFeaturesEdx::NPIEP1_AVAILABLE;
        self.edx = self.edx.union(bit.when(self.hv1()));
    }

    /// Whether the interface is there at all.
    #[inline(always)]
    pub const fn hv1(&self) -> bool {
        self.synthetic.contains(Synthetic::HV1)
    }

    /// Whether fast calls may use XMM registers.
    #[inline(always)]
    pub const fn xmm_input(&self) -> bool {
        self.edx
            .contains(HvFeaturesEdx::XMM_REGISTERS_FOR_FAST_HYPERCALL_AVAILABLE)
    }

    /// Whether fast calls may have output, in XMM registers.
    #[inline(always)]
    pub const fn xmm_output(&self) -> bool {
        self.edx
            .contains(HvFeaturesEdx::FAST_HYPERCALL_OUTPUT_AVAILABLE)
    }

    /// Whether HvCallFlushVirtualAddressList takes the extended format of ranges.
    #[inline(always)]
    pub const fn extended_gva_ranges(&self) -> bool {
        self.edx
            .contains(HvFeaturesEdx::EXTENDED_GVA_RANGES_FOR_FLUSH_VIRTUAL_ADDRESS_LIST_AVAILABLE)
    }

    /// Whether CPUID leaf 1 shows a hypervisor (C-R1).
    #[inline(always)]
    pub const fn hypervisor_present(&self) -> bool {
        self.synthetic.contains(Synthetic::HYPERVISOR_PRESENT)
    }

    /// Whether page number `gpn` is inside the guest-physical address space.
    #[inline(always)]
    pub const fn gpn_in_range(&self, gpn: u64) -> bool {
        let bits = self.limits.physical_address_bits;
        bits >= 64 || (gpn << 12) >> 12 == gpn && (gpn << 12) >> bits == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{limits, xorshift};

    #[test]
    fn only_what_is_implemented_is_granted() {
        let f = PartitionFeatures::new(HvSyntheticProcessorFeatures(u64::MAX), limits());
        assert_eq!(f.synthetic, IMPLEMENTED);
        assert!(!f.privileges.intersects(Privilege::ACCESS_VSM));
        assert!(!f.edx.contains(HvFeaturesEdx::NPIEP1_AVAILABLE));
    }

    #[test]
    fn what_needs_a_local_apic_is_not_there_without_one() {
        let without = PartitionLimits {
            lapic: false,
            ..limits()
        };
        let f = PartitionFeatures::new(IMPLEMENTED, without);
        assert_eq!(f.synthetic, IMPLEMENTED.difference(BY_LAPIC));
        assert!(!f.privileges.contains(Privilege::ACCESS_SYNIC_REGS));
        assert!(!f.edx.contains(HvFeaturesEdx::GUEST_IDLE_AVAILABLE));
        let ipi = HvRecommendations::USE_SYNTHETIC_CLUSTER_IPI;
        assert!(!f.recommendations.contains(ipi));
    }

    /// HV#1: what a third party must clear is clear whatever is asked for (rows marked M0).
    #[test]
    fn hv1_forbidden_privileges() {
        let mut rng = 1;
        for _ in 0..1000 {
            let asked = HvSyntheticProcessorFeatures(xorshift(&mut rng));
            let f = PartitionFeatures::new(asked, limits());
            assert!(!f.privileges.intersects(Privilege::MUST_BE_CLEAR));
            assert_eq!(f.synthetic.difference(IMPLEMENTED).bits(), 0);
            let both = Synthetic::HYPERVISOR_PRESENT | Synthetic::HV1;
            if asked.contains(both) {
                assert!(f.privileges.contains(Privilege::ACCESS_HYPERCALL_MSRS));
                assert!(f.privileges.contains(Privilege::ACCESS_VP_INDEX));
            } else {
                assert_eq!(f.privileges, Privilege::empty());
            }
        }
    }

    #[test]
    fn page_numbers() {
        let f = PartitionFeatures::new(IMPLEMENTED, limits());
        assert!(f.gpn_in_range((1 << 27) - 1));
        assert!(!f.gpn_in_range(1 << 27));
        assert!(!f.gpn_in_range((1 << 52) - 1));
    }
}
