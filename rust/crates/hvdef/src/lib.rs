// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Definitions of the Hypervisor Top-Level Functional Specification (TLFS).
//!
//! Names of constants are those of the specification and of Linux' `include/hyperv/`; structures have the same
//! names in Rust's spelling (`hv_x64_intercept_message_header` is [`HvX64InterceptMessageHeader`]). One file holds
//! one chapter. Nothing here behaves: what a call or register does is in crate `hv1`.
//!
//! Every structure that crosses the boundary to a guest or a VMM implements [`Wire`], which reads it from and
//! writes it to bytes without `unsafe`, and has its size checked at build time.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

#[macro_use]
mod macros;

mod apic_state;
mod assist;
mod cpuid;
mod hypercall;
mod hypercall_input;
mod intercept;
mod interrupt;
mod message;
mod msr;
mod port;
mod privilege;
mod processor_features;
mod processor_set;
mod property;
mod register_name;
mod register_page;
mod register_value;
mod stats;
mod status;
mod synic;
mod synthetic_features;
mod time;
mod translate;
mod wire;

pub use apic_state::*;
pub use assist::*;
pub use cpuid::*;
pub use hypercall::*;
pub use hypercall_input::*;
pub use intercept::*;
pub use interrupt::*;
pub use message::*;
pub use msr::*;
pub use port::*;
pub use privilege::*;
pub use processor_features::*;
pub use processor_set::*;
pub use property::*;
pub use register_name::*;
pub use register_page::*;
pub use register_value::*;
pub use stats::*;
pub use status::*;
pub use synic::*;
pub use synthetic_features::*;
pub use time::*;
pub use translate::*;
pub use wire::Wire;

/// Size of the pages of the interface (`HV_PAGE_SIZE`); independent of the page size of host or guest.
pub const HV_HYP_PAGE_SIZE: usize = 1 << HV_HYP_PAGE_SHIFT;
/// Logarithm of [`HV_HYP_PAGE_SIZE`].
pub const HV_HYP_PAGE_SHIFT: u32 = 12;
/// No partition has this id.
pub const HV_PARTITION_ID_INVALID: u64 = 0;
/// The caller's own partition.
pub const HV_PARTITION_ID_SELF: u64 = u64::MAX;
/// The calling VP.
pub const HV_VP_INDEX_SELF: u32 = 0xffff_fffe;
/// Any VP, at the hypervisor's choice.
pub const HV_ANY_VP: u32 = 0xffff_ffff;
