// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The few instructions that the kernel must decode: loads and stores of the APIC page and of
//! ioeventfd addresses (SDM volume 2). Whatever else touches such an address goes to the VMM,
//! which has a full emulator.
//!
//! [`decode`] takes the bytes at RIP apart; [`Instruction::execute`] does what the instruction
//! does to registers and flags once the memory operand's value is known. The address is known
//! from the exit; [`Address::offset`] lets the caller check that the instruction really means it.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod address;
mod alu;
mod cursor;
mod execute;
mod instruction;
mod opcode;
mod prefix;

pub use address::{Address, AddressSize, Segment};
pub use alu::Alu;
pub use execute::{Access, Gprs};
pub use instruction::{DecodeError, Extend, Instruction, Mode, Operand, Operation, Register, Size};
pub use opcode::decode;
