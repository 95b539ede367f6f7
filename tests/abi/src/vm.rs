// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Partitions and VPs by the raw ioctls of /dev/mshv, with the structures of the crate `mshv-bindings`. The numbers are
//! written out, because VMMs are compiled with them.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use mshv_bindings::*;

use crate::guests::Code;
use crate::run::{good, Stop};
use crate::sys::{self, Memory, Sys};

pub const CREATE_PARTITION: u32 = 0x4010_b800;
pub const INITIALIZE_PARTITION: u32 = 0xb800;
pub const CREATE_VP: u32 = 0x4004_b801;
pub const SET_GUEST_MEMORY: u32 = 0x4020_b802;
pub const ROOT_HVCALL: u32 = 0xc020_b807;
pub const RUN_VP: u32 = 0x8100_b800;

/// Flags of a partition that VMMs ask for: local APIC, x2APIC.
pub const FLAGS: u64 = (1 << MSHV_PT_BIT_LAPIC) | (1 << MSHV_PT_BIT_X2APIC);
/// With large pages.
pub const SUPER_PAGES: u64 = FLAGS | (1 << MSHV_PT_BIT_GPA_SUPER_PAGES);

pub const WRITABLE: u8 = 1;
pub const EXECUTABLE: u8 = 2;
pub const UNMAP: u8 = 4;
pub const RWX: u8 = WRITABLE | EXECUTABLE;

/// Opens /dev/mshv as the crate does: read-only.
pub fn device() -> OwnedFd {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    sys::open("/dev/mshv", flags).expect("/dev/mshv opens")
}

/// A partition.
#[derive(Clone)]
pub struct Partition(pub Arc<OwnedFd>);

impl AsRawFd for Partition {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Partition {
    /// Creates one.
    pub fn create(flags: u64) -> Sys<Self> {
        let mut argument = mshv_create_partition {
            pt_flags: flags,
            pt_isolation: 0,
        };
        let fd = sys::ioctl_on(&device(), CREATE_PARTITION, &mut argument)?;
        Ok(Self(Arc::new(sys::owned(fd))))
    }

    /// One that is initialized.
    pub fn ready() -> Self {
        Self::ready_with(FLAGS)
    }

    /// One with these flags that is initialized.
    pub fn ready_with(flags: u64) -> Self {
        let partition = Self::create(flags).expect("CREATE_PARTITION");
        partition.initialize().expect("INITIALIZE_PARTITION");
        partition
    }

    /// INITIALIZE_PARTITION.
    pub fn initialize(&self) -> Sys<i32> {
        sys::ioctl(self, INITIALIZE_PARTITION, 0)
    }

    /// CREATE_VP.
    pub fn create_vp(&self, index: u32) -> Sys<Vp> {
        let mut argument = mshv_create_vp { vp_index: index };
        let fd = sys::ioctl_on(self, CREATE_VP, &mut argument)?;
        Ok(Vp {
            fd: Arc::new(sys::owned(fd)),
            index,
        })
    }

    /// A VP.
    pub fn vp(&self, index: u32) -> Vp {
        self.create_vp(index).expect("CREATE_VP")
    }

    /// SET_GUEST_MEMORY.
    pub fn set_memory(&self, gpa: u64, addr: usize, size: usize, flags: u8) -> Sys<i32> {
        let mut region = mshv_user_mem_region {
            size: size as u64,
            guest_pfn: gpa >> 12,
            userspace_addr: addr as u64,
            flags,
            rsvd: [0; 7],
        };
        sys::ioctl_on(self, SET_GUEST_MEMORY, &mut region)
    }

    /// Maps all of `memory` at `gpa`.
    pub fn map(&self, gpa: u64, memory: &Memory, flags: u8) {
        self.set_memory(gpa, memory.addr(), memory.len(), flags)
            .expect("SET_GUEST_MEMORY");
    }
}

/// A VP.
#[derive(Clone)]
pub struct Vp {
    pub fd: Arc<OwnedFd>,
    pub index: u32,
}

impl AsRawFd for Vp {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A register's value: its low and its high half.
pub type Value = (u64, u64);

impl Vp {
    /// RUN_VP.
    pub fn run(&self) -> Sys<hv_message> {
        let mut message = hv_message::default();
        sys::ioctl_on(self, RUN_VP, &mut message).map(|_| message)
    }

    /// RUN_VP until something else than a signal.
    pub fn message(&self) -> Result<hv_message, Stop> {
        good("RUN_VP", self.run())
    }

