// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The input of a call as 64-bit words, wherever it lies, and the sets of VPs in it.

use crate::VpMask;
use hvdef::{
    HvHypercallInput, HvStatus, HV_GENERIC_SET_ALL, HV_GENERIC_SET_SPARSE_4K,
    HV_STATUS_INVALID_HYPERCALL_INPUT, HV_STATUS_INVALID_PARAMETER,
};

/// Words of input that registers hold: two general ones and XMM0 to XMM5.
pub const FAST_WORDS: usize = 14;

/// Why a call goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// With this status.
    Status(HvStatus),
    /// Its input cannot be read now.
    Unreadable,
}

impl From<HvStatus> for Stop {
    #[inline(always)]
    fn from(status: HvStatus) -> Self {
        Stop::Status(status)
    }
}

/// Input of a call. Each word is read at most once, because other VPs may change it meanwhile.
pub trait Words {
    /// Word `index`, which is inside of what the control word announces.
    fn word(&mut self, index: usize) -> Result<u64, Stop>;
}

/// A sparse VP set at word `at`: format, valid banks; then the banks that exist.
#[inline(always)]
pub(super) fn vp_set(
    input: &mut impl Words,
    at: usize,
    control: HvHypercallInput,
) -> Result<VpMask, Stop> {
    let (format, banks) = (input.word(at)?, input.word(at + 1)?);
    match format {
        HV_GENERIC_SET_ALL => Ok(VpMask::ALL),
        HV_GENERIC_SET_SPARSE_4K => {
            // The header's size is in the control word.
            if banks.count_ones() != u32::from(control.variable_header_size()) {
                return Err(HV_STATUS_INVALID_HYPERCALL_INPUT.into());
            }
            let mut vps = VpMask::EMPTY;
            let (mut rest, mut at) = (banks, at + 2);
            // VPs that do not exist are ignored.
            while rest != 0 && vps.set_bank(rest.trailing_zeros(), input.word(at)?) {
                rest &= rest - 1;
                at += 1;
            }
            Ok(vps)
        }
        _ => Err(HV_STATUS_INVALID_PARAMETER.into()),
    }
}
