// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The host's memory: which page belongs to whom, and since when.

use std::collections::BTreeMap;

const SMALL: u64 = 4096;
pub const HUGE: u64 = 2 << 20;
/// Huge pages are from here on, small ones below.
const HUGE_START: u64 = 1 << 40;

struct Frame {
    /// Partition and guest-physical address.
    owner: Option<(u64, u64)>,
    /// Changes whenever translations to the page made until then must be out of use.
    epoch: u64,
}

/// All pages that guests ever had.
#[derive(Default)]
pub struct HostMemory {
    frames: BTreeMap<u64, Frame>,
    free_small: Vec<u64>,
    free_huge: Vec<u64>,
}

impl HostMemory {
    /// A page for `gpa` of partition `uid`: the one that was freed last, if there is one.
    pub fn alloc(&mut self, uid: u64, gpa: u64, huge: bool) -> u64 {
        let (free, start, size) = match huge {
            true => (&mut self.free_huge, HUGE_START, HUGE),
            false => (&mut self.free_small, SMALL, SMALL),
        };
        let fresh = start + self.frames.len() as u64 * size;
        let spa = free.pop().unwrap_or(fresh);
        let frame = self.frames.entry(spa).or_insert(Frame {
            owner: None,
            epoch: 0,
        });
        assert!(frame.owner.is_none());
        frame.owner = Some((uid, gpa));
        spa
    }

    /// Takes the page away from its owner: from now on it is anybody's.
    pub fn free(&mut self, spa: u64) {
        self.outdate(spa);
        let frame = self.frames.get_mut(&spa).unwrap();
        assert!(frame.owner.take().is_some());
        match spa < HUGE_START {
            true => self.free_small.push(spa),
            false => self.free_huge.push(spa),
        }
    }

    /// Translations to the page made until now must be out of use.
    pub fn outdate(&mut self, spa: u64) {
        self.frames.get_mut(&Self::base(spa)).unwrap().epoch += 1;
    }

    pub fn epoch(&self, spa: u64) -> u64 {
        self.frames[&Self::base(spa)].epoch
    }

    /// Whether `spa` is what partition `uid` has at `gpa`, since a translation of `epoch` was made.
    pub fn is_live(&self, uid: u64, gpa: u64, spa: u64, epoch: u64) -> bool {
        let base = Self::base(spa);
        let frame = &self.frames[&base];
        frame.epoch == epoch && frame.owner == Some((uid, gpa - (spa - base)))
    }

    fn base(spa: u64) -> u64 {
        match spa < HUGE_START {
            true => spa & !(SMALL - 1),
            false => spa & !(HUGE - 1),
        }
    }
}
