// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The opcodes (SDM volume 2, appendix A).

use crate::address::{Address, ModRm, Segment};
use crate::alu::Alu;
use crate::cursor::Cursor;
use crate::instruction::{
    DecodeError, Extend, Instruction, Mode, Operand, Operation, Register, Size,
};
use crate::prefix::Prefixes;

/// RAX, RSI, RDI as numbers.
const RAX: u8 = 0;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// Decodes the instruction that `bytes` begin with.
///
/// Every string of bytes has an answer; bytes after the instruction are not looked at.
pub fn decode(bytes: &[u8], mode: Mode) -> Result<Instruction, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let (p, opcode) = Prefixes::read(&mut cursor, mode)?;
    let mut decoder = Decoder {
        cursor: &mut cursor,
        p: &p,
    };
    let (operation, size, address) = match opcode {
        0x0f => decoder.two_byte()?,
        _ => decoder.one_byte(opcode)?,
    };
    let exchange = matches!(operation, Operation::Exchange { .. });
    // LOCK on anything that does not write memory after reading it is #UD.
    if p.lock && !exchange && !matches!(operation, Operation::ReadModifyWrite { .. }) {
        return Err(DecodeError::Unsupported);
    }
    Ok(Instruction {
        len: cursor.len(),
        size,
        operation,
        address,
        lock: p.lock || exchange,
    })
}

type Decoded = Result<(Operation, Size, Address), DecodeError>;

struct Decoder<'a, 'b> {
    cursor: &'a mut Cursor<'b>,
    p: &'a Prefixes,
}

impl Decoder<'_, '_> {
    #[inline]
    fn one_byte(&mut self, opcode: u8) -> Decoded {
        let size = self.p.size_by_w(opcode);
        match opcode {
            0x88 | 0x89 => self.with_register(size, |from| Operation::Store {
                from: Operand::Register(from),
            }),
            0x8a | 0x8b => self.with_register(size, |to| Operation::Load {
                to,
                extend: Extend::Zero,
            }),
            0xc6 | 0xc7 => self.with_immediate(size, size, |extension, from| match extension {
                0 => Some(Operation::Store { from }),
                _ => None,
            }),
            0xa0..=0xa3 => self.moffs(opcode, size),
            0x86 | 0x87 => self.with_register(size, |with| Operation::Exchange { with }),
            0x84 | 0x85 => self.with_register(size, |with| compare(Alu::And, with, false)),
            0xf6 | 0xf7 => self.with_immediate(size, size, |extension, with| match extension {
                0 => Some(Operation::Compare {
                    alu: Alu::And,
                    with,
                    reversed: false,
                }),
                _ => None,
            }),
            0xaa..=0xad => self.string(opcode, size),
            0x80 | 0x81 => self.with_immediate(size, size, group_1),
            0x83 => self.with_immediate(size, Size::Byte, group_1),
            0x63 if self.p.mode() == Mode::Bits64 => self.movsxd(),
            // ADD, OR, ADC, SBB, AND, SUB, XOR, CMP in rows of 8.
            0x00..=0x3f => self.arithmetic(opcode, size),
            _ => Err(DecodeError::Unsupported),
        }
    }

    /// MOVZX and MOVSX.
    #[inline]
    fn two_byte(&mut self) -> Decoded {
        let opcode = self.cursor.u8()?;
        let extend = match opcode {
            0xb6 | 0xb7 => Extend::Zero,
            0xbe | 0xbf => Extend::Sign,
            _ => return Err(DecodeError::Unsupported),
        };
        let size = match opcode & 1 {
            0 => Size::Byte,
            _ => Size::Word,
        };
        let to = self.p.operand_size();
        self.load_extended(to, size, extend)
    }

    fn movsxd(&mut self) -> Decoded {
        let to = self.p.operand_size();
        let size = match to {
            Size::Word => Size::Word,
            _ => Size::Dword,
        };
        self.load_extended(to, size, Extend::Sign)
    }

    fn load_extended(&mut self, to: Size, size: Size, extend: Extend) -> Decoded {
        let (_, address, to) = self.modrm(to)?;
        Ok((Operation::Load { to, extend }, size, address))
    }

