// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What exits and interrupts cost, in TSC ticks: each the median of 1,000 or more.
#![no_std]
#![no_main]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use guest::{
    apic, cpu, cpuid, hv, idt, image, msr, paging, percpu, probe, require, say, smp, test, time,
    Pass, Verdict,
};

const N: usize = 2000;

struct Samples(UnsafeCell<[u64; N]>);
// SAFETY: only the bootstrap processor measures.
unsafe impl Sync for Samples {}
static SAMPLES: Samples = Samples(UnsafeCell::new([0; N]));

/// Ticks between two readings with nothing between: taken off every sample.
fn overhead() -> u64 {
    let mut least = u64::MAX;
    for _ in 0..N {
        let start = cpu::rdtsc();
        least = least.min(cpu::rdtsc() - start);
    }
    least
}

/// Measures `n` runs, each between `prepare` and nothing, and prints the row.
fn measure_with(name: &str, n: usize, mut prepare: impl FnMut(usize), mut run: impl FnMut(usize)) {
    // SAFETY: `measure_with` is not reentered, and one processor measures.
    let samples = unsafe { &mut (&mut *SAMPLES.0.get())[..n] };
    let overhead = overhead();
    for i in 0..10 {
        prepare(i % n);
    }
    for (i, sample) in samples.iter_mut().enumerate() {
        prepare(i);
        let start = cpu::rdtsc();
        run(i);
        *sample = (cpu::rdtsc() - start).saturating_sub(overhead);
    }
    samples.sort_unstable();
    say!(
        "bench {name} ticks {} min {} n {n}",
        samples[n / 2],
        samples[0]
    );
}

fn measure(name: &str, mut run: impl FnMut()) {
    for _ in 0..10 {
        run();
    }
    measure_with(name, N, |_| (), |_| run());
}

fn bench_nothing() -> Verdict {
    measure("nothing", || ());
    Pass
}

fn bench_cpuid() -> Verdict {
    measure("cpuid", || {
        let _ = core::hint::black_box(cpuid::leaf(0));
    });
    Pass
}

fn bench_rdmsr() -> Verdict {
    require!(
        probe::rdmsr(msr::IA32_APIC_BASE).is_ok(),
        "no IA32_APIC_BASE"
    );
    measure("rdmsr_apic_base", || {
        let _ = core::hint::black_box(cpu::rdmsr(msr::IA32_APIC_BASE));
    });
    if cpuid::TSC_ADJUST.present() {
        measure("rdmsr_tsc_adjust", || {
            let _ = core::hint::black_box(cpu::rdmsr(msr::IA32_TSC_ADJUST));
        });
    }
    Pass
}

fn bench_rdmsr_synthetic() -> Verdict {
    require!(hv::privilege(hv::ACCESS_VP_INDEX), "no Hv#1 with VP_INDEX");
    measure("rdmsr_vp_index", || {
        let _ = core::hint::black_box(cpu::rdmsr(hv::HV_X64_MSR_VP_INDEX));
    });
    if hv::privilege(hv::ACCESS_REF_COUNTER) {
        measure("rdmsr_time_ref_count", || {
            let _ = core::hint::black_box(cpu::rdmsr(hv::HV_X64_MSR_TIME_REF_COUNT));
        });
    }
    Pass
}

fn bench_wrmsr() -> Verdict {
    if cpuid::TSC_ADJUST.present() {
        let value = cpu::rdmsr(msr::IA32_TSC_ADJUST);
        measure("wrmsr_tsc_adjust", || {
            cpu::wrmsr(msr::IA32_TSC_ADJUST, value)
        });
    }
    let efer = cpu::rdmsr(msr::IA32_EFER);
    measure("wrmsr_efer", || cpu::wrmsr(msr::IA32_EFER, efer));
    let pat = cpu::rdmsr(msr::IA32_PAT);
    measure("wrmsr_pat", || cpu::wrmsr(msr::IA32_PAT, pat));
    measure("wrmsr_kernel_gs_base", || {
        cpu::wrmsr(msr::IA32_KERNEL_GS_BASE, 0)
    });
    Pass
}

fn bench_wrmsr_synthetic() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let id = cpu::rdmsr(hv::HV_X64_MSR_GUEST_OS_ID);
    measure("wrmsr_guest_os_id", || {
        cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, hv::OS_ID)
    });
    cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, id);
    Pass
}

fn bench_vmcall() -> Verdict {
    if hv::present() {
        cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
    }
    require!(hv::vmcall(0x7777, 0, 0).is_ok(), "VMCALL faults");
    measure("vmcall_unknown_code", || {
        let _ = core::hint::black_box(hv::vmcall(0x7777, 0, 0));
    });
    if hv::present() {
        cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, 0);
    }
    Pass
}

fn bench_cr() -> Verdict {
    let (cr0, cr3, cr4) = (cpu::cr0(), cpu::cr3(), cpu::cr4());
    measure("mov_cr0", || cpu::set_cr0(cr0));
    measure("mov_cr3", || cpu::set_cr3(cr3));
    measure("mov_cr4", || cpu::set_cr4(cr4));
    measure("mov_cr8", || cpu::set_cr8(0));
    measure("mov_dr7", || cpu::set_dr7(0x400));
    Pass
}

