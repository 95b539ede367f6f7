// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The decoder against iced-x86, on byte strings of which most mean nothing: both must know the
//! same instructions, with the same length, operands and address.

mod reference;

use decode::Mode;
use reference::Checker;

const MODES: [Mode; 3] = [Mode::Bits16, Mode::Bits32, Mode::Bits64];

/// A small generator of pseudo-random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self) -> [u8; 15] {
        let word = ((u128::from(self.next()) << 64) | u128::from(self.next())).to_le_bytes();
        core::array::from_fn(|i| word[i])
    }
}

/// Bytes from which instructions that the decoder knows are likely to grow.
const FERTILE: [u8; 72] = [
    0x26, 0x2e, 0x36, 0x3e, 0x40, 0x41, 0x42, 0x44, 0x48, 0x4f, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2,
    0xf3, 0x0f, 0xb6, 0xb7, 0xbe, 0xbf, 0x63, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88,
    0x89, 0x8a, 0x8b, 0xa0, 0xa1, 0xa2, 0xa3, 0xaa, 0xab, 0xac, 0xad, 0xc6, 0xc7, 0xf6, 0xf7, 0x00,
    0x01, 0x02, 0x03, 0x08, 0x09, 0x0a, 0x0b, 0x10, 0x19, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x33, 0x38,
    0x39, 0x3a, 0x3b, 0x04, 0x05, 0x24, 0x25, 0x90,
];

#[test]
fn every_two_bytes() {
    let mut checker = Checker::default();
    let mut random = Random(1);
    for head in 0..=u16::MAX {
        for mode in MODES {
            for _ in 0..4 {
                let mut bytes = random.bytes();
                bytes[..2].copy_from_slice(&head.to_le_bytes());
                checker.check(&bytes, mode);
            }
        }
    }
    assert!(checker.known > 30_000, "{}", checker.known);
}

/// Every third byte after every pair of bytes from which known instructions grow.
#[test]
fn every_third_byte() {
    let mut checker = Checker::default();
    let mut random = Random(2);
    for first in FERTILE {
        for second in 0..=255 {
            for third in 0..=255 {
                let mut bytes = random.bytes();
                bytes[..3].copy_from_slice(&[first, second, third]);
                checker.check(&bytes, MODES[random.next() as usize % 3]);
            }
        }
    }
    assert!(checker.known > 300_000, "{}", checker.known);
}

#[test]
fn random_strings() {
    let mut checker = Checker::default();
    let mut random = Random(3);
    for round in 0..400_000 {
        let mut bytes = random.bytes();
        for byte in bytes.iter_mut().take(round % 7) {
            *byte = FERTILE[random.next() as usize % FERTILE.len()];
        }
        let len = 1 + random.next() as usize % 15;
        checker.check(&bytes[..len], MODES[round % 3]);
    }
    assert!(checker.known > 50_000, "{}", checker.known);
}

/// No three bytes, with nothing or with zeros after them, upset the decoder.
#[test]
fn every_three_bytes_have_an_answer() {
    let mut known = 0;
    for head in 0..1u32 << 24 {
        let [a, b, c, _] = head.to_le_bytes();
        let mut bytes = [0; 15];
        bytes[..3].copy_from_slice(&[a, b, c]);
        // A mode by turns; each head of two bytes meets each mode.
        let mode = MODES[(head / 7 % 3) as usize];
        if let Ok(instruction) = decode::decode(&bytes, mode) {
            assert!((1..=15).contains(&instruction.len));
            let short = usize::from(instruction.len) - 1;
            assert!(decode::decode(&bytes[..short], mode).is_err());
            known += 1;
        }
    }
    assert!(known > 1_000_000, "{known}");
}

#[test]
fn no_more_than_fifteen_bytes() {
    // 11 prefixes and a MOV of 4 bytes fit, 12 do not.
    let mut bytes = vec![0x3e; 11];
    bytes.extend([0x88, 0x80, 1, 0, 0, 0]);
    assert_eq!(
        decode::decode(&bytes, Mode::Bits32),
        Err(decode::DecodeError::TooLong)
    );
    assert_eq!(
        decode::decode(&bytes[2..], Mode::Bits32).map(|i| i.len),
        Ok(15)
    );
    assert_eq!(
        decode::decode(&[0x3e; 20], Mode::Bits64),
        Err(decode::DecodeError::TooLong)
    );
}