    fn arithmetic(&mut self, opcode: u8, size: Size) -> Decoded {
        let alu = alu((opcode >> 3) & 7).ok_or(DecodeError::Unsupported)?;
        let is_cmp = opcode >> 3 == 7;
        match opcode & 7 {
            0 | 1 if is_cmp => self.with_register(size, |with| compare(alu, with, false)),
            2 | 3 if is_cmp => self.with_register(size, |with| compare(alu, with, true)),
            0 | 1 => self.with_register(size, |with| Operation::ReadModifyWrite {
                alu,
                with: Operand::Register(with),
            }),
            2 | 3 => self.with_register(size, |to| Operation::LoadModify { alu, to }),
            _ => Err(DecodeError::Unsupported),
        }
    }

    /// MOV between the accumulator and an absolute address.
    fn moffs(&mut self, opcode: u8, size: Size) -> Decoded {
        let width = self.p.address_size();
        let displacement = self.cursor.unsigned(width.bytes())?;
        let segment = self.p.segment.unwrap_or(Segment::Ds);
        let accumulator = self.p.register(RAX, size);
        let operation = match opcode & 2 {
            0 => Operation::Load {
                to: accumulator,
                extend: Extend::Zero,
            },
            _ => Operation::Store {
                from: Operand::Register(accumulator),
            },
        };
        Ok((
            operation,
            size,
            Address::absolute(segment, displacement, width),
        ))
    }

    /// STOS and LODS, once.
    fn string(&mut self, opcode: u8, size: Size) -> Decoded {
        if self.p.repeat {
            return Err(DecodeError::Unsupported);
        }
        let width = self.p.address_size();
        Ok(match opcode {
            // ES cannot be overridden.
            0xaa | 0xab => (
                Operation::StoreString,
                size,
                Address::register(Segment::Es, RDI, width),
            ),
            _ => (
                Operation::LoadString,
                size,
                Address::register(self.p.segment.unwrap_or(Segment::Ds), RSI, width),
            ),
        })
    }

    /// An opcode with a register operand and a memory operand of one size.
    #[inline]
    fn with_register(
        &mut self,
        size: Size,
        operation: impl FnOnce(Register) -> Operation,
    ) -> Decoded {
        let (_, address, register) = self.modrm(size)?;
        Ok((operation(register), size, address))
    }

    /// An opcode with an extension in ModRM, a memory operand and an immediate, of at most 4 bytes.
    #[inline]
    fn with_immediate(
        &mut self,
        size: Size,
        immediate: Size,
        operation: impl Fn(u8, Operand) -> Option<Operation>,
    ) -> Decoded {
        let (extension, address, _) = self.modrm(size)?;
        // Without an immediate first: other extensions have none.
        let known = operation(extension, Operand::Immediate(0));
        known.ok_or(DecodeError::Unsupported)?;
        let value = self.cursor.signed(u32::from(immediate.bytes().min(4)))?;
        let operation = operation(extension, Operand::Immediate(value));
        Ok((operation.ok_or(DecodeError::Unsupported)?, size, address))
    }

    /// ModRM of an instruction with a memory operand: the opcode extension, the address, and the
    /// register that the extension's bits name.
    #[inline]
    fn modrm(&mut self, size: Size) -> Result<(u8, Address, Register), DecodeError> {
        let modrm = ModRm::read(self.cursor, self.p)?;
        let address = modrm.address.ok_or(DecodeError::NoMemoryOperand)?;
        let register = self.p.register(modrm.reg | self.p.rex_r(), size);
        Ok((modrm.reg, address, register))
    }
}

/// The operation of row `number` of the opcode map or of group 1; `None`: ADC and SBB.
#[inline]
fn alu(number: u8) -> Option<Alu> {
    match number {
        0 => Some(Alu::Add),
        1 => Some(Alu::Or),
        4 => Some(Alu::And),
        5 | 7 => Some(Alu::Sub),
        6 => Some(Alu::Xor),
        _ => None,
    }
}

/// Opcodes 80, 81 and 83.
#[inline]
fn group_1(extension: u8, with: Operand) -> Option<Operation> {
    let alu = alu(extension)?;
    Some(match extension {
        7 => Operation::Compare {
            alu,
            with,
            reversed: false,
        },
        _ => Operation::ReadModifyWrite { alu, with },
    })
}

#[inline]
fn compare(alu: Alu, with: Register, reversed: bool) -> Operation {
    Operation::Compare {
        alu,
        with: Operand::Register(with),
        reversed,
    }
}
