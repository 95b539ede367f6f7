// SPDX-License-Identifier: GPL-2.0

//! Copies between the kernel and the calling process; each byte is read once.

use kernel::error::Result;
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
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: The bytes of `value`; any bytes make a T.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(
            value.as_mut_ptr().cast::<core::mem::MaybeUninit<u8>>(),
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
