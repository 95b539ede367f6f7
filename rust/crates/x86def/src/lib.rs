// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The x86 architecture as the SDM defines it: control registers, MSRs, vectors, segments.

#![no_std]
#![forbid(unsafe_code)]

pub mod cr;
pub mod msr;
pub mod segment;
pub mod vector;
