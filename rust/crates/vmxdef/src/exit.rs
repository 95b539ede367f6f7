// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Basic exit reasons (SDM appendix C) and exit qualifications (SDM 28.2.1).

/// The 16-bit basic exit reason. Values that the SDM adds later are representable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ExitReason(pub u16);

macro_rules! reasons {
    ($($name:ident = $value:literal,)*) => {
        impl ExitReason {
            $(
                #[doc = concat!("Basic exit reason ", stringify!($value), ".")]
                pub const $name: ExitReason = ExitReason($value);
            )*

            /// The SDM's name of the reason, for messages.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    _ => "unknown",
                }
            }
        }
    };
}

reasons! {
    EXCEPTION_NMI = 0,
    EXTERNAL_INTERRUPT = 1,
    TRIPLE_FAULT = 2,
    INIT_SIGNAL = 3,
    SIPI_SIGNAL = 4,
    IO_SMI = 5,
    OTHER_SMI = 6,
    INTERRUPT_WINDOW = 7,
    NMI_WINDOW = 8,
    TASK_SWITCH = 9,
    CPUID = 10,
    GETSEC = 11,
    HLT = 12,
    INVD = 13,
    INVLPG = 14,
    RDPMC = 15,
    RDTSC = 16,
    RSM = 17,
    VMCALL = 18,
    VMCLEAR = 19,
    VMLAUNCH = 20,
    VMPTRLD = 21,
    VMPTRST = 22,
    VMREAD = 23,
    VMRESUME = 24,
    VMWRITE = 25,
    VMXOFF = 26,
    VMXON = 27,
    CR_ACCESS = 28,
    DR_ACCESS = 29,
    IO_INSTRUCTION = 30,
    MSR_READ = 31,
    MSR_WRITE = 32,
    INVALID_GUEST_STATE = 33,
    MSR_LOAD_FAIL = 34,
    MWAIT = 36,
    MONITOR_TRAP_FLAG = 37,
    MONITOR = 39,
    PAUSE = 40,
    MCE_DURING_VMENTRY = 41,
    TPR_BELOW_THRESHOLD = 43,
    APIC_ACCESS = 44,
    EOI_INDUCED = 45,
    GDTR_IDTR = 46,
    LDTR_TR = 47,
    EPT_VIOLATION = 48,
    EPT_MISCONFIG = 49,
    INVEPT = 50,
    RDTSCP = 51,
    PREEMPTION_TIMER = 52,
    INVVPID = 53,
    WBINVD = 54,
    XSETBV = 55,
    APIC_WRITE = 56,
    RDRAND = 57,
    INVPCID = 58,
    VMFUNC = 59,
    ENCLS = 60,
    RDSEED = 61,
    PML_FULL = 62,
    XSAVES = 63,
    XRSTORS = 64,
    PCONFIG = 65,
    SPP = 66,
    UMWAIT = 67,
    TPAUSE = 68,
    LOADIWKEY = 69,
    ENCLV = 70,
    ENQCMD_PASID = 72,
    ENQCMDS_PASID = 73,
    BUS_LOCK = 74,
    NOTIFY = 75,
}

/// Bit 31 of the exit reason: the VM entry failed after its checks of controls and host state.
pub const EXIT_REASON_ENTRY_FAILURE: u32 = 1 << 31;

/// Qualification of an EPT violation (SDM table 28-7).
#[derive(Clone, Copy, Debug)]
pub struct EptViolation(pub u64);

impl EptViolation {
    /// A data read, of no linear address.
    pub const READ: Self = Self(1);
    /// A data write, of no linear address.
    pub const WRITE: Self = Self(1 << 1);

    /// The access was a data read.
    #[inline]
    pub const fn read(self) -> bool {
        self.0 & 1 != 0
    }
    /// The access was a data write.
    #[inline]
    pub const fn write(self) -> bool {
        self.0 & 2 != 0
    }
    /// The access was an instruction fetch.
    #[inline]
    pub const fn fetch(self) -> bool {
        self.0 & 4 != 0
    }
    /// Some right was present in the EPT entries used.
    #[inline]
    pub const fn present(self) -> bool {
        self.0 & 0x38 != 0
    }
    /// GUEST_LINEAR_ADDRESS is valid.
    #[inline]
    pub const fn gla_valid(self) -> bool {
        self.0 & (1 << 7) != 0
    }
    /// The access was to the translation of the linear address, not to a paging structure.
    #[inline]
    pub const fn gla_translated(self) -> bool {
        self.0 & (1 << 8) != 0
    }
    /// The access happened while IRET unblocked NMIs (SDM 28.2.3).
    #[inline]
    pub const fn nmi_unblocking(self) -> bool {
        self.0 & (1 << 12) != 0
    }
}

/// Qualification of an I/O instruction exit (SDM table 28-5).
#[derive(Clone, Copy, Debug)]
pub struct IoAccess(pub u64);

impl IoAccess {
    /// Bytes of one access: 1, 2 or 4.
    #[inline]
    pub const fn size(self) -> u8 {
        (self.0 & 7) as u8 + 1
    }
    /// IN or INS.
    #[inline]
    pub const fn is_in(self) -> bool {
        self.0 & 8 != 0
    }
    /// INS or OUTS.
    #[inline]
    pub const fn is_string(self) -> bool {
        self.0 & 0x10 != 0
    }
    /// With a REP prefix.
    #[inline]
    pub const fn is_rep(self) -> bool {
        self.0 & 0x20 != 0
    }
    /// The port.
    #[inline]
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Qualification of a control-register access (SDM table 28-3).
#[derive(Clone, Copy, Debug)]
pub struct CrAccess(pub u64);

impl CrAccess {
    /// The control register: 0, 3, 4 or 8.
    #[inline]
    pub const fn register(self) -> u8 {
        (self.0 & 15) as u8
    }
    /// 0 MOV to CR, 1 MOV from CR, 2 CLTS, 3 LMSW.
    #[inline]
    pub const fn access_type(self) -> u8 {
        ((self.0 >> 4) & 3) as u8
    }
    /// The general-purpose register of a MOV, in instruction encoding order.
    #[inline]
    pub const fn gpr(self) -> u8 {
        ((self.0 >> 8) & 15) as u8
    }
}

/// Qualification of a MOV DR (SDM table 28-4).
#[derive(Clone, Copy, Debug)]
pub struct DrAccess(pub u64);

impl DrAccess {
    /// The debug register, 0 to 7.
    #[inline]
    pub const fn register(self) -> u8 {
        (self.0 & 7) as u8
    }
    /// MOV from DR.
    #[inline]
    pub const fn is_read(self) -> bool {
        self.0 & 0x10 != 0
    }
    /// The general-purpose register, in instruction encoding order.
    #[inline]
    pub const fn gpr(self) -> u8 {
        ((self.0 >> 8) & 15) as u8
    }
}
