// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a decoded instruction is.

use crate::address::Address;
use crate::alu::Alu;

/// The size of code, from CS.L, CS.D and EFER.LMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real mode, virtual-8086 mode, 16-bit segments.
    Bits16,
    /// 32-bit segments.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

/// The size of an operand.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
    /// 8 bytes.
    Qword = 8,
}

impl Size {
    /// In bytes.
    #[inline]
    pub const fn bytes(self) -> u8 {
        self as u8
    }

    /// All bits of an operand of this size.
    #[inline]
    pub const fn mask(self) -> u64 {
        match self {
            Size::Byte => 0xff,
            Size::Word => 0xffff,
            Size::Dword => 0xffff_ffff,
            Size::Qword => u64::MAX,
        }
    }

    /// The sign bit of an operand of this size.
    #[inline]
    pub const fn sign(self) -> u64 {
        self.mask() ^ (self.mask() >> 1)
    }
}

/// A general-purpose register or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The number as encoded: 0 is RAX, 1 RCX, 2 RDX, 3 RBX, 4 RSP, 5 RBP, 6 RSI, 7 RDI.
    pub number: u8,
    /// AH, CH, DH or BH.
    pub high: bool,
    /// The part's size.
    pub size: Size,
}

/// A source that is not memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A register.
    Register(Register),
    /// An immediate, sign-extended to 64 bits.
    Immediate(u64),
}

/// How a load fills a larger register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extend {
    /// With zeros; also when memory and register have one size.
    Zero,
    /// With the sign.
    Sign,
}

/// What an instruction does with its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// MOV, MOVZX, MOVSX, MOVSXD from memory.
    Load {
        /// Where to.
        to: Register,
        /// How it fills `to`.
        extend: Extend,
    },
    /// MOV to memory.
    Store {
        /// What.
        from: Operand,
    },
    /// Register = register op memory.
    LoadModify {
        /// The operation.
        alu: Alu,
        /// The register.
        to: Register,
    },
    /// Memory = memory op operand.
    ReadModifyWrite {
        /// The operation.
        alu: Alu,
        /// The operand.
        with: Operand,
    },
    /// CMP and TEST: flags of memory op operand.
    Compare {
        /// `Sub` or `And`.
        alu: Alu,
        /// The operand.
        with: Operand,
        /// The operand comes first: CMP register, memory.
        reversed: bool,
    },
    /// XCHG.
    Exchange {
        /// The register.
        with: Register,
    },
    /// STOS: store RAX at RDI and move RDI.
    StoreString,
    /// LODS: load RAX from RSI and move RSI.
    LoadString,
}

/// A decoded instruction with one memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Length in bytes, 1 to 15.
    pub len: u8,
    /// Size of the memory operand.
    pub size: Size,
    /// What it does.
    pub operation: Operation,
    /// Where the memory operand is.
    pub address: Address,
    /// LOCK, written or implied by XCHG.
    pub lock: bool,
}

/// Why there is no [`Instruction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end within the instruction.
    Truncated,
    /// Longer than 15 bytes: #GP.
    TooLong,
    /// Not one of the few: for the VMM. Also what is #UD.
    Unsupported,
    /// One of the few, but without a memory operand.
    NoMemoryOperand,
}
