// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Input of the calls about ports and connections (rows H-57 to H-5B, H-70), and the monitor page (F-SY11).

numbers! { u32;
    HV_PORT_TYPE_MESSAGE = 1,
    HV_PORT_TYPE_EVENT = 2,
    HV_PORT_TYPE_MONITOR = 3,
    HV_PORT_PROPERTY_POST_COUNT = 0,
    HV_PORT_PROPERTY_PREFERRED_TARGET_VP = 1,
}

wire_struct! {
    /// 0x95 HvCallCreatePort.
    pub struct HvInputCreatePort: 56 {
        /// Partition of the port.
        pub port_partition: u64,
        /// Port.
        pub port_id: u32,
        /// VTL.
        pub port_vtl: u8,
        /// VTL that a connection must have at least.
        pub min_connection_vtl: u8,
        /// Zero.
        pub reserved: u16,
        /// Partition that may connect.
        pub connection_partition: u64,
        /// `HV_PORT_TYPE_*`.
        pub port_type: u32,
        /// Ignored.
        pub padding: u32,
        /// Synthetic interrupt source. Of a monitor port, this and `target_vp` are the guest-physical address of its page.
        pub target_sint: u32,
        /// VP, or [`crate::HV_ANY_VP`].
        pub target_vp: u32,
        /// Of an event port: first flag, number of flags (16 bits each), zero; else zero.
        pub flags: u64,
        /// Ignored.
        pub proximity_domain_info: u64,
    }
}

wire_struct! {
    /// 0x96 HvCallConnectPort.
    pub struct HvInputConnectPort: 72 {
        /// Partition of the connection.
        pub connection_partition: u64,
        /// Connection.
        pub connection_id: u32,
        /// VTL.
        pub connection_vtl: u8,
        /// Zero.
        pub reserved0: u8,
        /// Zero.
        pub reserved1: u16,
        /// Partition of the port.
        pub port_partition: u64,
        /// Port.
        pub port_id: u32,
        /// Zero.
        pub reserved2: u32,
        /// `HV_PORT_TYPE_*`, that of the port.
        pub port_type: u32,
        /// Ignored.
        pub padding: u32,
        /// Of a connection to a monitor port, the guest-physical address of its page, then zero; else zero.
        pub info: [u64; 3],
        /// Ignored.
        pub proximity_domain_info: u64,
    }
}

wire_struct! {
    /// 0x58 HvCallDeletePort, and 0x5b HvCallDisconnectPort.
    pub struct HvInputDeletePort: 16 {
        /// Partition.
        pub partition: u64,
        /// Port or connection.
        pub id: u32,
        /// Zero.
        pub reserved: u32,
    }
}

wire_struct! {
    /// 0x5a HvCallGetPortProperty.
    pub struct HvInputGetPortProperty: 24 {
        /// Partition.
        pub partition: u64,
        /// Port.
        pub id: u32,
        /// Zero.
        pub reserved: u32,
        /// `HV_PORT_PROPERTY_*`.
        pub code: u32,
        /// Ignored.
        pub padding: u32,
    }
}

wire_struct! {
    /// 0x70 HvCallSetPortProperty.
    pub struct HvInputSetPortProperty: 32 {
        /// Partition.
        pub partition: u64,
        /// Port.
        pub id: u32,
        /// Zero.
        pub reserved: u32,
        /// `HV_PORT_PROPERTY_*`.
        pub code: u32,
        /// Ignored.
        pub padding: u32,
        /// Its value.
        pub value: u64,
    }
}

/// Groups of triggers in a monitor page; its first word has a bit for each that is enabled. From byte 8 on each group has two
/// words, pending and armed.
pub const HV_MONITOR_GROUPS: usize = 4;
/// Triggers of a group.
pub const HV_MONITOR_TRIGGERS: usize = 32;
/// 32-bit word of a monitor page where the latencies begin, 16 bits each, in 100 ns.
pub const HV_MONITOR_LATENCY_WORD: usize = 0x240 / 4;
/// 32-bit word where the parameters begin: connection, and flag with 16 reserved bits, of each trigger.
pub const HV_MONITOR_PARAMETER_WORD: usize = 0x440 / 4;
