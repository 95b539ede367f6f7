// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `HV_PARTITION_PRIVILEGE_MASK`: what a partition may do; CPUID leaf 0x40000003 EAX and EBX (rows C-3A, C-3B).

bit_set! {
    /// Privileges of a partition.
    pub struct HvPartitionPrivilege: u64 {
        ACCESS_VP_RUN_TIME_REG = 1 << 0,
        ACCESS_PARTITION_REFERENCE_COUNTER = 1 << 1,
        ACCESS_SYNIC_REGS = 1 << 2,
        ACCESS_SYNTHETIC_TIMER_REGS = 1 << 3,
        ACCESS_INTR_CTRL_REGS = 1 << 4,
        ACCESS_HYPERCALL_MSRS = 1 << 5,
        ACCESS_VP_INDEX = 1 << 6,
        ACCESS_RESET_REG = 1 << 7,
        ACCESS_STATS_REG = 1 << 8,
        ACCESS_PARTITION_REFERENCE_TSC = 1 << 9,
        ACCESS_GUEST_IDLE_REG = 1 << 10,
        ACCESS_FREQUENCY_REGS = 1 << 11,
        ACCESS_DEBUG_REGS = 1 << 12,
        ACCESS_REENLIGHTENMENT_CONTROLS = 1 << 13,
        ACCESS_ROOT_SCHEDULER_REG = 1 << 14,
        ACCESS_TSC_INVARIANT_CONTROLS = 1 << 15,
        CREATE_PARTITIONS = 1 << 32,
        ACCESS_PARTITION_ID = 1 << 33,
        ACCESS_MEMORY_POOL = 1 << 34,
        ADJUST_MESSAGE_BUFFERS = 1 << 35,
        POST_MESSAGES = 1 << 36,
        SIGNAL_EVENTS = 1 << 37,
        CREATE_PORT = 1 << 38,
        CONNECT_PORT = 1 << 39,
        ACCESS_STATS = 1 << 40,
        DEBUGGING = 1 << 43,
        CPU_MANAGEMENT = 1 << 44,
        CONFIGURE_PROFILER = 1 << 45,
        ACCESS_VP_EXIT_TRACING = 1 << 46,
        ENABLE_EXTENDED_GVA_RANGES_FLUSH_VA_LIST = 1 << 47,
        ACCESS_VSM = 1 << 48,
        ACCESS_VP_REGISTERS = 1 << 49,
        FAST_HYPERCALL_OUTPUT = 1 << 51,
        ENABLE_EXTENDED_HYPERCALLS = 1 << 52,
        START_VIRTUAL_PROCESSOR = 1 << 53,
        ISOLATION = 1 << 54,
    }
}

impl HvPartitionPrivilege {
    /// What needs no privilege.
    pub const NONE: Self = Self(0);

    /// What "Requirements for Implementing the Microsoft Hypervisor Interface" wants clear in an ordinary guest of a
    /// third party's hypervisor (rows C-3B marked M0).
    pub const MUST_BE_CLEAR: Self = Self(
        Self::CREATE_PARTITIONS.0
            | Self::ACCESS_PARTITION_ID.0
            | Self::ACCESS_MEMORY_POOL.0
            | Self::ADJUST_MESSAGE_BUFFERS.0
            | Self::CREATE_PORT.0
            | Self::ACCESS_STATS.0
            | Self::CPU_MANAGEMENT.0
            | Self::CONFIGURE_PROFILER.0,
    );

    /// The half that CPUID leaf 0x40000003 shows in EAX.
    #[inline]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// The half that CPUID leaf 0x40000003 shows in EBX.
    #[inline]
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }
}
