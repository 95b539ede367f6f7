// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Those who take something away: the host's memory management, dirty logging, the VMM.

use ept::{Leaf, Spa};

use super::partition::{Partition, REGIONS};
use super::world::{Bug, Violation, World};

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// The VMM's pages themselves: MMU notifier.
    Invalidate,
    /// Translations only.
    Zap,
    /// The right to write.
    Protect,
    /// Dirty flags, for a report.
    Clean,
}

/// Where somebody who takes something away is.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
enum Stage {
    #[default]
    Idle,
    Lock,
    Change,
    Bump,
    Kick(usize),
    Wait,
    Finish,
}

pub struct Zapper {
    stage: Stage,
    kind: Kind,
    partition: usize,
    region: u64,
    generation: u64,
    any: bool,
    waited: bool,
    tables: Vec<Spa>,
}

impl Default for Zapper {
    fn default() -> Self {
        Zapper {
            stage: Stage::Idle,
            kind: Kind::Zap,
            partition: 0,
            region: 0,
            generation: 0,
            any: false,
            waited: false,
            tables: Vec::new(),
        }
    }
}

impl World {
    pub fn step_zapper(&mut self, z: &mut Zapper) -> Result<(), Violation> {
        z.stage = match z.stage {
            Stage::Idle => self.choose(z),
            Stage::Lock => self.lock(z),
            Stage::Change => self.change(z)?,
            Stage::Bump => self.bump(z),
            Stage::Kick(next) => self.kick(z, next),
            Stage::Wait => self.wait(z),
            Stage::Finish => self.finish(z),
        };
        Ok(())
    }

    fn choose(&mut self, z: &mut Zapper) -> Stage {
        if !self.random.one_in(4) {
            return Stage::Idle;
        }
        let partition = self.random.below(self.partitions.len() as u64) as usize;
        if self.random.one_in(4) {
            self.recreate(partition);
            return Stage::Idle;
        }
        if self.random.one_in(4) {
            let vp = self.random.below(self.vps.len() as u64) as usize;
            self.renew(vp);
            return Stage::Idle;
        }
        let kinds = [Kind::Invalidate, Kind::Zap, Kind::Protect, Kind::Clean];
        *z = Zapper {
            kind: *self.random.pick(&kinds),
            partition,
            region: *self.random.pick(&REGIONS),
            ..Zapper::default()
        };
        let partition = &mut self.partitions[partition];
        if z.kind == Kind::Invalidate {
            if partition.invalidating {
                return Stage::Idle;
            }
            partition.invalidating = true;
        }
        Stage::Lock
    }

    fn lock(&mut self, z: &Zapper) -> Stage {
        let partition = &mut self.partitions[z.partition];
        if partition.locked {
            return Stage::Lock;
        }
        partition.locked = true;
        if z.kind == Kind::Invalidate {
            partition.sequence += 1;
        }
        match self.has(Bug::BumpFirst) {
            true => Stage::Bump,
            false => Stage::Change,
        }
    }

    fn change(&mut self, z: &mut Zapper) -> Result<Stage, Violation> {
        let range = Partition::range(z.region);
        let partition = &mut self.partitions[z.partition];
        let (ept, frames) = (&mut partition.ept, &mut self.frames);
        let mut leaves: Vec<Leaf> = Vec::new();
        let mut keep = |leaf: &Leaf| leaves.push(*leaf);
        let progress = match z.kind {
            Kind::Invalidate | Kind::Zap => ept.unmap(frames, range, usize::MAX, &mut keep),
            Kind::Protect => ept.protect(frames, range, usize::MAX),
            Kind::Clean => ept.clear_dirty(frames, range, usize::MAX, &mut keep),
        };
        assert_eq!(progress.next, None);
        z.any = progress.any;
        z.tables = self.frames.take_deferred();
        assert!(z.any || z.tables.is_empty());
        self.stats.dirty += leaves.iter().filter(|l| l.dirty).count() as u64;
        self.stats.freed_tables += z.tables.len() as u64;
        if z.kind != Kind::Protect {
            partition.reporting = true;
            if partition.reported(z.region, &leaves) {
                return Err(Violation::LostWrite);
            }
        }
        if self.has(Bug::ReuseTablesEarly) {
            self.frames.release(std::mem::take(&mut z.tables));
        }
        let skip = match z.kind {
            Kind::Protect => self.has(Bug::ProtectWithoutFlush),
            Kind::Clean => self.has(Bug::CleanWithoutFlush),
            _ => false,
        };
        Ok(match z.any && !skip {
            // Nothing was taken away now, and those who did so before are done: they had the lock.
            false => Stage::Finish,
            true if self.has(Bug::BumpFirst) => Stage::Kick(0),
            true => Stage::Bump,
        })
    }

    fn bump(&mut self, z: &mut Zapper) -> Stage {
        let no_bump = self.has(Bug::NoBump);
        let early_unlock = self.has(Bug::UnlockBeforeWait);
        let partition = &mut self.partitions[z.partition];
        z.generation = match no_bump {
            true => partition.generation.current(),
            false => partition.generation.bump(),
        };
        if early_unlock {
            partition.locked = false;
        }
        self.stats.flushes += 1;
        match self.has(Bug::BumpFirst) {
            true => Stage::Change,
            false => Stage::Kick(0),
        }
    }

    fn kick(&mut self, z: &mut Zapper, next: usize) -> Stage {
        let vps = self.vps_of(z.partition);
        let Some(&vp) = vps.get(next) else {
            return match self.has(Bug::NoWait) {
                true => Stage::Finish,
                false => Stage::Wait,
            };
        };
        if let Some(cpu) = self.vps[vp].guest_mode.behind(z.generation) {
            self.cpus[cpu as usize].ipi = true;
            z.waited = true;
        }
        Stage::Kick(next + 1)
    }

    fn wait(&mut self, z: &Zapper) -> Stage {
        let behind = |&vp: &usize| self.vps[vp].guest_mode.behind(z.generation);
        match self.vps_of(z.partition).iter().find_map(behind) {
            Some(_) => Stage::Wait,
            None => Stage::Finish,
        }
    }

    /// From here on whatever was taken away must be out of use.
    fn finish(&mut self, z: &mut Zapper) -> Stage {
        self.stats.waits += u64::from(z.waited);
        self.frames.release(std::mem::take(&mut z.tables));
        let partition = &mut self.partitions[z.partition];
        match z.kind {
            Kind::Invalidate => {
                partition.take_backing(&mut self.host, z.region);
                partition.invalidating = false;
            }
            Kind::Zap => partition.outdate(&mut self.host, z.region),
            Kind::Protect => partition.outdate_writes(z.region),
            Kind::Clean => {}
        }
        partition.reporting = false;
        partition.locked = false;
        Stage::Idle
    }
}
