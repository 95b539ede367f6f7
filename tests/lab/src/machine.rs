//! The emulated machine: what can be chosen about it, and Bochs' configuration file for it.

use std::path::Path;

use clap::Args;

/// Emulated instructions a second. Linux is told the same TSC frequency, see [`Machine::command_line`].
const IPS: u64 = 200_000_000;
/// Bochs cannot allocate more (MiB).
const MAX_MEMORY: u32 = 2048;

/// The choices.
#[derive(Args, Clone, Debug)]
pub struct Machine {
    /// CPU model of Bochs: corei7_sandy_bridge_2600k, corei7_haswell_4770, corei7_skylake_x, corei7_icelake_u, tigerlake
    #[arg(long, default_value = "corei7_skylake_x")]
    pub model: String,
    /// CPUs. Bochs runs them in turns on one thread: 2 are half as fast as 1
    #[arg(long, default_value_t = 1)]
    pub cpus: u32,
    /// Memory in MiB, at most 2048
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..=MAX_MEMORY as i64))]
    pub memory: u32,
    /// Load kvm_intel before the job
    #[arg(long)]
    pub kvm: bool,
    /// More of the kernel's command line
    #[arg(long, default_value = "")]
    pub append: String,
}

impl Machine {
    /// The machine that most tests use.
    pub fn plain() -> Self {
        Self {
            model: "corei7_skylake_x".to_string(),
            cpus: 1,
            memory: 1024,
            kvm: false,
            append: String::new(),
        }
    }

    /// The kernel's command line.
    ///
    /// The TSC frequency is given because the models with CPUID leaf 15H/16H report one that has nothing to do with [`IPS`], and
    /// everything timed would take 17 times as long. The rest leaves out what costs seconds and is not under test.
    pub fn command_line(&self) -> String {
        format!(
            "console=ttyS0,115200 nokaslr quiet panic=0 tsc_early_khz={} tsc=reliable lpj=4000000 no_timer_check \
             cryptomgr.notests random.trust_cpu=on audit=0 lsm= initcall_blacklist=ima_init,init_evm rdinit=/init {}",
            IPS / 1000,
            self.append
        )
    }

    /// Bochs' configuration, with all files of the run in `dir`. `disk` is the size of `data.img` if there is one.
    pub fn bochsrc(&self, dir: &Path, disk: Option<u64>) -> String {
        let dir = dir.display();
        let data = disk.map_or(String::new(), |size| {
            format!(
                "ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15\n\
                 ata1-master: type=disk, path={dir}/data.img, mode=flat, cylinders={}, heads={DISK_HEADS}, spt={DISK_SECTORS}\n",
                size / DISK_UNIT
            )
        });
        format!(
            "display_library: nogui\n\
             cpu: model={model}, count={cpus}, ips={IPS}, reset_on_triple_fault=0, ignore_bad_msrs=1\n\
             memory: guest={memory}, host={memory}\n\
             romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
             vgaromimage: file=/usr/share/vgabios/vgabios.bin\n\
             vga: extension=vbe, update_freq=1\n\
             clock: sync=none, time0=local\n\
             boot: cdrom\n\
             ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
             ata0-master: type=cdrom, path={dir}/boot.iso, status=inserted\n\
             {data}\
             com1: enabled=1, mode=file, dev={dir}/console\n\
             com2: enabled=1, mode=file, dev={dir}/results\n\
             log: {dir}/bochs.log\n\
             panic: action=report\n\
             error: action={errors}\n\
             info: action=ignore\n\
             debug: action=ignore\n",
            model = self.model,
            cpus = self.cpus,
            memory = self.memory,
            // KVM reads MSRs that no model has, a million log lines of them.
            errors = if self.kvm { "ignore" } else { "report" },
        )
    }
}

const DISK_HEADS: u64 = 16;
const DISK_SECTORS: u64 = 63;
/// A disk's size is a multiple of this: one cylinder.
pub const DISK_UNIT: u64 = DISK_HEADS * DISK_SECTORS * 512;
