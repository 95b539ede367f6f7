// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The tree, case by case.

use crate::common::TestFrames;
use ept::{
    Change, Ept, EptConfig, Frames, Gpa, GpaRange, MapError, Mapping, MemoryType, PageSize, Rights,
    Spa,
};

const CONFIG: EptConfig = EptConfig {
    max_leaf: PageSize::Size1G,
    accessed_dirty: true,
    execute_only: false,
};
const ALL: usize = usize::MAX;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;

fn tree(config: EptConfig) -> (TestFrames, Ept) {
    let mut frames = TestFrames::default();
    let ept = Ept::new(&mut frames, config).unwrap();
    (frames, ept)
}

fn ram(spa: u64, size: PageSize, rights: Rights) -> Mapping {
    Mapping::ram(Spa(spa), size, rights)
}

fn page(spa: u64) -> Mapping {
    ram(spa, PageSize::Size4K, Rights::RWX)
}

fn all() -> GpaRange {
    GpaRange::ALL
}

fn from(gpa: u64, bytes: u64) -> GpaRange {
    GpaRange::from_len(Gpa(gpa), bytes)
}

/// The raw entry that maps `gpa` at `level`, as hardware finds it.
fn raw(frames: &TestFrames, ept: &Ept, gpa: u64, level: u32) -> u64 {
    let mut table = ept.root();
    for l in (level..=4).rev() {
        let index = ((gpa >> (12 + 9 * (l - 1))) & 0x1ff) as usize;
        let entry = frames.raw(table, index).unwrap();
        if l == level {
            return entry;
        }
        table = Spa(entry & 0x000f_ffff_ffff_f000);
    }
    unreachable!()
}

#[test]
fn entries_are_what_the_sdm_says() {
    let (mut frames, mut ept) = tree(CONFIG);
    ept.map(&mut frames, Gpa(0x1000), &page(0x5000)).unwrap();
    // R, W, X and user X; WB; IPAT; accessed. No "large" bit in a PTE.
    assert_eq!(
        raw(&frames, &ept, 0x1000, 1),
        0x5000 | 7 | (6 << 3) | (1 << 6) | (1 << 8) | (1 << 10)
    );
    let uc = Mapping {
        memory_type: MemoryType::Uncacheable,
        ignore_pat: false,
        ..ram(M2, PageSize::Size2M, Rights::R)
    };
    ept.map(&mut frames, Gpa(M2), &uc).unwrap();
    assert_eq!(raw(&frames, &ept, M2, 2), M2 | 1 | (1 << 7) | (1 << 8));
    let overlay = Mapping::overlay(Spa(0x9000), Rights::RX);
    ept.map(&mut frames, Gpa(0x2000), &overlay).unwrap();
    let expected = (1 << 52) | 0x9000 | 5 | (6 << 3) | (1 << 6) | (1 << 8) | (1 << 10);
    assert_eq!(raw(&frames, &ept, 0x2000, 1), expected);
    // A table: R, W, X, user X, nothing else.
    assert_eq!(raw(&frames, &ept, 0x1000, 2) & 0xfff, 0x407);
    assert_eq!(ept.eptp().0, ept.root().0 | 6 | (3 << 3) | (1 << 6));
    let (_, plain) = tree(EptConfig {
        accessed_dirty: false,
        ..CONFIG
    });
    assert_eq!(plain.eptp().0 & 0xfff, 6 | (3 << 3));
}

#[test]
fn a_second_map_changes_nothing_or_adds_rights() {
    let (mut frames, mut ept) = tree(CONFIG);
    let gpa = Gpa(0x7f_ffff_f000);
    let read = ram(0x5000, PageSize::Size4K, Rights::R);
    assert_eq!(
        ept.map(&mut frames, gpa, &read).unwrap().change,
        Change::New
    );
    assert_eq!(
        ept.map(&mut frames, gpa, &read).unwrap().change,
        Change::None
    );
    let mapped = ept.map(&mut frames, gpa, &page(0x5000)).unwrap();
    assert_eq!((mapped.change, mapped.flush), (Change::Upgraded, false));
    // Fewer rights do not take any away.
    assert_eq!(
        ept.map(&mut frames, gpa, &read).unwrap().change,
        Change::None
    );
    let leaf = ept.walk(&frames, gpa).unwrap();
    assert_eq!((leaf.spa, leaf.rights), (Spa(0x5000), Rights::RWX));
    assert_eq!(frames.in_use(), 4);
    let other = ept.map(&mut frames, gpa, &page(0x6000));
    assert_eq!(other, Err(MapError::Conflict(leaf)));
    let overlay = Mapping::overlay(Spa(0x5000), Rights::RWX);
    assert_eq!(
        ept.map(&mut frames, gpa, &overlay),
        Err(MapError::Conflict(leaf))
    );
}

