// SPDX-License-Identifier: GPL-2.0

//! CPUID of the VPs as the VMM sees and changes it: HvCallRegisterInterceptResult and
//! HvCallGetVpCpuidValues. A VP has its own table of results, which its exits read without a lock.

use super::Partition;
use crate::sys::pages::PageBox;
use crate::vp::exits::cpuid::lookup;
use crate::vp::{cpuid_input, Vp};
use cpumodel::Overrides;
use hvdef::*;

type Table = Option<PageBox<Overrides>>;

fn put(table: &mut Table, result: &HvRegisterX64CpuidResultParameters) -> HvResult<()> {
    let table = match table {
        Some(table) => table,
        none => none.insert(PageBox::zeroed().map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)?),
    };
    table
        .register(result)
        .map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)
}

/// HvCallRegisterInterceptResult: for CPUID only.
pub(super) fn register(partition: &Partition, input: &[u8]) -> HvResult<()> {
    let header = HvInputRegisterInterceptResult::read(input).ok_or(HV_STATUS_INVALID_PARAMETER)?;
    if header.intercept_type != HV_INTERCEPT_TYPE_X64_CPUID {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let result = input
        .get(HvInputRegisterInterceptResult::SIZE..)
        .and_then(HvRegisterX64CpuidResultParameters::read)
        .ok_or(HV_STATUS_INVALID_PARAMETER)?;
    if partition.config().is_err() {
        return Err(HV_STATUS_INVALID_PARTITION_STATE);
    }
    let set = |vp: &Vp| {
        vp.with_core(|core| put(&mut core.cpuid_overrides, &result))
            .map_err(|_| HV_STATUS_OPERATION_FAILED)?
    };
    if header.vp_index != HV_ANY_VP {
        let vp = partition.vp(header.vp_index);
        return set(vp.ok_or(HV_STATUS_INVALID_VP_INDEX)?);
    }
    // No VP is created meanwhile that would miss it.
    let mut setup = partition.setup.lock();
    put(&mut setup.cpuid_overrides, &result)?;
    partition.vps().try_for_each(set)
}

/// HvCallGetVpCpuidValues.
pub(super) fn get(
    partition: &Partition,
    vp: &Vp,
    flags: u32,
    list: &[u8],
    output: &mut [u8],
    done: &mut u16,
) -> HvResult<()> {
    const FLAGS: u32 =
        HV_GET_VP_CPUID_VALUES_USE_VP_XFEM_XSS | HV_GET_VP_CPUID_VALUES_APPLY_REGISTERED_VALUES;
    if flags & !FLAGS != 0 {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let config = partition
        .config()
        .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
    let registered = flags & HV_GET_VP_CPUID_VALUES_APPLY_REGISTERED_VALUES != 0;
    for (leaf, out) in list
        .chunks_exact(HvCpuidLeafInfo::SIZE)
        .zip(output.chunks_exact_mut(16))
    {
        let asked = HvCpuidLeafInfo::read(leaf).ok_or(HV_STATUS_INVALID_PARAMETER)?;
        let values = if HYPERV_CPUID_RANGE.contains(&asked.eax) {
            partition.hv_cpuid(config, asked.eax)
        } else {
            vp.with_vmcs(partition, |core, vmcs| {
                let mut input = cpuid_input(core, vmcs, partition, config);
                if flags & HV_GET_VP_CPUID_VALUES_USE_VP_XFEM_XSS == 0 {
                    input.xcr0 = asked.xfem;
                }
                if registered {
                    lookup(core, config, asked.eax, asked.ecx, || input)
                } else {
                    config.cpu.lookup(asked.eax, asked.ecx, &input)
                }
            })
            .map_err(|_| HV_STATUS_OPERATION_FAILED)?
        };
        for (to, value) in out.chunks_exact_mut(4).zip(values) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        *done += 1;
    }
    Ok(())
}
