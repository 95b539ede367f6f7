// SPDX-License-Identifier: GPL-2.0 OR MIT

#![allow(clippy::precedence)] // Control words, field by field.

use super::*;
use crate::testing::xorshift;

const LIMITS: ContextLimits = ContextLimits {
    cr4: 0x3f_17ff,
    efer: 0xd01,
    physical_address_bits: 39,
};

const CODE_64: u64 = 0xa09b;
const CODE_32: u64 = 0xc09b;
const DATA: u64 = 0xc093;

fn attributes(words: &mut [u64; CONTEXT_WORDS], at: usize, value: u64) {
    words[at + 1] = words[at + 1] & !(0xffff << 48) | value << 48;
}

/// Flat segments, busy TSS, no LDT.
fn flat(code: u64) -> [u64; CONTEXT_WORDS] {
    let mut words = [0; CONTEXT_WORDS];
    words[0] = 0x10_0000;
    words[2] = 2;
    for at in [at::CS, at::DS, at::ES, at::FS, at::GS, at::SS] {
        words[at + 1] = 0xffff_ffff;
        attributes(&mut words, at, DATA);
    }
    attributes(&mut words, at::CS, code);
    words[at::TR + 1] = 0x67 | 0x8b << 48;
    words[27] = 0x0007_0406_0007_0406;
    words
}

fn long() -> [u64; CONTEXT_WORDS] {
    let mut words = flat(CODE_64);
    (words[23], words[24], words[25], words[26]) = (0xd00, 0x8005_0033, 0x1000, 0x20);
    words
}

fn legal(words: [u64; CONTEXT_WORDS]) -> bool {
    InitialVpContext(words).is_legal(&LIMITS)
}

/// H-99: long mode, 32-bit with and without paging, real mode.
#[test]
fn modes() {
    assert!(legal(long()));
    let mut words = flat(CODE_32);
    words[24] = 0x11;
    assert!(legal(words), "protected mode");
    words[24] = 0x8000_0011;
    assert!(legal(words), "32-bit paging");
    words[26] = 0x20;
    assert!(!legal(words), "PAE paging, whose PDPTEs would be missing");
    let mut words = flat(CODE_32);
    words[24] = 0x10;
    for at in [at::CS, at::DS, at::ES, at::FS, at::GS, at::SS] {
        words[at + 1] = 0xffff;
        attributes(&mut words, at, 0x93);
    }
    assert!(legal(words), "real mode");
    // Compatibility mode has a RIP of 32 bits.
    let mut words = long();
    attributes(&mut words, at::CS, CODE_32);
    assert!(legal(words));
    words[0] |= 1 << 32;
    assert!(!legal(words));
    assert!(!legal([0; CONTEXT_WORDS]));
}

/// What a single bit breaks, and what it does not.
#[test]
fn single_bits() {
    let good = long();
    let flipped = |at: usize, bit: u32| {
        let mut words = good;
        words[at] ^= 1 << bit;
        legal(words)
    };
    let taken = |at: usize| {
        (0..64)
            .filter(|&bit| flipped(at, bit))
            .fold(0u64, |sum, bit| sum | 1 << bit)
    };
    assert_eq!(taken(0), (1 << 47) - 1, "RIP is canonical");
    assert_eq!(taken(1), u64::MAX, "RSP is anything");
    assert_eq!(taken(2), 0x3f_7fd5 & !(1 << 17), "RFLAGS");
    assert_eq!(taken(23), 1 | 1 << 11, "EFER: LME and LMA go together");
    let cr0 = 0x4005_003e;
    assert_eq!(taken(24), cr0, "CR0: PE, PG and NW must fit");
    assert_eq!(taken(25), (1 << 39) - 1, "CR3");
    assert_eq!(taken(26), LIMITS.cr4 & !0x20, "CR4");
    // Every base but those of FS, GS and the tables has 32 bits.
    for at in [at::CS, at::DS, at::ES, at::SS] {
        assert_eq!(taken(at), u64::from(u32::MAX), "base {at}");
    }
    for at in [at::FS, at::GS, at::TR, at::IDTR + 1, at::GDTR + 1] {
        assert_eq!(taken(at), (1 << 47) - 1, "base {at}");
    }
    // An LDTR that is not there may be anything.
    assert_eq!(taken(at::LDTR), u64::MAX);
}

/// Whatever comes: an answer, no panic; and a context that was taken stays taken with other values of what does not
/// matter.
#[test]
fn random() {
    let mut rng = 11;
    let mut taken = 0;
    for _ in 0..400_000 {
        let mut words = long();
        for _ in 0..xorshift(&mut rng) % 3 {
            let at = xorshift(&mut rng) as usize % CONTEXT_WORDS;
            words[at] = match xorshift(&mut rng) % 3 {
                0 => xorshift(&mut rng),
                1 => words[at] ^ 1 << (xorshift(&mut rng) % 64),
                _ => xorshift(&mut rng) >> (xorshift(&mut rng) % 64),
            };
        }
        let was = legal(words);
        taken += u32::from(was);
        words[1] = xorshift(&mut rng);
        assert_eq!(legal(words), was);
        // Never beyond what the processor has.
        let context = InitialVpContext(words);
        assert!(!was || context.cr4() & !LIMITS.cr4 == 0 && context.efer() & !LIMITS.efer == 0);
    }
    assert!(taken > 50_000 && taken < 390_000, "{taken}");
}

#[test]
fn a_slot_takes_one_context() {
    let slot = StartSlot::new();
    let context = InitialVpContext(long());
    assert!(!slot.start(&context), "it runs");
    slot.wait();
    assert!(slot.waits() && slot.take().is_none());
    assert!(slot.start(&context));
    assert!(!slot.waits() && !slot.start(&context), "once");
    assert!(!slot.take_sipi(), "the call was first");
    slot.wait();
    assert_eq!(slot.take(), Some(context));
    assert!(slot.take().is_none() && !slot.take_sipi());
    slot.wait();
    assert!(slot.take_sipi());
    assert!(!slot.start(&context), "the start-up IPI was first");
}

/// Several try to start it at once: one does, and its context is whole.
#[test]
fn one_of_many_starts_it() {
    let slot = StartSlot::new();
    for round in 0..200u64 {
        slot.wait();
        let started: u32 = std::thread::scope(|scope| {
            let tries: std::vec::Vec<_> = (0..3)
                .map(|i| {
                    let slot = &slot;
                    scope.spawn(move || {
                        slot.start(&InitialVpContext([round << 8 | i; CONTEXT_WORDS]))
                    })
                })
                .collect();
            tries
                .into_iter()
                .map(|t| u32::from(t.join().unwrap()))
                .sum()
        });
        assert_eq!(started, 1);
        let words = slot.take().unwrap().0;
        assert!(words.iter().all(|w| *w == words[0]));
    }
}
