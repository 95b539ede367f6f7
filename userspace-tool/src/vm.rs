// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One run of a virtual machine: from the partition's creation to its end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ::hvdef::HvPartitionPrivilege;
use anyhow::{anyhow, Context, Result};
use mshv_bindings::*;
use mshv_ioctls::{InterruptRequest, Mshv, MshvError, VmFd};
use vm_memory::{Bytes, GuestAddress};

use crate::acpi;
use crate::devices::bus::Bus;
use crate::devices::debug_exit::DebugExit;
use crate::devices::debugger::Debugger;
use crate::devices::ioapic::{InterruptSink, IoApic, Message};
use crate::devices::power::{self, Power};
use crate::devices::serial::{Output, SerialPort};
use crate::devices::virtio_block::VirtioBlock;
use crate::devices::virtio_mmio::VirtioMmio;
use crate::layout;
use crate::loader::BootSource;
use crate::memory;
use crate::mshv;
use crate::outcome::{ExitSlot, Outcome};
use crate::registers;
use crate::sys;
use crate::vcpu::{Machine, Vp};

/// What a VM consists of; it stays the same from one run to the next.
pub struct VmConfig {
    /// Number of VPs.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// Kernel, initramfs and command line.
    pub boot: BootSource,
    /// Disk images, and whether each is read-only.
    pub disks: Vec<(std::path::PathBuf, bool)>,
    /// Whether the debug-exit port is there.
    pub debug_exit: bool,
    /// Whether the guest may see that the TSC is invariant.
    pub invariant_tsc: bool,
    /// The kernel debugger that the guest's talks to.
    pub debugger: Option<std::net::SocketAddr>,
}

/// A VM that runs. Dropping it ends the run and waits for the VPs' threads.
pub struct Vm {
    threads: Vec<JoinHandle<()>>,
    machine: Arc<Machine>,
    _partition: Arc<VmFd>,
}

struct Partition(Arc<VmFd>);

impl InterruptSink for Partition {
    fn deliver(&self, message: Message) {
        let request = InterruptRequest {
            interrupt_type: message.delivery_mode.into(),
            apic_id: message.destination.into(),
            vector: message.vector.into(),
            level_triggered: message.level,
            logical_destination_mode: message.logical,
            long_mode: false,
        };
        // What is refused here is a message that the guest made up, such as a vector below 16. It is lost, as on the APIC bus.
        let _ = self.0.request_virtual_interrupt(&request);
    }
}

impl Vm {
    /// Creates the partition, loads the guest and starts the VPs.
    pub fn start(config: &VmConfig, output: Output) -> Result<Self> {
        let memory = memory::allocate(config.memory)?;
        let entry = config.boot.load(&memory, config.memory)?;
        memory.write_slice(
            &acpi::tables(config.cpus, config.disks.len()),
            GuestAddress(layout::ACPI_TABLES),
        )?;
        memory.write_slice(&power::RESET_CODE, GuestAddress(layout::RESET_VECTOR))?;
        memory.write_obj(registers::boot_gdt(entry), GuestAddress(layout::GDT))?;

        let partition = Arc::new(create_partition(config)?);
        let ioapic = Arc::new(IoApic::new(Box::new(Partition(partition.clone()))));
        let exit = Arc::new(ExitSlot::new()?);
        let mut virtio = Vec::new();
        for (n, (path, read_only)) in config.disks.iter().enumerate() {
            let disk = Box::new(VirtioBlock::open(path, *read_only)?);
            let gsi = layout::VIRTIO_MMIO_GSI + n as u32;
            virtio.push(Arc::new(VirtioMmio::new(
                disk,
                memory.clone(),
                ioapic.clone(),
                gsi,
            )?));
        }
        let bus = Bus {
            serial: SerialPort::new(ioapic.clone(), output)?,
            power: Power::new(exit.clone(), ioapic.clone()),
            debug_exit: DebugExit::new(config.debug_exit.then(|| exit.clone())),
            virtio,
            ioapic,
        };
        for (guest, host, size) in memory::pieces(&memory) {
            let region = mshv_user_mem_region {
                size,
                guest_pfn: guest >> HV_HYP_PAGE_SHIFT,
                userspace_addr: host,
                flags: (1 << MSHV_SET_MEM_BIT_WRITABLE) | (1 << MSHV_SET_MEM_BIT_EXECUTABLE),
                ..Default::default()
            };
            partition
                .map_user_memory(region)
                .map_err(explain("mapping guest memory"))?;
        }
        let debugger = match config.debugger {
            Some(peer) => Some(
                Debugger::new(peer, memory.clone())
                    .with_context(|| format!("cannot open a socket to {peer}"))?,
            ),
            None => None,
        };
        let machine = Arc::new(Machine {
            bus,
            memory,
            debugger,
            exit,
        });
        let mut vps = Vec::new();
        for index in 0..config.cpus {
            let fd = partition
                .create_vcpu(index as u8)
                .map_err(explain("creating a virtual processor"))?;
            registers::set_initial_state(&fd, index, entry)
                .map_err(explain("setting a virtual processor's registers"))?;
            vps.push(Vp::new(index, fd, machine.clone()));
        }
        let mut vm = Self {
            threads: Vec::new(),
            machine,
            _partition: partition,
        };
        for (index, vp) in vps.into_iter().enumerate() {
            let thread = std::thread::Builder::new()
                .name(format!("vp{index}"))
                .spawn(move || vp.run());
            vm.threads
                .push(thread.context("cannot start a thread for a virtual processor")?);
        }
        Ok(vm)
    }

