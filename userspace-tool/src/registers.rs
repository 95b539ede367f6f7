// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A VP's registers: through the register page, which costs no system call, or else by hypercall.

use mshv_bindings::*;
use mshv_ioctls::VcpuFd;

use crate::layout;
use crate::loader::Entry;
use crate::mmio_emulate::CpuState;

type Result<T> = std::result::Result<T, mshv_ioctls::MshvError>;

const DIRTY_GENERAL: u32 = 1 << HV_X64_REGISTER_CLASS_GENERAL;
const DIRTY_IP: u32 = 1 << HV_X64_REGISTER_CLASS_IP;
const DIRTY_FLAGS: u32 = 1 << HV_X64_REGISTER_CLASS_FLAGS;

/// Register names in the order of [`CpuState::gpr`].
const GPR_NAMES: [hv_register_name; 16] = [
    hv_register_name_HV_X64_REGISTER_RAX,
    hv_register_name_HV_X64_REGISTER_RCX,
    hv_register_name_HV_X64_REGISTER_RDX,
    hv_register_name_HV_X64_REGISTER_RBX,
    hv_register_name_HV_X64_REGISTER_RSP,
    hv_register_name_HV_X64_REGISTER_RBP,
    hv_register_name_HV_X64_REGISTER_RSI,
    hv_register_name_HV_X64_REGISTER_RDI,
    hv_register_name_HV_X64_REGISTER_R8,
    hv_register_name_HV_X64_REGISTER_R9,
    hv_register_name_HV_X64_REGISTER_R10,
    hv_register_name_HV_X64_REGISTER_R11,
    hv_register_name_HV_X64_REGISTER_R12,
    hv_register_name_HV_X64_REGISTER_R13,
    hv_register_name_HV_X64_REGISTER_R14,
    hv_register_name_HV_X64_REGISTER_R15,
];

const RAX: usize = 0;
const RBX: usize = 3;
const RSP: usize = 4;
const RSI: usize = 6;

fn assoc(name: hv_register_name, value: u64) -> hv_register_assoc {
    hv_register_assoc {
        name,
        value: hv_register_value { reg64: value },
        ..Default::default()
    }
}

/// The register page, if it holds the registers now.
#[inline]
fn valid_page(vp: &VcpuFd) -> Option<*mut hv_vp_register_page> {
    let page = vp.get_vp_reg_page()?.0;
    // SAFETY: the page stays mapped as long as the VP exists. The kernel writes it in RUN_VP only, which the caller's thread, the only
    // one that uses this VP, is not in.
    let valid = unsafe { (&raw const (*page).isvalid).read_volatile() };
    (valid != 0).then_some(page)
}

/// Sets RIP, and RAX when `rax` is given: all that a port access needs.
#[inline]
pub fn set_rip_rax(vp: &VcpuFd, rip: u64, rax: Option<u64>) -> Result<()> {
    match valid_page(vp) {
        Some(page) => {
            // SAFETY: as in `valid_page`. The union's variants are the same registers, by name and as an array.
            unsafe {
                let registers = (&raw mut (*page).__bindgen_anon_1).cast::<u64>();
                registers.add(16).write_unaligned(rip);
                let mut dirty = DIRTY_IP;
                if let Some(rax) = rax {
                    registers.add(RAX).write_unaligned(rax);
                    dirty |= DIRTY_GENERAL;
                }
                let page_dirty = &raw mut (*page).dirty;
                page_dirty.write_volatile(page_dirty.read_volatile() | dirty);
            }
            Ok(())
        }
        None => set_rip_rax_by_hypercall(vp, rip, rax),
    }
}

#[cold]
fn set_rip_rax_by_hypercall(vp: &VcpuFd, rip: u64, rax: Option<u64>) -> Result<()> {
    let rip = assoc(hv_register_name_HV_X64_REGISTER_RIP, rip);
    match rax {
        Some(rax) => vp.set_reg(&[rip, assoc(GPR_NAMES[RAX], rax)]),
        None => vp.set_reg(&[rip]),
    }
}

