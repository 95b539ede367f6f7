// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What exits and interrupts cost, in TSC ticks: each the median of 1,000 or more.
#![no_std]
#![no_main]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::{
    apic, cpu, cpuid, hv, idt, image, msr, paging, percpu, probe, require, say, smp, synic, test,
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

/// Ticks of quiet before and after a measurement, in which the host can take stock of its own counters.
const QUIET: u64 = 20_000_000;

/// Waits without PAUSE, which would make exits of its own.
fn quiet() {
    let start = cpu::rdtsc();
    while cpu::rdtsc() - start < QUIET {}
}

/// Prints the row of `n` samples, each taken by `sample` after `prepare`. The lines `<` and `>` tell the host where they begin
/// and end.
fn samples(name: &str, n: usize, mut prepare: impl FnMut(), mut sample: impl FnMut() -> u64) {
    // SAFETY: `samples` is not reentered, and one processor measures.
    let samples = unsafe { &mut (&mut *SAMPLES.0.get())[..n] };
    say!("<");
    quiet();
    for slot in samples.iter_mut() {
        prepare();
        *slot = sample();
    }
    say!(">");
    quiet();
    samples.sort_unstable();
    say!(
        "bench {name} ticks {} min {} n {n}",
        samples[n / 2],
        samples[0]
    );
}

/// Measures `n` runs.
fn measure_with(name: &str, n: usize, mut run: impl FnMut(usize)) {
    let overhead = overhead();
    let mut i = 0;
    samples(
        name,
        n,
        || (),
        || {
            let start = cpu::rdtsc();
            run(i);
            let ticks = cpu::rdtsc() - start;
            i += 1;
            ticks.saturating_sub(overhead)
        },
    );
}

