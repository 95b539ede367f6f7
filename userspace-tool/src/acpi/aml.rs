// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The few AML constructs that the DSDT needs (ACPI 6.5, chapter 20). Names are given in ASL notation with four-letter segments.

/// DefScope.
pub fn scope(path: &str, body: &[Vec<u8>]) -> Vec<u8> {
    package_of(&[0x10], &[name_string(path), body.concat()].concat())
}

/// DefDevice.
pub fn device(name: &str, body: &[Vec<u8>]) -> Vec<u8> {
    package_of(&[0x5b, 0x82], &[name_string(name), body.concat()].concat())
}

/// DefName.
pub fn name(name: &str, value: Vec<u8>) -> Vec<u8> {
    [vec![0x08], name_string(name), value].concat()
}

/// DefMethod with `arguments` arguments, serialized.
pub fn method(name: &str, arguments: u8, body: &[Vec<u8>]) -> Vec<u8> {
    package_of(
        &[0x14],
        &[name_string(name), vec![arguments | (1 << 3)], body.concat()].concat(),
    )
}

/// DefNotify.
pub fn notify(object: &str, value: u8) -> Vec<u8> {
    [vec![0x86], name_string(object), integer(value.into())].concat()
}

/// DefPackage.
pub fn package(elements: &[Vec<u8>]) -> Vec<u8> {
    package_of(
        &[0x12],
        &[vec![elements.len() as u8], elements.concat()].concat(),
    )
}

/// An integer in its shortest form.
pub fn integer(value: u32) -> Vec<u8> {
    match value {
        0 | 1 => vec![value as u8],
        2..=0xff => vec![0x0a, value as u8],
        0x100..=0xffff => [&[0x0b][..], &(value as u16).to_le_bytes()].concat(),
        _ => [&[0x0c][..], &value.to_le_bytes()].concat(),
    }
}

/// A string.
pub fn string(value: &str) -> Vec<u8> {
    [&[0x0d][..], value.as_bytes(), &[0]].concat()
}

/// A compressed EISA ID such as `PNP0501` (ACPI 19.6.36).
pub fn eisa_id(id: &str) -> Vec<u8> {
    let bytes = id.as_bytes();
    let letter = |n: usize| u32::from(bytes[n] - 0x40) & 0x1f;
    let digits = u32::from_str_radix(&id[3..7], 16).expect("an EISA ID ends in four hex digits");
    let value = (letter(0) << 26) | (letter(1) << 21) | (letter(2) << 16) | digits;
    [&[0x0c][..], &value.to_be_bytes()].concat()
}

/// A resource template: the descriptors, then the end tag.
pub fn resource_template(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let mut body = descriptors.concat();
    body.extend([0x79, 0]);
    package_of(&[0x11], &[integer(body.len() as u32), body].concat())
}

/// An edge-triggered, active-high, exclusive interrupt (ACPI 6.4.3.6).
pub fn interrupt(gsi: u32) -> Vec<u8> {
    [&[0x89, 6, 0, 0b0011, 1][..], &gsi.to_le_bytes()].concat()
}

/// A fixed range of ports (ACPI 6.4.2.5).
pub fn io(port: u16, len: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x47, 1, low, high, low, high, 0, len]
}

/// A fixed range of memory addresses (ACPI 6.4.3.4).
pub fn memory32_fixed(start: u32, len: u32) -> Vec<u8> {
    [
        &[0x86, 9, 0, 1][..],
        &start.to_le_bytes(),
        &len.to_le_bytes(),
    ]
    .concat()
}

/// `opcode`, the package length and `body`.
fn package_of(opcode: &[u8], body: &[u8]) -> Vec<u8> {
    [opcode, &package_length(body.len()), body].concat()
}

/// PkgLength: counts itself (ACPI 20.2.4).
fn package_length(body: usize) -> Vec<u8> {
    let total = |bytes: usize| body + bytes;
    if total(1) < 1 << 6 {
        return vec![total(1) as u8];
    }
    let bytes = (2..=4)
        .find(|&bytes| total(bytes) < 1 << (4 + 8 * (bytes - 1)))
        .expect("no table is that long");
    let total = total(bytes);
    let mut encoded = vec![((bytes - 1) << 6) as u8 | (total & 0xf) as u8];
    encoded.extend((1..bytes).map(|n| (total >> (4 + 8 * (n - 1))) as u8));
    encoded
}

fn name_string(path: &str) -> Vec<u8> {
    let (root, rest) = match path.strip_prefix('\\') {
        Some(rest) => (vec![b'\\'], rest),
        None => (Vec::new(), path),
    };
    let segments: Vec<&str> = rest.split('.').collect();
    let prefix = match segments.len() {
        1 => Vec::new(),
        2 => vec![0x2e],
        count => vec![0x2f, count as u8],
    };
    let mut encoded = [root, prefix].concat();
    for segment in segments {
        // Shorter segments are filled up with underscores (ACPI 5.3).
        encoded.extend(segment.bytes().chain(std::iter::repeat(b'_')).take(4));
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_lengths() {
        assert_eq!(package_length(0), [1]);
        assert_eq!(package_length(62), [63]);
        assert_eq!(package_length(63), [0x41, 0x04], "65 in two bytes");
        assert_eq!(package_length(0xffd), [0x4f, 0xff]);
        assert_eq!(
            package_length(0xffe),
            [0x81, 0x00, 0x01],
            "0x1001 in three bytes"
        );
    }

    #[test]
    fn names() {
        assert_eq!(name_string("\\_SB"), b"\\_SB_");
        assert_eq!(name_string("COM1"), b"COM1");
        assert_eq!(name_string("\\_SB.PWRB"), b"\\\x2e_SB_PWRB");
    }

    #[test]
    fn values() {
        assert_eq!(eisa_id("PNP0501"), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
        assert_eq!(integer(1), [1]);
        assert_eq!(integer(0x1234), [0x0b, 0x34, 0x12]);
        assert_eq!(
            name("_S5", package(&[integer(5), integer(0)])),
            b"\x08_S5_\x12\x05\x02\x0a\x05\x00"
        );
    }

    #[test]
    fn resources() {
        let template = resource_template(&[io(0x3f8, 8)]);
        assert_eq!(
            template,
            [0x11, 0x0d, 0x0a, 10, 0x47, 1, 0xf8, 3, 0xf8, 3, 0, 8, 0x79, 0]
        );
        assert_eq!(interrupt(5).len(), 9);
        assert_eq!(memory32_fixed(0xd000_0000, 0x1000).len(), 12);
    }
}
