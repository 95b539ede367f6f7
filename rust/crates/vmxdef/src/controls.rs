// SPDX-License-Identifier: GPL-2.0 OR MIT

//! VM-execution, VM-exit and VM-entry controls (SDM 25.6 to 25.8).

macro_rules! bits {
    ($(#[$meta:meta])* $module:ident { $($name:ident = $bit:literal,)* }) => {
        $(#[$meta])*
        pub mod $module {
            $(
                #[doc = concat!("Bit ", stringify!($bit), ".")]
                pub const $name: u32 = 1 << $bit;
            )*

            /// The names of the controls of this word, by bit.
            pub const NAMES: &[(u32, &str)] = &[$(($name, stringify!($name)),)*];
        }
    };
}

bits! {
    /// Pin-based VM-execution controls.
    pin {
        EXTERNAL_INTERRUPT_EXITING = 0,
        NMI_EXITING = 3,
        VIRTUAL_NMIS = 5,
        PREEMPTION_TIMER = 6,
        POSTED_INTERRUPTS = 7,
    }
}
bits! {
    /// Primary processor-based VM-execution controls.
    primary {
        INTERRUPT_WINDOW_EXITING = 2,
        USE_TSC_OFFSETTING = 3,
        HLT_EXITING = 7,
        INVLPG_EXITING = 9,
        MWAIT_EXITING = 10,
        RDPMC_EXITING = 11,
        RDTSC_EXITING = 12,
        CR3_LOAD_EXITING = 15,
        CR3_STORE_EXITING = 16,
        CR8_LOAD_EXITING = 19,
        CR8_STORE_EXITING = 20,
        USE_TPR_SHADOW = 21,
        NMI_WINDOW_EXITING = 22,
        MOV_DR_EXITING = 23,
        UNCONDITIONAL_IO_EXITING = 24,
        USE_IO_BITMAPS = 25,
        MONITOR_TRAP_FLAG = 27,
        USE_MSR_BITMAPS = 28,
        MONITOR_EXITING = 29,
        PAUSE_EXITING = 30,
        ACTIVATE_SECONDARY_CONTROLS = 31,
    }
}
bits! {
    /// Secondary processor-based VM-execution controls.
    secondary {
        VIRTUALIZE_APIC_ACCESSES = 0,
        ENABLE_EPT = 1,
        DESCRIPTOR_TABLE_EXITING = 2,
        ENABLE_RDTSCP = 3,
        VIRTUALIZE_X2APIC_MODE = 4,
        ENABLE_VPID = 5,
        WBINVD_EXITING = 6,
        UNRESTRICTED_GUEST = 7,
        APIC_REGISTER_VIRTUALIZATION = 8,
        VIRTUAL_INTERRUPT_DELIVERY = 9,
        PAUSE_LOOP_EXITING = 10,
        RDRAND_EXITING = 11,
        ENABLE_INVPCID = 12,
        ENABLE_VMFUNC = 13,
        VMCS_SHADOWING = 14,
        ENABLE_ENCLS_EXITING = 15,
        RDSEED_EXITING = 16,
        ENABLE_PML = 17,
        EPT_VIOLATION_VE = 18,
        CONCEAL_VMX_FROM_PT = 19,
        ENABLE_XSAVES = 20,
        MODE_BASED_EXECUTE_CONTROL = 22,
        USE_TSC_SCALING = 25,
        ENABLE_USER_WAIT_AND_PAUSE = 26,
    }
}
bits! {
    /// VM-exit controls.
    exit {
        SAVE_DEBUG_CONTROLS = 2,
        HOST_ADDRESS_SPACE_SIZE = 9,
        LOAD_IA32_PERF_GLOBAL_CTRL = 12,
        ACKNOWLEDGE_INTERRUPT_ON_EXIT = 15,
        SAVE_IA32_PAT = 18,
        LOAD_IA32_PAT = 19,
        SAVE_IA32_EFER = 20,
        LOAD_IA32_EFER = 21,
        SAVE_PREEMPTION_TIMER = 22,
        CLEAR_IA32_BNDCFGS = 23,
        CONCEAL_VMX_FROM_PT = 24,
        CLEAR_IA32_RTIT_CTL = 25,
        LOAD_CET_STATE = 28,
    }
}
bits! {
    /// VM-entry controls.
    entry {
        LOAD_DEBUG_CONTROLS = 2,
        IA32E_MODE_GUEST = 9,
        ENTRY_TO_SMM = 10,
        LOAD_IA32_PERF_GLOBAL_CTRL = 13,
        LOAD_IA32_PAT = 14,
        LOAD_IA32_EFER = 15,
        LOAD_IA32_BNDCFGS = 16,
        CONCEAL_VMX_FROM_PT = 17,
        LOAD_IA32_RTIT_CTL = 18,
        LOAD_CET_STATE = 20,
    }
}

/// One word of controls as the capability MSR allows it and as we want it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Must be 1: without it hvrs does not run.
    pub required: u32,
    /// Set to 1 where the CPU can.
    pub wanted: u32,
}

/// Combines `wanted` with the capability MSR `capability` (SDM A.3 to A.5: bits 31:0 are the
/// allowed 0-settings, bits 63:32 the allowed 1-settings).
///
/// Controls that the capability MSR forces to 1 stay 1: they are the SDM's "default1" class.
///
/// # Errors
///
/// The lowest required control that the CPU does not have.
pub const fn adjust(wanted: Wanted, capability: u64) -> Result<u32, u32> {
    let must = capability as u32;
    let may = (capability >> 32) as u32;
    let missing = wanted.required & !may;
    if missing != 0 {
        return Err(missing & missing.wrapping_neg());
    }
    Ok((wanted.required | wanted.wanted) & may | must)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjust_names_the_missing_control() {
        let w = Wanted {
            required: primary::HLT_EXITING | primary::USE_MSR_BITMAPS,
            wanted: primary::USE_TPR_SHADOW,
        };
        let all = 0xffff_ffff_0000_0000;
        assert_eq!(adjust(w, all), Ok(w.required | w.wanted));
        // Forced ones stay, a wanted control that is absent is left out.
        let caps = all & !((primary::USE_TPR_SHADOW as u64) << 32) | 0x10;
        assert_eq!(adjust(w, caps), Ok(w.required | 0x10));
        let caps = all & !((primary::USE_MSR_BITMAPS as u64) << 32);
        assert_eq!(adjust(w, caps), Err(primary::USE_MSR_BITMAPS));
    }
}
