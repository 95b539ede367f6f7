// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Input of the calls about ports and connections (rows H-57 to H-5B).

numbers! { u32;
    HV_PORT_TYPE_MESSAGE = 1,
    HV_PORT_TYPE_EVENT = 2,
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
        /// Synthetic interrupt source.
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
        /// Zero.
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
