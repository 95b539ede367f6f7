// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where a hypercall finds its arguments and leaves its answer (rows ).

use hvdef::{HvHypercallInput, HvHypercallResult};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSI: usize = 6;
const RDI: usize = 7;
const R8: usize = 8;

/// Which registers are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// 64-bit mode: RCX control, RDX input, R8 output; answer in RAX.
    Bits64,
    /// Any other: EDX:EAX control, EBX:ECX input, EDI:ESI output; answer in EDX:EAX.
    Bits32,
}

/// Control and the addresses of input and output; for a fast call the two input words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The hypercall input value.
    pub control: HvHypercallInput,
    /// Address of the input, or first word of it.
    pub input: u64,
    /// Address of the output, or second word of the input.
    pub output: u64,
}

#[inline(always)]
const fn pair(high: u64, low: u64) -> u64 {
    (high << 32) | low as u32 as u64
}

impl Convention {
    /// By EFER.LMA and CS.L.
    #[inline(always)]
    pub const fn select(efer_lma: bool, cs_l: bool) -> Self {
        if efer_lma && cs_l {
            Self::Bits64
        } else {
            Self::Bits32
        }
    }

    /// The arguments in the general registers, which are in the processor's order (RAX, RCX, RDX, RBX, RSP, RBP, RSI,
    /// RDI, R8, …).
    #[inline(always)]
    pub const fn arguments(self, gprs: &[u64; 16]) -> Arguments {
        match self {
            Self::Bits64 => Arguments {
                control: HvHypercallInput(gprs[RCX]),
                input: gprs[RDX],
                output: gprs[R8],
            },
            Self::Bits32 => Arguments {
                control: HvHypercallInput(pair(gprs[RDX], gprs[RAX])),
                input: pair(gprs[RBX], gprs[RCX]),
                output: pair(gprs[RDI], gprs[RSI]),
            },
        }
    }

    /// Puts the answer into the registers; no other changes.
    #[inline(always)]
    pub const fn set_result(self, gprs: &mut [u64; 16], result: HvHypercallResult) {
        match self {
            Self::Bits64 => gprs[RAX] = result.0,
            Self::Bits32 => {
                gprs[RAX] = result.0 as u32 as u64;
                gprs[RDX] = result.0 >> 32;
            }
        }
    }
}

/// The caller's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Current privilege level.
    pub cpl: u8,
    /// CR0.PE.
    pub protected_mode: bool,
}

impl Caller {
    /// only the kernel, and not in real mode; in virtual-8086 mode CPL is 3.
    #[inline(always)]
    pub const fn may_call(&self) -> bool {
        self.cpl == 0 && self.protected_mode
    }
}
