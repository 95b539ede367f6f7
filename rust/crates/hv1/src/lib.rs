// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the TLFS lets a guest see and do.
//!
//! State machines without clock, lock or hardware: the caller holds the locks, reads the TSC, owns the pages and
//! carries out the effects that are returned. Rows of the feature matrix are cited by their IDs (C-xx, M-xx, A-xx,
//! H-xx, F-xx).
//!
//! | file | chapter |
//! |---|---|
//! | [`features`] | what a partition is granted: the one source of privileges, CPUID bits and MSR access |
//! | [`mod@cpuid`] | leaves 0x40000000 to 0x400000ff |
//! | [`msr`] | synthetic MSRs |
//! | [`hypercall`] | calling convention, table of calls, the page |
//! | [`monitor`] | monitored notifications |
//! | [`overlay`] | which overlay page is visible where |
//! | [`port`] | ports, messages and events between partitions |
//! | [`synic`] | messages and events for a VP |
//! | [`stimer`] | synthetic timers |
//! | [`time`] | reference counter and reference TSC page |
//! | [`unhalted`] | the time-unhalted timer |
//! | [`vp_mask`] | sets of VPs |

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod cpuid;
pub mod features;
pub mod hypercall;
pub mod monitor;
pub mod msr;
pub mod overlay;
pub mod port;
pub mod stimer;
pub mod synic;
pub mod time;
pub mod unhalted;
pub mod vp_mask;

pub use cpuid::cpuid;
pub use features::{PartitionFeatures, PartitionLimits};
pub use overlay::{Overlay, OverlayKind, Overlays};
pub use stimer::Stimers;
pub use synic::Synic;
pub use time::RefTime;
pub use unhalted::UnhaltedTimer;
pub use vp_mask::{VpMask, MAX_VPS};

#[cfg(test)]
mod testing;
