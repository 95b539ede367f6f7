// SPDX-License-Identifier: GPL-2.0

//! The extended state: XCR0, PKRU, and what XSAVE saves.

use super::{cpuid, CurrentVmcs};
use crate::sys::pages::{Pages, PAGE_SIZE};
use crate::sys::window::RunWindow;
use core::arch::asm;
use kernel::error::Result;

/// XCR0; CPUID must show OSXSAVE.
#[inline(always)]
pub(crate) fn xgetbv0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: CR4.OSXSAVE is set by the kernel where XSAVE exists, which is checked at load.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// The host's XCR0, written back when this is dropped.
pub(crate) struct Xcr0 {
    host: u64,
    /// What is in it now.
    loaded: u64,
}

impl Xcr0 {
    #[inline(always)]
    pub(crate) fn read(_root: &CurrentVmcs<'_>) -> Self {
        let host = xgetbv0();
        Self { host, loaded: host }
    }

    /// Puts a guest's value there, which obeys the SDM's rules.
    #[inline(always)]
    pub(crate) fn load(&mut self, value: u64) {
        if self.loaded != value {
            // SAFETY: The kernel uses no extended state in a window, and this comes back.
            unsafe {
                asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
                     options(nostack))
            };
            self.loaded = value;
        }
    }

    /// Puts the host's value there again.
    #[inline(always)]
    pub(crate) fn restore(&mut self) {
        self.load(self.host);
    }
}

impl Drop for Xcr0 {
    #[inline(always)]
    fn drop(&mut self) {
        self.restore();
    }
}

/// The host's PKRU, written back when this is dropped.
pub(crate) struct Pkru(u32);

impl Pkru {
    /// CR4.PKE must be set.
    #[inline(always)]
    pub(crate) fn read(_root: &CurrentVmcs<'_>) -> Self {
        let value;
        // SAFETY: Reading has no effect.
        unsafe {
            asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _, options(nomem, nostack))
        };
        Self(value)
    }
}

impl Drop for Pkru {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: Read from it.
        unsafe { asm!("wrpkru", in("eax") self.0, in("ecx") 0, in("edx") 0, options(nostack)) };
    }
}

/// A guest's extended state in standard format, while it is not in the CPU.
pub(crate) struct XsaveArea {
    /// As large as the components of `mask` ask for.
    pages: Pages,
    mask: u64,
}

impl XsaveArea {
    /// For all components that the kernel enables. All zero: the initial state.
    pub(crate) fn new() -> Result<Self> {
        // Not in a window, so XCR0 is the kernel's, and CPUID tells the size for it.
        let size = cpuid(0xd, 0)[1] as usize;
        let order = size
            .div_ceil(PAGE_SIZE)
            .next_power_of_two()
            .trailing_zeros();
        Ok(Self {
            pages: Pages::new(order)?,
            mask: xgetbv0(),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.pages.bytes()
    }

    /// Its header and MXCSR must stay what XRSTOR takes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.pages.bytes_mut()
    }

    /// XSAVE of what XCR0 enables.
    #[inline(always)]
    pub(crate) fn save(&mut self, _fpu_is_ours: &RunWindow) {
        // SAFETY: The area is page-aligned and large enough.
        unsafe {
            asm!("xsave64 [{}]", in(reg) self.pages.as_ptr(), in("eax") self.mask as u32,
                 in("edx") (self.mask >> 32) as u32, options(nostack))
        };
    }

    /// XRSTOR of what XCR0 enables.
    #[inline(always)]
    pub(crate) fn restore(&self, _fpu_is_ours: &RunWindow) {
        // SAFETY: The area is page-aligned and large enough; the kernel has nothing in the FPU.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) self.pages.as_ptr(), in("eax") self.mask as u32,
                 in("edx") (self.mask >> 32) as u32, options(nostack))
        };
    }
}
