// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Values of registers (`HV_REGISTER_VALUE`): 128 bits, zero-extended.

use crate::Wire;

wire_struct! {
    /// 128 bits as two words.
    pub struct HvU128: 16 {
        /// Bits 63:0.
        pub low: u64,
        /// Bits 127:64.
        pub high: u64,
    }
}

/// `HV_REGISTER_VALUE`.
pub type HvRegisterValue = HvU128;

impl HvU128 {
    /// A 64-bit value, zero-extended.
    #[inline]
    pub const fn from_u64(value: u64) -> Self {
        Self {
            low: value,
            high: 0,
        }
    }

    /// A segment register as a register value.
    #[inline]
    pub const fn from_segment(s: HvX64SegmentRegister) -> Self {
        Self {
            low: s.base,
            high: s.limit as u64 | ((s.selector as u64) << 32) | ((s.attributes as u64) << 48),
        }
    }

    /// The value as a segment register.
    #[inline]
    pub const fn segment(self) -> HvX64SegmentRegister {
        HvX64SegmentRegister {
            base: self.low,
            limit: self.high as u32,
            selector: (self.high >> 32) as u16,
            attributes: (self.high >> 48) as u16,
        }
    }

    /// A descriptor-table register as a register value.
    #[inline]
    pub const fn from_table(t: HvX64TableRegister) -> Self {
        Self {
            low: (t.limit as u64) << 48,
            high: t.base,
        }
    }

    /// The value as a descriptor-table register.
    #[inline]
    pub const fn table(self) -> HvX64TableRegister {
        HvX64TableRegister {
            pad: [0; 3],
            limit: (self.low >> 48) as u16,
            base: self.high,
        }
    }
}

wire_struct! {
    /// `HV_X64_SEGMENT_REGISTER` (order of fields by correction E2 of the matrix).
    pub struct HvX64SegmentRegister: 16 {
        /// Base.
        pub base: u64,
        /// Limit in bytes.
        pub limit: u32,
        /// Selector.
        pub selector: u16,
        /// `HV_X64_SEGMENT_*`: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15.
        pub attributes: u16,
    }
}

wire_struct! {
    /// `HV_X64_TABLE_REGISTER`.
    pub struct HvX64TableRegister: 16 {
        /// Ignored.
        pub pad: [u16; 3],
        /// Limit.
        pub limit: u16,
        /// Base.
        pub base: u64,
    }
}

/// `HV_X64_PENDING_INTERRUPTION_REGISTER`: an event whose delivery was begun and has to be repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct HvX64PendingInterruption(pub u64);

numbers! { u8;
    /// Type of a pending interruption: external interrupt.
    HV_X64_PENDING_INTERRUPT = 0,
    /// Type of a pending interruption: NMI.
    HV_X64_PENDING_NMI = 2,
    /// Type of a pending interruption: hardware exception.
    HV_X64_PENDING_EXCEPTION = 3,
    /// Type of a pending interruption: software interrupt.
    HV_X64_PENDING_SOFTWARE_INTERRUPT = 4,
    /// Type of a pending interruption: privileged software exception.
    HV_X64_PENDING_PRIVILEGED_SOFTWARE_EXCEPTION = 5,
    /// Type of a pending interruption: software exception.
    HV_X64_PENDING_SOFTWARE_EXCEPTION = 6,
}

impl HvX64PendingInterruption {
    /// Bits that have no meaning.
    pub const RESERVED: u64 = 0xfc00;

    /// A pending event.
    #[inline]
    pub const fn new(
        interruption_type: u8,
        vector: u8,
        error_code: Option<u32>,
        instruction_length: u8,
    ) -> Self {
        let (deliver, code) = match error_code {
            Some(code) => (1 << 4, code as u64),
            None => (0, 0),
        };
        Self(
            1 | (((interruption_type & 7) as u64) << 1)
                | deliver
                | (((instruction_length & 0xf) as u64) << 5)
                | ((vector as u64) << 16)
                | (code << 32),
        )
    }

    /// Whether anything is pending.
    #[inline]
    pub const fn pending(self) -> bool {
        self.0 & 1 != 0
    }

    /// `HV_X64_PENDING_*`; the same numbers as in a VMCS.
    #[inline]
    pub const fn interruption_type(self) -> u8 {
        (self.0 >> 1) as u8 & 7
    }

