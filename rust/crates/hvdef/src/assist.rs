// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The VP assist page (row M-73, section 4.8).

wire_struct! {
    /// `HV_VP_ASSIST_PAGE`, the parts in use.
    pub struct HvVpAssistPage: 104 {
        /// Bit 0: no EOI required.
        pub apic_assist: u32,
        /// Zero.
        pub reserved1: u32,
        /// VTL control: why this VTL was entered.
        pub vtl_entry_reason: u32,
        /// Zero.
        pub vtl_reserved: u32,
        /// VTL control: RAX on return.
        pub vtl_ret_x64rax: u64,
        /// VTL control: RCX on return.
        pub vtl_ret_x64rcx: u64,
        /// Nested features: bit 0 direct hypercall.
        pub nested_features: u32,
        /// Nested hypercall controls.
        pub nested_hypercall_controls: u32,
        /// Not 0: enter by the enlightened VMCS.
        pub enlighten_vmentry: u8,
        /// Zero.
        pub reserved2: [u8; 7],
        /// Address of the enlightened VMCS.
        pub current_nested_vmcs: u64,
        /// Not 0: the time-unhalted timer expired.
        pub synthetic_time_unhalted_timer_expired: u8,
        /// Zero.
        pub reserved3: [u8; 7],
        /// #VE information.
        pub virtualization_fault_information: [u64; 5],
    }
}
