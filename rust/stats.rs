// SPDX-License-Identifier: GPL-2.0

//! Statistics pages (F-ST1 to F-ST7): a partition and each of its VPs count in the very page that the guest can look at.
//! Behind it lies the "internal" page, which has no counters.
//!
//! A VP's thread alone counts in the VP's page, so that counting is one instruction; everybody reads it.

use crate::sys::pages::CounterPages;
use core::sync::atomic::{AtomicU64, Ordering};
use hvdef::{
    HvPartitionCounter, HvStatsGroup, HvVpCounter, HV_STATS_PARTITION_GROUPS, HV_STATS_VP_GROUPS,
};
use kernel::prelude::*;

fn pages(groups: &[HvStatsGroup]) -> Result<CounterPages> {
    let pages = CounterPages::new()?;
    for group in groups {
        if let Some(word) = pages.counters().get(usize::from(group.at)) {
            word.store(group.header(), Ordering::Relaxed);
        }
    }
    Ok(pages)
}

/// A VP's counters.
#[derive(Clone)]
pub(crate) struct VpStats(CounterPages);

impl VpStats {
    /// All zero.
    pub(crate) fn new() -> Result<Self> {
        pages(&HV_STATS_VP_GROUPS).map(Self)
    }

    #[inline(always)]
    fn counter(&self, counter: HvVpCounter) -> &AtomicU64 {
        // The counters' words are below the end of the page: the compiler sees it.
        &self.0.counters()[counter as usize & 511]
    }

    /// Counts one; only the VP's own thread does.
    #[inline(always)]
    pub(crate) fn count(&self, counter: HvVpCounter) {
        let counter = self.counter(counter);
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }

    /// Sets what is no count.
    #[inline(always)]
    pub(crate) fn set(&self, counter: HvVpCounter, value: u64) {
        self.counter(counter).store(value, Ordering::Relaxed);
    }

    /// The value of a counter.
    pub(crate) fn get(&self, counter: HvVpCounter) -> u64 {
        self.counter(counter).load(Ordering::Relaxed)
    }

    /// VM exits.
    pub(crate) fn exits(&self) -> u64 {
        HvVpCounter::EXITS
            .iter()
            .fold(0, |sum, c| sum.wrapping_add(self.get(*c)))
    }

    /// The pages.
    pub(crate) fn pages(&self) -> &CounterPages {
        &self.0
    }
}

/// A partition's counters.
#[derive(Clone)]
pub(crate) struct PartitionStats(CounterPages);

impl PartitionStats {
    /// All zero.
    pub(crate) fn new() -> Result<Self> {
        pages(&HV_STATS_PARTITION_GROUPS).map(Self)
    }

    fn counter(&self, counter: HvPartitionCounter) -> &AtomicU64 {
        &self.0.counters()[counter as usize & 511]
    }

    /// Counts one.
    pub(crate) fn count(&self, counter: HvPartitionCounter) {
        self.counter(counter).fetch_add(1, Ordering::Relaxed);
    }

    /// Sets what is no count.
    pub(crate) fn set(&self, counter: HvPartitionCounter, value: u64) {
        self.counter(counter).store(value, Ordering::Relaxed);
    }

    /// The value of a counter.
    pub(crate) fn get(&self, counter: HvPartitionCounter) -> u64 {
        self.counter(counter).load(Ordering::Relaxed)
    }

    /// The pages.
    pub(crate) fn pages(&self) -> &CounterPages {
        &self.0
    }
}
