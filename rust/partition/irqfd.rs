// SPDX-License-Identifier: GPL-2.0

//! MSHV_IRQFD: an eventfd whose signals are interrupts of the guest.
//!
//! A signal goes from the eventfd's wake-up, in atomic context, straight to the VPs: the message of
//! the irqfd's route is kept in its [`Line`], so that nothing is locked and nothing looked up.

use super::routing::Routes;
use super::{interrupt, Partition};
use crate::sys::bindings::*;
use crate::sys::eventfd::{EventFd, Signalled, Started, Watch};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use kernel::prelude::*;
use kernel::sync::Arc;
use vapic::{Msi, Trigger};

const DEASSIGN: u32 = 1 << MSHV_IRQFD_BIT_DEASSIGN;
const RESAMPLE: u32 = 1 << MSHV_IRQFD_BIT_RESAMPLE;

/// An irqfd's interrupt line.
pub(crate) struct Line {
    gsi: u32,
    /// Its route, as [`Msi::to_bits`]; 0: none yet.
    msi: AtomicU32,
    /// The eventfd still has a file.
    open: AtomicBool,
    /// Signalled when the guest has ended the interrupt.
    resample: Option<EventFd>,
}

impl Line {
    fn msi(&self) -> Option<Msi> {
        Msi::from_bits(self.msi.load(Ordering::Relaxed))
    }

    fn is_level(&self) -> bool {
        matches!(self.msi(), Some(msi) if msi.trigger() == Trigger::Level)
    }
}

/// Where an irqfd's signals go.
struct Target {
    partition: Arc<Partition>,
    line: Arc<Line>,
}

impl Signalled for Target {
    fn signalled(&self) {
        let Some(msi) = self.line.msi().filter(|msi| msi.is_legal()) else {
            return;
        };
        let _ = interrupt::send(
            &self.partition,
            msi.destination(),
            msi.delivery_mode(),
            msi.vector(),
            msi.trigger(),
        );
    }

    fn hung_up(&self) {
        self.line.open.store(false, Ordering::Relaxed);
    }
}

/// The irqfds of a partition's file, with their routes.
pub(super) struct Irqfds {
    partition: Arc<Partition>,
    routes: Routes,
    list: KVVec<Started<Target>>,
}

impl Irqfds {
    /// None.
    pub(super) fn new(partition: Arc<Partition>) -> Self {
        Self {
            partition,
            routes: Routes::new(),
            list: KVVec::new(),
        }
    }

    /// Replaces all routes. Afterwards no interrupt comes by an old one.
    pub(super) fn set_routes(&mut self, routes: Routes) {
        self.routes = routes;
        for irqfd in &self.list {
            let line = &irqfd.target().line;
            let msi = self.routes.get(line.gsi);
            if line.msi.swap(msi, Ordering::Relaxed) != msi {
                irqfd.sync();
            }
        }
    }

    /// MSHV_IRQFD.
    ///
    /// # Errors
    ///
    /// EINVAL: unknown flags, not an eventfd, or resampling without a level-triggered route; EBADF;
    /// EBUSY: the eventfd is an irqfd already.
    pub(super) fn set(&mut self, args: &mshv_user_irqfd) -> Result {
        if args.flags & !(DEASSIGN | RESAMPLE) != 0 {
            return Err(EINVAL);
        }
        self.forget(|irqfd| !irqfd.target().line.open.load(Ordering::Relaxed));
        if args.flags & DEASSIGN != 0 {
            let eventfd = EventFd::from_fd(args.fd)?;
            self.forget(|irqfd| {
                irqfd.watch().is_of(&eventfd) && irqfd.target().line.gsi == args.gsi
            });
            return Ok(());
        }
        self.assign(args)
    }

    fn assign(&mut self, args: &mshv_user_irqfd) -> Result {
        let resample = if args.flags & RESAMPLE != 0 {
            Some(EventFd::from_fd(args.resamplefd)?)
        } else {
            None
        };
        let resampled = resample.is_some();
        let line = Arc::new(
            Line {
                gsi: args.gsi,
                msi: AtomicU32::new(self.routes.get(args.gsi)),
                open: AtomicBool::new(true),
                resample,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let target = Arc::new(
            Target {
                partition: self.partition.clone(),
                line: line.clone(),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let watch = Watch::new(args.fd, target)?;
        if self.list.iter().any(|other| other.watch().is_same(&watch)) {
            return Err(EBUSY);
        }
        if resampled && !line.is_level() {
            return Err(EINVAL);
        }
        self.list.reserve(1, GFP_KERNEL_ACCOUNT)?;
        if resampled {
            self.partition.resampled.add(line.clone(), |_| Ok(()))?;
        }
        match watch.start() {
            Ok(started) => Ok(self.list.push(started, GFP_KERNEL_ACCOUNT)?),
            Err(e) => {
                self.close(&line);
                Err(e)
            }
        }
    }

    /// Removes the irqfds for which `goes` holds: no interrupt of theirs comes afterwards.
    fn forget(&mut self, goes: impl Fn(&Started<Target>) -> bool) {
        let Self {
            partition, list, ..
        } = self;
        list.retain(|irqfd| {
            let goes = goes(irqfd);
            if goes {
                close(partition, &irqfd.target().line);
            }
            !goes
        });
    }

    fn close(&self, line: &Arc<Line>) {
        close(&self.partition, line);
    }
}

/// Ends the resampling of `line`.
fn close(partition: &Partition, line: &Arc<Line>) {
    line.open.store(false, Ordering::Relaxed);
    if line.resample.is_some() {
        // Without memory it stays listed, closed.
        let _ = partition.resampled.remove(|l| core::ptr::eq(l, &**line));
    }
}

impl Drop for Irqfds {
    fn drop(&mut self) {
        self.forget(|_| true);
        // Closed ones for which there was no memory.
        self.partition.resampled.clear();
        self.partition.ioeventfds.clear();
        super::ports::close(&self.partition);
    }
}

impl Partition {
    /// The guest has ended the level-triggered interrupt `vector`. False: no irqfd waits for that,
    /// so it is for the VMM.
    pub(crate) fn resample(&self, vector: u8) -> bool {
        self.resampled
            .read(|lines| {
                let mut taken = false;
                for line in lines {
                    if !line.open.load(Ordering::Relaxed) || !line.is_level() {
                        continue;
                    }
                    if line.msi().map(Msi::vector) == Some(vector) {
                        if let Some(eventfd) = &line.resample {
                            eventfd.signal();
                            taken = true;
                        }
                    }
                }
                taken
            })
            .unwrap_or(false)
    }
}
