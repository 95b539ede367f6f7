// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A VP: its thread, its windows, its guest.

use ept::{
    Change, Gpa, GuestMode, LinearFlush, MapError, Mapping, PageSize, Placement, Rights, Spa, Stale,
};

use super::host::HUGE;
use super::machine::Translation;
use super::partition::{PAGES, REGIONS};
use super::world::{Bug, Root, Violation, World};
use crate::common::Random;

/// Linear pages that a guest uses.
const LINEAR: usize = 3;

/// An access that faulted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Access {
    gpa: u64,
    write: bool,
}

/// Where a VP's thread is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Outside of windows, without anything to do.
    Out,
    /// A window is open.
    Opened(u32),
    /// The VMCS is current, the VPID flushed.
    Loaded(u32),
    /// The root is stale here.
    Stale(u32, Stale),
    /// INVEPT is done.
    Flushed(u32, Stale),
    /// The root was fresh at this generation.
    Fresh(u32, u64),
    /// Only with [`Bug::AnnounceLate`].
    Compared(u32),
    /// Only with [`Bug::LookEarly`].
    Looked(u32, u64),
    /// Guest mode is announced, requests of others are not yet looked for.
    Announced(u32, u64),
    /// In guest mode.
    Guest(u32, u64),
    /// Out of guest mode; it changed the other VP's linear page.
    Changed(u32, u64, usize, u64),
    /// It asked the other VP to flush, up to this request.
    Asked(u32, u64, usize, u64, u64),
    /// After a VM exit, still in the window.
    Exited(u32, u64, Option<Access>),
    /// Outside of windows, with a fault to resolve.
    Fault(Access),
    /// The page is there: address, part of a huge page, sequence of the notifier.
    Found(Access, u64, bool, u64),
}

pub struct Vp {
    pub partition: usize,
    pub vpid: u16,
    pub phase: Phase,
    pub placement: Placement,
    pub guest_mode: GuestMode,
    /// The guest's own page tables.
    linear: [u64; LINEAR],
    /// What they said before another VP changed them, while that VP has not gone on.
    before: [Option<u64>; LINEAR],
    pub linear_flush: LinearFlush,
}

fn any_gpa(random: &mut Random) -> u64 {
    random.pick(&REGIONS) + random.pick(&PAGES) * 4096
}

impl Vp {
    pub fn new(partition: usize, vpid: u16, random: &mut Random) -> Vp {
        Vp {
            partition,
            vpid,
            phase: Phase::Out,
            placement: Placement::new(),
            guest_mode: GuestMode::new(),
            linear: [(); LINEAR].map(|()| any_gpa(random)),
            before: [None; LINEAR],
            linear_flush: LinearFlush::new(),
        }
    }
}

impl World {
    pub fn step_vp(&mut self, vp: usize) -> Result<(), Violation> {
        let next = match self.vps[vp].phase {
            Phase::Out => self.open(vp),
            Phase::Opened(cpu) => self.load(vp, cpu)?,
            Phase::Loaded(cpu) => self.check(vp, cpu),
            Phase::Stale(cpu, stale) => {
                let root = self.partitions[self.vps[vp].partition].ept.root();
                if !self.has(Bug::NoInvept) {
                    self.cpus[cpu as usize].invept(root);
                }
                Phase::Flushed(cpu, stale)
            }
            Phase::Flushed(cpu, stale) => {
                self.cpus[cpu as usize].seen.flushed(stale);
                Phase::Loaded(cpu)
            }
            Phase::Fresh(cpu, generation) => self.announce(vp, cpu, generation),
            Phase::Compared(cpu) => {
                let generation = self.partitions[self.vps[vp].partition].generation.current();
                self.enter(vp, cpu, generation)
            }
            Phase::Looked(cpu, generation) => self.enter(vp, cpu, generation),
            Phase::Announced(cpu, generation) => {
                if !self.has(Bug::LookEarly) && !self.has(Bug::LookOncePerWindow) {
                    self.flush_linear(vp, cpu);
                }
                Phase::Guest(cpu, generation)
            }
            Phase::Guest(cpu, generation) => self.run_guest(vp, cpu, generation)?,
            Phase::Changed(cpu, generation, other, page) => self.ask(cpu, generation, other, page),
            Phase::Asked(cpu, generation, other, page, requested) => {
                self.finish_linear(cpu, generation, other, page, requested)
            }
            Phase::Exited(cpu, generation, fault) => self.after_exit(vp, cpu, generation, fault),
            Phase::Fault(access) => self.fault_in(vp, access),
            Phase::Found(access, spa, huge, sequence) => self.map(vp, access, spa, huge, sequence),
        };
        self.vps[vp].phase = next;
        Ok(())
    }

