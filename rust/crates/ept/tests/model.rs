// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The tree against a plain table of pages, under random operations.

use std::collections::BTreeMap;

use crate::common::{Random, TestFrames};
use ept::{Ept, EptConfig, Gpa, GpaRange, Leaf, MapError, Mapping, PageSize, Rights, Spa};

/// 8 MiB around a boundary of all levels.
const START: u64 = (512 << 30) - (4 << 20);
const BYTES: u64 = 8 << 20;
const M2: u64 = 2 << 20;
const PAGES: u64 = BYTES / 4096;
const WHOLE: usize = usize::MAX;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Page {
    spa: u64,
    rights: Rights,
    dirty: bool,
    /// First address and size of the leaf.
    leaf: (u64, u64),
}

struct World {
    frames: TestFrames,
    ept: Ept,
    pages: BTreeMap<u64, Page>,
    random: Random,
    hardware: bool,
}

fn size_of(bytes: u64) -> PageSize {
    match bytes {
        M2 => PageSize::Size2M,
        _ => PageSize::Size4K,
    }
}

impl World {
    fn new(seed: u64, hardware: bool) -> World {
        let mut frames = TestFrames::default();
        let config = EptConfig {
            max_leaf: PageSize::Size2M,
            accessed_dirty: hardware,
            execute_only: false,
        };
        let ept = Ept::new(&mut frames, config).unwrap();
        World {
            frames,
            ept,
            pages: BTreeMap::new(),
            random: Random::new(seed),
            hardware,
        }
    }

    fn range(&mut self) -> GpaRange {
        let start = self.random.below(PAGES);
        let most = *self.random.pick(&[1, 3, 512, PAGES]);
        let len = 1 + self.random.below(most.min(PAGES - start));
        GpaRange::from_len(Gpa(START + start * 4096), len * 4096)
    }

    fn rights(&mut self) -> Rights {
        *self
            .random
            .pick(&[Rights::R, Rights::RW, Rights::RX, Rights::RWX])
    }

    /// Pages of the leaves that overlap `range`.
    fn hit(&self, range: GpaRange) -> Vec<u64> {
        let overlaps = |p: &Page| p.leaf.0 < range.end().0 && range.start().0 < p.leaf.0 + p.leaf.1;
        let hit = self.pages.iter().filter(|(_, p)| overlaps(p));
        hit.map(|(gpa, _)| *gpa).collect()
    }

    fn map(&mut self) {
        let bytes = *self.random.pick(&[4096, 4096, 4096, M2]);
        let gpa = START + self.random.below(BYTES / bytes) * bytes;
        // Two possible places per page, so that conflicts occur.
        let spa = gpa + *self.random.pick(&[1 << 40, 1 << 40, 1 << 40, 1 << 41]);
        let rights = self.rights();
        let mapping = Mapping::ram(Spa(spa), size_of(bytes), rights);
        let got = self.ept.map(&mut self.frames, Gpa(gpa), &mapping);
        let there = |at: u64| self.pages.range(at..at + bytes).next().map(|(_, p)| *p);
        match there(gpa) {
            None => assert!(got.is_ok(), "{got:?}"),
            Some(old) if old.leaf.1 < bytes => {
                assert_eq!(got, Err(MapError::Occupied));
                return;
            }
            Some(old) if self.pages[&gpa].spa != spa => {
                assert!(matches!(got, Err(MapError::Conflict(l)) if l.gpa.0 == old.leaf.0));
                return;
            }
            Some(old) => {
                assert!(!got.unwrap().flush);
                self.upgrade(gpa, bytes, old, rights);
                return;
            }
        }
        for offset in (0..bytes).step_by(4096) {
            let page = Page {
                spa: spa + offset,
                rights,
                dirty: !self.hardware && rights.write,
                leaf: (gpa, bytes),
            };
            self.pages.insert(gpa + offset, page);
        }
    }

    fn upgrade(&mut self, gpa: u64, bytes: u64, old: Page, rights: Rights) {
        if old.rights.contains(rights) {
            return;
        }
        let (leaf, leaf_bytes) = old.leaf;
        for (at, page) in self.pages.range_mut(leaf..leaf + leaf_bytes) {
            // The whole leaf was split into pages of 4 KiB.
            if bytes < leaf_bytes {
                page.leaf = (*at, 4096);
            }
        }
        for (_, page) in self.pages.range_mut(gpa..gpa + bytes) {
            page.rights.write |= rights.write;
            page.rights.execute |= rights.execute;
            page.dirty |= !self.hardware && page.rights.write;
        }
    }

    fn unmap(&mut self) {
        let range = self.range();
        let mut expected: BTreeMap<u64, Page> = BTreeMap::new();
        for gpa in self.hit(range) {
            let page = self.pages.remove(&gpa).unwrap();
            expected.insert(page.leaf.0, page);
        }
        let mut gpa = range.start();
        let budget = *self.random.pick(&[1, 7, WHOLE]);
        let mut any = false;
        loop {
            let rest = GpaRange::new(gpa, range.end());
            let check = |leaf: &Leaf| {
                let page = expected
                    .remove(&leaf.gpa.0)
                    .expect("a leaf that is not there");
                assert_eq!((page.leaf.1, page.dirty), (leaf.size.bytes(), leaf.dirty));
            };
            let progress = self.ept.unmap(&mut self.frames, rest, budget, check);
            any |= progress.any;
            match progress.next {
                Some(next) => gpa = next,
                None => break,
            }
        }
        assert!(expected.is_empty());
        if !any {
            assert!(
                self.frames.deferred.is_empty(),
                "freed tables without a flush"
            );
        }
        self.frames.flushed();
    }