/// General registers, RIP and RFLAGS.
pub fn cpu_state(vp: &VcpuFd) -> Result<CpuState> {
    let mut registers = [0; 18];
    match valid_page(vp) {
        Some(page) => {
            // SAFETY: as in `set_rip_rax`.
            registers = unsafe {
                (&raw const (*page).__bindgen_anon_1)
                    .cast::<[u64; 18]>()
                    .read_unaligned()
            };
        }
        None => {
            let mut assocs = [hv_register_assoc::default(); 18];
            for (assoc, name) in assocs.iter_mut().zip(register_names()) {
                assoc.name = name;
            }
            vp.get_reg(&mut assocs)?;
            for (register, assoc) in registers.iter_mut().zip(&assocs) {
                // SAFETY: the kernel wrote 64-bit values for these names.
                *register = unsafe { assoc.value.reg64 };
            }
        }
    }
    let [gpr @ .., rip, rflags] = registers;
    Ok(CpuState { gpr, rip, rflags })
}

/// The reverse of [`cpu_state`].
pub fn set_cpu_state(vp: &VcpuFd, state: &CpuState) -> Result<()> {
    match valid_page(vp) {
        Some(page) => {
            // SAFETY: as in `set_rip_rax`.
            unsafe {
                let registers = (&raw mut (*page).__bindgen_anon_1).cast::<u64>();
                for (n, value) in state
                    .gpr
                    .iter()
                    .chain([&state.rip, &state.rflags])
                    .enumerate()
                {
                    registers.add(n).write_unaligned(*value);
                }
                let page_dirty = &raw mut (*page).dirty;
                page_dirty.write_volatile(
                    page_dirty.read_volatile() | DIRTY_GENERAL | DIRTY_IP | DIRTY_FLAGS,
                );
            }
            Ok(())
        }
        None => {
            let mut assocs = [hv_register_assoc::default(); 18];
            let values = state.gpr.iter().chain([&state.rip, &state.rflags]);
            for ((to, name), value) in assocs.iter_mut().zip(register_names()).zip(values) {
                *to = assoc(name, *value);
            }
            vp.set_reg(&assocs)
        }
    }
}

fn register_names() -> impl Iterator<Item = hv_register_name> {
    GPR_NAMES.into_iter().chain([
        hv_register_name_HV_X64_REGISTER_RIP,
        hv_register_name_HV_X64_REGISTER_RFLAGS,
    ])
}

/// A segment's base address.
pub fn segment_base(vp: &VcpuFd, name: hv_register_name) -> Result<u64> {
    let mut assocs = [hv_register_assoc {
        name,
        ..Default::default()
    }];
    vp.get_reg(&mut assocs)?;
    // SAFETY: the kernel wrote a segment for this name.
    Ok(unsafe { assocs[0].value.segment.base })
}

/// HV_X64_MSR_CRASH_P0 to P4.
pub fn crash_parameters(vp: &VcpuFd) -> Result<[u64; 5]> {
    let mut assocs = [0, 1, 2, 3, 4].map(|n| hv_register_assoc {
        name: hv_register_name_HV_REGISTER_GUEST_CRASH_P0 + n,
        ..Default::default()
    });
    vp.get_reg(&mut assocs)?;
    // SAFETY: the kernel wrote 64-bit values for these names.
    Ok(assocs.map(|assoc| unsafe { assoc.value.reg64 }))
}

/// Makes the VP take a page fault at `address` before its next instruction.
pub fn raise_page_fault(vp: &VcpuFd, address: u64, error_code: u32) -> Result<()> {
    // HV_X64_PENDING_EXCEPTION_EVENT: pending, with error code, vector 14; the parameter is CR2.
    let event = 1 | (1 << 8) | (14 << 16) | (u64::from(error_code) << 32);
    vp.set_reg(&[hv_register_assoc {
        name: hv_register_name_HV_REGISTER_PENDING_EVENT0,
        value: hv_register_value {
            reg128: hv_u128 {
                low_part: event,
                high_part: address,
            },
        },
        ..Default::default()
    }])
}

/// Access rights of a segment as in the VMCS: present, type, S and, where it applies, L, D/B and G.
const CODE_64: u16 = 0xa09b;
const CODE_32: u16 = 0xc09b;
const DATA_32: u16 = 0xc093;
const BUSY_TSS: u16 = 0x008b;

/// Selectors of the boot GDT, `__BOOT_CS` and `__BOOT_DS` of Linux' boot protocol.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 1 << 1;

/// MTRRs on, write-back by default: the guest's RAM and devices need no more.
const MTRR_ENABLED_WRITE_BACK: u64 = (1 << 11) | 6;

