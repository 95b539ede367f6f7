// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ACPI tables of a hardware-reduced platform (ACPI 6.5, chapter 5): RSDP, XSDT, FADT, MADT and DSDT.

pub mod aml;

use crate::devices::power::{RESET_VALUE, S5_SLP_TYP};
use crate::layout;

const OEM_ID: &[u8; 6] = b"HVRS  ";
const OEM_TABLE_ID: &[u8; 8] = b"HVRSVM  ";

const FADT_LEN: usize = 276;
const FADT_WBINVD: u32 = 1 << 0;
const FADT_PWR_BUTTON: u32 = 1 << 4;
const FADT_SLP_BUTTON: u32 = 1 << 5;
const FADT_RESET_REG_SUP: u32 = 1 << 10;
const FADT_HW_REDUCED_ACPI: u32 = 1 << 20;
/// IAPC_BOOT_ARCH: no VGA and no CMOS clock; bit 1 (8042) stays clear.
const FADT_VGA_NOT_PRESENT: u16 = 1 << 2;
const FADT_CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

/// The tables, to be written to [`layout::ACPI_TABLES`], where the RSDP is first.
pub fn tables(cpus: u32, virtio_devices: usize) -> Vec<u8> {
    let mut image = vec![0; 64];
    let mut place = |table: Vec<u8>| {
        image.resize(image.len().next_multiple_of(16), 0);
        let address = layout::ACPI_TABLES + image.len() as u64;
        image.extend(table);
        address
    };
    let dsdt = place(dsdt(virtio_devices));
    let fadt = place(fadt(dsdt));
    let madt = place(madt(cpus));
    let xsdt = place(xsdt(&[fadt, madt]));
    image[..36].copy_from_slice(&rsdp(xsdt));
    assert!(image.len() as u64 <= layout::ACPI_TABLES_END - layout::ACPI_TABLES);
    image
}

