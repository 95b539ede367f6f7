// SPDX-License-Identifier: GPL-2.0

//! Files: misc devices and anonymous files whose operations are Rust.
//!
//! `kernel::miscdevice` sets no `.owner`, so that rmmod with an open file would be a use after
//! free; these tables do.

use super::bindings as shim;
use core::marker::PhantomData;
use kernel::bindings;
use kernel::error::{code::*, to_result, Result};
use kernel::ffi::{c_int, c_long, c_uint, c_ulong};
use kernel::prelude::*;
use kernel::types::{ForeignOwnable, Opaque};

extern "C" {
    /// This module, which the build adds. (The kernel crate's own name for it differs by version.)
    static __this_module: Opaque<kernel::ffi::c_void>;
}

/// An open file.
pub(crate) trait FileOps: Sized + Send + Sync + 'static {
    /// Name as /proc/PID/fd shows it.
    const NAME: &'static CStr;
    /// Has `mmap`.
    const HAS_MMAP: bool = false;

    /// An ioctl. The value is the system call's result. Unknown: ENOTTY.
    fn ioctl(this: kernel::sync::ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize>;

    /// Maps page `offset` (in pages).
    fn mmap(_this: kernel::sync::ArcBorrow<'_, Self>, _vma: &Vma, _offset: usize) -> Result {
        Err(ENODEV)
    }
}

/// A VMA that is being mapped.
pub(crate) struct Vma(*mut bindings::vm_area_struct);

impl Vma {
    /// Backs the VMA, which must be one page, with `page`. EINVAL.
    ///
    /// The page is reference-counted by the mapping: it may be freed by its owner at any time.
    pub(crate) fn insert(&self, page: &super::pages::Pages) -> Result {
        // SAFETY: A VMA inside its mmap call; a page of the page allocator.
        to_result(unsafe { shim::hvrs_vma_insert_page(self.0, page.as_ptr().cast()) })
    }
}

/// # Safety
///
/// Called by the kernel for a file of [`Table<T>`].
unsafe extern "C" fn ioctl<T: FileOps>(
    file: *mut bindings::file,
    cmd: c_uint,
    arg: c_ulong,
) -> c_long {
    // SAFETY: `private_data` is an Arc<T> from the file's creation to its release.
    let this = unsafe { kernel::sync::Arc::<T>::borrow((*file).private_data) };
    match T::ioctl(this, cmd, arg) {
        Ok(value) => value,
        Err(e) => e.to_errno() as c_long,
    }
}

/// # Safety
///
/// Called by the kernel for a file of [`Table<T>`].
unsafe extern "C" fn mmap<T: FileOps>(
    file: *mut bindings::file,
    vma: *mut bindings::vm_area_struct,
) -> c_int {
    // SAFETY: As in `ioctl`.
    let this = unsafe { kernel::sync::Arc::<T>::borrow((*file).private_data) };
    // SAFETY: The kernel gives a valid VMA.
    let offset = unsafe { (*vma).vm_pgoff };
    match T::mmap(this, &Vma(vma), offset) {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// # Safety
///
/// Called by the kernel for a file of [`Table<T>`].
unsafe extern "C" fn release<T: FileOps>(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: The last use of the file; `private_data` is its Arc<T>.
    drop(unsafe { kernel::sync::Arc::<T>::from_foreign((*file).private_data) });
    0
}

struct Table<T>(PhantomData<T>);

impl<T: FileOps> Table<T> {
    const BASE: bindings::file_operations = bindings::file_operations {
        // Only its address is taken.
        owner: (&raw const __this_module).cast_mut().cast(),
        release: Some(release::<T>),
        unlocked_ioctl: Some(ioctl::<T>),
        mmap: if T::HAS_MMAP { Some(mmap::<T>) } else { None },
        llseek: Some(bindings::noop_llseek),
        ..pin_init::zeroed()
    };
    const ANON: bindings::file_operations = Self::BASE;
}

/// A new anonymous file for `object` in the caller's table; its number.
pub(crate) fn anon_fd<T: FileOps>(object: kernel::sync::Arc<T>) -> Result<i32> {
    struct Holder<T>(PhantomData<T>);
    impl<T: FileOps> Holder<T> {
        const FOPS: &'static bindings::file_operations = &Table::<T>::ANON;
    }
    let private = object.into_foreign();
    // SAFETY: The operations are static; the file owns the reference.
    let fd = unsafe {
        shim::hvrs_anon_fd(
            T::NAME.as_char_ptr(),
            Holder::<T>::FOPS,
            private,
            (bindings::O_RDWR | bindings::O_CLOEXEC) as i32,
        )
    };
    if fd < 0 {
        // SAFETY: No file was made, the reference is still ours.
        drop(unsafe { kernel::sync::Arc::<T>::from_foreign(private) });
        return Err(Error::from_errno(fd));
    }
    Ok(fd)
}

/// A device node that opens to `T::open()`.
pub(crate) trait DeviceOps: FileOps {
    /// The node's name in /dev.
    const NODE: &'static CStr;
    /// What the device hands to each file.
    type Context: Send + Sync + 'static;
    /// A new open file.
    fn open(context: &Self::Context) -> Result<kernel::sync::Arc<Self>>;
}

/// # Safety
///
/// Called by the kernel for the node of a [`Device<T>`].
unsafe extern "C" fn open<T: DeviceOps>(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: misc_open leaves the miscdevice here, which is the first field of a Device<T>.
    let device = unsafe { &*((*file).private_data as *const Device<T>) };
    match T::open(&device.context) {
        Ok(object) => {
            // SAFETY: A new file; the field is the driver's.
            unsafe { (*file).private_data = object.into_foreign() };
            0
        }
        Err(e) => e.to_errno(),
    }
}

impl<T: DeviceOps> Table<T> {
    const DEVICE: bindings::file_operations = bindings::file_operations {
        open: Some(open::<T>),
        ..Self::BASE
    };
}

/// A registered misc device.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub(crate) struct Device<T: DeviceOps> {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    context: T::Context,
}

// SAFETY: Registration has no thread affinity.
unsafe impl<T: DeviceOps> Send for Device<T> {}
// SAFETY: Nothing is reachable by a shared reference.
unsafe impl<T: DeviceOps> Sync for Device<T> {}

impl<T: DeviceOps> Device<T> {
    /// Registers /dev/NODE with mode 0660; udev gives it its group.
    pub(crate) fn register(context: T::Context) -> impl PinInit<Self, Error> {
        struct Holder<T>(PhantomData<T>);
        impl<T: DeviceOps> Holder<T> {
            const FOPS: &'static bindings::file_operations = &Table::<T>::DEVICE;
        }
        try_pin_init!(Self {
            // Before the device can be opened.
            context,
            misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                // SAFETY: `slot` is ours to write; registered while pinned.
                unsafe {
                    slot.write(bindings::miscdevice {
                        minor: bindings::MISC_DYNAMIC_MINOR as c_int,
                        name: T::NODE.as_char_ptr(),
                        fops: Holder::<T>::FOPS,
                        mode: 0o660,
                        ..pin_init::zeroed()
                    });
                    to_result(bindings::misc_register(slot))
                }
            }),
        })
    }
}

#[pinned_drop]
impl<T: DeviceOps> PinnedDrop for Device<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by `register`.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}
