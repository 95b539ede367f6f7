// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Extended page tables (EPT) of the Intel SDM, volume 3, chapter 29, without a kernel under them.
//!
//! * [`Ept`] is one 4-level tree (SDM 29.3.2): [`Ept::map`], [`Ept::unmap`], [`Ept::protect`],
//!   accessed and dirty flags (SDM 29.3.5). Table frames come from the caller through [`Frames`].
//! * [`Eptp`] is the EPT pointer of the VMCS (SDM 25.6.11).
//! * [`RootGeneration`] and [`SeenGenerations`] say when a CPU must INVEPT (SDM 29.4.3),
//!   [`Placement`] when a VP that moved needs INVVPID and VMCLEAR, [`GuestMode`] how a zap waits
//!   for VPs in guest mode. [`VpidPool`] hands out VPIDs.
//! * [`LinearFlush`] is what one VP of a guest makes another forget; [`lookup`] reads the tree
//!   without the lock, in guest mode.
//!
//! # Locking
//!
//! All methods that take `&mut Ept` run under the partition's map lock. Hardware reads the tables
//! at the same time and sets accessed and dirty flags in them, so an entry is an atomic and is
//! never written back from a stale copy.
//!
//! # Flushing
//!
//! Making a translation (absent to present, or more rights) needs no flush: an EPT violation
//! drops the mappings that the CPU cached for that address (SDM 29.4.3.1). Everything that takes
//! something away reports `flush` or `any`; the caller then calls [`flush()`], which bumps the
//! root's generation, kicks the VPs in guest mode and waits until none uses old translations.
//! Only after that may it reuse pages that the leaves named or tables that [`Frames::free`] got.
//!
//! The map lock is held until the flush is done: a second zap of the same pages finds nothing
//! left to do, and must not return before the first one has finished.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod addr;
mod entry;
mod eptp;
mod flush;
mod generation;
mod guest_mode;
mod linear;
mod lookup;
mod map;
mod placement;
mod range;
mod table;
mod tree;
mod vpid;

pub use addr::{Gpa, GpaRange, PageSize, Spa};
pub use entry::{Leaf, MemoryType, Rights};
pub use eptp::Eptp;
pub use flush::flush;
pub use generation::{RootGeneration, SeenGenerations, Stale};
pub use guest_mode::GuestMode;
pub use linear::{finish as finish_linear_flush, LinearFlush};
pub use lookup::lookup;
pub use map::{Change, MapError, Mapped, Mapping};
pub use placement::{Placement, Transition};
pub use range::Progress;
pub use table::{Frames, NoFrame, Table};
pub use tree::{Ept, EptConfig};
pub use vpid::VpidPool;
