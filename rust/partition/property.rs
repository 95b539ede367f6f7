// SPDX-License-Identifier: GPL-2.0

//! Properties: HvCallGetPartitionProperty, HvCallSetPartitionProperty and
//! HvCallGetPartitionPropertyEx, of a partition and of the host.

use super::{cpu, Partition};
use crate::machine::Machine;
use core::sync::atomic::Ordering;
use cpumodel::CpuModel;
use hvdef::*;

/// Processors per socket that can be asked for.
const SOCKET_RANGE: core::ops::RangeInclusive<u64> = 1..=hv1::MAX_VPS as u64;

fn read<T: Wire>(input: &[u8]) -> HvResult<T> {
    T::read(input).ok_or(HV_STATUS_INVALID_PARAMETER)
}

fn put<T: Wire>(value: T, output: &mut [u8]) -> HvResult<()> {
    value.write(output).ok_or(HV_STATUS_INVALID_PARAMETER)
}

/// What the processors decide.
fn of_processor(code: u32, model: &CpuModel) -> Option<u64> {
    let (bank0, bank1, xsave) = model.banks();
    Some(match code {
        HV_PARTITION_PROPERTY_PROCESSOR_VENDOR => HV_PROCESSOR_VENDOR_INTEL,
        HV_PARTITION_PROPERTY_PROCESSOR_FEATURES0 => bank0.bits(),
        HV_PARTITION_PROPERTY_PROCESSOR_FEATURES1 => bank1.bits(),
        HV_PARTITION_PROPERTY_PROCESSOR_XSAVE_FEATURES => xsave.bits(),
        HV_PARTITION_PROPERTY_XSAVE_STATES => model.xsave().xcr0(),
        HV_PARTITION_PROPERTY_MAX_XSAVE_DATA_SIZE => {
            u64::from(model.xsave().compacted_size(model.xsave().xcr0()))
        }
        HV_PARTITION_PROPERTY_PHYSICAL_ADDRESS_WIDTH => u64::from(model.physical_address_bits()),
        _ => return None,
    })
}

/// Whether [`of_processor`] knows a property.
fn is_of_processor(code: u32) -> bool {
    matches!(
        code,
        HV_PARTITION_PROPERTY_PROCESSOR_VENDOR
            | HV_PARTITION_PROPERTY_PROCESSOR_FEATURES0
            | HV_PARTITION_PROPERTY_PROCESSOR_FEATURES1
            | HV_PARTITION_PROPERTY_PROCESSOR_XSAVE_FEATURES
            | HV_PARTITION_PROPERTY_XSAVE_STATES
            | HV_PARTITION_PROPERTY_MAX_XSAVE_DATA_SIZE
            | HV_PARTITION_PROPERTY_PHYSICAL_ADDRESS_WIDTH
    )
}

/// Properties of the host: what a partition could have at most.
pub(super) fn get_host(machine: &Machine, input: &[u8], output: &mut [u8]) -> HvResult<()> {
    let request: HvInputGetPartitionProperty = read(input)?;
    let value = match request.property_code {
        HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES => hv1::features::IMPLEMENTED.bits(),
        HV_PARTITION_PROPERTY_PROCESSOR_CLOCK_FREQUENCY => {
            u64::from(crate::sys::host::tsc_khz()) * 1000
        }
        code if is_of_processor(code) => {
            let model = cpu::largest(machine).map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)?;
            of_processor(code, &model).ok_or(HV_STATUS_UNKNOWN_PROPERTY)?
        }
        _ => return Err(HV_STATUS_UNKNOWN_PROPERTY),
    };
    put(value, output)
}

