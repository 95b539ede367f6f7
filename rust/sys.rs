// SPDX-License-Identifier: GPL-2.0

//! The only layer that calls the kernel. Safe interfaces out; above it nothing is `unsafe`
//! but the VMX instructions.

#![allow(unsafe_code)] // UNSAFETY: this layer is the FFI boundary.

pub(crate) mod direct_map;
pub(crate) mod ept_frames;
pub(crate) mod eventfd;
pub(crate) mod file;
pub(crate) mod guest_memory;
pub(crate) mod host;
pub(crate) mod mutex;
pub(crate) mod oops;
pub(crate) mod pages;
pub(crate) mod percpu;
pub(crate) mod published;
pub(crate) mod signals;
pub(crate) mod sleeper;
pub(crate) mod thread;
pub(crate) mod user;
pub(crate) mod window;

/// Bindings of `rust/shim/shim.h` and the uapi headers, made by bindgen.
pub(crate) mod bindings {
    #![allow(
        clippy::all,
        clippy::ptr_as_ptr,
        clippy::ref_as_ptr,
        clippy::undocumented_unsafe_blocks,
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unreachable_pub,
        unsafe_op_in_unsafe_fn,
        improper_ctypes, // Opaque kernel structs without fields, behind pointers.
        dead_code // bindgen's allow-list is by prefix
    )]
    use kernel::bindings::{file_operations, vm_area_struct};
    include!(concat!(env!("HVRS_OBJ"), "/rust/bindings_generated.rs"));
}

/// EOPNOTSUPP, which the kernel crate does not name.
pub(crate) fn eopnotsupp() -> kernel::error::Error {
    kernel::error::Error::from_errno(-(kernel::bindings::EOPNOTSUPP as i32))
}
