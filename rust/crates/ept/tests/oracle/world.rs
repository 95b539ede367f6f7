// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Everything together, one step of somebody at a time.

use ept::VpidPool;

use super::host::HostMemory;
use super::machine::Cpu;
use super::partition::Partition;
use super::vp::{Phase, Vp};
use super::zap::Zapper;
use crate::common::{Random, TestFrames};

const PARTITIONS: usize = 2;
const VPS_EACH: usize = 2;
const CPUS: usize = 3;
const ZAPPERS: usize = 2;

/// Where root mode is between windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// Given up: each window ends with VMCLEAR.
    Window,
    /// Kept: a VMCS stays active on its CPU.
    Pinned,
}

/// Ways to break the protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bug {
    /// A zap does not bump the generation.
    NoBump,
    /// It does, before it changes entries.
    BumpFirst,
    /// It does not wait until VPs have left guest mode.
    NoWait,
    /// It unlocks before it waits.
    UnlockBeforeWait,
    /// Freed tables are reused before the flush.
    ReuseTablesEarly,
    /// Write-protecting does not flush.
    ProtectWithoutFlush,
    /// Clearing dirty flags does not flush.
    CleanWithoutFlush,
    /// A fault maps what it found without asking whether it moved meanwhile.
    MapWhatMoved,
    /// The CPU notes a flush that it did not do.
    NoInvept,
    /// The generation is compared before guest mode is announced.
    AnnounceLate,
    /// The generation is compared at window opening only.
    CompareOncePerWindow,
    /// A new root has the id of an old one.
    ReuseRootId,
    /// A VP that moved does not flush its VPID.
    NoInvvpid,
    /// A new VP inherits the placement of the one that had its VPID.
    InheritPlacement,
    /// A VP that asks another to flush does not wait for it.
    NoLinearWait,
    /// A VP looks for requests before it announces guest mode.
    LookEarly,
    /// It looks for requests at window opening only.
    LookOncePerWindow,
    /// It sees requests, and does not flush.
    NoLinearFlush,
    /// A VP that moved does not VMCLEAR where it was.
    NoVmclear,
    /// A VMCS is freed without VMCLEAR.
    FreeWithoutVmclear,
}

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Violation {
    /// A page was accessed after it was taken away.
    StalePage,
    /// A page was written after the right was taken away.
    StaleRight,
    /// A linear address was translated as before the guest's INVLPG, or before another VP's flush.
    StaleLinear,
    /// A CPU walked a table after its frame was given up.
    FreedTable,
    /// A page was written and not reported as dirty.
    LostWrite,
    /// A VMCS was loaded while another CPU held it.
    VmcsOnTwoCpus,
}

/// How often things happened.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stats {
    pub walks: u64,
    pub cached: u64,
    pub combined: u64,
    pub faults: u64,
    pub splits: u64,
    pub flushes: u64,
    pub waits: u64,
    pub turned_back: u64,
    pub moves: u64,
    pub freed_tables: u64,
    pub moved_pages: u64,
    pub dirty: u64,
    pub partitions: u64,
    pub renewed: u64,
    pub asked: u64,
    pub asked_running: u64,
    pub linear_flushes: u64,
}

