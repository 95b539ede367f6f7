// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Registers of the local APIC: offsets, MSR numbers and bits (SDM Vol. 3, 11.4.1 and 11.12.1.2).
//!
//! A register is named by its offset in the xAPIC page; its x2APIC MSR is `0x800 + offset / 16`.

/// Local APIC ID register.
pub const ID: u16 = 0x020;
/// Local APIC version register.
pub const VERSION: u16 = 0x030;
/// Task priority register.
pub const TPR: u16 = 0x080;
/// Arbitration priority register (xAPIC only).
pub const APR: u16 = 0x090;
/// Processor priority register.
pub const PPR: u16 = 0x0A0;
/// End-of-interrupt register.
pub const EOI: u16 = 0x0B0;
/// Remote read register (xAPIC only).
pub const RRD: u16 = 0x0C0;
/// Logical destination register.
pub const LDR: u16 = 0x0D0;
/// Destination format register (xAPIC only).
pub const DFR: u16 = 0x0E0;
/// Spurious interrupt vector register.
pub const SVR: u16 = 0x0F0;
/// First of the eight in-service registers.
pub const ISR: u16 = 0x100;
/// First of the eight trigger mode registers.
pub const TMR: u16 = 0x180;
/// First of the eight interrupt request registers.
pub const IRR: u16 = 0x200;
/// Error status register.
pub const ESR: u16 = 0x280;
/// LVT corrected machine check register: not implemented, as `IA32_MCG_CAP` shows no CMCI.
pub const LVT_CMCI: u16 = 0x2F0;
/// Interrupt command register, bits 31:0.
pub const ICR_LOW: u16 = 0x300;
/// Interrupt command register, bits 63:32 (xAPIC only; in x2APIC mode they follow the low half).
pub const ICR_HIGH: u16 = 0x310;
/// LVT timer register.
pub const LVT_TIMER: u16 = 0x320;
/// LVT thermal sensor register.
pub const LVT_THERMAL: u16 = 0x330;
/// LVT performance monitoring counters register.
pub const LVT_PMC: u16 = 0x340;
/// LVT LINT0 register.
pub const LVT_LINT0: u16 = 0x350;
/// LVT LINT1 register.
pub const LVT_LINT1: u16 = 0x360;
/// LVT error register.
pub const LVT_ERROR: u16 = 0x370;
/// Timer's initial count register.
pub const TIMER_ICR: u16 = 0x380;
/// Timer's current count register.
pub const TIMER_CCR: u16 = 0x390;
/// Timer's divide configuration register.
pub const TIMER_DCR: u16 = 0x3E0;
/// SELF IPI register (x2APIC only).
pub const SELF_IPI: u16 = 0x3F0;

/// The LVT entries in the order of their offsets.
pub const LVTS: [u16; 6] = [
    LVT_TIMER,
    LVT_THERMAL,
    LVT_PMC,
    LVT_LINT0,
    LVT_LINT1,
    LVT_ERROR,
];

/// `IA32_APIC_BASE`.
pub const MSR_APIC_BASE: u32 = 0x01B;
/// `IA32_TSC_DEADLINE`.
pub const MSR_TSC_DEADLINE: u32 = 0x6E0;
/// First MSR of the x2APIC range.
pub const MSR_X2APIC_FIRST: u32 = 0x800;
/// Last MSR of the x2APIC range.
pub const MSR_X2APIC_LAST: u32 = 0x8FF;

/// Value of the version register: an integrated APIC (14H) whose highest LVT entry is number 5,
/// without suppression of EOI broadcasts.
pub const VERSION_VALUE: u32 = 0x0005_0014;

/// Where the APIC page is after RESET.
pub const DEFAULT_BASE: u64 = 0xFEE0_0000;
/// `IA32_APIC_BASE`: this is the bootstrap processor.
pub const BASE_BSP: u64 = 1 << 8;
/// `IA32_APIC_BASE`: x2APIC mode.
pub const BASE_EXTD: u64 = 1 << 10;
/// `IA32_APIC_BASE`: the APIC is enabled.
pub const BASE_EN: u64 = 1 << 11;

/// SVR: the APIC is software-enabled.
pub const SVR_ENABLE: u32 = 1 << 8;
/// SVR: the bits that can be set (vector, enable, focus processor checking).
pub const SVR_MASK: u32 = 0x3FF;

/// LVT: delivery status (read-only; a virtual APIC delivers at once, so always idle).
pub const LVT_DELIVERY_STATUS: u32 = 1 << 12;
/// LVT LINT0/LINT1: remote IRR (read-only).
pub const LVT_REMOTE_IRR: u32 = 1 << 14;
/// LVT LINT0/LINT1: level-triggered.
pub const LVT_LEVEL: u32 = 1 << 15;
/// LVT: masked.
pub const LVT_MASKED: u32 = 1 << 16;

/// ESR: an IPI with a vector below 16 was sent.
pub const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// ESR: a vector below 16 was received, also from the LVT or by a self IPI.
pub const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// ESR: a reserved register was accessed (xAPIC only).
pub const ESR_ILLEGAL_REGISTER_ADDRESS: u32 = 1 << 7;
/// ESR: the errors that this APIC knows.
pub const ESR_MASK: u32 =
    ESR_SEND_ILLEGAL_VECTOR | ESR_RECEIVE_ILLEGAL_VECTOR | ESR_ILLEGAL_REGISTER_ADDRESS;

/// The bits software can write in the LVT entry at `offset` (SDM figure 11-8).
#[inline]
pub(crate) const fn lvt_writable(offset: u16, tsc_deadline: bool) -> u32 {
    const VECTOR: u32 = 0xFF;
    const MODE: u32 = 7 << 8;
    match offset {
        LVT_TIMER if tsc_deadline => VECTOR | LVT_MASKED | (3 << 17),
        LVT_TIMER => VECTOR | LVT_MASKED | (1 << 17),
        LVT_THERMAL | LVT_PMC => VECTOR | MODE | LVT_MASKED,
        LVT_LINT0 | LVT_LINT1 => VECTOR | MODE | (1 << 13) | LVT_LEVEL | LVT_MASKED,
        LVT_ERROR => VECTOR | LVT_MASKED,
        _ => 0,
    }
}

/// The read-only bits of the LVT entry at `offset`: a write of them is ignored, not a fault.
#[inline]
pub(crate) const fn lvt_read_only(offset: u16) -> u32 {
    match offset {
        LVT_LINT0 | LVT_LINT1 => LVT_DELIVERY_STATUS | LVT_REMOTE_IRR,
        _ => LVT_DELIVERY_STATUS,
    }
}
