// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A partition as the host sees it: what it was given, and what must be true of that.

use std::collections::{BTreeMap, BTreeSet};

use ept::{Ept, EptConfig, Gpa, GpaRange, Leaf, PageSize, RootGeneration};

use super::host::{HostMemory, HUGE};
use crate::common::TestFrames;

/// Regions of 2 MiB on both sides of a 1 GiB boundary, and one far away.
pub const REGIONS: [u64; 3] = [(1 << 30) - HUGE, 1 << 30, 600 << 30];
/// Pages of a region that guests use.
pub const PAGES: [u64; 3] = [0, 1, 511];

/// What the VMM has behind a region.
pub enum Backing {
    Small(BTreeMap<u64, u64>),
    Huge(u64),
}

pub struct Partition {
    /// Never used again.
    pub uid: u64,
    pub ept: Ept,
    pub generation: RootGeneration,
    /// The map lock is held.
    pub locked: bool,
    /// The MMU notifier: an invalidation is under way; how many there were.
    pub invalidating: bool,
    pub sequence: u64,
    backing: BTreeMap<u64, Backing>,
    write_epochs: BTreeMap<u64, u64>,
    /// Pages written since the last report of dirty pages was complete.
    must_report: BTreeSet<u64>,
    /// A report is under way: writes may or may not be in it.
    pub reporting: bool,
}

impl Partition {
    pub fn new(frames: &mut TestFrames, uid: u64, root_id: u64) -> Partition {
        let config = EptConfig {
            max_leaf: PageSize::Size2M,
            accessed_dirty: true,
            execute_only: false,
        };
        Partition {
            uid,
            ept: Ept::new(frames, config).unwrap(),
            generation: RootGeneration::new(root_id),
            locked: false,
            invalidating: false,
            sequence: 0,
            backing: BTreeMap::new(),
            write_epochs: BTreeMap::new(),
            must_report: BTreeSet::new(),
            reporting: false,
        }
    }

    /// The page behind `gpa`, made when there is none; whether it is part of a huge page.
    pub fn fault_in(&mut self, host: &mut HostMemory, gpa: u64, huge: bool) -> (u64, bool) {
        let region = gpa & !(HUGE - 1);
        let uid = self.uid;
        let backing = self.backing.entry(region).or_insert_with(|| match huge {
            true => Backing::Huge(host.alloc(uid, region, true)),
            false => Backing::Small(BTreeMap::new()),
        });
        match backing {
            Backing::Huge(spa) => (*spa + (gpa - region), true),
            Backing::Small(pages) => {
                let page = pages.entry(gpa);
                (*page.or_insert_with(|| host.alloc(uid, gpa, false)), false)
            }
        }
    }

    fn pages_of(backing: &Backing) -> Vec<u64> {
        match backing {
            Backing::Huge(spa) => vec![*spa],
            Backing::Small(pages) => pages.values().copied().collect(),
        }
    }

    /// The VMM's memory of the region goes away.
    pub fn take_backing(&mut self, host: &mut HostMemory, region: u64) {
        if let Some(backing) = self.backing.remove(&region) {
            Self::pages_of(&backing)
                .into_iter()
                .for_each(|spa| host.free(spa));
        }
        self.must_report.retain(|gpa| gpa & !(HUGE - 1) != region);
    }

    /// Translations of the region made until now must be out of use; its pages stay.
    pub fn outdate(&self, host: &mut HostMemory, region: u64) {
        if let Some(backing) = self.backing.get(&region) {
            Self::pages_of(backing)
                .into_iter()
                .for_each(|spa| host.outdate(spa));
        }
    }

    /// Rights to write in the region obtained until now must be out of use.
    pub fn outdate_writes(&mut self, region: u64) {
        for page in PAGES {
            *self.write_epochs.entry(region + page * 4096).or_default() += 1;
        }
    }

    pub fn write_epoch(&self, gpa: u64) -> u64 {
        self.write_epochs.get(&gpa).copied().unwrap_or(0)
    }

    /// The guest wrote.
    pub fn written(&mut self, gpa: u64) {
        if !self.reporting {
            self.must_report.insert(gpa);
        }
    }

    /// A report of dirty pages that named `leaves` for the region: whether a write is missing.
    pub fn reported(&mut self, region: u64, leaves: &[Leaf]) -> bool {
        let named = |gpa: u64| {
            let inside = |l: &Leaf| gpa.wrapping_sub(l.gpa.0) < l.size.bytes();
            leaves.iter().any(|l| l.dirty && inside(l))
        };
        let mut missing = false;
        self.must_report.retain(|&gpa| {
            let here = gpa & !(HUGE - 1) == region;
            missing |= here && !named(gpa);
            !here
        });
        missing
    }

    pub fn range(region: u64) -> GpaRange {
        GpaRange::from_len(Gpa(region), HUGE)
    }

    /// Ends the partition; its VPs are out.
    pub fn destroy(mut self, frames: &mut TestFrames, host: &mut HostMemory) {
        for region in REGIONS {
            self.take_backing(host, region);
        }
        self.ept.destroy(frames, |_| ());
        // No VP is left that could use the root: nothing to wait for.
        let tables = frames.take_deferred();
        frames.release(tables);
    }
}
