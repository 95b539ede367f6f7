// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Synthetic interrupt controller and synthetic timers (TLFS, chapters "Virtual interrupts" and "Timers"): bits of their
//! registers.

/// `HV_X64_MSR_SCONTROL`: the VP takes messages and events.
pub const HV_SYNIC_CONTROL_ENABLE: u64 = 1 << 0;
/// `HV_X64_MSR_SINTx`: the vector.
pub const HV_SYNIC_SINT_VECTOR: u64 = 0xff;
/// `HV_X64_MSR_SINTx`: the interrupt ends as it is delivered.
pub const HV_SYNIC_SINT_AUTO_EOI: u64 = 1 << 17;
/// `HV_X64_MSR_SINTx`: messages and events, but no interrupt.
pub const HV_SYNIC_SINT_POLLING: u64 = 1 << 18;
/// Event flags of one SINT.
pub const HV_EVENT_FLAGS_COUNT: u16 = 2048;

/// `HV_X64_MSR_STIMERx_CONFIG`: it runs.
pub const HV_STIMER_ENABLE: u64 = 1 << 0;
/// `HV_X64_MSR_STIMERx_CONFIG`: it starts again by itself.
pub const HV_STIMER_PERIODIC: u64 = 1 << 1;
/// `HV_X64_MSR_STIMERx_CONFIG`: ticks that are missed need not be made up for.
pub const HV_STIMER_LAZY: u64 = 1 << 2;
/// `HV_X64_MSR_STIMERx_CONFIG`: a write of the count enables it.
pub const HV_STIMER_AUTO_ENABLE: u64 = 1 << 3;
/// `HV_X64_MSR_STIMERx_CONFIG`: first bit of the vector for direct mode.
pub const HV_STIMER_VECTOR_SHIFT: u32 = 4;
/// `HV_X64_MSR_STIMERx_CONFIG`: an interrupt in place of a message.
pub const HV_STIMER_DIRECT: u64 = 1 << 12;
/// `HV_X64_MSR_STIMERx_CONFIG`: first bit of the SINT for messages.
pub const HV_STIMER_SINT_SHIFT: u32 = 16;
/// `HV_X64_MSR_STIMERx_CONFIG`: bits that must be zero.
pub const HV_STIMER_RESERVED: u64 = !0xf_1fff;

/// `HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG`: the vector; 2 is an NMI.
pub const HV_UNHALTED_TIMER_VECTOR: u64 = 0xff;
/// `HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG`: it runs.
pub const HV_UNHALTED_TIMER_ENABLED: u64 = 1 << 8;
/// `HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG`: bits that must be zero.
pub const HV_UNHALTED_TIMER_RESERVED: u64 = !0x1ff;

/// `HV_STIMER_STATE` flags: a message could not be delivered yet.
pub const HV_STIMER_UNDELIVERED: u32 = 1 << 0;
