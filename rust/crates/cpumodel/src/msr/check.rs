// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whether an access is legal, and what of a written value is kept.

use super::{row, Check, MsrKind, MsrRow};
use crate::{CpuModel, Feature};
use x86def::cr;

/// #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// What the legality of a value depends on.
#[derive(Clone, Copy, Debug)]
pub struct MsrContext<'a> {
    /// The partition's processors.
    pub model: &'a CpuModel,
    /// IA32_EFER as it is.
    pub efer: u64,
    /// CR0.PG.
    pub paging: bool,
}

/// Whether bits 63:47 of `address` are equal: linear addresses have 48 bits, as LA57 is not shown.
#[inline]
const fn is_canonical(address: u64) -> bool {
    ((address << 16) as i64 >> 16) as u64 == address
}

/// The row of an MSR that this processor has.
#[inline]
fn present(msr: u32, model: &CpuModel) -> Result<&'static MsrRow, GeneralProtection> {
    row(msr)
        .filter(|row| row.needs_any.is_empty() || row.needs_any.iter().any(|&f| model.has(f)))
        .ok_or(GeneralProtection)
}

/// Whether this processor has an MSR.
#[inline]
pub fn is_implemented(msr: u32, model: &CpuModel) -> bool {
    present(msr, model).is_ok()
}

/// The row of an MSR that can be read.
#[inline]
pub fn check_read(msr: u32, model: &CpuModel) -> Result<&'static MsrRow, GeneralProtection> {
    match present(msr, model)? {
        MsrRow {
            kind: MsrKind::Command,
            ..
        } => Err(GeneralProtection),
        row => Ok(row),
    }
}

/// The row of an MSR that takes `value`, and what it is to hold then. For a row of kind [`MsrKind::Constant`] nothing
/// changes, for one of kind [`MsrKind::Apic`] the local APIC has the last word.
#[inline]
pub fn check_write(
    msr: u32,
    value: u64,
    context: &MsrContext<'_>,
) -> Result<(&'static MsrRow, u64), GeneralProtection> {
    let row = present(msr, context.model)?;
    let legal = |ok: bool| {
        if ok {
            Ok((row, value))
        } else {
            Err(GeneralProtection)
        }
    };
    match row.check {
        Check::Any | Check::Apic => Ok((row, value)),
        Check::ReadOnly => Err(GeneralProtection),
        Check::Ignored => Ok((row, row.reset)),
        Check::Bits(bits) => legal(value & !bits == 0),
        Check::Low32 => Ok((row, value & 0xffff_ffff)),
        Check::Canonical => legal(is_canonical(value)),
        Check::Efer => efer(value, context).map(|value| (row, value)),
        Check::Pat => legal(pat_is_legal(value)),
        Check::Debugctl => debugctl(value).map(|value| (row, value)),
        Check::SpecCtrl => legal(value & !spec_ctrl_bits(context.model) == 0),
        Check::Mtrr(slot) => legal(slot.is_legal(value, context.model.physical_address_bits())),
    }
}

/// IA32_EFER: LMA is the processor's, LME cannot change under paging (SDM volume 3, section 10.8.5).
fn efer(value: u64, context: &MsrContext<'_>) -> Result<u64, GeneralProtection> {
    let lme_changes = (value ^ context.efer) & cr::EFER_LME != 0;
    if value & !context.model.efer_legal_bits() != 0 || lme_changes && context.paging {
        return Err(GeneralProtection);
    }
    Ok(value & !cr::EFER_LMA | context.efer & cr::EFER_LMA)
}

/// IA32_PAT: eight memory types, UC, WC, WT, WP, WB, UC- (SDM volume 3, section 13.12.2).
const fn pat_is_legal(value: u64) -> bool {
    let mut i = 0;
    while i < 8 {
        if !matches!((value >> (8 * i)) as u8, 0 | 1 | 4..=7) {
            return false;
        }
        i += 1;
    }
    true
}

const DEBUGCTL_LBR: u64 = 1 << 0;
const DEBUGCTL_BTF: u64 = 1 << 1;

/// IA32_DEBUGCTL: single steps on branches. There are no last-branch records; old Windows asks for them all the same
/// and must not fault, so the bit does not stick.
const fn debugctl(value: u64) -> Result<u64, GeneralProtection> {
    if value & !(DEBUGCTL_LBR | DEBUGCTL_BTF) != 0 {
        return Err(GeneralProtection);
    }
    Ok(value & DEBUGCTL_BTF)
}

/// Bits of IA32_SPEC_CTRL that are there.
fn spec_ctrl_bits(model: &CpuModel) -> u64 {
    let mut bits = 0;
    for (feature, bit) in [
        (Feature::SpecCtrl, 1 << 0),
        (Feature::Stibp, 1 << 1),
        (Feature::Ssbd, 1 << 2),
    ] {
        if model.has(feature) {
            bits |= bit;
        }
    }
    bits
}
