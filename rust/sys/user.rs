// SPDX-License-Identifier: GPL-2.0

//! Copies between the kernel and the calling process; each byte is read once.

use core::mem::MaybeUninit;
use kernel::alloc::KVec;
use kernel::error::Result;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// Plain data that any bytes make valid and that has no padding.
///
/// # Safety
///
/// Every bit pattern is a value, no byte is padding.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: Integers.
unsafe impl Plain for u32 {}
// SAFETY: Integers.
unsafe impl Plain for u64 {}

/// Marks uapi structures as [`Plain`].
macro_rules! plain {
    ($($ty:ty),* $(,)?) => {
        $(
            // SAFETY: A uapi structure of integers without implicit padding.
            unsafe impl $crate::sys::user::Plain for $ty {}
        )*
    };
}
plain!(
    super::bindings::mshv_create_partition,
    super::bindings::mshv_create_partition_v2,
    super::bindings::mshv_create_vp,
    super::bindings::mshv_user_mem_region,
    super::bindings::mshv_user_irqfd,
    super::bindings::mshv_user_ioeventfd,
    super::bindings::mshv_user_irq_entry,
    super::bindings::mshv_root_hvcall,
    super::bindings::mshv_get_set_vp_state,
    super::bindings::mshv_gpap_access_bitmap,
    super::bindings::hvrs_info,
    super::bindings::hvrs_partition_info,
    super::bindings::hvrs_stats,
);

/// Reads a `T` at the user address `addr`. EFAULT.
pub(crate) fn read<T: Plain>(addr: usize) -> Result<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: The bytes of `value`; any bytes make a T.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(
            value.as_mut_ptr().cast::<MaybeUninit<u8>>(),
            core::mem::size_of::<T>(),
        )
    };
    UserSlice::new(UserPtr::from_addr(addr), bytes.len())
        .reader()
        .read_raw(bytes)?;
    // SAFETY: Filled, and any bytes make a T.
    Ok(unsafe { value.assume_init() })
}

/// Writes `value` to the user address `addr`. EFAULT.
pub(crate) fn write<T: Plain>(addr: usize, value: &T) -> Result {
    // SAFETY: No byte of T is padding.
    let bytes = unsafe {
        core::slice::from_raw_parts(
            core::ptr::from_ref(value).cast::<u8>(),
            core::mem::size_of::<T>(),
        )
    };
    write_bytes(addr, bytes)
}

/// Reads bytes. EFAULT.
pub(crate) fn read_bytes(addr: usize, to: &mut [u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(addr), to.len())
        .reader()
        .read_slice(to)
}

/// Room for the bytes of an argument; few of them cost no allocation.
pub(crate) struct Room {
    here: [MaybeUninit<u8>; 640],
    there: KVec<u8>,
}

impl Room {
    /// Empty.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        let here = [const { MaybeUninit::uninit() }; 640];
        let there = KVec::new();
        Self { here, there }
    }

    fn take(&mut self, len: usize) -> Result<&mut [MaybeUninit<u8>]> {
        if len > self.here.len() {
            self.there.reserve(len, GFP_KERNEL_ACCOUNT)?;
            return self.there.spare_capacity_mut().get_mut(..len).ok_or(ENOMEM);
        }
        self.here.get_mut(..len).ok_or(ENOMEM)
    }

    /// So many zeros. ENOMEM.
    pub(crate) fn zeroed(&mut self, len: usize) -> Result<&mut [u8]> {
        let bytes = self.take(len)?;
        bytes.fill(MaybeUninit::new(0));
        // SAFETY: All of them are written.
        Ok(unsafe { &mut *(core::ptr::from_mut(bytes) as *mut [u8]) })
    }

    /// So many bytes from the user address `addr`. EFAULT, ENOMEM.
    pub(crate) fn read(&mut self, addr: usize, len: usize) -> Result<&[u8]> {
        let bytes = self.take(len)?;
        UserSlice::new(UserPtr::from_addr(addr), len)
            .reader()
            .read_raw(bytes)?;
        // SAFETY: All of them are written.
        Ok(unsafe { &*(core::ptr::from_ref(bytes) as *const [u8]) })
    }
}

/// Writes bytes without a page fault, so also under a spinlock; false: not all of the memory is there now.
pub(crate) fn write_bytes_nofault(addr: usize, from: &[u8]) -> bool {
    // SAFETY: Reads `from`; the address is checked.
    unsafe { super::bindings::hvrs_write_user_nofault(addr, from.as_ptr().cast(), from.len()) }
}

/// Atomically makes `new` of `old`, of 8 bytes if `wide`, else 4, without a page fault; false: it was not `old`. None: the
/// memory is not there now.
pub(crate) fn exchange_nofault(addr: usize, wide: bool, old: u64, new: u64) -> Option<bool> {
    // SAFETY: The address is checked.
    match unsafe { super::bindings::hvrs_exchange_user_nofault(addr, wide, old, new) } {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    }
}

/// Writes bytes. EFAULT.
pub(crate) fn write_bytes(addr: usize, from: &[u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(addr), from.len())
        .writer()
        .write_slice(from)
}
