// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What exits and interrupts cost, in TSC ticks: each the median of 1,000 or more.
#![no_std]
#![no_main]

mod calls;
mod doorbell;

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::measure::{measure, measure_with, samples};
use guest::{
    apic, cpu, cpuid, hv, idt, image, msr, paging, percpu, probe, require, smp, synic, test, Pass,
    Verdict,
};

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

fn fast_gate(handler: unsafe extern "C" fn()) {
    idt::set_gate(
        FAST,
        idt::gate(
            handler as usize as u64,
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
    fast_gate(bench_isr);
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

core::arch::global_asm!(
    ".globl bench_isr_assist",
    "bench_isr_assist:",
    "push rax",
    "push rcx",
    "push rdx",
    "lock inc dword ptr [bench_count]",
    "mov rax, [bench_assist]",
    "lock btr dword ptr [rax], 0",
    "jc 2f",
    "mov ecx, 0x40000070",
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "2:",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "iretq",
);
extern "C" {
    /// As [`bench_isr`], with the end of interrupt that guests of Hyper-V use.
    fn bench_isr_assist();
}
/// The VP assist page.
#[no_mangle]
static bench_assist: AtomicU64 = AtomicU64::new(0);

/// Ends of interrupts: by synthetic MSR, and a whole interrupt whose end the VP assist page makes needless.
fn bench_eoi() -> Verdict {
    require!(
        hv::present() && cpuid::leaf(0x4000_0003).eax >> 4 & 1 != 0,
        "no AccessIntrCtrlRegs"
    );
    apic::init_best();
    measure("wrmsr_hv_eoi", || cpu::wrmsr(hv::HV_X64_MSR_EOI, 0));
    let page = paging::frame();
    bench_assist.store(page, Ordering::Release);
    cpu::wrmsr(hv::HV_X64_MSR_VP_ASSIST_PAGE, page | 1);
    fast_gate(bench_isr_assist);
    measure("self_ipi_eoi_assist", || {
        apic::send_self(FAST);
        cpu::take_interrupts();
    });
    cpu::wrmsr(hv::HV_X64_MSR_VP_ASSIST_PAGE, 0);
    idt::set_gate(FAST, idt::default_gate(FAST, 0));
    Pass
}

/// A timer that is due at once: its message in the slot, the interrupt, and the slot given back.
fn bench_message() -> Verdict {
    require!(synic::there(), "no synthetic timers");
    fast_gate(bench_isr);
    let messages = synic::Messages::enable(2, u64::from(FAST));
    // The handler ends interrupts by x2APIC.
    apic::init_best();
    cpu::wrmsr(synic::config(0), synic::sint(2) | synic::AUTO_ENABLE);
    measure("synic_message", || {
        cpu::wrmsr(synic::count(0), 1);
        cpu::take_interrupts();
        messages.clear(2);
    });
    synic::Messages::disable();
    idt::set_gate(FAST, idt::default_gate(FAST, 0));
    Pass
}

/// Arming a timer, and one that fires at once: the APIC's by its deadline, and a synthetic one.
fn bench_timers() -> Verdict {
    require!(cpuid::X2APIC.present(), "no x2APIC");
    apic::init_best();
    fast_gate(bench_isr);
    if cpuid::TSC_DEADLINE.present() {
        apic::write(apic::LVT_TIMER, u32::from(FAST) | apic::TIMER_DEADLINE);
        measure("deadline_arm", || {
            cpu::wrmsr(msr::IA32_TSC_DEADLINE, 1 << 62)
        });
        measure("deadline_fire", || {
            cpu::wrmsr(msr::IA32_TSC_DEADLINE, 1);
            cpu::take_interrupts();
        });
        // Long enough to be asleep, and taken off again: what is measured is how late the guest is.
        const NAP: u64 = 100_000;
        let late = || {
            let due = cpu::rdtsc() + NAP;
            cpu::wrmsr(msr::IA32_TSC_DEADLINE, due);
            cpu::sti_hlt();
            cpu::cli();
            cpu::rdtsc() - due
        };
        samples("deadline_wakes_hlt", 500, || (), late);
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

fn calls_for_1() -> Verdict {
    let names = ["pv_ipi_to_1", "pv_flush_of_1", "pv_flush_page_of_1"];
    calls::processor_calls(1, names)
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
        test!(doorbells, "-", doorbell::doorbells),
        test!(self_ipi, "-", bench_self_ipi),
        test!(eoi, "M-70 F-AP2", bench_eoi),
        test!(message, "F-TM2", bench_message),
        test!(timers, "M-B1 F-TM7", bench_timers),
        test!(ipi, "-", bench_ipi),
        test!(processor_calls, "H-02 H-03 H-0B", calls_for_1),
        test!(first_touch, "-", bench_first_touch),
    ]
);