    fn open(&mut self, vp: usize) -> Phase {
        let cpu = self.random.below(self.cpus.len() as u64) as u32;
        if self.cpus[cpu as usize].busy {
            return Phase::Out;
        }
        if let Some(other) = self.vps[vp].placement.needs(cpu).vmclear_on {
            // By an interprocessor interrupt to a CPU that is in no window.
            if self.cpus[other as usize].busy {
                return Phase::Out;
            }
            if !self.has(Bug::NoVmclear) {
                self.cpus[other as usize].vmcs.remove(&vp);
            }
        }
        self.cpus[cpu as usize].busy = true;
        Phase::Opened(cpu)
    }

    fn load(&mut self, vp: usize, cpu: u32) -> Result<Phase, Violation> {
        let others = self.cpus.iter().enumerate();
        let others = others.filter(|(i, _)| *i != cpu as usize);
        if others.into_iter().any(|(_, c)| c.vmcs.contains(&vp)) {
            return Err(Violation::VmcsOnTwoCpus);
        }
        self.cpus[cpu as usize].vmcs.insert(vp);
        if self.vps[vp].placement.needs(cpu).flush_vpid {
            self.stats.moves += 1;
            if !self.has(Bug::NoInvvpid) {
                let vpid = self.vps[vp].vpid;
                self.cpus[cpu as usize].invvpid(vpid);
            }
        }
        self.vps[vp].placement.loaded(cpu);
        if self.has(Bug::LookOncePerWindow) {
            self.flush_linear(vp, cpu);
        }
        Ok(Phase::Loaded(cpu))
    }

    fn check(&mut self, vp: usize, cpu: u32) -> Phase {
        let root = &self.partitions[self.vps[vp].partition].generation;
        let generation = root.current();
        match self.cpus[cpu as usize].seen.check(root) {
            Some(stale) => Phase::Stale(cpu, stale),
            None => Phase::Fresh(cpu, generation),
        }
    }

    fn announce(&mut self, vp: usize, cpu: u32, generation: u64) -> Phase {
        if self.has(Bug::AnnounceLate) {
            let root = &self.partitions[self.vps[vp].partition].generation;
            return match root.current() == generation {
                true => Phase::Compared(cpu),
                false => Phase::Loaded(cpu),
            };
        }
        if self.has(Bug::LookEarly) {
            self.flush_linear(vp, cpu);
            return Phase::Looked(cpu, generation);
        }
        self.enter(vp, cpu, generation)
    }

    /// What a VP does about other VPs' requests.
    fn flush_linear(&mut self, vp: usize, cpu: u32) {
        let state = &self.vps[vp];
        if !state.linear_flush.is_pending() {
            return;
        }
        self.stats.linear_flushes += 1;
        let (vpid, idle) = (state.vpid, self.has(Bug::NoLinearFlush));
        let cpu = &mut self.cpus[cpu as usize];
        state.linear_flush.take(|page| match page {
            _ if idle => {}
            Some(page) => cpu.invvpid_address(vpid, page >> 12),
            None => cpu.invvpid(vpid),
        });
    }

    /// The guest asks another VP to flush `page`.
    fn ask(&mut self, cpu: u32, generation: u64, other: usize, page: u64) -> Phase {
        let target = &self.vps[other];
        if self.random.one_in(2) {
            target.linear_flush.request(Some(&[page << 12]));
        } else {
            target.linear_flush.request(None);
        }
        self.stats.asked += 1;
        if let Some(on) = target.guest_mode.running_on() {
            self.stats.asked_running += 1;
            self.cpus[on as usize].ipi = true;
        }
        let requested = target.linear_flush.requested();
        Phase::Asked(cpu, generation, other, page, requested)
    }