/// Properties of the host that are banks of bits.
pub(super) fn get_host_ex(input: &[u8], output: &mut [u8]) -> HvResult<()> {
    let request: HvInputGetPartitionPropertyEx = read(input)?;
    if request.arg != 0 {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let bank0 = match request.property_code {
        HV_PARTITION_PROPERTY_VMM_CAPABILITIES => {
            HV_VMM_CAPABILITY_ASSIGNABLE_SYNTHETIC_PROC_FEATURES
        }
        HV_PARTITION_PROPERTY_ASSIGNABLE_SYNTHETIC_PROC_FEATURES => {
            hv1::features::IMPLEMENTED.bits()
        }
        _ => return Err(HV_STATUS_UNKNOWN_PROPERTY),
    };
    let banks = HvPartitionPropertyBanks {
        bank_count: 1,
        reserved: [0; 3],
        bank0,
    };
    put(banks, output)
}

/// Properties of a partition. What INITIALIZE_PARTITION decides is not there before it.
pub(super) fn get(partition: &Partition, input: &[u8], output: &mut [u8]) -> HvResult<()> {
    let request: HvInputGetPartitionProperty = read(input)?;
    let config = || {
        partition
            .config()
            .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)
    };
    let value = match request.property_code {
        HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES => config()?.features.synthetic.bits(),
        HV_PARTITION_PROPERTY_PRIVILEGE_FLAGS => config()?.features.privileges.bits(),
        HV_PARTITION_PROPERTY_PROCESSOR_CLOCK_FREQUENCY => config()?.features.limits.tsc_hz,
        HV_PARTITION_PROPERTY_GUEST_OS_ID => partition.guest_os_id(),
        HV_PARTITION_PROPERTY_TIME_FREEZE => u64::from(partition.time_is_frozen()),
        HV_PARTITION_PROPERTY_REFERENCE_TIME => config()?.time.reference_time(),
        HV_PARTITION_PROPERTY_UNIMPLEMENTED_MSR_ACTION => {
            if partition.ignores_unimplemented_msrs.load(Ordering::Relaxed) {
                HV_UNIMPLEMENTED_MSR_ACTION_IGNORE_WRITE_READ_ZERO
            } else {
                HV_UNIMPLEMENTED_MSR_ACTION_FAULT
            }
        }
        HV_PARTITION_PROPERTY_GPA_PAGE_ACCESS_TRACKING => {
            u64::from(partition.memory.space.is_tracking())
        }
        HV_PARTITION_PROPERTY_PROCESSORS_PER_SOCKET => {
            u64::from(partition.processors_per_socket.load(Ordering::Relaxed))
        }
        code if is_of_processor(code) => {
            of_processor(code, &config()?.cpu).ok_or(HV_STATUS_UNKNOWN_PROPERTY)?
        }
        _ => return Err(HV_STATUS_UNKNOWN_PROPERTY),
    };
    put(value, output)
}

/// 0 or 1.
fn flag(value: u64) -> HvResult<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(HV_STATUS_INVALID_PARAMETER),
    }
}

/// Sets a property of a partition.
pub(super) fn set(partition: &Partition, input: &[u8]) -> HvResult<()> {
    let request: HvInputSetPartitionProperty = read(input)?;
    let value = request.property_value;
    match request.property_code {
        HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES => {
            if !partition.request_features(value) {
                return Err(HV_STATUS_INVALID_PARTITION_STATE);
            }
        }
        HV_PARTITION_PROPERTY_TIME_FREEZE => partition.freeze_time(flag(value)?)?,
        HV_PARTITION_PROPERTY_REFERENCE_TIME => partition.set_reference_time(value)?,
        HV_PARTITION_PROPERTY_UNIMPLEMENTED_MSR_ACTION => partition
            .ignores_unimplemented_msrs
            .store(flag(value)?, Ordering::Relaxed),
        HV_PARTITION_PROPERTY_GPA_PAGE_ACCESS_TRACKING => partition
            .memory
            .track(flag(value)?)
            .map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)?,
        HV_PARTITION_PROPERTY_PROCESSORS_PER_SOCKET => {
            if !SOCKET_RANGE.contains(&value) {
                return Err(HV_STATUS_INVALID_PARAMETER);
            }
            partition
                .processors_per_socket
                .store(value as u32, Ordering::Relaxed);
        }
        // Those that the synthetic features do not bring.
        HV_PARTITION_PROPERTY_PRIVILEGE_FLAGS => {
            if partition.config().is_ok() {
                return Err(HV_STATUS_INVALID_PARTITION_STATE);
            }
            if value & !hv1::features::BY_NAME.bits() != 0 {
                return Err(HV_STATUS_ACCESS_DENIED);
            }
            if !partition.request_privileges(HvPartitionPrivilege(value)) {
                return Err(HV_STATUS_INVALID_PARTITION_STATE);
            }
        }
        // Fixed by CREATE_PARTITION.
        code if is_of_processor(code) => return Err(HV_STATUS_INVALID_PARTITION_STATE),
        _ => return Err(HV_STATUS_UNKNOWN_PROPERTY),
    }
    Ok(())
}