    /// The error code to push, if one is.
    #[inline]
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & (1 << 4) != 0 {
            Some((self.0 >> 32) as u32)
        } else {
            None
        }
    }

    /// Length of the instruction that caused a software event.
    #[inline]
    pub const fn instruction_length(self) -> u8 {
        (self.0 >> 5) as u8 & 0xf
    }

    /// Vector (16 bits wide in the register).
    #[inline]
    pub const fn vector(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// `HV_X64_INTERRUPT_STATE_REGISTER`: blocking by STI or MOV SS.
pub const HV_X64_INTERRUPT_STATE_INTERRUPT_SHADOW: u64 = 1 << 0;
/// `HV_X64_INTERRUPT_STATE_REGISTER`: NMIs are masked until IRET.
pub const HV_X64_INTERRUPT_STATE_NMI_MASKED: u64 = 1 << 1;

/// `HV_X64_DELIVERABILITY_NOTIFICATIONS_REGISTER`: of what the VMM is to be told once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct HvDeliverabilityNotifications(pub u64);

impl HvDeliverabilityNotifications {
    const NMI: u64 = 1 << 0;
    const INTERRUPT: u64 = 1 << 1;
    const PRIORITY: u64 = 0xf << 2;
    const SINTS: u64 = 0xffff << 48;

    /// Nothing.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// No other bits are set.
    #[inline]
    pub const fn is_known(self) -> bool {
        self.0 & !(Self::NMI | Self::INTERRUPT | Self::PRIORITY | Self::SINTS) == 0
    }

    /// That SINTs, a bit for each, have room for a message.
    #[inline]
    pub const fn sints(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The rest, once the VMM is told of these SINTs.
    #[inline]
    pub const fn without_sints(self, sints: u16) -> Self {
        Self(self.0 & !((sints as u64) << 48))
    }

    /// That an NMI can be delivered.
    #[inline]
    pub const fn nmi(self) -> bool {
        self.0 & Self::NMI != 0
    }

    /// That an interrupt can be delivered.
    #[inline]
    pub const fn interrupt(self) -> bool {
        self.0 & Self::INTERRUPT != 0
    }

    /// Class that the interrupt is of: CR8 must be below it. 0: whatever CR8.
    #[inline]
    pub const fn interrupt_priority(self) -> u8 {
        ((self.0 & Self::PRIORITY) >> 2) as u8
    }

    /// The rest, once the VMM is told of `kind` (`HV_X64_PENDING_*`).
    #[inline]
    pub const fn without(self, kind: u8) -> Self {
        Self(match kind {
            HV_X64_PENDING_NMI => self.0 & !Self::NMI,
            _ => self.0 & !(Self::INTERRUPT | Self::PRIORITY),
        })
    }
}

/// `HV_INTERNAL_ACTIVITY_REGISTER`: waits for a start-up IPI.
pub const HV_INTERNAL_ACTIVITY_STARTUP_SUSPEND: u64 = 1 << 0;
/// `HV_INTERNAL_ACTIVITY_REGISTER`: halted.
pub const HV_INTERNAL_ACTIVITY_HALT_SUSPEND: u64 = 1 << 1;
/// `HV_INTERNAL_ACTIVITY_REGISTER`: asleep by HV_X64_MSR_GUEST_IDLE.
pub const HV_INTERNAL_ACTIVITY_IDLE_SUSPEND: u64 = 1 << 2;

/// `HV_X64_PENDING_EVENT`, type in bits 3:1: an exception.
pub const HV_X64_PENDING_EVENT_EXCEPTION: u8 = 0;

/// `HV_X64_PENDING_EXCEPTION_EVENT` in register `HV_REGISTER_PENDING_EVENT0`: an exception to raise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HvX64PendingExceptionEvent {
    /// Vector.
    pub vector: u16,
    /// Error code to push, if one is.
    pub error_code: Option<u32>,
    /// CR2 for #PF, DR6 for #DB.
    pub exception_parameter: u64,
}

impl HvX64PendingExceptionEvent {
    /// The event in a register value; `None` if nothing is pending, `Some(Err)` if it is no exception or has reserved
    /// bits set.
    pub const fn from_value(v: HvRegisterValue) -> Option<Result<Self, ()>> {
        if v.low & 1 == 0 {
            return None;
        }
        if (v.low >> 1) as u8 & 7 != HV_X64_PENDING_EVENT_EXCEPTION || v.low & 0xfef0 != 0 {
            return Some(Err(()));
        }
        let error_code = if v.low & (1 << 8) != 0 {
            Some((v.low >> 32) as u32)
        } else {
            None
        };
        Some(Ok(Self {
            vector: (v.low >> 16) as u16,
            error_code,
            exception_parameter: v.high,
        }))
    }

    /// The register value of the event.
    pub const fn to_value(self) -> HvRegisterValue {
        let (deliver, code) = match self.error_code {
            Some(code) => (1 << 8, code as u64),
            None => (0, 0),
        };
        HvU128 {
            low: 1 | deliver | ((self.vector as u64) << 16) | (code << 32),
            high: self.exception_parameter,
        }
    }
}

wire_struct! {
    /// `HV_X64_FP_CONTROL_STATUS_REGISTER`.
    pub struct HvX64FpControlStatus: 16 {
        /// FCW.
        pub fp_control: u16,
        /// FSW.
        pub fp_status: u16,
        /// Abridged tag word.
        pub fp_tag: u8,
        /// Zero.
        pub reserved: u8,
        /// FOP.
        pub last_fp_op: u16,
        /// FIP.
        pub last_fp_rip: u64,
    }
}

wire_struct! {
    /// `HV_X64_XMM_CONTROL_STATUS_REGISTER`.
    pub struct HvX64XmmControlStatus: 16 {
        /// FDP.
        pub last_fp_rdp: u64,
        /// MXCSR.
        pub xmm_status_control: u32,
        /// MXCSR_MASK.
        pub xmm_status_control_mask: u32,
    }
}

macro_rules! as_value {
    ($($t:ty)*) => {
        $(
            impl From<$t> for HvU128 {
                #[inline]
                fn from(v: $t) -> Self {
                    let mut bytes = [0; 16];
                    // Both are 16 bytes.
                    let _ = v.write(&mut bytes);
                    Self::read(&bytes).unwrap_or_default()
                }
            }

            impl From<HvU128> for $t {
                #[inline]
                fn from(v: HvU128) -> Self {
                    let mut bytes = [0; 16];
                    let _ = v.write(&mut bytes);
                    Self::read(&bytes).unwrap_or_default()
                }
            }
        )*
    };
}

as_value! { HvX64FpControlStatus HvX64XmmControlStatus HvX64SegmentRegister HvX64TableRegister }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_layout_of_their_structures() {
        let s = HvX64SegmentRegister {
            base: 0xffff_0000,
            limit: 0xffff,
            selector: 0xf000,
            attributes: 0x9b,
        };
        assert_eq!(HvU128::from(s), HvU128::from_segment(s));
        assert_eq!(HvU128::from_segment(s).segment(), s);
        let t = HvX64TableRegister {
            pad: [0; 3],
            limit: 0x7f,
            base: 0x1000,
        };
        assert_eq!(HvU128::from(t), HvU128::from_table(t));
        assert_eq!(HvU128::from_table(t).table(), t);
    }

    #[test]
    fn pending_interruption() {
        let p = HvX64PendingInterruption::new(HV_X64_PENDING_EXCEPTION, 14, Some(2), 0);
        assert_eq!(p.0, 1 | (3 << 1) | (1 << 4) | (14 << 16) | (2 << 32));
        assert!(p.pending());
        assert_eq!(
            (p.interruption_type(), p.vector(), p.error_code()),
            (3, 14, Some(2))
        );
        assert_eq!(
            HvX64PendingInterruption::new(4, 0x80, None, 2).instruction_length(),
            2
        );
    }

    #[test]
    fn pending_event() {
        let e = HvX64PendingExceptionEvent {
            vector: 13,
            error_code: Some(0),
            exception_parameter: 0,
        };
        assert_eq!(
            HvX64PendingExceptionEvent::from_value(e.to_value()),
            Some(Ok(e))
        );
        assert_eq!(
            HvX64PendingExceptionEvent::from_value(HvU128::from_u64(0)),
            None
        );
        assert_eq!(
            HvX64PendingExceptionEvent::from_value(HvU128::from_u64(1 | (5 << 1))),
            Some(Err(()))
        );
    }
}