    /// The asker goes on when nobody uses what was there before.
    fn finish_linear(
        &mut self,
        cpu: u32,
        generation: u64,
        other: usize,
        page: u64,
        requested: u64,
    ) -> Phase {
        let target = &self.vps[other];
        let finished = target
            .linear_flush
            .is_finished(requested, &target.guest_mode);
        if !finished && !self.has(Bug::NoLinearWait) {
            return Phase::Asked(cpu, generation, other, page, requested);
        }
        self.vps[other].before[page as usize] = None;
        Phase::Exited(cpu, generation, None)
    }

    fn enter(&mut self, vp: usize, cpu: u32, generation: u64) -> Phase {
        let state = &self.vps[vp];
        let root = &self.partitions[state.partition].generation;
        match state.guest_mode.enter(cpu, root, generation) {
            true => Phase::Announced(cpu, generation),
            false => {
                self.stats.turned_back += 1;
                Phase::Loaded(cpu)
            }
        }
    }

    fn run_guest(&mut self, vp: usize, cpu: u32, generation: u64) -> Result<Phase, Violation> {
        let interrupted = self.cpus[cpu as usize].ipi && self.random.one_in(2);
        if interrupted || self.random.one_in(8) {
            self.cpus[cpu as usize].ipi = false;
            self.vps[vp].guest_mode.leave();
            return Ok(Phase::Exited(cpu, generation, None));
        }
        let linear = self.random.below(LINEAR as u64);
        if self.random.one_in(16) {
            // An exit that is handled without leaving guest mode.
            if !self.has(Bug::LookOncePerWindow) {
                self.flush_linear(vp, cpu);
            }
            return Ok(Phase::Guest(cpu, generation));
        }
        if self.random.one_in(16) {
            let mates = self.vps_of(self.vps[vp].partition);
            let other = *self.random.pick(&mates);
            let page = linear as usize;
            if other != vp && self.vps[other].before[page].is_none() {
                // The guest changes page tables that another VP uses, and makes its call.
                let new = any_gpa(&mut self.random);
                let old = std::mem::replace(&mut self.vps[other].linear[page], new);
                self.vps[other].before[page] = Some(old);
                self.vps[vp].guest_mode.leave();
                return Ok(Phase::Changed(cpu, generation, other, linear));
            }
        }
        if self.random.one_in(8) && self.vps[vp].before[linear as usize].is_none() {
            // The guest changes its page tables and does INVLPG, without an exit.
            self.vps[vp].linear[linear as usize] = any_gpa(&mut self.random);
            let root = self.partitions[self.vps[vp].partition].ept.root();
            let vpid = self.vps[vp].vpid;
            self.cpus[cpu as usize].invlpg(vpid, root, linear);
            return Ok(Phase::Guest(cpu, generation));
        }
        let write = self.random.one_in(2);
        match self.access(vp, cpu as usize, linear, write)? {
            None => Ok(Phase::Guest(cpu, generation)),
            fault => {
                self.stats.faults += 1;
                self.vps[vp].guest_mode.leave();
                Ok(Phase::Exited(cpu, generation, fault))
            }
        }
    }

    /// One access by the guest: by anything cached, or by a walk. Returns an EPT violation.
    fn access(
        &mut self,
        vp: usize,
        cpu: usize,
        linear: u64,
        write: bool,
    ) -> Result<Option<Access>, Violation> {
        let (vpid, index) = (self.vps[vp].vpid, self.vps[vp].partition);
        let mut gpa = self.vps[vp].linear[linear as usize];
        let before = self.vps[vp].before[linear as usize];
        let root = self.partitions[index].ept.root();
        let cached = self.cpus[cpu].candidates(vpid, root, linear, gpa);
        let choice = self.random.below(cached.len() as u64 + 1) as usize;
        if let Some((combined, t)) = cached.get(choice) {
            if t.gpa != gpa && before != Some(t.gpa) {
                return Err(Violation::StaleLinear);
            }
            gpa = t.gpa;
            if write && !t.write {
                self.cpus[cpu].drop_used(t);
                return Ok(Some(Access { gpa, write }));
            }
            // To set a dirty flag a CPU walks again.
            if !write || t.dirty {
                self.stats.cached += 1;
                self.stats.combined += u64::from(*combined);
                return self.used(index, t, write).map(|()| None);
            }
        }
        self.stats.walks += 1;
        let (frames, random) = (&self.frames, &mut self.random);
        let Some(walked) = self.cpus[cpu].walk(frames, random, root, gpa, write)? else {
            return Ok(Some(Access { gpa, write }));
        };
        let t = Translation {
            root,
            gpa,
            spa: walked.spa,
            write: walked.write,
            dirty: walked.dirty,
            epoch: self.host.epoch(walked.spa),
            write_epoch: self.partitions[index].write_epoch(gpa),
        };
        self.cpus[cpu].insert(vpid, linear, t);
        self.used(index, &t, write).map(|()| None)
    }

