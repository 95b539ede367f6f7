// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A CPU that forgets nothing (SDM 29.4.1): every translation and every pointer to a paging
//! structure that it ever walked may be used again until an instruction that the SDM names drops
//! it, and every VMCS that was loaded stays cached until VMCLEAR.

use std::collections::BTreeSet;

use ept::{SeenGenerations, Spa};

use super::world::Violation;
use crate::common::{Random, TestFrames};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A cached translation of one page of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Translation {
    pub root: Spa,
    pub gpa: u64,
    pub spa: u64,
    pub write: bool,
    pub dirty: bool,
    /// Of the page, when the translation was made.
    pub epoch: u64,
    /// Of the right to write, when the translation was made.
    pub write_epoch: u64,
}

/// A cached pointer to a table.
#[derive(Clone, Copy, PartialEq)]
struct Pointer {
    root: Spa,
    /// Of the table.
    level: u32,
    /// The address bits above those that the table translates.
    prefix: u64,
    table: Spa,
    epoch: u64,
}

/// What a walk found.
pub struct Walked {
    pub spa: u64,
    pub write: bool,
    pub dirty: bool,
}

#[derive(Default)]
pub struct Cpu {
    guest_physical: Vec<Translation>,
    pointers: Vec<Pointer>,
    /// By VPID and linear page.
    combined: Vec<(u16, u64, Translation)>,
    /// VMCSs that are active here.
    pub vmcs: BTreeSet<usize>,
    pub seen: SeenGenerations<2>,
    /// An interprocessor interrupt is on its way.
    pub ipi: bool,
    /// In a window.
    pub busy: bool,
}

impl Cpu {
    /// Single-context INVEPT.
    pub fn invept(&mut self, root: Spa) {
        self.guest_physical.retain(|t| t.root != root);
        self.pointers.retain(|p| p.root != root);
        self.combined.retain(|(_, _, t)| t.root != root);
    }

    /// Single-context INVVPID.
    pub fn invvpid(&mut self, vpid: u16) {
        self.combined.retain(|(v, _, _)| *v != vpid);
    }

    /// Individual-address INVVPID.
    pub fn invvpid_address(&mut self, vpid: u16, linear: u64) {
        self.combined.retain(|(v, l, _)| (*v, *l) != (vpid, linear));
    }

    /// INVLPG by a guest: its own VPID and root only.
    pub fn invlpg(&mut self, vpid: u16, root: Spa, linear: u64) {
        self.combined
            .retain(|(v, l, t)| (*v, *l, t.root) != (vpid, linear, root));
    }

    /// An EPT violation drops what was used for it. A CPU may drop more; this one does not.
    pub fn drop_used(&mut self, used: &Translation) {
        self.guest_physical.retain(|t| t != used);
        self.combined.retain(|(_, _, t)| t != used);
    }

    /// Everything that the CPU might use to translate: (from combined mappings?, translation).
    pub fn candidates(
        &self,
        vpid: u16,
        root: Spa,
        linear: u64,
        gpa: u64,
    ) -> Vec<(bool, Translation)> {
        let combined = self.combined.iter();
        let combined = combined.filter(|(v, l, t)| (*v, *l, t.root) == (vpid, linear, root));
        let physical = self.guest_physical.iter();
        let physical = physical.filter(|t| t.root == root && t.gpa == gpa);
        let combined = combined.map(|(_, _, t)| (true, *t));
        combined.chain(physical.map(|t| (false, *t))).collect()
    }

    pub fn insert(&mut self, vpid: u16, linear: u64, t: Translation) {
        if !self.guest_physical.contains(&t) {
            self.guest_physical.push(t);
        }
        if !self.combined.contains(&(vpid, linear, t)) {
            self.combined.push((vpid, linear, t));
        }
    }

    /// Walks the tables, from the root or from any cached pointer, and sets flags as hardware
    /// does. `None`: EPT violation.
    pub fn walk(
        &mut self,
        frames: &TestFrames,
        random: &mut Random,
        root: Spa,
        gpa: u64,
        write: bool,
    ) -> Result<Option<Walked>, Violation> {
        let shift = |level: u32| 12 + 9 * (level - 1);
        let prefix = |level: u32| gpa >> shift(level) >> 9;
        let mut starts = vec![Pointer {
            root,
            level: 4,
            prefix: prefix(4),
            table: root,
            epoch: frames.epoch(root),
        }];
        let usable = |p: &&Pointer| p.root == root && p.prefix == prefix(p.level);
        starts.extend(self.pointers.iter().filter(usable));
        let mut at = *random.pick(&starts);
        loop {
            if frames.epoch(at.table) != at.epoch {
                return Err(Violation::FreedTable);
            }
            let index = ((gpa >> shift(at.level)) & 0x1ff) as usize;
            let entry = frames.raw(at.table, index).unwrap();
            if entry & 7 == 0 {
                return Ok(None);
            }
            let table = Spa(entry & ADDRESS);
            if at.level > 1 && entry & 0x80 == 0 {
                at = Pointer {
                    root,
                    level: at.level - 1,
                    prefix: prefix(at.level - 1),
                    table,
                    epoch: frames.epoch(table),
                };
                if !self.pointers.contains(&at) {
                    self.pointers.push(at);
                }
                continue;
            }
            if write && entry & 2 == 0 {
                return Ok(None);
            }
            frames.set_flags_in(at.table, index, if write { 0x300 } else { 0x100 });
            let offset = gpa & ((1 << shift(at.level)) - 1);
            return Ok(Some(Walked {
                spa: (entry & ADDRESS) + offset,
                write: entry & 2 != 0,
                dirty: write || entry & 0x200 != 0,
            }));
        }
    }
}
