// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Overlay pages (section 4.1 of the matrix): which of them is visible at which guest page.
//!
//! Overlays lie in a map above that of the partition's memory. What is under them is hidden and stays as it is
//! (F-OV2); of several at one place the one that was enabled last is seen, and disabling it shows the next (F-OV4).

/// What an overlay page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayKind {
    /// Code that makes a hypercall (M-01).
    HypercallPage,
    /// Reference TSC page (M-21).
    ReferenceTsc,
    /// VP assist page (M-73).
    VpAssistPage,
    /// Synthetic interrupt message page (M-83).
    Simp,
    /// Synthetic interrupt event flags page (M-82).
    Siefp,
    /// Registers of the local APIC.
    ApicPage,
    /// Statistics page (M-E0, M-E2).
    Stats,
    /// Internal statistics page (M-E1, M-E3).
    InternalStats,
    /// Page of a monitor port, in both partitions (F-SY11).
    Monitor,
}

impl OverlayKind {
    /// The statistics page, or the internal one.
    #[inline]
    pub const fn stats(internal: bool) -> Self {
        if internal {
            Self::InternalStats
        } else {
            Self::Stats
        }
    }
}

/// Which accesses a guest may make; the rights of the hidden page do not matter (F-OV3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayRights {
    /// Stores are allowed.
    pub write: bool,
    /// Instruction fetches are allowed.
    pub execute: bool,
}

/// What an access that the rights forbid raises (F-OV9, correction E7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayFault {
    /// #GP(0).
    GeneralProtection,
    /// #MC.
    MachineCheck,
}

impl OverlayKind {
    /// Rights of the page; it can always be read.
    #[inline]
    pub const fn rights(self) -> OverlayRights {
        match self {
            Self::HypercallPage => OverlayRights {
                write: false,
                execute: true,
            },
            Self::ReferenceTsc | Self::Stats | Self::InternalStats => OverlayRights {
                write: false,
                execute: false,
            },
            Self::VpAssistPage | Self::Simp | Self::Siefp | Self::ApicPage | Self::Monitor => {
                OverlayRights {
                    write: true,
                    execute: false,
                }
            }
        }
    }

    /// What a forbidden access raises.
    #[inline]
    pub const fn fault(self) -> OverlayFault {
        match self {
            Self::HypercallPage => OverlayFault::GeneralProtection,
            _ => OverlayFault::MachineCheck,
        }
    }
}

/// One overlay page of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// What it is.
    pub kind: OverlayKind,
    /// Whose it is; `None` if it is the partition's.
    pub vp: Option<u32>,
}

impl Overlay {
    /// A page that the partition has once.
    #[inline]
    pub const fn partition(kind: OverlayKind) -> Self {
        Self { kind, vp: None }
    }

    /// A page that each VP has.
    #[inline]
    pub const fn vp(kind: OverlayKind, vp_index: u32) -> Self {
        Self {
            kind,
            vp: Some(vp_index),
        }
    }
}

/// Guest pages at which something else is visible than before; their translations have to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Where the overlay was.
    pub from: Option<u64>,
    /// Where it is.
    pub to: Option<u64>,
}

/// There is no room for another overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The enabled overlays of a partition, oldest first.
#[derive(Debug)]
pub struct Overlays<const N: usize> {
    entries: [Option<(Overlay, u64)>; N],
}

impl<const N: usize> Overlays<N> {
    /// No overlay.
    pub const fn new() -> Self {
        Self { entries: [None; N] }
    }

    /// Places `overlay` at page `gpn`, above what else is there; it is taken from where it was.
    pub fn enable(&mut self, overlay: Overlay, gpn: u64) -> Result<Changed, Full> {
        let from = self.remove(overlay);
        let Some(slot) = self.entries.iter_mut().find(|e| e.is_none()) else {
            return Err(Full);
        };
        *slot = Some((overlay, gpn));
        Ok(Changed {
            from: from.filter(|&old| old != gpn),
            to: Some(gpn),
        })
    }

    /// Takes `overlay` away.
    pub fn disable(&mut self, overlay: Overlay) -> Changed {
        Changed {
            from: self.remove(overlay),
            to: None,
        }
    }

