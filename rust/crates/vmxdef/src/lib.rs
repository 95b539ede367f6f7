// SPDX-License-Identifier: GPL-2.0 OR MIT

//! VMX as the SDM defines it (volume 3, chapters 25 to 29 and appendices A to C).
//!
//! Names are the SDM's; widths of VMCS fields are types, so that a field cannot be read or
//! written with the wrong width.

#![no_std]
#![forbid(unsafe_code)]

pub mod caps;
pub mod controls;
pub mod events;
pub mod exit;
pub mod field;

pub use exit::ExitReason;
pub use field::{Field16, Field32, Field64, FieldNatural};
