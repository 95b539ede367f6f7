// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Segments as VMX and the TLFS describe them.

/// Index of a segment register in the VMCS, in instruction encoding order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Segment {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
    Ldtr = 6,
    Tr = 7,
}

/// Access rights: bits of the VMCS format (SDM table 25-2).
pub mod ar {
    /// Descriptor type: code or data.
    pub const S: u32 = 1 << 4;
    /// Present.
    pub const P: u32 = 1 << 7;
    /// 64-bit code.
    pub const L: u32 = 1 << 13;
    /// Default operation size.
    pub const DB: u32 = 1 << 14;
    /// Granularity.
    pub const G: u32 = 1 << 15;
    /// Unusable (VMX only).
    pub const UNUSABLE: u32 = 1 << 16;

    /// The descriptor privilege level.
    #[inline]
    pub const fn dpl(ar: u32) -> u8 {
        ((ar >> 5) & 3) as u8
    }
}

/// TLFS `HV_X64_SEGMENT_REGISTER` attributes (16 bits) as VMCS access rights: a segment that is
/// not present is unusable.
#[inline]
pub const fn rights_from_attributes(attributes: u16) -> u32 {
    let ar = attributes as u32 & 0xf0ff;
    if ar & ar::P == 0 {
        ar | ar::UNUSABLE
    } else {
        ar
    }
}

/// VMCS access rights as TLFS attributes.
#[inline]
pub const fn attributes_from_rights(ar: u32) -> u16 {
    if ar & ar::UNUSABLE != 0 {
        (ar & 0xf07f) as u16
    } else {
        (ar & 0xf0ff) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_is_not_present() {
        assert_eq!(rights_from_attributes(0), ar::UNUSABLE);
        assert_eq!(rights_from_attributes(0xa09b), 0xa09b);
        assert_eq!(attributes_from_rights(rights_from_attributes(0x0013)), 0x13);
        assert_eq!(attributes_from_rights(0x1c093) & 0x80, 0);
    }
}
