// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The synthetic MSRs, one row each. To add one: give its row an [`Access`] of its own, and that a read and a write.

use hvdef::*;

/// How often the register exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Once in a partition.
    Partition,
    /// Once in each VP.
    Vp,
    /// Once in each VTL of each VP.
    VpVtl,
}

/// What stands behind the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named like their registers.
pub enum Access {
    GuestOsId,
    Hypercall,
    VpIndex,
    Reset,
    VpRuntime,
    TimeRefCount,
    ReferenceTsc,
    TscFrequency,
    ApicFrequency,
    Eoi,
    Icr,
    Tpr,
    VpAssistPage,
    Scontrol,
    Sversion,
    Siefp,
    Simp,
    Eom,
    Sint(u8),
    StimerConfig(u8),
    StimerCount(u8),
    UnhaltedTimerConfig,
    UnhaltedTimerCount,
    NpiepConfig,
    GuestIdle,
    /// The partition's statistics page; true: the internal one.
    StatsPartition(bool),
    /// The VP's.
    StatsVp(bool),
    /// The synthetic debugger's, which is the VMM.
    Debugger,
    CrashParameter(u8),
    CrashControl,
    TscInvariantControl,
}

/// One synthetic MSR.
#[derive(Clone, Copy, Debug)]
pub struct MsrRow {
    /// Number.
    pub number: u32,
    /// Name.
    pub name: &'static str,
    /// Row of the matrix.
    pub id: &'static str,
    /// How often it exists.
    pub scope: Scope,
    /// What a guest needs to use it, besides the interface.
    pub privilege: HvPartitionPrivilege,
    /// What stands behind it.
    pub access: Access,
}

macro_rules! table {
    ($($id:literal $name:ident $scope:ident $privilege:ident $access:expr;)*) => {
        /// All rows, in the order of their numbers.
        pub const TABLE: &[MsrRow] = &[
            $(MsrRow {
                number: $name,
                name: stringify!($name),
                id: $id,
                scope: Scope::$scope,
                privilege: HvPartitionPrivilege::$privilege,
                access: $access,
            },)*
        ];
    };
}