/// The boot GDT, to be written to [`layout::GDT`].
pub fn boot_gdt(entry: Entry) -> [u64; 4] {
    let code = match entry {
        Entry::Linux64(_) => 0x00af_9b00_0000_ffff,
        Entry::Pvh(_) => 0x00cf_9b00_0000_ffff,
    };
    [0, 0, code, 0x00cf_9300_0000_ffff]
}

/// Sets up a VP that has just been created. The boot VP gets the state that `entry` needs; the others wait for INIT and SIPI.
pub fn set_initial_state(vp: &VcpuFd, index: u32, entry: Entry) -> Result<()> {
    vp.set_reg(&[assoc(
        hv_register_name_HV_X64_REGISTER_MSR_MTRR_DEF_TYPE,
        MTRR_ENABLED_WRITE_BACK,
    )])?;
    if index != 0 {
        return Ok(());
    }
    let segment = |name, selector, limit, attributes| {
        let mut segment = hv_x64_segment_register {
            base: 0,
            limit,
            selector,
            ..Default::default()
        };
        segment.__bindgen_anon_1.attributes = attributes;
        hv_register_assoc {
            name,
            value: hv_register_value { segment },
            ..Default::default()
        }
    };
    let table = |name, base, limit| {
        let table = hv_x64_table_register {
            base,
            limit,
            ..Default::default()
        };
        hv_register_assoc {
            name,
            value: hv_register_value { table },
            ..Default::default()
        }
    };
    let (code, cr0, cr3, cr4, efer, rip, argument) = match entry {
        Entry::Linux64(rip) => (
            CODE_64,
            CR0_PE | CR0_ET | CR0_PG,
            layout::PAGE_TABLES,
            CR4_PAE,
            EFER_LME | EFER_LMA,
            rip,
            (RSI, layout::BOOT_PARAMS),
        ),
        Entry::Pvh(eip) => (
            CODE_32,
            CR0_PE | CR0_ET,
            0,
            0,
            0,
            eip.into(),
            (RBX, layout::PVH_START_INFO),
        ),
    };
    let mut registers = vec![
        assoc(hv_register_name_HV_X64_REGISTER_EFER, efer),
        assoc(hv_register_name_HV_X64_REGISTER_CR4, cr4),
        assoc(hv_register_name_HV_X64_REGISTER_CR3, cr3),
        assoc(hv_register_name_HV_X64_REGISTER_CR0, cr0),
        table(hv_register_name_HV_X64_REGISTER_GDTR, layout::GDT, 31),
        table(hv_register_name_HV_X64_REGISTER_IDTR, 0, 0),
        segment(hv_register_name_HV_X64_REGISTER_CS, BOOT_CS, u32::MAX, code),
        segment(hv_register_name_HV_X64_REGISTER_TR, 0, 0x67, BUSY_TSS),
        assoc(hv_register_name_HV_X64_REGISTER_RFLAGS, RFLAGS_RESERVED),
        assoc(hv_register_name_HV_X64_REGISTER_RIP, rip),
        assoc(GPR_NAMES[RSP], layout::BOOT_STACK),
        assoc(GPR_NAMES[argument.0], argument.1),
    ];
    for name in [
        hv_register_name_HV_X64_REGISTER_DS,
        hv_register_name_HV_X64_REGISTER_ES,
        hv_register_name_HV_X64_REGISTER_FS,
        hv_register_name_HV_X64_REGISTER_GS,
        hv_register_name_HV_X64_REGISTER_SS,
    ] {
        registers.push(segment(name, BOOT_DS, u32::MAX, DATA_32));
    }
    vp.set_reg(&registers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_layout_is_what_the_code_assumes() {
        assert_eq!(std::mem::offset_of!(hv_vp_register_page, dirty), 4);
        assert_eq!(
            std::mem::offset_of!(hv_vp_register_page, __bindgen_anon_1),
            8
        );
        for (n, name) in GPR_NAMES.iter().enumerate() {
            assert_eq!(*name, hv_register_name_HV_X64_REGISTER_RAX + n as u32);
        }
    }

    #[test]
    fn gdt_agrees_with_the_selectors() {
        for entry in [Entry::Linux64(0), Entry::Pvh(0)] {
            let gdt = boot_gdt(entry);
            let rights = |selector: u16| ((gdt[usize::from(selector / 8)] >> 40) & 0xf0ff) as u16;
            let code = if entry == Entry::Pvh(0) {
                CODE_32
            } else {
                CODE_64
            };
            assert_eq!((rights(BOOT_CS), rights(BOOT_DS)), (code, DATA_32));
        }
    }
}