    /// Devices, memory and exit slot.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.machine.exit.set(Outcome::Stopped);
        for thread in self.threads.drain(..) {
            // A signal that arrives just before RUN_VP has no effect; so it is repeated until the thread has seen the end.
            while !thread.is_finished() {
                sys::signal_thread(&thread, kick_signal());
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = thread.join();
        }
    }
}

/// The signal that makes RUN_VP return.
fn kick_signal() -> i32 {
    libc::SIGRTMIN()
}

/// Installs a handler for [`kick_signal`], once for the process.
pub fn install_kick_handler() -> Result<()> {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    vmm_sys_util::signal::register_signal_handler(kick_signal(), nothing)
        .context("cannot install a signal handler")
}

fn create_partition(config: &VmConfig) -> Result<VmFd> {
    let hypervisor = open_hypervisor()?;
    let flags = (1 << MSHV_PT_BIT_LAPIC)
        | (1 << MSHV_PT_BIT_X2APIC)
        | (1 << MSHV_PT_BIT_GPA_SUPER_PAGES)
        | (1 << MSHV_PT_BIT_CPU_AND_XSAVE_FEATURES);
    // What has its bit set in the feature banks is disabled: otherwise, all that the module can offer is there.
    let disabled = mshv::disabled_features(config.invariant_tsc);
    let arguments = mshv_create_partition_v2 {
        pt_flags: flags,
        pt_isolation: MSHV_PT_ISOLATION_NONE.into(),
        pt_num_cpu_fbanks: MSHV_NUM_CPU_FEATURES_BANKS as u16,
        pt_cpu_fbanks: disabled,
        ..Default::default()
    };
    let partition = hypervisor
        .create_vm_with_args(&arguments)
        .map_err(explain("creating a partition"))?;
    partition
        .set_partition_property(
            hv_partition_property_code_HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES,
            mshv::synthetic_features(),
        )
        .map_err(explain("choosing the partition's Hyper-V features"))?;
    let mut privileges = HvPartitionPrivilege::ACCESS_STATS_REG;
    if config.debugger.is_some() {
        privileges |= HvPartitionPrivilege::ACCESS_DEBUG_REGS | HvPartitionPrivilege::DEBUGGING;
    }
    partition
        .set_partition_property(
            hv_partition_property_code_HV_PARTITION_PROPERTY_PRIVILEGE_FLAGS,
            privileges.bits(),
        )
        .map_err(explain("choosing the partition's privileges"))?;
    partition
        .initialize()
        .map_err(explain("initializing the partition"))?;
    partition
        .install_intercept(mshv_install_intercept {
            access_type_mask: HV_INTERCEPT_ACCESS_MASK_WRITE,
            intercept_type: hv_intercept_type_HV_INTERCEPT_TYPE_X64_MSR_INDEX,
            intercept_parameter: hv_intercept_parameters {
                msr_index: HV_X64_MSR_CRASH_CTL,
            },
        })
        .map_err(explain("asking for the guest's crash reports"))?;
    Ok(partition)
}

/// Opens /dev/mshv; what can be wrong with it is told with its remedy.
pub fn open_hypervisor() -> Result<Mshv> {
    Mshv::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => anyhow!(
            "hvrs is not loaded: run `insmod hvrs.ko` (`hvrsctl check` tells whether this host can run it)"
        ),
        libc::EACCES | libc::EPERM => {
            anyhow!("no permission for /dev/mshv: become a member of the group `mshv`, or root")
        }
        _ => explain("opening /dev/mshv")(error),
    })
}

fn explain(what: &'static str) -> impl Fn(MshvError) -> anyhow::Error {
    move |error| match error {
        MshvError::Errno(errno) => anyhow!("{what} failed: {errno}"),
        hypercall => anyhow!("{what} failed: {hypercall}"),
    }
}