    fn protect(&mut self) {
        let range = self.range();
        let mut expected = false;
        for gpa in self.hit(range) {
            let page = self.pages.get_mut(&gpa).unwrap();
            expected |= page.rights.write;
            page.rights.write = false;
        }
        let progress = self.ept.protect(&self.frames, range, WHOLE);
        assert_eq!((progress.any, progress.next), (expected, None));
    }

    fn write(&mut self) {
        let gpa = START + self.random.below(PAGES) * 4096;
        let Some(page) = self.pages.get(&gpa).copied() else {
            return;
        };
        if page.rights.write && self.hardware {
            self.frames.set_flags(self.ept.root(), gpa, 0x300);
            for (_, page) in self.pages.range_mut(page.leaf.0..page.leaf.0 + page.leaf.1) {
                page.dirty = true;
            }
        }
    }

    fn clear_dirty(&mut self) {
        let range = self.range();
        let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
        for gpa in self.hit(range) {
            let hardware = self.hardware;
            let page = self.pages.get_mut(&gpa).unwrap();
            if page.dirty {
                expected.insert(page.leaf.0, page.leaf.1);
                page.dirty = false;
                page.rights.write &= hardware;
            }
        }
        let any = !expected.is_empty();
        let progress = self.ept.clear_dirty(&self.frames, range, WHOLE, |leaf| {
            assert_eq!(expected.remove(&leaf.gpa.0), Some(leaf.size.bytes()));
        });
        assert!(expected.is_empty());
        assert_eq!(progress.any, any);
    }

    fn begin_tracking(&mut self) {
        if !self.hardware {
            return;
        }
        let range = self.range();
        let hit = self.hit(range);
        for gpa in &hit {
            if self.pages[gpa].leaf.1 == 4096 {
                self.pages.get_mut(gpa).unwrap().dirty = false;
            } else {
                self.pages.remove(gpa);
            }
        }
        let progress = self.ept.begin_tracking(&mut self.frames, range, WHOLE);
        assert!(progress.any || hit.is_empty());
        self.frames.flushed();
        assert!(!self.ept.test_accessed(&self.frames, range, WHOLE).any);
    }

    fn clear_accessed(&mut self) {
        // Does not change what is mapped: whatever was put aside is still told by walk().
        let range = self.range();
        let _ = self.ept.clear_accessed(&self.frames, range, WHOLE, |_| ());
        assert!(!self.ept.test_accessed(&self.frames, range, WHOLE).any);
    }

    fn compare(&self) {
        for gpa in (START..START + BYTES).step_by(4096) {
            let read = |at: Spa| {
                let index = (at.0 & 0xfff) as usize / 8;
                self.frames.raw(Spa(at.0 & !0xfff), index)
            };
            let unlocked = ept::lookup(self.ept.eptp(), Gpa(gpa), read);
            let leaf = self.ept.walk(&self.frames, Gpa(gpa));
            let page = leaf.map(|leaf| (Spa(leaf.spa.0 + (gpa - leaf.gpa.0)), leaf.rights));
            assert_eq!(unlocked, page, "at {gpa:x}");
            let got = leaf.map(|leaf| Page {
                spa: leaf.spa.0 + (gpa - leaf.gpa.0),
                rights: leaf.rights,
                dirty: leaf.dirty,
                leaf: (leaf.gpa.0, leaf.size.bytes()),
            });
            assert_eq!(got, self.pages.get(&gpa).copied(), "at {gpa:x}");
        }
        let mut leaves = 0;
        let progress = self
            .ept
            .for_each_leaf(&self.frames, GpaRange::ALL, WHOLE, |leaf| {
                assert_eq!(self.pages[&leaf.gpa.0].leaf.0, leaf.gpa.0);
                leaves += leaf.size.bytes() / 4096;
            });
        assert_eq!(leaves, self.pages.len() as u64);
        assert_eq!(progress.any, leaves != 0);
    }

    fn step(&mut self) {
        match self.random.below(17) {
            0..=7 => self.map(),
            8 | 9 => self.write(),
            10 | 11 => self.unmap(),
            12 => self.protect(),
            13 => self.clear_dirty(),
            14 => self.clear_accessed(),
            15 => self.begin_tracking(),
            _ => {
                let progress = self.ept.prune(&mut self.frames, GpaRange::ALL, WHOLE);
                assert_eq!(progress.any, !self.frames.deferred.is_empty());
                self.frames.flushed();
            }
        }
    }
}

fn run(hardware: bool, seeds: u64) {
    for seed in 1..=seeds {
        let mut world = World::new(seed, hardware);
        for round in 0..400 {
            world.step();
            if round % 20 == 19 {
                world.compare();
            }
        }
        let _ = world
            .ept
            .unmap(&mut world.frames, GpaRange::ALL, WHOLE, |_| ());
        world.frames.flushed();
        assert_eq!(world.frames.in_use(), 1, "only the root is left");
        world.ept.destroy(&mut world.frames, |_| panic!("a leaf"));
        assert_eq!(world.frames.in_use(), 0);
    }
}

#[test]
fn with_hardware_flags() {
    run(true, 25);
}

#[test]
fn without_hardware_flags() {
    run(false, 25);
}