impl Stats {
    pub fn counts(&self) -> [(&'static str, u64); 17] {
        [
            ("walks", self.walks),
            ("cached translations used", self.cached),
            ("combined mappings used", self.combined),
            ("faults", self.faults),
            ("splits", self.splits),
            ("flushes", self.flushes),
            ("flushes that waited", self.waits),
            ("entries turned back", self.turned_back),
            ("VPs moved", self.moves),
            ("tables freed", self.freed_tables),
            ("pages that moved during a fault", self.moved_pages),
            ("dirty leaves", self.dirty),
            ("partitions", self.partitions),
            ("VPs renewed", self.renewed),
            ("linear flushes asked for", self.asked),
            ("of VPs in guest mode", self.asked_running),
            ("linear flushes done", self.linear_flushes),
        ]
    }

    pub fn add(&mut self, other: &Stats) {
        let Stats {
            walks,
            cached,
            combined,
            faults,
            splits,
            flushes,
            waits,
            turned_back,
            moves,
            freed_tables,
            moved_pages,
            dirty,
            partitions,
            renewed,
            asked,
            asked_running,
            linear_flushes,
        } = other;
        self.walks += walks;
        self.cached += cached;
        self.combined += combined;
        self.faults += faults;
        self.splits += splits;
        self.flushes += flushes;
        self.waits += waits;
        self.turned_back += turned_back;
        self.moves += moves;
        self.freed_tables += freed_tables;
        self.moved_pages += moved_pages;
        self.dirty += dirty;
        self.partitions += partitions;
        self.renewed += renewed;
        self.asked += asked;
        self.asked_running += asked_running;
        self.linear_flushes += linear_flushes;
    }
}

pub struct World {
    pub random: Random,
    pub root: Root,
    bug: Option<Bug>,
    pub frames: TestFrames,
    pub host: HostMemory,
    pub partitions: Vec<Partition>,
    pub vps: Vec<Vp>,
    pub cpus: Vec<Cpu>,
    zappers: Vec<Zapper>,
    vpids: VpidPool<1>,
    next_uid: u64,
    pub stats: Stats,
}

impl World {
    pub fn new(seed: u64, root: Root, bug: Option<Bug>) -> World {
        let mut frames = TestFrames::default();
        let mut random = Random::new(seed);
        let vpids = VpidPool::new();
        let partitions = (0..PARTITIONS)
            .map(|i| Partition::new(&mut frames, i as u64, 1 + i as u64))
            .collect();
        let vps = (0..PARTITIONS * VPS_EACH)
            .map(|i| Vp::new(i / VPS_EACH, vpids.alloc().unwrap(), &mut random))
            .collect();
        World {
            random,
            root,
            bug,
            frames,
            host: HostMemory::default(),
            partitions,
            vps,
            cpus: (0..CPUS).map(|_| Cpu::default()).collect(),
            zappers: (0..ZAPPERS).map(|_| Zapper::default()).collect(),
            vpids,
            next_uid: PARTITIONS as u64,
            stats: Stats::default(),
        }
    }

    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// One step of one of all.
    pub fn step(&mut self) -> Result<(), Violation> {
        let agents = (self.vps.len() + self.zappers.len()) as u64;
        let agent = self.random.below(agents) as usize;
        match agent.checked_sub(self.vps.len()) {
            None => self.step_vp(agent),
            Some(zapper) => {
                let mut state = std::mem::take(&mut self.zappers[zapper]);
                let result = self.step_zapper(&mut state);
                self.zappers[zapper] = state;
                result
            }
        }
    }

    /// The VPs of a partition.
    pub fn vps_of(&self, partition: usize) -> Vec<usize> {
        let vps = 0..self.vps.len();
        vps.filter(|&vp| self.vps[vp].partition == partition)
            .collect()
    }

    /// Ends a partition and makes another in its place, if nobody is busy with it.
    pub fn recreate(&mut self, index: usize) {
        let vps = self.vps_of(index);
        let partition = &self.partitions[index];
        let idle = vps.iter().all(|&vp| self.vps[vp].phase == Phase::Out);
        if !idle || partition.locked || partition.invalidating {
            return;
        }
        let mut root_id = 1 + self.next_uid;
        if self.has(Bug::ReuseRootId) {
            root_id = 1 + index as u64;
        }
        let new = {
            // The last frame that the old one gives back is its root, which the new one takes.
            let old = self.partitions.swap_remove(index);
            old.destroy(&mut self.frames, &mut self.host);
            Partition::new(&mut self.frames, self.next_uid, root_id)
        };
        self.partitions.push(new);
        let last = self.partitions.len() - 1;
        self.partitions.swap(index, last);
        self.next_uid += 1;
        self.stats.partitions += 1;
        for &vp in &vps {
            self.renew(vp);
        }
    }

    /// Ends a VP that is out and makes another in its place, with its VMCS region and its VPID.
    pub fn renew(&mut self, vp: usize) {
        let old = &self.vps[vp];
        if old.phase != Phase::Out {
            return;
        }
        let (placement, partition) = (old.placement, old.partition);
        if let Some(cpu) = placement.active_on() {
            if !self.has(Bug::FreeWithoutVmclear) {
                self.cpus[cpu as usize].vmcs.remove(&vp);
            }
        }
        self.vpids.free(old.vpid);
        let vpid = self.vpids.alloc().unwrap();
        assert_eq!(vpid, old.vpid, "the lowest free one");
        self.vps[vp] = Vp::new(partition, vpid, &mut self.random);
        if self.has(Bug::InheritPlacement) {
            self.vps[vp].placement = placement;
            self.vps[vp].placement.cleared();
        }
        self.stats.renewed += 1;
    }
}
