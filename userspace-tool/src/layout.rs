// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where everything lies in the guest's physical address space.

/// 64-bit boot: the GDT that the kernel starts with.
pub const GDT: u64 = 0x500;
/// PVH: `hvm_start_info`, which EBX points to.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH: the module list (one entry, the initrd).
pub const PVH_MODULES: u64 = 0x6800;
/// PVH: the memory map.
pub const PVH_MEMMAP: u64 = 0x6c00;
/// 64-bit boot: `boot_params`, which RSI points to.
pub const BOOT_PARAMS: u64 = 0x7000;
/// 64-bit boot: PML4, one PDPT and four page directories that map the first 4 GiB 1:1.
pub const PAGE_TABLES: u64 = 0x9000;
/// A stack for the first instructions; it grows down from here.
pub const BOOT_STACK: u64 = 0x8ff0;
/// The kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Room for the command line, its final NUL included.
pub const CMDLINE_SIZE: usize = 0x1_0000;
/// End of conventional memory.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// RSDP and ACPI tables. Inside the area that the ACPI specification, 5.2.5.1, has firmware searched in.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// Where the ACPI tables must have ended.
pub const ACPI_TABLES_END: u64 = 0xf_0000;
/// Where a PC's firmware starts after a reset, FFFF:0000.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Start of extended memory; a bzImage is loaded here.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// RAM goes up to here at most; the rest of it continues at [`RAM_ABOVE_4G`].
pub const RAM_BELOW_4G_END: u64 = 3 << 30;
/// RAM that does not fit below [`RAM_BELOW_4G_END`].
pub const RAM_ABOVE_4G: u64 = 4 << 30;

/// First virtio-mmio device.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// From one virtio-mmio device to the next.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// Interrupt line of the first virtio-mmio device; the others follow.
pub const VIRTIO_MMIO_GSI: u32 = 5;
/// As many devices as there are interrupt lines left for them.
pub const VIRTIO_MMIO_MAX: usize = (IOAPIC_PINS as u32 - VIRTIO_MMIO_GSI) as usize;

/// The IOAPIC's registers.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Size of the IOAPIC's register window.
pub const IOAPIC_SIZE: u64 = 0x1000;
/// Interrupt lines of the IOAPIC.
pub const IOAPIC_PINS: usize = 24;
/// The local APICs' default address; the module serves it.
pub const LOCAL_APIC: u32 = 0xfee0_0000;

/// COM1.
pub const COM1: u16 = 0x3f8;
/// COM1's interrupt line.
pub const COM1_GSI: u32 = 4;
/// The power button's interrupt line (generic event device, ACPI 5.6.9).
pub const POWER_BUTTON_GSI: u32 = 1;
/// ACPI sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;
/// ACPI sleep status register.
pub const SLEEP_STATUS: u16 = 0x601;
/// ACPI reset register.
pub const RESET: u16 = 0x602;
/// The chipset's reset control register, which kernels try as well.
pub const RESET_CF9: u16 = 0xcf9;
/// With `--debug-exit`: a byte written here ends the VM.
pub const DEBUG_EXIT: u16 = 0xf4;
