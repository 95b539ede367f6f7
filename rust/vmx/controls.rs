// SPDX-License-Identifier: GPL-2.0

//! The controls of every VP: one table, required or wanted. What is not in it is never set.

use vmxdef::controls::{adjust, entry, exit, pin, primary, secondary, Wanted};

const PIN: Wanted = Wanted {
    required: pin::EXTERNAL_INTERRUPT_EXITING | pin::NMI_EXITING | pin::VIRTUAL_NMIS,
    wanted: pin::PREEMPTION_TIMER,
};

const PRIMARY: Wanted = Wanted {
    required: primary::USE_TSC_OFFSETTING
        | primary::HLT_EXITING
        | primary::MWAIT_EXITING
        | primary::MONITOR_EXITING
        | primary::RDPMC_EXITING
        | primary::USE_TPR_SHADOW
        | primary::MOV_DR_EXITING
        | primary::UNCONDITIONAL_IO_EXITING
        | primary::USE_MSR_BITMAPS
        | primary::ACTIVATE_SECONDARY_CONTROLS,
    wanted: 0,
};

const SECONDARY: Wanted = Wanted {
    required: secondary::ENABLE_EPT | secondary::ENABLE_VPID | secondary::UNRESTRICTED_GUEST,
    wanted: secondary::ENABLE_RDTSCP
        | secondary::ENABLE_INVPCID
        | secondary::WBINVD_EXITING
        | secondary::PAUSE_LOOP_EXITING,
};

const EXIT: Wanted = Wanted {
    required: exit::SAVE_DEBUG_CONTROLS
        | exit::HOST_ADDRESS_SPACE_SIZE
        | exit::SAVE_IA32_PAT
        | exit::LOAD_IA32_PAT
        | exit::SAVE_IA32_EFER
        | exit::LOAD_IA32_EFER,
    wanted: exit::SAVE_PREEMPTION_TIMER | exit::LOAD_IA32_PERF_GLOBAL_CTRL,
};

const ENTRY: Wanted = Wanted {
    required: entry::LOAD_DEBUG_CONTROLS | entry::LOAD_IA32_PAT | entry::LOAD_IA32_EFER,
    wanted: entry::LOAD_IA32_PERF_GLOBAL_CTRL,
};

/// The five capability MSRs (SDM A.3 to A.5), the TRUE ones where there are two.
pub(crate) struct CapabilityMsrs {
    pub(crate) pin: u64,
    pub(crate) primary: u64,
    pub(crate) secondary: u64,
    pub(crate) exit: u64,
    pub(crate) entry: u64,
}

/// Control words of this machine's VPs.
#[derive(Clone, Copy)]
pub(crate) struct Controls {
    /// Pin-based.
    pub(crate) pin: u32,
    /// Primary processor-based, without the windows that entry opens.
    pub(crate) primary: u32,
    /// Secondary processor-based.
    pub(crate) secondary: u32,
    /// VM-exit.
    pub(crate) exit: u32,
    /// VM-entry, without "IA-32e mode guest".
    pub(crate) entry: u32,
    /// Accesses of descriptor tables can exit, and be let through by single steps: off unless a guest asks (F-NP1).
    pub(crate) descriptor_exits: bool,
}

impl Controls {
    /// Chooses them.
    ///
    /// # Errors
    ///
    /// The name of the first required control that the CPU lacks.
    pub(crate) fn choose(msrs: &CapabilityMsrs) -> Result<Self, &'static str> {
        let word = |wanted, capability, names: &[(u32, &'static str)]| {
            adjust(wanted, capability).map_err(|missing| {
                names
                    .iter()
                    .find(|(bit, _)| *bit == missing)
                    .map_or("unnamed control", |(_, name)| *name)
            })
        };
        let mut controls = Self {
            pin: word(PIN, msrs.pin, pin::NAMES)?,
            primary: word(PRIMARY, msrs.primary, primary::NAMES)?,
            secondary: word(SECONDARY, msrs.secondary, secondary::NAMES)?,
            exit: word(EXIT, msrs.exit, exit::NAMES)?,
            entry: word(ENTRY, msrs.entry, entry::NAMES)?,
            descriptor_exits: false,
        };
        let may = |capability: u64, bit: u32| capability >> 32 & u64::from(bit) != 0;
        controls.descriptor_exits = may(msrs.secondary, secondary::DESCRIPTOR_TABLE_EXITING)
            && may(msrs.primary, primary::MONITOR_TRAP_FLAG);
        // The timer is of use only if an exit keeps its count (SDM 26.5.1).
        if controls.exit & exit::SAVE_PREEMPTION_TIMER == 0 {
            controls.pin &= !pin::PREEMPTION_TIMER;
        }
        Ok(controls)
    }

    /// Keeps IA32_PERF_GLOBAL_CTRL's controls if both are there and `exists`. Whether they are kept.
    pub(crate) fn switch_perf_global_ctrl(&mut self, exists: bool) -> bool {
        let both = self.exit & exit::LOAD_IA32_PERF_GLOBAL_CTRL != 0
            && self.entry & entry::LOAD_IA32_PERF_GLOBAL_CTRL != 0;
        if !(exists && both) {
            self.exit &= !exit::LOAD_IA32_PERF_GLOBAL_CTRL;
            self.entry &= !entry::LOAD_IA32_PERF_GLOBAL_CTRL;
        }
        exists && both
    }
}