#[test]
fn what_would_be_a_misconfiguration_is_refused() {
    let (mut frames, mut ept) = tree(EptConfig {
        max_leaf: PageSize::Size2M,
        ..CONFIG
    });
    let mut map = |gpa, mapping| ept.map(&mut frames, Gpa(gpa), &mapping).unwrap_err();
    assert_eq!(map(1 << 48, page(0)), MapError::OutOfRange);
    assert_eq!(map(u64::MAX, page(0)), MapError::OutOfRange);
    assert_eq!(map(0x10, page(0)), MapError::BadSize);
    assert_eq!(map(0, page(0x10)), MapError::BadSize);
    assert_eq!(
        map(0x1000, ram(0, PageSize::Size2M, Rights::R)),
        MapError::BadSize
    );
    assert_eq!(
        map(0, ram(0, PageSize::Size1G, Rights::R)),
        MapError::BadSize
    );
    let rights = |read, write, execute| Rights {
        read,
        write,
        execute,
    };
    for bad in [
        rights(false, false, false),
        rights(false, true, false),
        rights(false, true, true),
        rights(false, false, true),
    ] {
        assert_eq!(map(0, ram(0, PageSize::Size4K, bad)), MapError::BadRights);
    }
    assert_eq!(frames.in_use(), 1);
    let (mut frames, mut ept) = tree(EptConfig {
        execute_only: true,
        ..CONFIG
    });
    let mapping = ram(0, PageSize::Size4K, rights(false, false, true));
    assert!(ept.map(&mut frames, Gpa(0), &mapping).is_ok());
    let mapping = ram(0, PageSize::Size4K, rights(false, true, true));
    assert_eq!(
        ept.map(&mut frames, Gpa(0), &mapping),
        Err(MapError::BadRights)
    );
}

#[test]
fn a_large_leaf_splits_only_for_more_rights() {
    let (mut frames, mut ept) = tree(CONFIG);
    let spa = 5 * G1;
    let large = ram(spa, PageSize::Size1G, Rights::RX);
    ept.map(&mut frames, Gpa(G1), &large).unwrap();
    let part = ram(spa + 0x201_000, PageSize::Size4K, Rights::R);
    let gpa = Gpa(G1 + 0x201_000);
    assert_eq!(
        ept.map(&mut frames, gpa, &part).unwrap().change,
        Change::None
    );
    assert_eq!(ept.walk(&frames, gpa).unwrap().size, PageSize::Size1G);
    let write = ram(spa + 0x201_000, PageSize::Size4K, Rights::RW);
    let mapped = ept.map(&mut frames, gpa, &write).unwrap();
    assert_eq!((mapped.change, mapped.flush), (Change::Upgraded, false));
    // Every address still translates as before, with the rights as before but for one page.
    let mut seen = 0;
    let progress = ept.for_each_leaf(&frames, all(), ALL, |leaf| {
        assert_eq!(leaf.spa.0 - leaf.gpa.0, spa - G1);
        let rights = if leaf.gpa == gpa {
            Rights::RWX
        } else {
            Rights::RX
        };
        assert_eq!((leaf.rights, leaf.accessed), (rights, true));
        assert_eq!(leaf.memory_type, MemoryType::WriteBack);
        seen += leaf.size.bytes();
    });
    assert_eq!((seen, progress.any, progress.next), (G1, true, None));
    assert_eq!(frames.in_use(), 4);
    // A part that is somewhere else conflicts.
    let wrong = page(spa + 0x203_000);
    assert!(matches!(
        ept.map(&mut frames, Gpa(G1 + 0x202_000), &wrong),
        Err(MapError::Conflict(_))
    ));
}

#[test]
fn a_large_leaf_takes_the_place_of_an_empty_table_only() {
    let (mut frames, mut ept) = tree(CONFIG);
    ept.map(&mut frames, Gpa(0x3000), &page(0x3000)).unwrap();
    let large = ram(0, PageSize::Size2M, Rights::RWX);
    assert_eq!(
        ept.map(&mut frames, Gpa(0), &large),
        Err(MapError::Occupied)
    );
    assert_eq!(ept.walk(&frames, Gpa(0x3000)).unwrap().spa, Spa(0x3000));
    // An empty table stays behind when the frames run out.
    frames.left = Some(2);
    let far = Gpa(40 * G1 * 512);
    assert_eq!(ept.map(&mut frames, far, &page(0)), Err(MapError::NoFrame));
    frames.left = Some(0);
    let huge = ram(0, PageSize::Size1G, Rights::RWX);
    let mapped = ept.map(&mut frames, far, &huge).unwrap();
    assert!(mapped.flush && mapped.change == Change::New);
    assert_eq!(frames.deferred.len(), 1);
    assert_eq!(ept.walk(&frames, far).unwrap().size, PageSize::Size1G);
}

