// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Arithmetic and its flags (SDM volume 1, 3.4.3.1).

use crate::instruction::Size;

/// An operation of two operands. ADC and SBB are left to the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alu {
    /// ADD.
    Add,
    /// OR.
    Or,
    /// AND, and TEST.
    And,
    /// SUB, and CMP.
    Sub,
    /// XOR.
    Xor,
}

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

impl Alu {
    /// `a op b` in `size`, and RFLAGS after it. AF, which OR, AND and XOR leave undefined, is
    /// cleared by them as processors do.
    pub fn apply(self, a: u64, b: u64, size: Size, rflags: u64) -> (u64, u64) {
        let (a, b) = (a & size.mask(), b & size.mask());
        let result = size.mask()
            & match self {
                Alu::Add => a.wrapping_add(b),
                Alu::Sub => a.wrapping_sub(b),
                Alu::Or => a | b,
                Alu::And => a & b,
                Alu::Xor => a ^ b,
            };
        let (carry, overflow, adjust) = match self {
            Alu::Add => (
                result < a,
                (a ^ result) & (b ^ result) & size.sign() != 0,
                true,
            ),
            Alu::Sub => (a < b, (a ^ b) & (a ^ result) & size.sign() != 0, true),
            _ => (false, false, false),
        };
        let mut flags = rflags & !(CF | PF | AF | ZF | SF | OF);
        let mut set = |on: bool, flag: u64| {
            if on {
                flags |= flag;
            }
        };
        set(carry, CF);
        set((result as u8).count_ones() % 2 == 0, PF);
        set(adjust && (a ^ b ^ result) & 0x10 != 0, AF);
        set(result == 0, ZF);
        set(result & size.sign() != 0, SF);
        set(overflow, OF);
        (result, flags)
    }
}