fn bench_pio() -> Verdict {
    measure("pio_read_lsr", || {
        let _ = core::hint::black_box(cpu::inb(0x3fd));
    });
    measure("pio_write_80", || cpu::outb(0x80, 0));
    measure("pio_read_80", || {
        let _ = core::hint::black_box(cpu::inb(0x80));
    });
    Pass
}

core::arch::global_asm!(
    ".globl bench_isr",
    "bench_isr:",
    "push rax",
    "push rcx",
    "push rdx",
    "lock inc dword ptr [bench_count]",
    "mov ecx, 0x80b",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "iretq",
);
extern "C" {
    /// The shortest handler of an interrupt: counts and ends it, by x2APIC.
    fn bench_isr();
}
#[no_mangle]
static bench_count: AtomicU32 = AtomicU32::new(0);

const FAST: u8 = 0x60;

fn fast_gate() {
    idt::set_gate(
        FAST,
        idt::gate(
            bench_isr as usize as u64,
            percpu::SEL_CODE64,
            percpu::IST_COMMON,
            0xe,
            0,
        ),
    );
}

fn bench_self_ipi() -> Verdict {
    require!(cpuid::X2APIC.present(), "no x2APIC");
    apic::init_best();
    fast_gate();
    let icr = u64::from(FAST) | u64::from(apic::ICR_ASSERT | apic::ICR_SELF);
    measure("self_ipi_nop", || {
        cpu::wrmsr(0x830, icr);
        cpu::take_interrupts();
    });
    measure("self_ipi_hlt", || {
        cpu::wrmsr(0x830, icr);
        cpu::sti_hlt();
        cpu::cli();
    });
    measure("self_ipi_x2apic_msr", || {
        cpu::wrmsr(0x83f, u64::from(FAST));
        cpu::take_interrupts();
    });
    idt::set_gate(FAST, idt::default_gate(FAST, 0));
    Pass
}

/// From ICR write until the other processor, which was in HLT, has taken the IPI.
fn bench_ipi() -> Verdict {
    require!(cpuid::X2APIC.present(), "no x2APIC");
    apic::init_best();
    require!(smp::start() > 1, "one processor");
    fast_gate();
    static STOP: AtomicU32 = AtomicU32::new(0);
    extern "C" fn halt(_: u64) {
        while STOP.load(Ordering::Acquire) == 0 {
            cpu::sti_hlt();
        }
    }
    extern "C" fn spin(_: u64) {
        cpu::sti();
        while STOP.load(Ordering::Acquire) == 0 {
            cpu::pause();
        }
    }
    let icr = u64::from(smp::apic_id(1)) << 32 | u64::from(FAST) | u64::from(apic::ICR_ASSERT);
    for (name, job, n) in [
        ("ipi_halted", halt as smp::Job, 1000),
        ("ipi_running", spin as smp::Job, 1000),
    ] {
        STOP.store(0, Ordering::Release);
        smp::post(1, job, 0);
        time::spin(1_000_000);
        measure_with(
            name,
            n,
            |_| time::spin(20_000),
            |_| {
                let before = bench_count.load(Ordering::Acquire);
                cpu::wrmsr(0x830, icr);
                while bench_count.load(Ordering::Acquire) == before {
                    cpu::pause();
                }
            },
        );
        STOP.store(1, Ordering::Release);
        cpu::wrmsr(0x830, icr);
        smp::join(1);
    }
    idt::set_gate(FAST, idt::default_gate(FAST, 0));
    Pass
}

/// First read of pages nobody touched: each costs an EPT violation, unless the VMM maps more at once.
fn bench_first_touch() -> Verdict {
    const PAGES: u64 = 1024;
    let base = paging::untouched(PAGES);
    measure_with(
        "first_touch_4k",
        PAGES as usize,
        |_| (),
        |i| {
            // SAFETY: RAM set aside by `untouched`.
            unsafe {
                asm!("mov {0}, [{1}]", out(reg) _, in(reg) base + ((i as u64) << 12), options(nostack))
            };
        },
    );
    Pass
}

image!(
    "bench",
    [
        test!(nothing, "-", bench_nothing),
        test!(cpuid, "-", bench_cpuid),
        test!(rdmsr, "-", bench_rdmsr),
        test!(rdmsr_synthetic, "M-02", bench_rdmsr_synthetic),
        test!(wrmsr, "-", bench_wrmsr),
        test!(wrmsr_synthetic, "M-00", bench_wrmsr_synthetic),
        test!(vmcall, "A-05", bench_vmcall),
        test!(control_registers, "-", bench_cr),
        test!(pio, "-", bench_pio),
        test!(self_ipi, "-", bench_self_ipi),
        test!(ipi, "-", bench_ipi),
        test!(first_touch, "-", bench_first_touch),
    ]
);