#[test]
fn a_map_needs_at_most_three_frames() {
    let (mut frames, mut ept) = tree(CONFIG);
    frames.left = Some(3);
    ept.map(&mut frames, Gpa(0xffff_ffff_f000), &page(0))
        .unwrap();
    frames.left = Some(2);
    assert_eq!(
        ept.map(&mut frames, Gpa(0), &page(0)),
        Err(MapError::NoFrame)
    );
    // What was built is used by the next try.
    frames.left = Some(1);
    ept.map(&mut frames, Gpa(0), &page(0)).unwrap();
}

#[test]
fn unmap_reports_leaves_and_frees_tables() {
    let (mut frames, mut ept) = tree(CONFIG);
    for i in 0..1024 {
        ept.map(&mut frames, Gpa(i << 12), &page(i << 12)).unwrap();
    }
    assert_eq!(frames.in_use(), 5);
    frames.set_flags(ept.root(), 0x5000, 0x300);
    let mut dirty = Vec::new();
    let mut count = 0;
    let first = ept.unmap(&mut frames, from(0, M2), ALL, |leaf| {
        count += 1;
        if leaf.dirty {
            dirty.push(leaf.gpa.0);
        }
    });
    assert_eq!((first.any, first.next, count), (true, None, 512));
    assert_eq!(dirty, [0x5000]);
    assert_eq!((frames.in_use(), frames.deferred.len()), (4, 1));
    let again = ept.unmap(&mut frames, from(0, M2), ALL, |_| panic!("a leaf"));
    assert_eq!((again.any, again.next), (false, None));
    let rest = ept.unmap(&mut frames, all(), ALL, |_| ());
    assert!(rest.any);
    // Only the root is left.
    assert_eq!((frames.in_use(), frames.deferred.len()), (1, 4));
    ept.destroy(&mut frames, |_| panic!("a leaf"));
    assert_eq!(frames.in_use(), 0);
}

#[test]
fn a_budget_bounds_a_zap_and_it_goes_on() {
    let (mut frames, mut ept) = tree(CONFIG);
    for i in 0..600 {
        ept.map(&mut frames, Gpa(G1 + (i << 12)), &page(i << 12))
            .unwrap();
    }
    let mut gpa = Gpa(0);
    let (mut steps, mut leaves) = (0, 0);
    loop {
        let before = leaves;
        let range = GpaRange::new(gpa, GpaRange::ALL.end());
        let progress = ept.unmap(&mut frames, range, 50, |_| leaves += 1);
        assert!(leaves - before <= 50);
        steps += 1;
        match progress.next {
            Some(next) => gpa = next,
            None => break,
        }
    }
    assert_eq!((leaves, frames.in_use()), (600, 1));
    // The PDPTE below, two page tables, and the rest of the PML4 table: 1 + 1024 + 511 entries.
    assert_eq!(steps, 31);
}

#[test]
fn a_partly_covered_large_leaf_goes_as_a_whole() {
    let (mut frames, mut ept) = tree(CONFIG);
    let large = ram(M2, PageSize::Size2M, Rights::RWX);
    ept.map(&mut frames, Gpa(M2), &large).unwrap();
    let progress = ept.protect(&frames, from(M2 + 0x5000, 0x1000), ALL);
    assert!(progress.any);
    assert_eq!(ept.walk(&frames, Gpa(M2)).unwrap().rights, Rights::RX);
    assert!(!ept.protect(&frames, all(), ALL).any);
    let mut gone = Vec::new();
    let _ = ept.unmap(&mut frames, from(M2 + 0x5000, 1), ALL, |l| {
        gone.push((l.gpa, l.size))
    });
    assert_eq!(gone, [(Gpa(M2), PageSize::Size2M)]);
}

