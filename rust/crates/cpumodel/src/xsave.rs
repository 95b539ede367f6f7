// SPDX-License-Identifier: GPL-2.0 OR MIT

//! XSAVE state: which components a guest has, and how large its areas are (SDM volume 1, chapter 13).

mod area;

pub use area::BadArea;

use crate::{Feature, FeatureSet};
use x86def::cr;

/// Legacy region and XSAVE header.
pub const XSAVE_MIN_SIZE: u32 = 576;
/// First component that is no part of the legacy region, and the number of components that are looked at.
const FIRST: u32 = 2;
const COMPONENTS: usize = 16;

/// Components that a guest can have: x87, SSE, AVX, the three of AVX-512, PKRU.
pub const XCR0_KNOWN: u64 = cr::XCR0_X87
    | cr::XCR0_SSE
    | cr::XCR0_AVX
    | cr::XCR0_OPMASK
    | cr::XCR0_ZMM_HI256
    | cr::XCR0_HI16_ZMM
    | cr::XCR0_PKRU;

const AVX512: u64 = cr::XCR0_OPMASK | cr::XCR0_ZMM_HI256 | cr::XCR0_HI16_ZMM;

/// Size and offset of a component in the standard format, and whether it is aligned in the compacted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Component {
    size: u32,
    offset: u32,
    align64: bool,
}

/// Leaf 0xD of a partition.
#[derive(Clone, Copy, Debug)]
pub struct XsaveModel {
    xcr0: u64,
    components: [Component; COMPONENTS],
}

impl XsaveModel {
    /// No XSAVE.
    pub const fn new() -> Self {
        let none = Component {
            size: 0,
            offset: 0,
            align64: false,
        };
        Self {
            xcr0: 0,
            components: [none; COMPONENTS],
        }
    }

    /// The components of the host that a guest could have: the ones that are known and whose layout is sane.
    pub fn host_xcr0(host: &dyn Fn(u32, u32) -> [u32; 4]) -> u64 {
        if host(0, 0)[0] < 0xd || host(1, 0)[2] & (1 << 26) == 0 {
            return 0;
        }
        let [low, _, _, high] = host(0xd, 0);
        let mut xcr0 = ((u64::from(high) << 32) | u64::from(low)) & XCR0_KNOWN;
        for i in FIRST..COMPONENTS as u32 {
            let [size, offset, flags, _] = host(0xd, i);
            let sane = size != 0 && offset >= XSAVE_MIN_SIZE && flags & 1 == 0;
            if !sane || size.checked_add(offset).is_none_or(|end| end > 4096) {
                xcr0 &= !(1 << i);
            }
        }
        xcr0
    }

    /// The components that go with the features shown.
    pub fn select(
        host: &dyn Fn(u32, u32) -> [u32; 4],
        host_xcr0: u64,
        features: &FeatureSet,
    ) -> Self {
        let mut model = Self::new();
        let mut wanted = 0;
        for (feature, mask) in [
            (Feature::Xsave, cr::XCR0_X87 | cr::XCR0_SSE),
            (Feature::Avx, cr::XCR0_AVX),
            (Feature::Avx512f, AVX512),
            (Feature::Pku, cr::XCR0_PKRU),
        ] {
            if features.has(feature) {
                wanted |= mask;
            }
        }
        model.xcr0 = host_xcr0 & wanted;
        for (i, component) in (0u32..).zip(model.components.iter_mut()) {
            if i >= FIRST && (model.xcr0 >> i) & 1 != 0 {
                let [size, offset, flags, _] = host(0xd, i);
                *component = Component {
                    size,
                    offset,
                    align64: flags & 2 != 0,
                };
            }
        }
        model
    }

    /// Bits that XCR0 can have.
    #[inline(always)]
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Whether XSETBV may load `value` (SDM volume 2, XSETBV: else #GP).
    #[inline(always)]
    pub const fn xcr0_is_legal(&self, value: u64) -> bool {
        let avx512 = value & AVX512;
        value & !self.xcr0 == 0
            && value & cr::XCR0_X87 != 0
            && (value & cr::XCR0_AVX == 0 || value & cr::XCR0_SSE != 0)
            && (avx512 == 0 || avx512 == AVX512 && value & cr::XCR0_AVX != 0)
    }

    /// Size of an area in the standard format with the components of `xcr0`.
    #[inline(always)]
    pub fn standard_size(&self, xcr0: u64) -> u32 {
        let mut size = XSAVE_MIN_SIZE;
        for (i, c) in self.components.iter().enumerate() {
            if (xcr0 >> i) & 1 != 0 {
                size = size.max(c.offset.saturating_add(c.size));
            }
        }
        size
    }

    /// Size of an area in the compacted format with the components of `xcr0`.
    #[inline(always)]
    pub fn compacted_size(&self, xcr0: u64) -> u32 {
        let mut size = XSAVE_MIN_SIZE;
        for (i, c) in self.components.iter().enumerate() {
            if i as u32 >= FIRST && xcr0 & self.xcr0 & (1 << i) != 0 {
                if c.align64 {
                    size = size.saturating_add(63) & !63;
                }
                size = size.saturating_add(c.size);
            }
        }
        size
    }

    /// Leaf 0xD, for a VP with this XCR0. `features_eax` is EAX of subleaf 1.
    #[inline(always)]
    pub(crate) fn leaf(&self, subleaf: u32, xcr0: u64, features_eax: u32) -> [u32; 4] {
        if self.xcr0 == 0 {
            return [0; 4];
        }
        match subleaf {
            0 => [
                self.xcr0 as u32,
                self.standard_size(xcr0),
                self.standard_size(self.xcr0),
                (self.xcr0 >> 32) as u32,
            ],
            // IA32_XSS has no bits, so ECX and EDX are zero.
            1 => [features_eax, self.compacted_size(xcr0), 0, 0],
            _ => match self.components.get(subleaf as usize) {
                Some(c) if c.size != 0 => [c.size, c.offset, u32::from(c.align64) << 1, 0],
                _ => [0; 4],
            },
        }
    }
}

impl Default for XsaveModel {
    fn default() -> Self {
        Self::new()
    }
}