    /// The judgement on a translation that was used.
    fn used(&mut self, index: usize, t: &Translation, write: bool) -> Result<(), Violation> {
        let partition = &mut self.partitions[index];
        if !self.host.is_live(partition.uid, t.gpa, t.spa, t.epoch) {
            return Err(Violation::StalePage);
        }
        if write {
            if t.write_epoch != partition.write_epoch(t.gpa) {
                return Err(Violation::StaleRight);
            }
            partition.written(t.gpa);
        }
        Ok(())
    }

    fn after_exit(&mut self, vp: usize, cpu: u32, generation: u64, fault: Option<Access>) -> Phase {
        if fault.is_none() && self.random.one_in(2) {
            if self.has(Bug::CompareOncePerWindow) {
                return Phase::Compared(cpu);
            }
            return Phase::Fresh(cpu, generation);
        }
        if self.root == Root::Window {
            self.cpus[cpu as usize].vmcs.remove(&vp);
            self.vps[vp].placement.cleared();
        }
        self.cpus[cpu as usize].busy = false;
        fault.map_or(Phase::Out, Phase::Fault)
    }

    /// Finds the page in the VMM's memory, without the map lock.
    fn fault_in(&mut self, vp: usize, access: Access) -> Phase {
        let partition = &mut self.partitions[self.vps[vp].partition];
        if partition.invalidating {
            return Phase::Fault(access);
        }
        let huge = self.random.one_in(2);
        let sequence = partition.sequence;
        let (spa, huge) = partition.fault_in(&mut self.host, access.gpa, huge);
        Phase::Found(access, spa, huge, sequence)
    }

    fn map(&mut self, vp: usize, access: Access, spa: u64, huge: bool, sequence: u64) -> Phase {
        let moved_matters = !self.has(Bug::MapWhatMoved);
        let partition = &mut self.partitions[self.vps[vp].partition];
        let found = Phase::Found(access, spa, huge, sequence);
        if partition.locked {
            return found;
        }
        if partition.sequence != sequence {
            self.stats.moved_pages += 1;
            if moved_matters {
                return Phase::Fault(access);
            }
        }
        let rights = match access.write || self.random.one_in(3) {
            true => Rights::RWX,
            false => Rights::RX,
        };
        let small = Mapping::ram(Spa(spa), PageSize::Size4K, rights);
        let in_huge = access.gpa & (HUGE - 1);
        let large = Mapping::ram(Spa(spa & !(HUGE - 1)), PageSize::Size2M, rights);
        let before = self.frames.in_use();
        let mut map = |gpa, mapping| partition.ept.map(&mut self.frames, Gpa(gpa), mapping);
        let mut mapped = match huge && self.random.one_in(2) {
            true => map(access.gpa - in_huge, &large),
            false => map(access.gpa, &small),
        };
        if mapped == Err(MapError::Occupied) {
            mapped = map(access.gpa, &small);
        }
        match mapped {
            Ok(mapped) => {
                assert!(!mapped.flush, "no table is ever empty here");
                let more_tables = self.frames.in_use() > before;
                self.stats.splits += u64::from(mapped.change == Change::Upgraded && more_tables);
            }
            // Something else is there only if a page that moved was mapped.
            Err(error) => assert!(!moved_matters, "{error:?}"),
        }
        Phase::Out
    }
}
