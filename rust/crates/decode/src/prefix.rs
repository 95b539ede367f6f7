// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Prefixes (SDM volume 2, 2.1.1 and 2.2.1).

use crate::address::{AddressSize, Segment};
use crate::cursor::Cursor;
use crate::instruction::{DecodeError, Mode, Register, Size};

/// The prefixes of one instruction.
pub(crate) struct Prefixes {
    mode: Mode,
    rex: u8,
    operand_size: bool,
    address_size: bool,
    pub(crate) segment: Option<Segment>,
    pub(crate) lock: bool,
    pub(crate) repeat: bool,
}

impl Prefixes {
    /// Reads all prefixes; returns them and the first opcode byte.
    #[inline]
    pub(crate) fn read(cursor: &mut Cursor<'_>, mode: Mode) -> Result<(Self, u8), DecodeError> {
        let mut p = Prefixes {
            mode,
            rex: 0,
            operand_size: false,
            address_size: false,
            segment: None,
            lock: false,
            repeat: false,
        };
        loop {
            let byte = cursor.u8()?;
            match byte {
                0x26 => p.legacy_segment(Segment::Es),
                0x2e => p.legacy_segment(Segment::Cs),
                0x36 => p.legacy_segment(Segment::Ss),
                0x3e => p.legacy_segment(Segment::Ds),
                0x64 => p.segment = Some(Segment::Fs),
                0x65 => p.segment = Some(Segment::Gs),
                0x66 => p.operand_size = true,
                0x67 => p.address_size = true,
                0xf0 => p.lock = true,
                0xf2 | 0xf3 => p.repeat = true,
                0x40..=0x4f if mode == Mode::Bits64 => {
                    p.rex = byte;
                    continue;
                }
                opcode => return Ok((p, opcode)),
            }
            // A REX prefix counts only right before the opcode.
            p.rex = 0;
        }
    }

    /// ES, CS, SS, DS: null prefixes in 64-bit mode.
    #[inline]
    fn legacy_segment(&mut self, segment: Segment) {
        if self.mode != Mode::Bits64 {
            self.segment = Some(segment);
        }
    }

    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    #[inline]
    pub(crate) fn rex_w(&self) -> bool {
        self.rex & 8 != 0
    }

    /// REX.R as bit 3 of a register number.
    #[inline]
    pub(crate) fn rex_r(&self) -> u8 {
        (self.rex & 4) << 1
    }

    /// REX.X as bit 3 of a register number.
    #[inline]
    pub(crate) fn rex_x(&self) -> u8 {
        (self.rex & 2) << 2
    }

    /// REX.B as bit 3 of a register number.
    #[inline]
    pub(crate) fn rex_b(&self) -> u8 {
        (self.rex & 1) << 3
    }

    /// The operand size of an opcode without the byte form.
    #[inline]
    pub(crate) fn operand_size(&self) -> Size {
        match (self.mode, self.operand_size) {
            (Mode::Bits64, _) if self.rex_w() => Size::Qword,
            (Mode::Bits16, false) | (Mode::Bits32 | Mode::Bits64, true) => Size::Word,
            _ => Size::Dword,
        }
    }

    /// The operand size of an opcode whose bit 0 tells byte from the rest.
    #[inline]
    pub(crate) fn size_by_w(&self, opcode: u8) -> Size {
        match opcode & 1 {
            0 => Size::Byte,
            _ => self.operand_size(),
        }
    }

    #[inline]
    pub(crate) fn address_size(&self) -> AddressSize {
        match (self.mode, self.address_size) {
            (Mode::Bits64, false) => AddressSize::Bits64,
            (Mode::Bits32, true) | (Mode::Bits16, false) => AddressSize::Bits16,
            _ => AddressSize::Bits32,
        }
    }

    /// The register `number` as an operand of `size`: without REX, 4 to 7 are AH to BH.
    #[inline]
    pub(crate) fn register(&self, number: u8, size: Size) -> Register {
        let high = size == Size::Byte && self.rex == 0 && number >= 4;
        Register {
            number: if high { number & 3 } else { number },
            high,
            size,
        }
    }
}