table! {
    "M-00" HV_X64_MSR_GUEST_OS_ID Partition ACCESS_HYPERCALL_MSRS Access::GuestOsId;
    "M-01" HV_X64_MSR_HYPERCALL Partition ACCESS_HYPERCALL_MSRS Access::Hypercall;
    "M-02" HV_X64_MSR_VP_INDEX Vp ACCESS_VP_INDEX Access::VpIndex;
    "M-03" HV_X64_MSR_RESET Partition ACCESS_RESET_REG Access::Reset;
    "M-10" HV_X64_MSR_VP_RUNTIME Vp ACCESS_VP_RUN_TIME_REG Access::VpRuntime;
    "M-20" HV_X64_MSR_TIME_REF_COUNT Partition ACCESS_PARTITION_REFERENCE_COUNTER Access::TimeRefCount;
    "M-21" HV_X64_MSR_REFERENCE_TSC Partition ACCESS_PARTITION_REFERENCE_TSC Access::ReferenceTsc;
    "M-22" HV_X64_MSR_TSC_FREQUENCY Partition ACCESS_FREQUENCY_REGS Access::TscFrequency;
    "M-23" HV_X64_MSR_APIC_FREQUENCY VpVtl ACCESS_FREQUENCY_REGS Access::ApicFrequency;
    "M-40" HV_X64_MSR_NPIEP_CONFIG VpVtl NONE Access::NpiepConfig;
    "M-70" HV_X64_MSR_EOI VpVtl ACCESS_INTR_CTRL_REGS Access::Eoi;
    "M-71" HV_X64_MSR_ICR VpVtl ACCESS_INTR_CTRL_REGS Access::Icr;
    "M-72" HV_X64_MSR_TPR VpVtl ACCESS_INTR_CTRL_REGS Access::Tpr;
    "M-73" HV_X64_MSR_VP_ASSIST_PAGE VpVtl ACCESS_INTR_CTRL_REGS Access::VpAssistPage;
    "M-80" HV_X64_MSR_SCONTROL VpVtl ACCESS_SYNIC_REGS Access::Scontrol;
    "M-81" HV_X64_MSR_SVERSION VpVtl ACCESS_SYNIC_REGS Access::Sversion;
    "M-82" HV_X64_MSR_SIEFP VpVtl ACCESS_SYNIC_REGS Access::Siefp;
    "M-83" HV_X64_MSR_SIMP VpVtl ACCESS_SYNIC_REGS Access::Simp;
    "M-84" HV_X64_MSR_EOM VpVtl ACCESS_SYNIC_REGS Access::Eom;
    "M-90" HV_X64_MSR_SINT0 VpVtl ACCESS_SYNIC_REGS Access::Sint(0);
    "M-90" HV_X64_MSR_SINT1 VpVtl ACCESS_SYNIC_REGS Access::Sint(1);
    "M-90" HV_X64_MSR_SINT2 VpVtl ACCESS_SYNIC_REGS Access::Sint(2);
    "M-90" HV_X64_MSR_SINT3 VpVtl ACCESS_SYNIC_REGS Access::Sint(3);
    "M-90" HV_X64_MSR_SINT4 VpVtl ACCESS_SYNIC_REGS Access::Sint(4);
    "M-90" HV_X64_MSR_SINT5 VpVtl ACCESS_SYNIC_REGS Access::Sint(5);
    "M-90" HV_X64_MSR_SINT6 VpVtl ACCESS_SYNIC_REGS Access::Sint(6);
    "M-90" HV_X64_MSR_SINT7 VpVtl ACCESS_SYNIC_REGS Access::Sint(7);
    "M-90" HV_X64_MSR_SINT8 VpVtl ACCESS_SYNIC_REGS Access::Sint(8);
    "M-90" HV_X64_MSR_SINT9 VpVtl ACCESS_SYNIC_REGS Access::Sint(9);
    "M-90" HV_X64_MSR_SINT10 VpVtl ACCESS_SYNIC_REGS Access::Sint(10);
    "M-90" HV_X64_MSR_SINT11 VpVtl ACCESS_SYNIC_REGS Access::Sint(11);
    "M-90" HV_X64_MSR_SINT12 VpVtl ACCESS_SYNIC_REGS Access::Sint(12);
    "M-90" HV_X64_MSR_SINT13 VpVtl ACCESS_SYNIC_REGS Access::Sint(13);
    "M-90" HV_X64_MSR_SINT14 VpVtl ACCESS_SYNIC_REGS Access::Sint(14);
    "M-90" HV_X64_MSR_SINT15 VpVtl ACCESS_SYNIC_REGS Access::Sint(15);
    "M-B0" HV_X64_MSR_STIMER0_CONFIG VpVtl ACCESS_SYNTHETIC_TIMER_REGS Access::StimerConfig(0);
    "M-B1" HV_X64_MSR_STIMER0_COUNT VpVtl ACCESS_SYNTHETIC_TIMER_REGS Access::StimerCount(0);
    "M-B0" HV_X64_MSR_STIMER1_CONFIG VpVtl ACCESS_SYNTHETIC_TIMER_REGS Access::StimerConfig(1);
    "M-B1" HV_X64_MSR_STIMER1_COUNT VpVtl ACCESS_SYNTHETIC_TIMER_REGS Access::StimerCount(1);
    "M-B0" HV_X64_MSR_STIMER2_CONFIG VpVtl ACCESS_SYNTHETIC_TIMER_REGS Access::StimerConfig(2);
    "M-B1" HV_X64_MSR_STIMER2_COUNT VpVtl ACCESS_SYNTHETIC_TIMER_REGS Access::StimerCount(2);
    "M-B0" HV_X64_MSR_STIMER3_CONFIG VpVtl ACCESS_SYNTHETIC_TIMER_REGS Access::StimerConfig(3);
    "M-B1" HV_X64_MSR_STIMER3_COUNT VpVtl ACCESS_SYNTHETIC_TIMER_REGS Access::StimerCount(3);
    "M-E0" HV_X64_MSR_STATS_PARTITION_RETAIL_PAGE Partition ACCESS_STATS_REG Access::StatsPartition(false);
    "M-E1" HV_X64_MSR_STATS_PARTITION_INTERNAL_PAGE Partition ACCESS_STATS_REG Access::StatsPartition(true);
    "M-E2" HV_X64_MSR_STATS_VP_RETAIL_PAGE Vp ACCESS_STATS_REG Access::StatsVp(false);
    "M-E3" HV_X64_MSR_STATS_VP_INTERNAL_PAGE Vp ACCESS_STATS_REG Access::StatsVp(true);
    "M-F0" HV_X64_MSR_GUEST_IDLE Vp ACCESS_GUEST_IDLE_REG Access::GuestIdle;
    "M-F1" HV_X64_MSR_SYNTH_DEBUG_CONTROL Partition ACCESS_DEBUG_REGS Access::Debugger;
    "M-F1" HV_X64_MSR_SYNTH_DEBUG_STATUS Partition ACCESS_DEBUG_REGS Access::Debugger;
    "M-F1" HV_X64_MSR_SYNTH_DEBUG_SEND_BUFFER Partition ACCESS_DEBUG_REGS Access::Debugger;
    "M-F1" HV_X64_MSR_SYNTH_DEBUG_RECEIVE_BUFFER Partition ACCESS_DEBUG_REGS Access::Debugger;
    "M-F1" HV_X64_MSR_SYNTH_DEBUG_PENDING_BUFFER Partition ACCESS_DEBUG_REGS Access::Debugger;
    "M-FF" HV_X64_MSR_DEBUG_DEVICE_OPTIONS Partition ACCESS_DEBUG_REGS Access::Debugger;
    "M-100" HV_X64_MSR_CRASH_P0 Partition NONE Access::CrashParameter(0);
    "M-100" HV_X64_MSR_CRASH_P1 Partition NONE Access::CrashParameter(1);
    "M-100" HV_X64_MSR_CRASH_P2 Partition NONE Access::CrashParameter(2);
    "M-100" HV_X64_MSR_CRASH_P3 Partition NONE Access::CrashParameter(3);
    "M-100" HV_X64_MSR_CRASH_P4 Partition NONE Access::CrashParameter(4);
    "M-105" HV_X64_MSR_CRASH_CTL Partition NONE Access::CrashControl;
    "M-114" HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG Vp ACCESS_SYNTHETIC_TIMER_REGS Access::UnhaltedTimerConfig;
    "M-114" HV_X64_MSR_STIME_UNHALTED_TIMER_COUNT Vp ACCESS_SYNTHETIC_TIMER_REGS Access::UnhaltedTimerCount;
    "M-118" HV_X64_MSR_TSC_INVARIANT_CONTROL Partition ACCESS_TSC_INVARIANT_CONTROLS Access::TscInvariantControl;
}

/// Offsets from 0x40000000 that the index covers.
const INDEXED: usize = 0x120;
/// Row number plus one for each offset; 0 where there is no row.
const INDEX: [u8; INDEXED] = {
    let mut index = [0; INDEXED];
    let mut i = 0;
    while i < TABLE.len() {
        index[(TABLE[i].number - *HV_X64_MSR_RANGE.start()) as usize] = i as u8 + 1;
        i += 1;
    }
    index
};

/// The row of an MSR.
#[inline(always)]
pub fn row(msr: u32) -> Option<&'static MsrRow> {
    let offset = msr.wrapping_sub(*HV_X64_MSR_RANGE.start());
    let number = *INDEX.get(offset as usize)?;
    TABLE.get(usize::from(number).checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_finds_each_row_and_nothing_else() {
        for r in TABLE {
            assert_eq!(row(r.number).unwrap().name, r.name);
        }
        let found = (0..=u32::from(u16::MAX))
            .filter(|i| row(0x4000_0000 + i).is_some())
            .count();
        assert_eq!(found, TABLE.len());
        assert!(row(0).is_none());
        assert!(TABLE.windows(2).all(|w| w[0].number < w[1].number));
    }
}