    /// Sets registers.
    pub fn set(&self, registers: &[(u32, Value)]) -> Result<(), HvcallError> {
        let mut call = Hvcall::registers(0x51, self.index, registers.len());
        for (name, value) in registers {
            call.put(&[*name as u64, 0, value.0, value.1]);
        }
        call.make(self).map(|_| ())
    }

    /// Gets registers.
    pub fn get(&self, names: &[u32]) -> Result<Vec<Value>, HvcallError> {
        let mut call = Hvcall::registers(0x50, self.index, names.len());
        for name in names {
            call.input.extend_from_slice(&name.to_le_bytes());
        }
        call.output = names.len() * 16;
        let output = call.make(self)?;
        let half = |at: usize| u64::from_le_bytes(output[at..at + 8].try_into().expect("8 bytes"));
        Ok((0..names.len())
            .map(|n| (half(16 * n), half(16 * n + 8)))
            .collect())
    }

    /// One register of 64 bits.
    pub fn register(&self, name: u32) -> Result<u64, Stop> {
        match self.get(&[name]) {
            Ok(values) => Ok(values[0].0),
            Err(e) => Err(Stop::Fail(format!("register {name:#x}: {e:?}"))),
        }
    }

    /// Sets one register of 64 bits.
    pub fn set_register(&self, name: u32, value: u64) -> Result<(), Stop> {
        self.set(&[(name, (value, 0))])
            .map_err(|e| Stop::Fail(format!("register {name:#x} := {value:#x}: {e:?}")))
    }

    /// Real mode at `ip` with all segments at 0, running whatever the index.
    pub fn start_at(&self, ip: u64) -> Result<(), Stop> {
        let mut registers = vec![
            (HV_X64_REGISTER_RIP, (ip, 0)),
            (HV_X64_REGISTER_RSP, (STACK, 0)),
            // Interrupts on, though none comes. With them off, a CPU still exits at the host's; Bochs 3.0 does not: its VM
            // entry leaves them masked when neither the host nor the guest has IF set.
            (HV_X64_REGISTER_RFLAGS, (0x202, 0)),
            (HV_X64_REGISTER_CS, segment(0, 0, 0xffff, 0x9b)),
            (HV_REGISTER_INTERNAL_ACTIVITY_STATE, (0, 0)),
        ];
        for name in [HV_X64_REGISTER_DS, HV_X64_REGISTER_ES, HV_X64_REGISTER_SS] {
            registers.push((name, segment(0, 0, 0xffff, 0x93)));
        }
        self.set(&registers)
            .map_err(|e| Stop::Fail(format!("initial registers: {e:?}")))
    }
}

/// HV_X64_SEGMENT_REGISTER.
pub const fn segment(selector: u16, base: u64, limit: u32, attributes: u16) -> Value {
    (
        base,
        limit as u64 | ((selector as u64) << 32) | ((attributes as u64) << 48),
    )
}

/// Register names that the tests use by name.
pub mod names {
    pub const HV_REGISTER_INTERNAL_ACTIVITY_STATE: u32 = 0x4;
    pub const HV_X64_REGISTER_RAX: u32 = 0x2_0000;
    pub const HV_X64_REGISTER_RSP: u32 = 0x2_0004;
    pub const HV_X64_REGISTER_RIP: u32 = 0x2_0010;
    pub const HV_X64_REGISTER_RFLAGS: u32 = 0x2_0011;
    pub const HV_X64_REGISTER_CR0: u32 = 0x4_0000;
    pub const HV_X64_REGISTER_CR3: u32 = 0x4_0002;
    pub const HV_X64_REGISTER_CR4: u32 = 0x4_0003;
    pub const HV_X64_REGISTER_EFER: u32 = 0x8_0001;
    pub const HV_X64_REGISTER_ES: u32 = 0x6_0000;
    pub const HV_X64_REGISTER_CS: u32 = 0x6_0001;
    pub const HV_X64_REGISTER_SS: u32 = 0x6_0002;
    pub const HV_X64_REGISTER_DS: u32 = 0x6_0003;
    pub const HV_X64_REGISTER_TR: u32 = 0x6_0007;
    pub const HV_X64_REGISTER_IDTR: u32 = 0x7_0000;
    pub const HV_X64_REGISTER_GDTR: u32 = 0x7_0001;
}
use names::*;

/// A failed hypercall: errno, status, repetitions done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HvcallError {
    pub errno: sys::Errno,
    pub status: u16,
    pub reps: u16,
}

/// A MSHV_ROOT_HVCALL.
#[derive(Clone, Debug, Default)]
pub struct Hvcall {
    pub code: u16,
    pub reps: u16,
    pub input: Vec<u8>,
    pub output: usize,
}

impl Hvcall {
    /// A call with these 64-bit words as its input; the first is the partition id, which the kernel fills in.
    pub fn new(code: u16, input: &[u64], output: usize) -> Self {
        let mut call = Self {
            code,
            output,
            ..Self::default()
        };
        call.put(input);
        call
    }