#[test]
fn hardware_flags_survive_and_are_read() {
    let (mut frames, mut ept) = tree(CONFIG);
    ept.map(&mut frames, Gpa(0), &ram(0, PageSize::Size2M, Rights::RWX))
        .unwrap();
    assert!(ept.clear_accessed(&frames, all(), ALL, |_| ()).any);
    assert!(!ept.test_accessed(&frames, all(), ALL).any);
    assert!(!ept.clear_accessed(&frames, all(), ALL, |_| ()).any);
    frames.set_flags(ept.root(), 0x1234, 0x300);
    assert!(ept.test_accessed(&frames, from(0x1000, 0x1000), ALL).any);
    // A split gives the flags to all parts.
    ept.split(&mut frames, Gpa(0x7000), PageSize::Size4K)
        .unwrap();
    let mut dirty = 0;
    assert!(ept.clear_dirty(&frames, all(), ALL, |_| dirty += 1).any);
    assert_eq!(dirty, 512);
    assert!(
        !ept.clear_dirty(&frames, all(), ALL, |_| panic!("dirty"))
            .any
    );
    assert_eq!(ept.walk(&frames, Gpa(0x7000)).unwrap().rights, Rights::RWX);
    assert!(ept.test_accessed(&frames, all(), ALL).any);
}

#[test]
fn tracking_begins_with_small_clean_leaves() {
    let (mut frames, mut ept) = tree(CONFIG);
    ept.map(
        &mut frames,
        Gpa(M2),
        &ram(M2, PageSize::Size2M, Rights::RWX),
    )
    .unwrap();
    ept.map(&mut frames, Gpa(0x1000), &page(0x1000)).unwrap();
    frames.set_flags(ept.root(), 0x1000, 0x300);
    assert!(ept.begin_tracking(&mut frames, all(), ALL).any);
    frames.flushed();
    assert!(ept.walk(&frames, Gpa(M2)).is_none());
    let leaf = ept.walk(&frames, Gpa(0x1000)).unwrap();
    assert_eq!(
        (leaf.rights, leaf.dirty, leaf.accessed),
        (Rights::RWX, false, false)
    );
}

#[test]
fn without_hardware_flags_rights_stand_in() {
    let (mut frames, mut ept) = tree(EptConfig {
        accessed_dirty: false,
        ..CONFIG
    });
    let (read, write) = (Gpa(0), Gpa(0x1000));
    ept.map(&mut frames, read, &ram(0, PageSize::Size4K, Rights::RX))
        .unwrap();
    ept.map(&mut frames, write, &page(0x1000)).unwrap();
    assert!(!ept.walk(&frames, read).unwrap().dirty);
    assert!(ept.walk(&frames, write).unwrap().dirty);
    // No access can be missed after the clearing: the CPU finds no rights.
    assert!(ept.clear_accessed(&frames, all(), ALL, |_| ()).any);
    assert_eq!(raw(&frames, &ept, 0x1000, 1) & 0x407, 0);
    assert!(!ept.test_accessed(&frames, all(), ALL).any);
    assert_eq!(ept.walk(&frames, write).unwrap().rights, Rights::RWX);
    // The fault that follows brings them back.
    let again = ram(0x1000, PageSize::Size4K, Rights::R);
    assert_eq!(
        ept.map(&mut frames, write, &again).unwrap().change,
        Change::Upgraded
    );
    assert_eq!(raw(&frames, &ept, 0x1000, 1) & 0x407, 0x407);
    assert!(ept.test_accessed(&frames, from(0x1000, 0x1000), ALL).any);
    // Dirty goes with write access.
    let mut dirty = Vec::new();
    assert!(
        ept.clear_dirty(&frames, all(), ALL, |l| dirty.push(l.gpa))
            .any
    );
    assert_eq!(dirty, [write]);
    assert_eq!(ept.walk(&frames, write).unwrap().rights, Rights::RX);
    ept.map(&mut frames, write, &page(0x1000)).unwrap();
    assert!(ept.walk(&frames, write).unwrap().dirty);
    // A leaf whose accesses are tracked is still there to be zapped.
    assert!(ept.clear_accessed(&frames, all(), ALL, |_| ()).any);
    let mut zapped = 0;
    assert!(ept.unmap(&mut frames, all(), ALL, |_| zapped += 1).any);
    assert_eq!((zapped, frames.in_use()), (2, 1));
}

#[test]
fn ranges_are_cut_to_what_can_be_translated() {
    assert_eq!(
        GpaRange::from_len(Gpa(u64::MAX), 5),
        GpaRange::new(Gpa(1 << 48), Gpa(1 << 48))
    );
    assert!(GpaRange::new(Gpa(5), Gpa(4)).is_empty());
    assert_eq!(
        GpaRange::from_len(Gpa(0x1000), u64::MAX).end(),
        Gpa(1 << 48)
    );
    let (frames, ept) = tree(CONFIG);
    assert_eq!(ept.walk(&frames, Gpa(u64::MAX)), None);
    assert!(frames.entries(Spa(1)).is_none());
}
