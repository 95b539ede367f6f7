// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Acceptance, priority and EOI against a model of plain sets (SDM Vol. 3, 11.8).

use std::collections::BTreeSet;

use crate::common::{esr, fresh, read, write, x2apic, xapic, Random};
use vapic::{regs, Effect, Eoi, Trigger};

/// The same state, the slow way.
#[derive(Default)]
struct Model {
    requested: BTreeSet<u8>,
    in_service: BTreeSet<u8>,
    level: BTreeSet<u8>,
    tpr: u8,
}

impl Model {
    fn ppr(&self) -> u8 {
        let in_service = self.in_service.last().map_or(0, |v| v & 0xF0);
        if self.tpr & 0xF0 >= in_service {
            self.tpr
        } else {
            in_service
        }
    }

    fn accept(&mut self, vector: u8, level: bool) -> bool {
        if vector < 16 {
            return false;
        }
        self.requested.insert(vector);
        if level {
            self.level.insert(vector);
        } else {
            self.level.remove(&vector);
        }
        true
    }

    fn pending(&self) -> Option<u8> {
        let vector = *self.requested.last()?;
        (vector >> 4 > self.ppr() >> 4).then_some(vector)
    }

    fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.requested.remove(&vector);
        self.in_service.insert(vector);
        Some(vector)
    }

    fn eoi(&mut self) -> Option<Eoi> {
        let vector = self.in_service.pop_last()?;
        Some(Eoi {
            vector,
            level_triggered: self.level.contains(&vector),
        })
    }
}

#[test]
fn random_sequences_agree_with_the_model() {
    for seed in 1..=200 {
        let mut random = Random::new(seed * 0x9E37_79B9);
        let mut apic = xapic(0);
        let mut model = Model::default();
        // Few vectors make collisions, many make nesting.
        let vectors = 1 + random.below(240);
        for step in 0..500 {
            let vector = (random.below(vectors) * 255 / vectors) as u8;
            match random.below(10) {
                0..=2 => {
                    let level = random.below(3) == 0;
                    let trigger = if level { Trigger::Level } else { Trigger::Edge };
                    assert_eq!(apic.accept(vector, trigger), model.accept(vector, level));
                }
                3..=5 => assert_eq!(apic.acknowledge(), model.acknowledge()),
                6 | 7 => assert_eq!(apic.eoi(), model.eoi()),
                8 => {
                    model.tpr = random.below(3) as u8 * (random.next() as u8 >> 1);
                    apic.set_tpr(model.tpr);
                }
                _ => {
                    let mut posted = [0u32; 8];
                    for _ in 0..random.below(4) {
                        let vector = random.next() as u8;
                        posted[usize::from(vector >> 5)] |= 1 << (vector & 31);
                        model.accept(vector, false);
                    }
                    let any =
                        posted
                            .iter()
                            .enumerate()
                            .any(|(i, &w)| if i == 0 { w >> 16 != 0 } else { w != 0 });
                    assert_eq!(apic.merge_irr(&posted, Trigger::Edge), any);
                }
            }
            assert_eq!(apic.pending(), model.pending(), "seed {seed} step {step}");
            assert_eq!(apic.ppr(), model.ppr());
            assert_eq!(apic.highest_irr(), model.requested.last().copied());
            assert_eq!(apic.highest_isr(), model.in_service.last().copied());
            assert_eq!(apic.page().get(regs::PPR), model.ppr().into());
            assert_eq!(
                apic.can_skip_eoi(),
                model.requested.is_empty()
                    && model
                        .in_service
                        .last()
                        .is_some_and(|v| !model.level.contains(v))
            );
        }
        for vector in 0..=255u8 {
            assert_eq!(apic.is_requested(vector), model.requested.contains(&vector));
            assert_eq!(
                apic.is_in_service(vector),
                model.in_service.contains(&vector)
            );
            assert_eq!(
                apic.is_level_triggered(vector),
                model.level.contains(&vector)
            );
        }
        // What the caches say holds in the page.
        let (pending, ppr) = (apic.pending(), apic.ppr());
        apic.sync_from_page();
        assert_eq!((apic.pending(), apic.ppr()), (pending, ppr));
    }
}

#[test]
fn priority_is_by_class_not_by_vector() {
    let mut apic = xapic(0);
    assert!(apic.accept(0x41, Trigger::Edge));
    assert_eq!(apic.acknowledge(), Some(0x41));
    assert!(apic.accept(0x4F, Trigger::Edge));
    assert_eq!(apic.pending(), None, "same class waits");
    assert!(apic.accept(0x50, Trigger::Edge));
    assert_eq!(apic.acknowledge(), Some(0x50));
    assert_eq!(apic.eoi().map(|eoi| eoi.vector), Some(0x50));
    assert_eq!(apic.eoi().map(|eoi| eoi.vector), Some(0x41));
    assert_eq!(apic.acknowledge(), Some(0x4F));
}