    /// HvCallGetVpRegisters or HvCallSetVpRegisters without its list.
    pub fn registers(code: u16, vp: u32, count: usize) -> Self {
        let mut call = Self::new(code, &[0, vp.into()], 0);
        call.reps = count as u16;
        call
    }

    /// HvCallGetPartitionProperty.
    pub fn get_property(code: u32) -> Self {
        Self::new(0x44, &[0, code.into()], 8)
    }

    /// HvCallSetPartitionProperty.
    pub fn set_property(code: u32, value: u64) -> Self {
        Self::new(0x45, &[0, code.into(), value], 0)
    }

    /// Appends 64-bit words.
    pub fn put(&mut self, words: &[u64]) {
        for word in words {
            self.input.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// The ioctl's argument for buffers at these addresses.
    pub fn argument(&self, input: usize, output: usize) -> mshv_root_hvcall {
        mshv_root_hvcall {
            code: self.code,
            reps: self.reps,
            in_sz: self.input.len() as u16,
            out_sz: self.output as u16,
            in_ptr: input as u64,
            out_ptr: if self.output == 0 { 0 } else { output as u64 },
            ..Default::default()
        }
    }

    /// Makes the call. After a success the repetitions must be as asked.
    pub fn make(&self, fd: &impl AsRawFd) -> Result<Vec<u8>, HvcallError> {
        let mut output = vec![0; self.output];
        let mut argument =
            self.argument(self.input.as_ptr() as usize, output.as_mut_ptr() as usize);
        let result = sys::ioctl_on(fd, ROOT_HVCALL, &mut argument);
        let (status, reps) = (argument.status, argument.reps);
        match result {
            Ok(_) => {
                assert_eq!(
                    (status, reps),
                    (0, self.reps),
                    "status and reps of a success"
                );
                Ok(output)
            }
            Err(errno) => Err(HvcallError {
                errno,
                status,
                reps,
            }),
        }
    }
}

/// Where guests' code starts.
pub const ENTRY: u64 = 0x1000;
/// Top of their stack.
pub const STACK: u64 = 0x8000;
/// Memory that they have, from address 0.
pub const RAM: usize = 0x11_0000;

/// A partition with VPs in real mode, all of them at the same code.
pub struct Guest {
    pub partition: Partition,
    pub memory: Memory,
    pub vps: Vec<Vp>,
}

impl Guest {
    /// One VP.
    pub fn new(code: Code) -> Result<Self, Stop> {
        Self::with(code, 1, FLAGS, Memory::new(RAM))
    }

    /// Some VPs, these flags, this memory.
    pub fn with(code: Code, vps: u32, flags: u64, memory: Memory) -> Result<Self, Stop> {
        Self::with_features(code, vps, flags, 0, memory)
    }

    /// The same with these synthetic features.
    pub fn with_features(
        code: Code,
        vps: u32,
        flags: u64,
        features: u64,
        memory: Memory,
    ) -> Result<Self, Stop> {
        let partition = good("CREATE_PARTITION", Partition::create(flags))?;
        if features != 0 {
            Hvcall::set_property(0x1_0001, features)
                .make(&partition)
                .map_err(|e| Stop::Fail(format!("features: {e:?}")))?;
        }
        good("INITIALIZE_PARTITION", partition.initialize())?;
        memory.write(ENTRY as usize, code.bytes());
        partition.map(0, &memory, RWX);
        let vps = (0..vps).map(|n| partition.vp(n)).collect::<Vec<_>>();
        for vp in &vps {
            vp.start_at(ENTRY)?;
        }
        Ok(Self {
            partition,
            memory,
            vps,
        })
    }

    /// The first VP.
    pub fn vp(&self) -> &Vp {
        &self.vps[0]
    }
}
