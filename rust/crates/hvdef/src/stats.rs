// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Statistics pages (rows M-E0 to M-E3, F-ST1 to F-ST7): 512 words, of which some are headers of groups and the others
//! counters. The TLFS orders counters in groups, Linux knows them by the number of their word; both say the same.

numbers! { u32;
    HV_STATS_OBJECT_PARTITION = 0x0001_0001,
    HV_STATS_OBJECT_VP = 0x0001_0002,
}

/// Words of a statistics page.
pub const HV_STATS_WORDS: usize = 512;

/// A group of counters: its type in the header, the header's word, and how many words of counters follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HvStatsGroup {
    /// `HV_STATISTICS_GROUP_*_ID`: 2 for architectural counters, 3 for those of the virtualization.
    pub kind: u16,
    /// Word of the header.
    pub at: u16,
    /// Number of counters.
    pub counters: u16,
}

impl HvStatsGroup {
    /// `HV_STATISTICS_GROUP_HEADER`: type, version (minor, major), length in bytes. A header of 0 ends the list.
    pub const fn header(self) -> u64 {
        const VERSION: u64 = 0x0001_0000;
        self.kind as u64 | (VERSION << 16) | ((self.counters as u64 * 8) << 48)
    }
}

/// Groups of a partition's page.
pub const HV_STATS_PARTITION_GROUPS: [HvStatsGroup; 2] = [
    HvStatsGroup {
        kind: 2,
        at: 0,
        counters: 1,
    },
    HvStatsGroup {
        kind: 3,
        at: 2,
        counters: 11,
    },
];

/// Groups of a VP's page.
pub const HV_STATS_VP_GROUPS: [HvStatsGroup; 2] = [
    HvStatsGroup {
        kind: 2,
        at: 0,
        counters: 5,
    },
    HvStatsGroup {
        kind: 3,
        at: 6,
        counters: 70,
    },
];

macro_rules! counters {
    ($(#[$m:meta])* $set:ident $prefix:literal; $($(#[$cm:meta])* $name:ident = $word:literal,)*) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum $set {
            $($(#[$cm])* $name = $word,)*
        }

        impl $set {
            /// All of them, in the order of their words, with the names that Linux gives them.
            pub const ALL: &'static [($set, &'static str)] =
                &[$(($set::$name, concat!($prefix, stringify!($name))),)*];
        }
    };
}

counters! {
    /// Counters of a partition; others of its page are not counted, and zero.
    HvPartitionCounter "Pt";
    /// VPs.
    VirtualProcessors = 1,
    /// Pages of memory that the VMM has given.
    GpaPages = 6,
    /// How often it has given or taken memory.
    GpaSpaceModifications = 7,
}

counters! {
    /// Counters of a VP; others of its page are not counted, and zero.
    HvVpCounter "Vp";
    /// 100 ns in root windows: in the guest, or with its exits.
    TotalRunTime = 1,
    /// VMCALL.
    HypercallsCount = 7,
    /// Accesses of control registers.
    ControlRegisterAccessesCount = 11,
    /// IN, OUT and their string forms.
    IoInstructionsCount = 13,
    /// HLT.
    HltInstructionsCount = 15,
    /// MONITOR and MWAIT.
    MwaitInstructionsCount = 17,
    /// CPUID.
    CpuidInstructionsCount = 19,
    /// RDMSR and WRMSR that exit.
    MsrAccessesCount = 21,
    /// All other exits.
    OtherInterceptsCount = 23,
    /// Exits because the host has an interrupt.
    ExternalInterruptsCount = 25,
    /// Exits because the guest can now take an interrupt that waits.
    PendingInterruptsCount = 27,
    /// Instructions that hvrs has executed.
    EmulatedInstructionsCount = 29,
    /// Accesses of debug registers.
    DebugRegisterAccessesCount = 31,
    /// Accesses of the APIC page.
    ApicMmioAccesses = 39,
    /// Messages to the VMM about ports.
    IoInterceptMessages = 40,
    /// Messages to the VMM about memory.
    MemoryInterceptMessages = 41,
    /// Other messages to the VMM.
    OtherMessages = 43,
    /// How often another CPU than the last time ran it.
    LogicalProcessorMigrations = 45,
    /// Interrupts that it took.
    VirtualInterrupts = 59,
    /// Messages of its local APIC, but for those that it sends to itself by shorthand.
    ApicIpisSent = 60,
    /// HvCallNotifyLongSpinWait.
    LongSpinWaitHypercalls = 64,
    /// Calls of no other class.
    OtherHypercalls = 65,
    /// HvCallPostMessage and HvCallSignalEvent.
    SyntheticInterruptHypercalls = 66,
    /// HvCallSendSyntheticClusterIpi.
    VirtualInterruptHypercalls = 67,
    /// HvCallFlushVirtualAddressSpace and List.
    VirtualMmuHypercalls = 68,
    /// Calls about VPs and their registers.
    VirtualProcessorHypercalls = 69,
    /// EPT violations.
    NestedPageFaultInterceptsCount = 71,
    /// Root windows: how often a CPU began to run it.
    LogicalProcessorDispatches = 74,
}

impl HvVpCounter {
    /// Each VM exit is in one of these.
    pub const EXITS: [Self; 12] = [
        Self::HypercallsCount,
        Self::ControlRegisterAccessesCount,
        Self::IoInstructionsCount,
        Self::HltInstructionsCount,
        Self::MwaitInstructionsCount,
        Self::CpuidInstructionsCount,
        Self::MsrAccessesCount,
        Self::OtherInterceptsCount,
        Self::ExternalInterruptsCount,
        Self::PendingInterruptsCount,
        Self::DebugRegisterAccessesCount,
        Self::NestedPageFaultInterceptsCount,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F-ST2: groups follow each other, a zero header ends them, and each counter is in one.
    #[test]
    fn counters_are_in_groups() {
        let inside = |groups: &[HvStatsGroup], word: u16| {
            groups
                .iter()
                .any(|g| (g.at + 1..=g.at + g.counters).contains(&word))
        };
        for groups in [HV_STATS_PARTITION_GROUPS, HV_STATS_VP_GROUPS] {
            assert_eq!(groups[0].at, 0);
            assert_eq!(groups[1].at, groups[0].counters + 1);
            let end = usize::from(groups[1].at + groups[1].counters) + 1;
            assert!(end < HV_STATS_WORDS);
        }
        for (c, name) in HvVpCounter::ALL {
            assert!(inside(&HV_STATS_VP_GROUPS, *c as u16), "{name}");
        }
        for (c, name) in HvPartitionCounter::ALL {
            assert!(inside(&HV_STATS_PARTITION_GROUPS, *c as u16), "{name}");
        }
        // Type 2, version 1.0, 40 bytes: as bytes in memory.
        let header = HV_STATS_VP_GROUPS[0].header().to_le_bytes();
        assert_eq!(header, [2, 0, 0, 0, 1, 0, 40, 0]);
    }
}
