// SPDX-License-Identifier: GPL-2.0 OR MIT
//! State of each processor: descriptor tables, stacks, and what handlers tell the code.

use crate::cpu::wrmsr;
use crate::idt::Frame;
use crate::msr;
use crate::probe::Fault;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::size_of;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Processors that take part; more stay halted.
pub const MAX_CPUS: usize = 96;

/// Flat 32-bit code.
pub const SEL_CODE32: u16 = 0x08;
/// Flat data.
pub const SEL_DATA: u16 = 0x10;
/// 64-bit code.
pub const SEL_CODE64: u16 = 0x18;
/// CPL 3 data.
pub const SEL_USER_DATA: u16 = 0x20 | 3;
/// CPL 3 64-bit code.
pub const SEL_USER_CODE64: u16 = 0x28 | 3;
/// CPL 3 32-bit code.
pub const SEL_USER_CODE32: u16 = 0x30 | 3;
/// 16-bit code, base 0, limit 64 KiB.
pub const SEL_CODE16: u16 = 0x38;
/// 16-bit data, base 0, limit 64 KiB.
pub const SEL_DATA16: u16 = 0x40;
/// The task-state segment.
pub const SEL_TSS: u16 = 0x48;
/// First of two entries that tests may fill.
pub const SEL_FREE: u16 = 0x58;

/// IST of exceptions and interrupts.
pub const IST_COMMON: u8 = 1;
/// IST of NMIs.
pub const IST_NMI: u8 = 2;
/// IST of double faults.
pub const IST_DOUBLE_FAULT: u8 = 3;
/// IST of machine checks.
pub const IST_MACHINE_CHECK: u8 = 4;

const IST_SIZE: usize = 16384;

/// 64-bit TSS (SDM 3A, figure 9-11), split in dwords because of its alignment.
#[repr(C, packed)]
pub struct Tss {
    reserved0: u32,
    /// RSP0 to RSP2.
    pub rsp: [u64; 3],
    reserved1: u64,
    /// IST1 to IST7.
    pub ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    /// Offset of the I/O permission bitmap.
    pub iomap: u16,
    /// Bitmap for ports 0 to 0xff, then the terminating byte.
    pub io_bitmap: [u8; 33],
}

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; IST_SIZE]>);
// SAFETY: only the processor that owns a stack touches it, through RSP.
unsafe impl Sync for Stack {}

/// What one processor owns. Reached through GS.base.
#[repr(C, align(64))]
pub struct Cpu {
    this: AtomicUsize,
    /// Number in order of arrival; 0 is the bootstrap processor.
    pub index: AtomicUsize,
    /// Its APIC id.
    pub apic_id: AtomicU32,
    /// Whether its APIC is in x2APIC mode, as [`crate::apic`] set it.
    pub x2apic: AtomicU32,
    /// Innermost [`crate::idt::guarded`] call.
    pub(crate) context: AtomicUsize,
    pub(crate) fault: UnsafeCell<Option<Fault>>,
    pub(crate) last: UnsafeCell<Option<Frame>>,
    pub(crate) job: AtomicUsize,
    pub(crate) job_arg: AtomicU64,
    pub(crate) job_state: AtomicU32,
    gdt: UnsafeCell<[u64; 16]>,
    tss: UnsafeCell<Tss>,
}
// SAFETY: the UnsafeCells are used by their processor only, the rest is atomic.
unsafe impl Sync for Cpu {}

#[allow(clippy::declare_interior_mutable_const)] // The initial value of the array below.
const EMPTY: Cpu = Cpu {
    this: AtomicUsize::new(0),
    index: AtomicUsize::new(0),
    apic_id: AtomicU32::new(0),
    x2apic: AtomicU32::new(0),
    context: AtomicUsize::new(0),
    fault: UnsafeCell::new(None),
    last: UnsafeCell::new(None),
    job: AtomicUsize::new(0),
    job_arg: AtomicU64::new(0),
    job_state: AtomicU32::new(0),
    gdt: UnsafeCell::new([0; 16]),
    tss: UnsafeCell::new(Tss {
        reserved0: 0,
        rsp: [0; 3],
        reserved1: 0,
        ist: [0; 7],
        reserved2: 0,
        reserved3: 0,
        iomap: 0,
        io_bitmap: [0xff; 33],
    }),
};
#[allow(clippy::declare_interior_mutable_const)] // The initial value of the array below.
const STACK: Stack = Stack(UnsafeCell::new([0; IST_SIZE]));

static CPUS: [Cpu; MAX_CPUS] = [EMPTY; MAX_CPUS];
static IST_STACKS: [[Stack; 4]; MAX_CPUS] = [const { [STACK; 4] }; MAX_CPUS];

/// This processor.
#[inline]
pub fn this() -> &'static Cpu {
    let cpu: *const Cpu;
    // SAFETY: `init` made GS.base point at a `Cpu` whose first field is its address.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) cpu, options(nostack, preserves_flags, readonly));
        &*cpu
    }
}

/// Number of this processor.
#[inline]
pub fn index() -> usize {
    this().index.load(Ordering::Relaxed)
}

/// A processor by number.
pub fn by_index(index: usize) -> &'static Cpu {
    &CPUS[index]
}

impl Cpu {
    /// This processor's GDT; tests may fill the entries from [`SEL_FREE`].
    pub fn gdt(&self) -> *mut [u64; 16] {
        self.gdt.get()
    }

    /// This processor's TSS.
    pub fn tss(&self) -> *mut Tss {
        self.tss.get()
    }
}

pub(crate) fn init(index: usize) {
    let cpu = &CPUS[index];
    cpu.this
        .store(cpu as *const Cpu as usize, Ordering::Relaxed);
    cpu.index.store(index, Ordering::Relaxed);
    cpu.context.store(0, Ordering::Relaxed);
    let tss = cpu.tss.get() as u64;
    let limit = size_of::<Tss>() as u64 - 1;
    // SAFETY: this processor alone uses its own tables, and they are not loaded yet.
    unsafe {
        for (i, stack) in IST_STACKS[index].iter().enumerate() {
            let top = stack.0.get() as u64 + IST_SIZE as u64;
            addr_of!((*cpu.tss.get()).ist[i])
                .cast_mut()
                .write_unaligned(top);
        }
        (*cpu.tss.get()).iomap = 104;
        *cpu.gdt.get() = [
            0,
            0x00cf_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00af_9b00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x0000_9b00_0000_ffff,
            0x0000_9300_0000_ffff,
            limit | ((tss & 0xff_ffff) << 16) | (0x89 << 40) | (((tss >> 24) & 0xff) << 56),
            tss >> 32,
            0,
            0,
            0,
            0,
            0,
        ];
    }
    load_tables(cpu);
    wrmsr(msr::IA32_GS_BASE, cpu as *const Cpu as u64);
}

/// Loads GDT, CS, data segments and TR of `cpu`; clears FS and GS.
fn load_tables(cpu: &Cpu) {
    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let pointer = Pointer(127, cpu.gdt.get() as u64);
    // SAFETY: the selectors name the entries that `init` wrote.
    unsafe {
        asm!(
            "lgdt [{pointer}]",
            "push {code}",
            "lea {tmp}, [rip + 2f]",
            "push {tmp}",
            "retfq",
            "2:",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "mov fs, {zero:e}",
            "mov gs, {zero:e}",
            "ltr {tss:x}",
            pointer = in(reg) &pointer,
            code = in(reg) u64::from(SEL_CODE64),
            data = in(reg) u32::from(SEL_DATA),
            zero = in(reg) 0u32,
            tss = in(reg) SEL_TSS,
            tmp = out(reg) _,
        );
    }
}
