// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Interruption information (SDM 25.8.3, 25.9.2), interruptibility and activity states.

/// The format that VM-entry, VM-exit and IDT-vectoring interruption information share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct IntrInfo(pub u32);

/// Interruption types (bits 10:8).
pub mod intr_type {
    /// External interrupt.
    pub const EXTERNAL: u32 = 0;
    /// Non-maskable interrupt.
    pub const NMI: u32 = 2;
    /// Hardware exception.
    pub const HARD_EXCEPTION: u32 = 3;
    /// INT n.
    pub const SOFT_INTERRUPT: u32 = 4;
    /// INT1 (ICEBP).
    pub const PRIVILEGED_SOFT_EXCEPTION: u32 = 5;
    /// INT3, INTO.
    pub const SOFT_EXCEPTION: u32 = 6;
}

impl IntrInfo {
    const VALID: u32 = 1 << 31;
    const ERROR_CODE: u32 = 1 << 11;
    const NMI_UNBLOCKING: u32 = 1 << 12;

    /// An event of `kind` (see [`intr_type`]) with `vector`.
    #[inline]
    pub const fn new(kind: u32, vector: u8) -> Self {
        Self(Self::VALID | (kind << 8) | vector as u32)
    }
    /// The same event delivering an error code.
    #[inline]
    pub const fn with_error_code(self) -> Self {
        Self(self.0 | Self::ERROR_CODE)
    }
    /// The same event delivering none.
    #[inline]
    pub const fn without_error_code(self) -> Self {
        Self(self.0 & !Self::ERROR_CODE)
    }
    /// Whether there is an event.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }
    /// The vector.
    #[inline]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }
    /// The type, see [`intr_type`].
    #[inline]
    pub const fn kind(self) -> u32 {
        (self.0 >> 8) & 7
    }
    /// Whether an error code belongs to it.
    #[inline]
    pub const fn has_error_code(self) -> bool {
        self.0 & Self::ERROR_CODE != 0
    }
    /// In VM-exit information: NMI unblocking due to IRET.
    #[inline]
    pub const fn nmi_unblocking(self) -> bool {
        self.0 & Self::NMI_UNBLOCKING != 0
    }
    /// Whether injection needs VM_ENTRY_INSTRUCTION_LEN (SDM 27.2.1.3).
    #[inline]
    pub const fn needs_instruction_length(self) -> bool {
        matches!(
            self.kind(),
            intr_type::SOFT_INTERRUPT
                | intr_type::PRIVILEGED_SOFT_EXCEPTION
                | intr_type::SOFT_EXCEPTION
        )
    }
    /// What of IDT-vectoring information may be injected again: bit 12 is undefined there.
    #[inline]
    pub const fn for_reinjection(self) -> Self {
        Self(self.0 & !Self::NMI_UNBLOCKING)
    }
}

/// Bits of GUEST_INTERRUPTIBILITY_INFO (SDM table 25-3).
pub mod interruptibility {
    /// Blocking by STI.
    pub const STI: u32 = 1;
    /// Blocking by MOV SS.
    pub const MOV_SS: u32 = 2;
    /// Blocking by SMI.
    pub const SMI: u32 = 4;
    /// Blocking by NMI.
    pub const NMI: u32 = 8;
}

/// Values of GUEST_ACTIVITY_STATE.
pub mod activity {
    /// Executing.
    pub const ACTIVE: u32 = 0;
    /// Halted.
    pub const HLT: u32 = 1;
    /// Shut down.
    pub const SHUTDOWN: u32 = 2;
    /// Waiting for a start-up IPI.
    pub const WAIT_SIPI: u32 = 3;
}
