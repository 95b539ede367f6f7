// SPDX-License-Identifier: GPL-2.0 OR MIT

//! State of a VP that GET_VP_STATE and SET_VP_STATE move as a page.

use crate::HV_SYNIC_STIMER_COUNT;

wire_struct! {
    /// `HV_LOCAL_INTERRUPT_CONTROLLER_STATE`: the local APIC.
    pub struct HvLocalInterruptControllerState: 176 {
        /// APIC id register.
        pub apic_id: u32,
        /// Version register.
        pub apic_version: u32,
        /// Logical destination register.
        pub apic_ldr: u32,
        /// Destination format register.
        pub apic_dfr: u32,
        /// Spurious-interrupt vector register.
        pub apic_spurious: u32,
        /// In service.
        pub apic_isr: [u32; 8],
        /// Trigger modes.
        pub apic_tmr: [u32; 8],
        /// Requested; the bit of vector 2 is a pending NMI, which no register of the APIC tells of.
        pub apic_irr: [u32; 8],
        /// Error status as read.
        pub apic_esr: u32,
        /// Interrupt command, high.
        pub apic_icr_high: u32,
        /// Interrupt command, low.
        pub apic_icr_low: u32,
        /// LVT timer.
        pub apic_lvt_timer: u32,
        /// LVT thermal sensor.
        pub apic_lvt_thermal: u32,
        /// LVT performance monitor.
        pub apic_lvt_perfmon: u32,
        /// LVT LINT0.
        pub apic_lvt_lint0: u32,
        /// LVT LINT1.
        pub apic_lvt_lint1: u32,
        /// LVT error.
        pub apic_lvt_error: u32,
        /// LVT corrected machine check.
        pub apic_lvt_cmci: u32,
        /// Errors gathered since the last write of ESR.
        pub apic_error_status: u32,
        /// Timer initial count.
        pub apic_initial_count: u32,
        /// Timer current count.
        pub apic_counter_value: u32,
        /// Timer divide configuration.
        pub apic_divide_configuration: u32,
        /// Remote read.
        pub apic_remote_read: u32,
    }
}

impl HvLocalInterruptControllerState {
    const NMI: u32 = 1 << 2;

    /// Whether an NMI is pending.
    pub const fn nmi_pending(&self) -> bool {
        self.apic_irr[0] & Self::NMI != 0
    }

    /// Marks an NMI as pending.
    pub const fn with_nmi_pending(mut self, pending: bool) -> Self {
        if pending {
            self.apic_irr[0] |= Self::NMI;
        }
        self
    }
}

wire_struct! {
    /// State of one synthetic timer.
    pub struct HvStimerState: 40 {
        /// Bit 0: a message could not be delivered yet.
        pub flags: u32,
        /// Zero.
        pub resvd: u32,
        /// Configuration register.
        pub config: u64,
        /// Count register.
        pub count: u64,
        /// Periodic and running: reference time of the next tick in its raster; else 0.
        pub adjustment: u64,
        /// When the undelivered message's timer expired.
        pub undelivered_exp_time: u64,
    }
}

wire_struct! {
    /// `HV_SYNTHETIC_TIMERS_STATE`.
    pub struct HvSyntheticTimersState: 200 {
        /// The timers.
        pub timers: [HvStimerState; HV_SYNIC_STIMER_COUNT],
        /// Zero.
        pub reserved: [u64; 5],
    }
}