fn measure(name: &str, mut run: impl FnMut()) {
    for _ in 0..10 {
        run();
    }
    measure_with(name, N, |_| run());
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

/// A device that only a VMM has, or nothing: the HPET of a PC.
fn bench_mmio() -> Verdict {
    const HPET: u64 = 0xfed0_0000;
    measure("mmio_read_vmm", || {
        // SAFETY: a read of the HPET's identification.
        unsafe { asm!("mov {0:e}, [{1}]", out(reg) _, in(reg) HPET, options(nostack)) };
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
core::arch::global_asm!(
    ".globl bench_isr_answer",
    "bench_isr_answer:",
    "push rax",
    "push rcx",
    "push rdx",
    "rdtsc",
    "mov [bench_at], eax",
    "mov [bench_at + 4], edx",
    "lock inc dword ptr [bench_count]",
    "mov ecx, 0x80b",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "mov ecx, 0x830",
    "mov eax, [bench_answer]",
    "mov edx, [bench_answer + 4]",
    "wrmsr",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "iretq",
);
extern "C" {
    /// The shortest handler of an interrupt: counts and ends it, by x2APIC.
    fn bench_isr();
    /// Notes the time as well, and sends the ICR value `bench_answer`.
    fn bench_isr_answer();
}
#[no_mangle]
static bench_at: AtomicU64 = AtomicU64::new(0);
#[no_mangle]
static bench_answer: AtomicU64 = AtomicU64::new(0);
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

/// Arming a timer, and one that fires at once: the APIC's by its deadline, and a synthetic one.
fn bench_timers() -> Verdict {
    require!(cpuid::X2APIC.present(), "no x2APIC");
    apic::init_best();
    fast_gate();
    if cpuid::TSC_DEADLINE.present() {
        apic::write(apic::LVT_TIMER, u32::from(FAST) | apic::TIMER_DEADLINE);
        measure("deadline_arm", || {
            cpu::wrmsr(msr::IA32_TSC_DEADLINE, 1 << 62)
        });
        measure("deadline_fire", || {
            cpu::wrmsr(msr::IA32_TSC_DEADLINE, 1);
            cpu::take_interrupts();
        });
        apic::init_best();
    }
    require!(
        synic::there() && cpuid::leaf(0x4000_0003).edx >> 19 & 1 != 0,
        "no direct synthetic timers"
    );
    cpu::wrmsr(synic::config(0), synic::direct(FAST) | synic::AUTO_ENABLE);
    measure("stimer_arm", || cpu::wrmsr(synic::count(0), 1 << 62));
    measure("stimer_fire", || {
        cpu::wrmsr(synic::count(0), 1);
        cpu::take_interrupts();
    });
    cpu::wrmsr(synic::config(0), 0);
    idt::set_gate(FAST, idt::default_gate(FAST, 0));
    Pass
}

/// From the ICR write to the first instructions of the other processor's
/// handler, in HLT or running. The sender waits in HLT for the answer, so that
/// two VPs do as well with one CPU of the host.
fn bench_ipi() -> Verdict {
    const ANSWER: u8 = 0x62;
    const TIMER: u8 = 0x63;
    require!(cpuid::X2APIC.present(), "no x2APIC");
    apic::init_best();
    require!(smp::start() > 1, "one processor");
    idt::hook(ANSWER, |_| apic::eoi());
    idt::hook(TIMER, |_| apic::eoi());
    let gate = idt::gate(
        bench_isr_answer as usize as u64,
        percpu::SEL_CODE64,
        percpu::IST_COMMON,
        0xe,
        0,
    );
    idt::set_gate(FAST, gate);
    apic::write(apic::LVT_TIMER, u32::from(TIMER));
    bench_answer.store(
        u64::from(apic::id()) << 32 | u64::from(u32::from(ANSWER) | apic::ICR_ASSERT),
        Ordering::Release,
    );
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
    let icr = u64::from(smp::apic_id(1)) << 32 | u64::from(u32::from(FAST) | apic::ICR_ASSERT);
    for (name, job) in [
        ("ipi_halted", halt as smp::Job),
        ("ipi_running", spin as smp::Job),
    ] {
        STOP.store(0, Ordering::Release);
        smp::post(1, job, 0);
        samples(
            name,
            1000,
            || {
                // Time for the other to get where it should be.
                let before = idt::count(TIMER);
                apic::write(apic::TIMER_INITIAL, 100_000);
                while idt::count(TIMER) == before {
                    cpu::sti_hlt();
                    cpu::cli();
                }
            },
            || {
                let before = bench_count.load(Ordering::Acquire);
                let start = cpu::rdtsc();
                cpu::wrmsr(0x830, icr);
                while bench_count.load(Ordering::Acquire) == before {
                    cpu::sti_hlt();
                    cpu::cli();
                }
                bench_at.load(Ordering::Acquire).saturating_sub(start)
            },
        );
        STOP.store(1, Ordering::Release);
        cpu::wrmsr(0x830, icr);
        smp::join(1);
    }
    cpu::take_interrupts();
    idt::set_gate(FAST, idt::default_gate(FAST, 0));
    Pass
}

/// What the sender of a cluster IPI and of a flush waits; the target runs, or is preempted where VPs share a CPU.
fn bench_processor_calls() -> Verdict {
    const VECTOR: u8 = 0x64;
    require!(hv::present(), "no Hv#1");
    let hints = cpuid::leaf(0x4000_0004).eax;
    require!(hints & (1 << 2 | 1 << 10) != 0, "no calls for sets of VPs");
    apic::init_best();
    require!(smp::start() > 1, "one processor");
    static STOP: AtomicU32 = AtomicU32::new(0);
    extern "C" fn spin(_: u64) {
        cpu::sti();
        while STOP.load(Ordering::Acquire) == 0 {
            cpu::pause();
        }
        cpu::cli();
    }
    idt::hook(VECTOR, |_| apic::eoi());
    cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
    STOP.store(0, Ordering::Release);
    smp::post(1, spin, 0);
    let target = 1u64 << smp::apic_id(1);
    if hints & 1 << 10 != 0 {
        let fast = 0x0b | 1 << 16;
        assert_eq!(hv::vmcall(fast, u64::from(VECTOR), target), Ok(hv::SUCCESS));
        measure("pv_ipi_to_1", || {
            let _ = core::hint::black_box(hv::vmcall(fast, u64::from(VECTOR), target));
        });
    }
    if hints & 1 << 2 != 0 {
        let page = paging::frame();
        // SAFETY: the test's page.
        unsafe { (page as *mut [u64; 4]).write_volatile([cpu::cr3(), 0, target, 0x1000]) };
        assert_eq!(hv::vmcall(0x02, page, 0), Ok(hv::SUCCESS));
        measure("pv_flush_of_1", || {
            let _ = core::hint::black_box(hv::vmcall(0x02, page, 0));
        });
        assert_eq!(
            hv::vmcall(0x03 | 1 << 32, page, 0),
            Ok(hv::SUCCESS | 1 << 32)
        );
        measure("pv_flush_page_of_1", || {
            let _ = core::hint::black_box(hv::vmcall(0x03 | 1 << 32, page, 0));
        });
    }
    STOP.store(1, Ordering::Release);
    smp::join(1);
    cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}

/// First read of pages nobody touched: each costs an EPT violation, unless the VMM maps more at once.
fn bench_first_touch() -> Verdict {
    const PAGES: u64 = 1024;
    let base = paging::untouched(PAGES);
    measure_with("first_touch_4k", PAGES as usize, |i| {
        // SAFETY: RAM set aside by `untouched`.
        unsafe {
            asm!("mov {0}, [{1}]", out(reg) _, in(reg) base + ((i as u64) << 12), options(nostack))
        };
    });
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
        test!(mmio, "-", bench_mmio),
        test!(self_ipi, "-", bench_self_ipi),
        test!(timers, "M-B1 F-TM7", bench_timers),
        test!(ipi, "-", bench_ipi),
        test!(processor_calls, "H-02 H-03 H-0B", bench_processor_calls),
        test!(first_touch, "-", bench_first_touch),
    ]
);
