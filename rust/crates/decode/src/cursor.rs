// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reading instruction bytes.

use crate::instruction::DecodeError;

/// The limit of an instruction's length (SDM volume 2, 2.3.11).
const MAX_LEN: usize = 15;

/// A position in the bytes of one instruction.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> u8 {
        // At most MAX_LEN, by u8().
        self.at as u8
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        if self.at >= MAX_LEN {
            return Err(DecodeError::TooLong);
        }
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// `n` bytes, little-endian, at most 8.
    #[inline]
    pub(crate) fn unsigned(&mut self, n: u32) -> Result<u64, DecodeError> {
        let mut value = 0;
        for i in 0..n.min(8) {
            value |= u64::from(self.u8()?) << (8 * i);
        }
        Ok(value)
    }

    /// `n` bytes, little-endian, sign-extended: 1 to 8.
    #[inline]
    pub(crate) fn signed(&mut self, n: u32) -> Result<u64, DecodeError> {
        let unused = 64u32.saturating_sub(8 * n) & 63;
        let value = self.unsigned(n)?;
        Ok((((value << unused) as i64) >> unused) as u64)
    }
}
