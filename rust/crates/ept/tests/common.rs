// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Frames for trees in tests, and random numbers.

use std::collections::BTreeMap;

use ept::{Frames, NoFrame, Spa, Table};

/// Where the frames of tables begin; test pages are elsewhere.
const FIRST_TABLE: u64 = 0xf000_0000_0000;

/// Frames as a kernel has them: tables that were freed stay in place until the flush is done.
#[derive(Default)]
pub struct TestFrames {
    tables: BTreeMap<u64, Table>,
    /// Freed by the tree, waiting for the flush.
    pub deferred: Vec<Spa>,
    waiting: usize,
    /// Flushed, to be used again: last freed first.
    pub reusable: Vec<Spa>,
    made: u64,
    /// How often each frame was given up for reuse.
    epochs: BTreeMap<u64, u64>,
    /// How many frames may still be given out.
    pub left: Option<usize>,
}

impl TestFrames {
    /// Tables in use by the tree.
    pub fn in_use(&self) -> usize {
        self.tables.len() - self.deferred.len() - self.waiting - self.reusable.len()
    }

    /// The flush is done: what was freed may be reused.
    pub fn flushed(&mut self) {
        let tables = self.take_deferred();
        self.release(tables);
    }

    /// The tables to be reused when a flush that is under way is done: for `release`.
    pub fn take_deferred(&mut self) -> Vec<Spa> {
        let tables = std::mem::take(&mut self.deferred);
        self.waiting += tables.len();
        tables
    }

    /// The flush that `tables` waited for is done.
    pub fn release(&mut self, tables: Vec<Spa>) {
        self.waiting -= tables.len();
        for table in &tables {
            *self.epochs.entry(table.0).or_default() += 1;
        }
        self.reusable.extend(tables);
    }

    /// Changes when the frame is given up for reuse.
    pub fn epoch(&self, table: Spa) -> u64 {
        self.epochs.get(&table.0).copied().unwrap_or(0)
    }

    /// A raw entry, also of tables that are not in use: what a CPU may read.
    pub fn raw(&self, table: Spa, index: usize) -> Option<u64> {
        self.tables.get(&table.0).and_then(|t| t.raw(index))
    }
}

impl TestFrames {
    /// Sets flags in one entry as hardware does.
    pub fn set_flags_in(&self, table: Spa, index: usize, flags: u64) {
        self.tables[&table.0].set_hardware_flags(index, flags);
    }

    /// Sets flags in the leaf for `gpa` as hardware does: in the entry, at any moment.
    pub fn set_flags(&self, root: Spa, gpa: u64, flags: u64) {
        let mut table = root;
        for level in (1..=4).rev() {
            let index = ((gpa >> (12 + 9 * (level - 1))) & 0x1ff) as usize;
            let entry = self.raw(table, index).unwrap();
            if level == 1 || entry & 0x80 != 0 {
                self.tables[&table.0].set_hardware_flags(index, flags);
                return;
            }
            table = Spa(entry & 0x000f_ffff_ffff_f000);
        }
    }
}

impl Frames for TestFrames {
    fn entries(&self, table: Spa) -> Option<&Table> {
        self.tables.get(&table.0)
    }

    fn alloc(&mut self) -> Result<Spa, NoFrame> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(NoFrame)?;
        }
        if let Some(spa) = self.reusable.pop() {
            self.tables.insert(spa.0, Table::new());
            return Ok(spa);
        }
        self.made += 1;
        let spa = Spa(FIRST_TABLE + (self.made << 12));
        self.tables.insert(spa.0, Table::new());
        Ok(spa)
    }

    fn free(&mut self, table: Spa) {
        let empty = self.tables.get(&table.0).is_some_and(Table::is_empty);
        assert!(empty, "a table that is freed must be ours and empty");
        assert!(!self.deferred.contains(&table) && !self.reusable.contains(&table));
        self.deferred.push(table);
    }
}

/// Pseudo-random numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
