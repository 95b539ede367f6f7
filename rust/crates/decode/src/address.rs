// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Memory operands: ModRM, SIB, displacement (SDM volume 2, 2.1.3 to 2.1.5 and 2.2.1).

use crate::cursor::Cursor;
use crate::execute::Gprs;
use crate::instruction::DecodeError;
use crate::prefix::Prefixes;

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// The width of address arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSize {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

impl AddressSize {
    /// The bits that count.
    #[inline]
    pub const fn mask(self) -> u64 {
        match self {
            AddressSize::Bits16 => 0xffff,
            AddressSize::Bits32 => 0xffff_ffff,
            AddressSize::Bits64 => u64::MAX,
        }
    }

    #[inline]
    pub(crate) const fn bytes(self) -> u32 {
        match self {
            AddressSize::Bits16 => 2,
            AddressSize::Bits32 => 4,
            AddressSize::Bits64 => 8,
        }
    }
}

/// Where a memory operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The segment.
    pub segment: Segment,
    /// The base register's number.
    pub base: Option<u8>,
    /// The index register's number.
    pub index: Option<u8>,
    /// The index is shifted left by this.
    pub shift: u8,
    /// The displacement, sign-extended to the width.
    pub displacement: u64,
    /// The displacement counts from the next instruction.
    pub rip_relative: bool,
    /// The width.
    pub size: AddressSize,
}

impl Address {
    /// The offset in the segment. `next_rip` is the address after the instruction.
    pub fn offset(&self, gprs: &Gprs, next_rip: u64) -> u64 {
        let register = |number: Option<u8>| {
            number
                .and_then(|n| gprs.get(usize::from(n)))
                .copied()
                .unwrap_or(0)
        };
        let from = match self.rip_relative {
            true => next_rip,
            false => register(self.base),
        };
        let index = register(self.index) << (self.shift & 3);
        from.wrapping_add(index).wrapping_add(self.displacement) & self.size.mask()
    }

    /// An operand of a string instruction: one register.
    #[inline]
    pub(crate) fn register(segment: Segment, base: u8, size: AddressSize) -> Address {
        Address {
            segment,
            base: Some(base),
            ..Address::absolute(segment, 0, size)
        }
    }

    /// An operand of MOV with moffs.
    #[inline]
    pub(crate) fn absolute(segment: Segment, displacement: u64, size: AddressSize) -> Address {
        Address {
            segment,
            base: None,
            index: None,
            shift: 0,
            displacement,
            rip_relative: false,
            size,
        }
    }
}

/// The ModRM byte, with the parts that REX extends.
pub(crate) struct ModRm {
    /// The register or opcode extension, without REX.
    pub(crate) reg: u8,
    /// The memory operand; `None`: a register.
    pub(crate) address: Option<Address>,
}

impl ModRm {
    /// Reads ModRM, SIB and displacement.
    #[inline]
    pub(crate) fn read(cursor: &mut Cursor<'_>, p: &Prefixes) -> Result<ModRm, DecodeError> {
        let byte = cursor.u8()?;
        let (mode, reg, rm) = (byte >> 6, (byte >> 3) & 7, byte & 7);
        let address = match (mode, p.address_size()) {
            (3, _) => None,
            (_, AddressSize::Bits16) => Some(read_16(cursor, p, mode, rm)?),
            (_, size) => Some(read_32(cursor, p, mode, rm, size)?),
        };
        Ok(ModRm { reg, address })
    }
}

/// 16-bit addressing (SDM volume 2, table 2-1).
fn read_16(
    cursor: &mut Cursor<'_>,
    p: &Prefixes,
    mode: u8,
    rm: u8,
) -> Result<Address, DecodeError> {
    const BX: u8 = 3;
    const BP: u8 = 5;
    const SI: u8 = 6;
    const DI: u8 = 7;
    let (base, index) = match rm {
        0 => (Some(BX), Some(SI)),
        1 => (Some(BX), Some(DI)),
        2 => (Some(BP), Some(SI)),
        3 => (Some(BP), Some(DI)),
        4 => (Some(SI), None),
        5 => (Some(DI), None),
        6 if mode == 0 => (None, None),
        6 => (Some(BP), None),
        _ => (Some(BX), None),
    };
    let displacement = match mode {
        0 if rm == 6 => cursor.signed(2)?,
        0 => 0,
        1 => cursor.signed(1)?,
        _ => cursor.signed(2)?,
    };
    Ok(Address {
        segment: p.segment.unwrap_or(default_segment(base)),
        base,
        index,
        shift: 0,
        displacement: displacement & AddressSize::Bits16.mask(),
        rip_relative: false,
        size: AddressSize::Bits16,
    })
}

/// 32-bit and 64-bit addressing (SDM volume 2, tables 2-2, 2-3, 2-5 and 2-7).
fn read_32(
    cursor: &mut Cursor<'_>,
    p: &Prefixes,
    mode: u8,
    rm: u8,
    size: AddressSize,
) -> Result<Address, DecodeError> {
    const SP: u8 = 4;
    const BP: u8 = 5;
    let mut rip_relative = false;
    let (mut base, mut index, mut shift) = (Some(rm | p.rex_b()), None, 0);
    // REX.B does not take part in the choice of the special forms.
    let mut low = rm;
    if rm == SP {
        let sib = cursor.u8()?;
        low = sib & 7;
        base = Some(low | p.rex_b());
        let number = (sib >> 3) & 7 | p.rex_x();
        if number != SP {
            index = Some(number);
            shift = sib >> 6;
        }
    }
    let bytes = match mode {
        0 if low == BP => {
            base = None;
            rip_relative = rm == BP && p.mode() == crate::Mode::Bits64;
            4
        }
        0 => 0,
        1 => 1,
        _ => 4,
    };
    let displacement = match bytes {
        0 => 0,
        n => cursor.signed(n)?,
    };
    Ok(Address {
        segment: p.segment.unwrap_or(default_segment(base)),
        base,
        index,
        shift,
        displacement: displacement & size.mask(),
        rip_relative,
        size,
    })
}

/// SS for addresses from the stack and frame pointers, DS for the rest.
#[inline]
fn default_segment(base: Option<u8>) -> Segment {
    match base {
        Some(4 | 5) => Segment::Ss,
        _ => Segment::Ds,
    }
}