    /// Removes the entry and closes the gap, which keeps the order.
    fn remove(&mut self, overlay: Overlay) -> Option<u64> {
        let at = self
            .entries
            .iter()
            .position(|e| e.is_some_and(|(o, _)| o == overlay))?;
        let tail = self.entries.get_mut(at..)?;
        let gpn = tail.first()?.map(|(_, gpn)| gpn);
        tail.rotate_left(1);
        *tail.last_mut()? = None;
        gpn
    }

    /// The overlay that is visible at page `gpn`.
    #[inline]
    pub fn resolve(&self, gpn: u64) -> Option<Overlay> {
        self.entries
            .iter()
            .rev()
            .flatten()
            .find(|(_, at)| *at == gpn)
            .map(|(overlay, _)| *overlay)
    }

    /// Where `overlay` is.
    pub fn location(&self, overlay: Overlay) -> Option<u64> {
        self.entries
            .iter()
            .flatten()
            .find(|(o, _)| *o == overlay)
            .map(|(_, gpn)| *gpn)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Overlay, u64)> + '_ {
        self.entries.iter().flatten().copied()
    }
}

impl<const N: usize> Default for Overlays<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::xorshift;
    use std::vec::Vec;

    const HYPERCALL: Overlay = Overlay::partition(OverlayKind::HypercallPage);
    const TSC: Overlay = Overlay::partition(OverlayKind::ReferenceTsc);

    /// F-OV4.
    #[test]
    fn last_enabled_is_on_top() {
        let mut o = Overlays::<4>::new();
        assert_eq!(
            o.enable(HYPERCALL, 7),
            Ok(Changed {
                from: None,
                to: Some(7)
            })
        );
        assert_eq!(
            o.enable(TSC, 7),
            Ok(Changed {
                from: None,
                to: Some(7)
            })
        );
        assert_eq!(o.resolve(7), Some(TSC));
        assert_eq!(
            o.disable(TSC),
            Changed {
                from: Some(7),
                to: None
            }
        );
        assert_eq!(o.resolve(7), Some(HYPERCALL));
        assert_eq!(
            o.enable(HYPERCALL, 9),
            Ok(Changed {
                from: Some(7),
                to: Some(9)
            })
        );
        assert_eq!(o.resolve(7), None);
        assert_eq!(o.disable(TSC), Changed::default());
    }

    /// F-OV3, F-OV9.
    #[test]
    fn rights() {
        let r = OverlayKind::HypercallPage.rights();
        assert!(!r.write && r.execute);
        assert_eq!(
            OverlayKind::HypercallPage.fault(),
            OverlayFault::GeneralProtection
        );
        assert!(!OverlayKind::ReferenceTsc.rights().write);
        // F-ST1.
        for internal in [false, true] {
            let kind = OverlayKind::stats(internal);
            assert!(!kind.rights().write && !kind.rights().execute);
            assert_eq!(kind.fault(), OverlayFault::MachineCheck);
        }
        assert_eq!(
            OverlayKind::ReferenceTsc.fault(),
            OverlayFault::MachineCheck
        );
    }

    /// Against a list that is kept the simple way.
    #[test]
    fn like_a_list() {
        let mut rng = 3;
        let mut o = Overlays::<8>::new();
        let mut list: Vec<(Overlay, u64)> = Vec::new();
        for _ in 0..20_000 {
            let r = xorshift(&mut rng);
            let overlay = Overlay::vp(OverlayKind::Simp, (r >> 8) as u32 % 10);
            let gpn = (r >> 16) % 4;
            let was = list
                .iter()
                .position(|(l, _)| *l == overlay)
                .map(|i| list.remove(i).1);
            if r % 3 != 0 {
                let got = o.enable(overlay, gpn);
                if list.len() < 8 {
                    list.push((overlay, gpn));
                    assert_eq!(got.unwrap().from, was.filter(|&old| old != gpn));
                } else {
                    assert_eq!(got, Err(Full));
                }
            } else {
                assert_eq!(o.disable(overlay).from, was);
            }
            for gpn in 0..4 {
                let top = list
                    .iter()
                    .rev()
                    .find(|(_, at)| *at == gpn)
                    .map(|(l, _)| *l);
                assert_eq!(o.resolve(gpn), top);
            }
            assert!(o.iter().eq(list.iter().copied()));
        }
    }
}
