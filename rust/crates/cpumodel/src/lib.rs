// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The processor that a guest sees: architectural CPUID, and the policy for architectural MSRs.
//!
//! One rule: what is shown works, and what does not work is not shown.
//!
//! | file | contents |
//! |---|---|
//! | [`feature`] | every feature bit that can be shown, one row each: where it is, what it needs, what the TLFS calls it |
//! | [`model`] | the CPUID of a partition, built once; a look-up for each VP |
//! | [`xsave`] | leaf 0xD: components and sizes; areas in the standard and the compacted format |
//! | [`overrides`] | results that the VMM registered |
//! | [`register`] | which MSR a register name of the TLFS stands for |
//! | [`msr`] | every MSR that is there, one row each, and what may be written |

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod feature;
pub mod model;
pub mod msr;
pub mod overrides;
pub mod register;
pub mod xsave;

pub use feature::{Feature, FeatureSet};
pub use model::{CpuModel, Disabled, Machine, SpeculationControl, VmxLimits, VpCpuidInput};
pub use overrides::Overrides;

#[cfg(test)]
mod testing;