#[test]
fn tpr_masks_its_class_and_below() {
    let mut apic = xapic(0);
    apic.accept(0x5F, Trigger::Edge);
    apic.set_cr8(5);
    assert_eq!((apic.tpr(), apic.cr8(), apic.ppr()), (0x50, 5, 0x50));
    assert_eq!(apic.pending(), None);
    assert_eq!(write(&mut apic, regs::TPR, 0x4F), Effect::InterruptPending);
    assert_eq!(apic.pending(), Some(0x5F));
    assert_eq!(read(&mut apic, regs::PPR), 0x4F, "TPR with its sub-class");
    apic.acknowledge();
    assert_eq!(
        read(&mut apic, regs::PPR),
        0x50,
        "class in service, sub-class zero"
    );
    apic.set_tpr(0x53);
    assert_eq!(apic.ppr(), 0x53, "equal classes: the TPR");
}

#[test]
fn vectors_below_16_are_errors() {
    let mut apic = xapic(0);
    for vector in 0..16 {
        assert!(!apic.accept(vector, Trigger::Edge));
        assert_eq!(esr(&mut apic), regs::ESR_RECEIVE_ILLEGAL_VECTOR);
        assert_eq!(esr(&mut apic), 0);
    }
    assert!(!apic.merge_irr(&[1 << 3, 0, 0, 0, 0, 0, 0, 0], Trigger::Edge));
    assert_eq!(esr(&mut apic), regs::ESR_RECEIVE_ILLEGAL_VECTOR);
    assert_eq!(apic.highest_irr(), None);
    assert!(apic.accept(16, Trigger::Edge));
    assert_eq!(apic.pending(), Some(16));
}

#[test]
fn disabled_apics_take_nothing_and_keep_what_they_have() {
    let mut apic = fresh(0);
    assert!(
        !apic.accept(0x80, Trigger::Edge),
        "software-disabled by RESET"
    );
    assert!(!apic.merge_irr(&[!0; 8], Trigger::Edge));
    assert!(!apic.accept(3, Trigger::Edge));
    assert_eq!(esr(&mut apic), 0);
    write(&mut apic, regs::SVR, 0x1FF);
    apic.accept(0x80, Trigger::Edge);
    write(&mut apic, regs::SVR, 0xFF);
    assert!(!apic.accept(0x90, Trigger::Edge));
    assert_eq!(apic.acknowledge(), Some(0x80), "held, still to be handled");
    assert_eq!(apic.eoi().map(|eoi| eoi.vector), Some(0x80));
}

#[test]
fn tmr_follows_the_last_acceptance() {
    let mut apic = xapic(0);
    apic.accept(0x60, Trigger::Level);
    apic.acknowledge();
    assert_eq!(
        write(&mut apic, regs::EOI, 0),
        Effect::Eoi(Eoi {
            vector: 0x60,
            level_triggered: true
        })
    );
    assert_eq!(
        write(&mut apic, regs::EOI, 0),
        Effect::None,
        "nothing in service"
    );
    apic.accept(0x60, Trigger::Edge);
    apic.acknowledge();
    assert_eq!(
        write(&mut apic, regs::EOI, 0),
        Effect::Eoi(Eoi {
            vector: 0x60,
            level_triggered: false
        })
    );
    apic.merge_irr(&[0, 0, 0, 1, 0, 0, 0, 0], Trigger::Level);
    assert!(apic.is_level_triggered(0x60));
    apic.merge_irr(&[0, 0, 0, 1, 0, 0, 0, 0], Trigger::Edge);
    assert!(!apic.is_level_triggered(0x60));
}

#[test]
fn a_vector_can_be_requested_again_while_in_service() {
    let mut apic = xapic(0);
    apic.accept(0x70, Trigger::Edge);
    apic.acknowledge();
    apic.accept(0x70, Trigger::Edge);
    apic.accept(0x70, Trigger::Edge);
    assert_eq!(apic.pending(), None);
    apic.eoi();
    assert_eq!(apic.acknowledge(), Some(0x70));
    apic.eoi();
    assert_eq!(apic.acknowledge(), None, "two requests of one vector merge");
}

#[test]
fn auto_eoi_leaves_nothing_in_service() {
    let mut apic = x2apic(0);
    apic.accept(0x30, Trigger::Edge);
    apic.acknowledge();
    apic.accept(0x90, Trigger::Edge);
    assert_eq!(apic.acknowledge(), Some(0x90));
    apic.auto_eoi(0x90);
    assert_eq!((apic.ppr(), apic.highest_isr()), (0x30, Some(0x30)));
    apic.accept(0x91, Trigger::Edge);
    assert_eq!(apic.pending(), Some(0x91));
}

#[test]
fn words_across_the_whole_range() {
    let mut apic = xapic(0);
    for vector in (16..=255u8).rev().step_by(16) {
        assert!(apic.accept(vector, Trigger::Edge));
    }
    for vector in (16..=255u8).rev().step_by(16) {
        assert_eq!(apic.highest_irr(), Some(vector));
        assert_eq!(apic.acknowledge(), Some(vector));
        assert_eq!(apic.eoi().map(|eoi| eoi.vector), Some(vector));
    }
    assert_eq!(apic.highest_irr(), None);
}
