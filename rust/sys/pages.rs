// SPDX-License-Identifier: GPL-2.0

//! Zeroed pages whose physical address hardware is told.

use super::bindings;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use kernel::alloc::AllocError;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Bytes of a page.
pub(crate) const PAGE_SIZE: usize = 4096;

/// `1 << order` contiguous pages, zeroed, charged to the caller's memory cgroup.
pub(crate) struct Pages {
    virt: NonNull<u8>,
    phys: u64,
    order: u32,
}

// SAFETY: Owned memory without thread affinity.
unsafe impl Send for Pages {}
// SAFETY: Shared access gives only the addresses.
unsafe impl Sync for Pages {}

impl Pages {
    /// Allocates; may sleep.
    pub(crate) fn new(order: u32) -> Result<Self, AllocError> {
        let mut phys = 0;
        // SAFETY: Plain allocation in task context.
        let virt = unsafe { bindings::hvrs_pages_alloc(order, &mut phys) };
        Ok(Self {
            virt: NonNull::new(virt.cast()).ok_or(AllocError)?,
            phys,
            order,
        })
    }

    /// The system-physical address.
    #[inline]
    pub(crate) fn phys(&self) -> u64 {
        self.phys
    }

    /// The pages as bytes.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.virt.as_ptr()
    }

    /// The pages as bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: Owned, initialised (zeroed) and of this length.
        unsafe { core::slice::from_raw_parts_mut(self.virt.as_ptr(), PAGE_SIZE << self.order) }
    }

    /// The pages as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: As above; nobody writes while `self` is borrowed but hardware, which this
        // type's users rule out by not running the VP meanwhile.
        unsafe { core::slice::from_raw_parts(self.virt.as_ptr(), PAGE_SIZE << self.order) }
    }

    /// Writes `value` at `offset` of the first page, which a process maps too.
    pub(crate) fn write_shared<T: hvdef::Wire>(&self, offset: usize, value: &T) {
        // SAFETY: The bytes are ours; the process's accesses race as device memory's would, and
        // nothing here depends on what it writes meanwhile.
        let bytes = unsafe { core::slice::from_raw_parts_mut(self.virt.as_ptr(), PAGE_SIZE) };
        if let Some(to) = bytes.get_mut(offset..) {
            let _ = value.write(to);
        }
    }

    /// Writes `bytes` to the start of the first page, which a process maps too.
    pub(crate) fn copy_shared(&self, bytes: &[u8]) {
        // SAFETY: As above.
        let page = unsafe { core::slice::from_raw_parts_mut(self.virt.as_ptr(), PAGE_SIZE) };
        if let Some(to) = page.get_mut(..bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    /// Reads a value at `offset` of the first page, which a process maps too: any bytes.
    pub(crate) fn read_shared<T: hvdef::Wire>(&self, offset: usize) -> Option<T> {
        // SAFETY: As above.
        let bytes = unsafe { core::slice::from_raw_parts(self.virt.as_ptr(), PAGE_SIZE) };
        T::read(bytes.get(offset..)?)
    }

    /// The words of the first page, which guests write, too.
    pub(crate) fn words(&self) -> &[AtomicU32; PAGE_SIZE / 4] {
        // SAFETY: At least a page, aligned, initialised, and living as long as `self`. Any content is valid, and who
        // uses these words uses no slice of the same pages meanwhile, which takes `&mut self` or is for pages that
        // guests do not see.
        unsafe { &*self.virt.as_ptr().cast() }
    }

    /// Takes the 32-bit word at `offset` of the first page and leaves 0.
    pub(crate) fn take_shared_u32(&self, offset: usize) -> u32 {
        if offset + 4 > PAGE_SIZE || offset % 4 != 0 {
            return 0;
        }
        // SAFETY: Inside the page and aligned.
        let word = unsafe { &*self.virt.as_ptr().add(offset).cast::<AtomicU32>() };
        word.swap(0, Ordering::AcqRel)
    }

    /// Gives the pages up without freeing them; the physical address finds them again.
    pub(crate) fn into_phys(self) -> u64 {
        let phys = self.phys;
        core::mem::forget(self);
        phys
    }

    /// Takes back what [`Self::into_phys`] gave.
    ///
    /// # Safety
    ///
    /// `phys` came from `into_phys` of an allocation of this `order`, once.
    pub(crate) unsafe fn from_phys(phys: u64, order: u32) -> Self {
        // SAFETY: The address is of kernel memory by the contract.
        let virt = unsafe { bindings::hvrs_phys_to_virt(phys) };
        Self {
            // SAFETY: The direct map has no null.
            virt: unsafe { NonNull::new_unchecked(virt.cast()) },
            phys,
            order,
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: Allocated with this order, not yet freed.
        unsafe { bindings::hvrs_pages_free(self.virt.as_ptr().cast(), self.order) }
    }
}

/// Words of a page of counters.
pub(crate) type Counters = [AtomicU64; PAGE_SIZE / 8];

/// A zeroed page of counters, and a second page behind it, for as long as a clone of this exists.
#[derive(Clone)]
pub(crate) struct CounterPages {
    /// Into `pages`: what counts has one pointer to follow.
    first: NonNull<Counters>,
    pages: Arc<Pages>,
}

// SAFETY: Atomic integers without thread affinity.
unsafe impl Send for CounterPages {}
// SAFETY: As above.
unsafe impl Sync for CounterPages {}

impl CounterPages {
    /// Allocates; may sleep.
    pub(crate) fn new() -> Result<Self, AllocError> {
        let pages = Arc::new(Pages::new(1)?, GFP_KERNEL_ACCOUNT)?;
        Ok(Self {
            first: pages.virt.cast(),
            pages,
        })
    }

    /// The counters.
    #[inline(always)]
    pub(crate) fn counters(&self) -> &Counters {
        // SAFETY: A page, aligned and initialised, that `pages` keeps. Whoever else has it maps it read-only.
        unsafe { self.first.as_ref() }
    }

    /// The system-physical address of page 0 or 1.
    pub(crate) fn phys(&self, page: u64) -> u64 {
        self.pages.phys() + page * PAGE_SIZE as u64
    }
}

/// A value that fills whole pages of its own.
///
/// # Invariants
///
/// The pages hold a valid `T`.
pub(crate) struct PageBox<T> {
    pages: Pages,
    _value: core::marker::PhantomData<T>,
}

/// A type for which bytes of zero are a value.
///
/// # Safety
///
/// They are.
pub(crate) unsafe trait ZeroIsValid {}

// SAFETY: Any content is valid.
unsafe impl ZeroIsValid for vapic::ApicPage {}
// SAFETY: Integers only.
unsafe impl ZeroIsValid for cpumodel::Overrides {}

impl<T: ZeroIsValid> PageBox<T> {
    const ORDER: u32 = {
        let pages = core::mem::size_of::<T>().div_ceil(PAGE_SIZE);
        pages.next_power_of_two().trailing_zeros()
    };

    /// An all-zero `T`.
    pub(crate) fn zeroed() -> Result<Self, AllocError> {
        Ok(Self {
            pages: Pages::new(Self::ORDER)?,
            _value: core::marker::PhantomData,
        })
    }
}

impl<T> PageBox<T> {
    /// The system-physical address.
    #[inline]
    pub(crate) fn phys(&self) -> u64 {
        self.pages.phys
    }
}

impl<T> core::ops::Deref for PageBox<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type's invariant.
        unsafe { &*self.pages.virt.as_ptr().cast() }
    }
}

impl<T> core::ops::DerefMut for PageBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type's invariant; owned.
        unsafe { &mut *self.pages.virt.as_ptr().cast() }
    }
}