fn rsdp(xsdt: u64) -> [u8; 36] {
    let mut rsdp = [0; 36];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[9..15].copy_from_slice(OEM_ID);
    rsdp[15] = 2; // revision
    rsdp[20..24].copy_from_slice(&36u32.to_le_bytes());
    rsdp[24..32].copy_from_slice(&xsdt.to_le_bytes());
    rsdp[8] = checksum(&rsdp[..20]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

fn xsdt(tables: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = tables
        .iter()
        .flat_map(|address| address.to_le_bytes())
        .collect();
    table(b"XSDT", 1, &body)
}

fn fadt(dsdt: u64) -> Vec<u8> {
    // Offsets are those of the whole table (ACPI 5.2.9); `table` puts the header of 36 bytes in front.
    let mut fadt = [0; FADT_LEN];
    let mut put =
        |offset: usize, bytes: &[u8]| fadt[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(
        109,
        &(FADT_VGA_NOT_PRESENT | FADT_CMOS_RTC_NOT_PRESENT).to_le_bytes(),
    );
    // The power button and the sleep button are not in fixed hardware: there is none.
    let flags =
        FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG_SUP | FADT_HW_REDUCED_ACPI;
    put(112, &flags.to_le_bytes());
    put(116, &port_register(layout::RESET));
    put(128, &[RESET_VALUE]);
    put(131, &[5]); // minor version: ACPI 6.5
    put(140, &dsdt.to_le_bytes());
    put(244, &port_register(layout::SLEEP_CONTROL));
    put(256, &port_register(layout::SLEEP_STATUS));
    put(268, b"hvrs\0\0\0\0"); // hypervisor vendor identity
    table(b"FACP", 6, &fadt[36..])
}

/// A generic address structure for one byte-wide port (ACPI 5.2.3.2).
fn port_register(port: u16) -> [u8; 12] {
    let mut gas = [0; 12];
    gas[0] = 1; // system I/O space
    gas[1] = 8; // bits
    gas[3] = 1; // byte access
    gas[4..6].copy_from_slice(&port.to_le_bytes());
    gas
}

fn madt(cpus: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(layout::LOCAL_APIC.to_le_bytes());
    body.extend(0u32.to_le_bytes()); // no 8259s
    for cpu in 0..cpus {
        match u8::try_from(cpu) {
            Ok(id) if id != 0xff => {
                body.extend([0, 8, id, id]);
                body.extend(1u32.to_le_bytes());
            }
            _ => {
                body.extend([9, 16, 0, 0]);
                for field in [cpu, 1, cpu] {
                    body.extend(field.to_le_bytes());
                }
            }
        }
    }
    body.extend([1, 12, 0, 0]);
    body.extend((layout::IOAPIC as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    table(b"APIC", 5, &body)
}

fn dsdt(virtio_devices: usize) -> Vec<u8> {
    use aml::*;
    let mut devices = vec![
        device(
            "COM1",
            &[
                name("_HID", eisa_id("PNP0501")),
                name("_UID", integer(1)),
                name("_DDN", string("COM1")),
                name(
                    "_CRS",
                    resource_template(&[io(layout::COM1, 8), interrupt(layout::COM1_GSI)]),
                ),
            ],
        ),
        device(
            "PWRB",
            &[name("_HID", eisa_id("PNP0C0C")), name("_UID", integer(0))],
        ),
        device(
            "GED",
            &[
                name("_HID", string("ACPI0013")),
                name("_UID", integer(0)),
                name(
                    "_CRS",
                    resource_template(&[interrupt(layout::POWER_BUTTON_GSI)]),
                ),
                method("_EVT", 1, &[notify("\\_SB.PWRB", 0x80)]),
            ],
        ),
    ];
    for n in 0..virtio_devices {
        let start = layout::VIRTIO_MMIO + n as u64 * layout::VIRTIO_MMIO_STRIDE;
        let resources = [
            memory32_fixed(start as u32, layout::VIRTIO_MMIO_STRIDE as u32),
            interrupt(layout::VIRTIO_MMIO_GSI + n as u32),
        ];
        devices.push(device(
            &format!("VR{n:02X}"),
            &[
                name("_HID", string("LNRO0005")),
                name("_UID", integer(n as u32)),
                name("_CCA", integer(1)),
                name("_CRS", resource_template(&resources)),
            ],
        ));
    }
    let sleep = name("\\_S5", package(&[integer(S5_SLP_TYP.into()), integer(0)]));
    table(b"DSDT", 2, &[sleep, scope("\\_SB", &devices)].concat())
}

/// A system description table: header (ACPI 5.2.6) and body.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Vec::with_capacity(36 + body.len());
    table.extend(signature);
    table.extend((36 + body.len() as u32).to_le_bytes());
    table.extend([revision, 0]);
    table.extend(OEM_ID);
    table.extend(OEM_TABLE_ID);
    table.extend(1u32.to_le_bytes());
    table.extend(b"HVRS");
    table.extend(1u32.to_le_bytes());
    table.extend(body);
    table[9] = checksum(&table);
    table
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(image: &[u8], address: u64) -> &[u8] {
        let table = &image[(address - layout::ACPI_TABLES) as usize..];
        let len = u32::from_le_bytes(table[4..8].try_into().unwrap()) as usize;
        &table[..len]
    }

    fn address(bytes: &[u8]) -> u64 {
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    #[test]
    fn everything_is_reachable_and_sums_to_zero() {
        let image = tables(2, 3);
        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!(checksum(&image[..20]), 0);
        assert_eq!(checksum(&image[..36]), 0);
        let xsdt = at(&image, address(&image[24..32]));
        let fadt = at(&image, address(&xsdt[36..44]));
        let madt = at(&image, address(&xsdt[44..52]));
        let dsdt = at(&image, address(&fadt[140..148]));
        for (table, signature) in [
            (xsdt, b"XSDT"),
            (fadt, b"FACP"),
            (madt, b"APIC"),
            (dsdt, b"DSDT"),
        ] {
            assert_eq!(&table[..4], signature);
            assert_eq!(checksum(table), 0);
        }
        assert_eq!(fadt.len(), FADT_LEN);
        assert_eq!(
            (u32::from_le_bytes(fadt[112..116].try_into().unwrap()) >> 20) & 1,
            1,
            "hardware-reduced"
        );
        assert_eq!(fadt[248..250], 0x600u16.to_le_bytes());
        assert_eq!(madt.len(), 36 + 8 + 2 * 8 + 12);
        assert!(dsdt.windows(4).any(|w| w == b"VR02") && !dsdt.windows(4).any(|w| w == b"VR03"));
    }

    #[test]
    fn many_cpus_use_x2apic_entries() {
        assert_eq!(madt(300).len(), 36 + 8 + 255 * 8 + 45 * 16 + 12);
    }
}
