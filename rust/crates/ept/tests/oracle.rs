// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The oracle: CPUs whose TLBs, paging-structure caches and VMCS caches forget nothing by
//! themselves run VPs, while pages are taken away and partitions come and go, in random order.
//! Each translation that a CPU uses must be live, each dirty page must be reported, and no VMCS
//! may be on two CPUs. The emulator that the other tests run in flushes everything at each VM
//! entry and can see none of this.
//!
//! The protocol under test is the crate's: [`ept::SeenGenerations`], [`ept::GuestMode`],
//! [`ept::RootGeneration`], [`ept::Placement`], [`ept::LinearFlush`], and the tree's promises about what needs a flush.
//! Each way to break it that is listed in [`Bug`] must be noticed.

mod host;
mod machine;
mod partition;
mod vp;
mod world;
mod zap;

use self::world::{Bug, Root, Stats, Violation, World};

const STEPS: u32 = 6_000;

fn run(seed: u64, root: Root, bug: Option<Bug>) -> (Stats, Option<Violation>) {
    let mut world = World::new(seed, root, bug);
    for _ in 0..STEPS {
        if let Err(violation) = world.step() {
            return (world.stats, Some(violation));
        }
    }
    (world.stats, None)
}

/// The first violation in up to `seeds` schedules.
fn find(root: Root, bug: Bug, seeds: u64) -> Option<Violation> {
    (1..=seeds).find_map(|seed| run(seed, root, Some(bug)).1)
}

fn holds(root: Root) {
    let mut total = Stats::default();
    for seed in 1..=150 {
        let (stats, violation) = run(seed, root, None);
        assert_eq!(violation, None, "seed {seed}, {root:?}");
        total.add(&stats);
    }
    // What did not happen was not tested.
    for (what, count) in total.counts() {
        assert!(count > 200, "{what}: {count}: {total:?}");
    }
}

#[test]
fn the_protocol_holds_with_root_mode_per_window() {
    holds(Root::Window);
}

#[test]
fn the_protocol_holds_with_root_mode_kept() {
    holds(Root::Pinned);
}

macro_rules! noticed {
    ($($test:ident: $bug:ident in $root:ident is $($violation:ident)|+;)*) => {
        $(
            #[test]
            fn $test() {
                let found = find(Root::$root, Bug::$bug, 400);
                assert!(
                    matches!(found, Some($(Violation::$violation)|+)),
                    "{found:?}"
                );
            }
        )*
    };
}

noticed! {
    no_bump: NoBump in Window is StalePage | StaleRight | LostWrite | FreedTable;
    bump_first: BumpFirst in Window is StalePage | StaleRight | LostWrite | FreedTable;
    no_wait: NoWait in Window is StalePage | StaleRight | LostWrite | FreedTable;
    unlock_before_wait: UnlockBeforeWait in Window is StalePage | StaleRight | LostWrite | FreedTable;
    reuse_tables_early: ReuseTablesEarly in Window is FreedTable;
    protect_without_flush: ProtectWithoutFlush in Window is StaleRight;
    clean_without_flush: CleanWithoutFlush in Window is LostWrite;
    map_what_moved: MapWhatMoved in Window is StalePage;
    no_invept: NoInvept in Window is StalePage | StaleRight | LostWrite | FreedTable;
    announce_late: AnnounceLate in Window is StalePage | StaleRight | LostWrite | FreedTable;
    compare_once_per_window: CompareOncePerWindow in Window is StalePage | StaleRight | LostWrite | FreedTable;
    reuse_root_id: ReuseRootId in Window is StalePage | FreedTable;
    no_invvpid: NoInvvpid in Window is StaleLinear;
    inherit_placement: InheritPlacement in Window is StaleLinear;
    no_linear_wait: NoLinearWait in Window is StaleLinear;
    no_linear_flush: NoLinearFlush in Window is StaleLinear;
    look_early: LookEarly in Window is StaleLinear;
    look_once_per_window: LookOncePerWindow in Window is StaleLinear;
    no_vmclear: NoVmclear in Pinned is VmcsOnTwoCpus;
    free_without_vmclear: FreeWithoutVmclear in Pinned is VmcsOnTwoCpus;
}
