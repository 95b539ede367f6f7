// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What an instruction does to registers and flags.

use crate::address::AddressSize;
use crate::alu::Alu;
use crate::instruction::{Extend, Instruction, Operand, Operation, Register, Size};

/// General-purpose registers in the order of their numbers: RAX, RCX, RDX, RBX, RSP, RBP, RSI,
/// RDI, R8 to R15.
pub type Gprs = [u64; 16];

/// How an instruction touches its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It reads, then writes.
    ReadWrite,
}

const RFLAGS_DF: u64 = 1 << 10;

impl Instruction {
    /// How it touches its memory operand.
    #[inline]
    pub fn access(&self) -> Access {
        match self.operation {
            Operation::Load { .. }
            | Operation::LoadModify { .. }
            | Operation::Compare { .. }
            | Operation::LoadString => Access::Read,
            Operation::Store { .. } | Operation::StoreString => Access::Write,
            Operation::ReadModifyWrite { .. } | Operation::Exchange { .. } => Access::ReadWrite,
        }
    }

    /// What a plain store (MOV) writes, without changing anything: for the hot path, which has
    /// nothing else to do but to advance RIP.
    #[inline]
    pub fn stored(&self, gprs: &Gprs) -> Option<u64> {
        match self.operation {
            Operation::Store { from } => Some(operand(from, gprs) & self.size.mask()),
            _ => None,
        }
    }

    /// Executes it, given the value of its memory operand (anything when [`Access::Write`]).
    /// Returns what it writes to memory. RIP is the caller's.
    pub fn execute(&self, gprs: &mut Gprs, rflags: &mut u64, memory: u64) -> Option<u64> {
        let size = self.size;
        let memory = memory & size.mask();
        match self.operation {
            Operation::Load { to, extend } => {
                let value = match extend {
                    Extend::Zero => memory,
                    Extend::Sign => (memory ^ size.sign()).wrapping_sub(size.sign()),
                };
                write(to, gprs, value);
                None
            }
            Operation::Store { from } => Some(operand(from, gprs) & size.mask()),
            Operation::LoadModify { alu, to } => {
                let (value, flags) = alu.apply(read(to, gprs), memory, size, *rflags);
                *rflags = flags;
                write(to, gprs, value);
                None
            }
            Operation::ReadModifyWrite { alu, with } => {
                let (value, flags) = alu.apply(memory, operand(with, gprs), size, *rflags);
                *rflags = flags;
                Some(value)
            }
            Operation::Compare {
                alu,
                with,
                reversed,
            } => {
                *rflags = compare(alu, memory, operand(with, gprs), reversed, size, *rflags);
                None
            }
            Operation::Exchange { with } => {
                let value = read(with, gprs);
                write(with, gprs, memory);
                Some(value)
            }
            Operation::StoreString => {
                let value = read(accumulator(size), gprs);
                self.step(gprs, *rflags);
                Some(value)
            }
            Operation::LoadString => {
                write(accumulator(size), gprs, memory);
                self.step(gprs, *rflags);
                None
            }
        }
    }

    /// Moves the index register of a string instruction by one element.
    fn step(&self, gprs: &mut Gprs, rflags: u64) {
        let Some(number) = self.address.base else {
            return;
        };
        let register = Register {
            number,
            high: false,
            size: match self.address.size {
                AddressSize::Bits16 => Size::Word,
                AddressSize::Bits32 => Size::Dword,
                AddressSize::Bits64 => Size::Qword,
            },
        };
        let bytes = u64::from(self.size.bytes());
        let old = read(register, gprs);
        let new = match rflags & RFLAGS_DF {
            0 => old.wrapping_add(bytes),
            _ => old.wrapping_sub(bytes),
        };
        write(register, gprs, new);
    }
}

fn compare(alu: Alu, memory: u64, operand: u64, reversed: bool, size: Size, rflags: u64) -> u64 {
    let (a, b) = match reversed {
        true => (operand, memory),
        false => (memory, operand),
    };
    alu.apply(a, b, size, rflags).1
}

const fn accumulator(size: Size) -> Register {
    Register {
        number: 0,
        high: false,
        size,
    }
}

#[inline]
fn operand(operand: Operand, gprs: &Gprs) -> u64 {
    match operand {
        Operand::Register(register) => read(register, gprs),
        Operand::Immediate(value) => value,
    }
}

#[inline]
fn read(register: Register, gprs: &Gprs) -> u64 {
    let value = gprs.get(usize::from(register.number)).copied().unwrap_or(0);
    let shift = if register.high { 8 } else { 0 };
    (value >> shift) & register.size.mask()
}

/// Writes a register as the CPU does: 32-bit writes clear the upper half, smaller ones keep the
/// rest (SDM volume 1, 3.4.1.1).
#[inline]
fn write(register: Register, gprs: &mut Gprs, value: u64) {
    let Some(place) = gprs.get_mut(usize::from(register.number)) else {
        return;
    };
    let shift = if register.high { 8 } else { 0 };
    let mask = register.size.mask();
    *place = match register.size {
        Size::Dword | Size::Qword => value & mask,
        Size::Byte | Size::Word => *place & !(mask << shift) | ((value & mask) << shift),
    };
}
