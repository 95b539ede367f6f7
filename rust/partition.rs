// SPDX-License-Identifier: GPL-2.0

//! A partition: its features, memory, synthetic registers and VPs.
//!
//! Lock order: `setup`, a VP's state, `synthetic`, `memory`'s regions, the space's map lock. A
//! later one may be taken while an earlier one is held, never the other way round. Apart from these,
//! under a VP's state: the machine's ports or `connections`, then a port's state, or the map lock; a VP's
//! `thread`. None is taken in a window.

mod access_log;
pub(crate) mod clock;
mod cpu;
mod cpuid;
mod gpa;
pub(crate) mod hvcall;
mod intercept;
mod interrupt;
pub(crate) mod ioeventfd;
mod irqfd;
pub(crate) mod memory;
mod monitors;
pub(crate) mod ports;
mod property;
mod registry;
mod routing;
pub(crate) mod space;
pub(crate) mod spin;
mod synic;

use crate::device::ROOT_HVCALL;
use crate::machine::{Listed, Machine};
use crate::sys::bindings::*;
use crate::sys::eopnotsupp;
use crate::sys::file::{anon_fd, FileOps};
use crate::sys::host::{self, MmId};
use crate::sys::pages::{PageBox, Pages};
use crate::sys::user;
use crate::vmx::insn::cpuid;
use crate::vp::shared::{event, VpShared};
use crate::vp::{Vp, VpFile};
use clock::Clock;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use cpu::APIC_HZ;
use cpumodel::{CpuModel, Disabled, Overrides};
use ept::{EptConfig, PageSize, Rights};
use hv1::monitor::MonitorSchedule;
use hv1::msr::{Crash, MsrEffect, MsrError, Origin, PartitionState, VpEnv};
use hv1::{Overlay, OverlayKind, PartitionFeatures, PartitionLimits, VpMask, MAX_VPS};
use hvdef::{
    HvHardwareFeatures, HvPartitionCounter, HvPartitionPrivilege, HvSyntheticProcessorFeatures,
};
use intercept::Intercepts;
use ioeventfd::IoEventFd;
use irqfd::{Irqfds, Line};
use kernel::ioctl::{_IO, _IOW, _IOWR};
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::{Arc, ArcBorrow, Mutex, SetOnce};
use memory::Memory;
use registry::Registry;
use routing::Routes;
use space::Space;
use vmxdef::caps::ept_vpid;

const INITIALIZE_PARTITION: u32 = _IO(MSHV_IOCTL, 0);
const CREATE_VP: u32 = _IOW::<mshv_create_vp>(MSHV_IOCTL, 1);
const IRQFD: u32 = _IOW::<mshv_user_irqfd>(MSHV_IOCTL, 3);
const IOEVENTFD: u32 = _IOW::<mshv_user_ioeventfd>(MSHV_IOCTL, 4);
const SET_MSI_ROUTING: u32 = _IOW::<mshv_user_irq_table>(MSHV_IOCTL, 5);
const SET_GUEST_MEMORY: u32 = _IOW::<mshv_user_mem_region>(MSHV_IOCTL, 2);
const GET_GPAP_ACCESS_BITMAP: u32 = _IOWR::<mshv_gpap_access_bitmap>(MSHV_IOCTL, 6);

/// What is fixed when the partition is initialized.
pub(crate) struct Config {
    pub(crate) features: PartitionFeatures,
    pub(crate) cpu: CpuModel,
    /// Bits that CR4 may have.
    pub(crate) cr4_allowed: u64,
    pub(crate) lapic: vapic::Config,
    pub(crate) time: Clock,
}

impl Config {
    /// Whether XSETBV takes `value`.
    pub(crate) fn xcr0_is_legal(&self, value: u64) -> bool {
        self.cpu.xsave().xcr0_is_legal(value)
    }
}

/// What became of a write to a synthetic MSR.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Done,
    /// The guest wants the partition to be reset, which is its VMM's affair.
    Reset,
}

struct Setup {
    requested: HvSyntheticProcessorFeatures,
    /// Privileges asked for by name.
    asked: HvPartitionPrivilege,
    disabled: Disabled,
    /// CPUID results registered for all VPs, for those that come later.
    cpuid_overrides: Option<PageBox<Overrides>>,
}

/// A partition.
#[pin_data]
pub(crate) struct Partition {
    pub(crate) machine: Arc<Machine>,
    pub(crate) summary: Listed,
    creator: MmId,
    /// The local APICs are the module's, and not the VMM's.
    pub(crate) has_lapic: bool,
    has_x2apic: bool,
    #[pin]
    setup: Mutex<Setup>,
    config: SetOnce<KBox<Config>>,
    #[pin]
    synthetic: Mutex<PartitionState>,
    /// Copy of GUEST_OS_ID for the hot tier.
    guest_os_id: AtomicU64,
    /// Copy of TSC_INVARIANT_CONTROL for the hot tier.
    tsc_invariant: AtomicBool,
    /// HV_PARTITION_PROPERTY_UNIMPLEMENTED_MSR_ACTION: reads give 0, writes are dropped.
    pub(crate) ignores_unimplemented_msrs: AtomicBool,
    /// What exits give to the VMM.
    pub(crate) intercepts: Intercepts,
    /// HV_PARTITION_PROPERTY_PROCESSORS_PER_SOCKET; 0: all are in one.
    processors_per_socket: AtomicU32,
    hypercall_page: Pages,
    tsc_page: SetOnce<Pages>,
    #[pin]
    vps: [SetOnce<Pin<KBox<Vp>>>; MAX_VPS as usize],
    /// The VP that last got the CPU of one that spins.
    yielded_to: AtomicU32,
    /// Lines whose end of interrupt an irqfd waits for.
    #[pin]
    resampled: Registry<Line>,
    /// Ports of others that the guest can send to.
    #[pin]
    connections: Mutex<KVec<ports::Connection>>,
    /// When to look at the monitor pages among them.
    pub(crate) monitors: MonitorSchedule,
    /// Writes of the guest that signal eventfds.
    #[pin]
    pub(crate) ioeventfds: Registry<IoEventFd>,
    // After the VPs: they are dropped first.
    #[pin]
    pub(crate) memory: Memory,
}

impl Partition {
    /// CREATE_PARTITION.
    pub(crate) fn new(machine: Arc<Machine>, flags: u64, disabled: Disabled) -> Result<Arc<Self>> {
        let has = |bit: u32| flags & 1 << bit != 0;
        // x2APIC is a mode of the local APIC.
        if has(MSHV_PT_BIT_X2APIC) && !has(MSHV_PT_BIT_LAPIC) {
            return Err(EINVAL);
        }
        let space = Space::new(ept_config(&machine, has(MSHV_PT_BIT_GPA_SUPER_PAGES)))?;
        let mut hypercall_page = Pages::new(0)?;
        hypercall_page
            .bytes_mut()
            .copy_from_slice(&hv1::hypercall::HYPERCALL_PAGE_VMX);
        let summary = Machine::list_partition(&machine)?;
        Arc::pin_init(
            try_pin_init!(Self {
                machine,
                summary,
                creator: MmId::current(),
                has_lapic: has(MSHV_PT_BIT_LAPIC),
                has_x2apic: has(MSHV_PT_BIT_X2APIC),
                setup <- new_mutex!(Setup {
                    requested: HvSyntheticProcessorFeatures::empty(),
                    asked: HvPartitionPrivilege::empty(),
                    disabled,
                    cpuid_overrides: None,
                }),
                config: SetOnce::new(),
                synthetic <- new_mutex!(PartitionState::new()),
                guest_os_id: AtomicU64::new(0),
                tsc_invariant: AtomicBool::new(false),
                ignores_unimplemented_msrs: AtomicBool::new(false),
                intercepts: Intercepts::new(),
                processors_per_socket: AtomicU32::new(0),
                hypercall_page,
                tsc_page: SetOnce::new(),
                vps: [const { SetOnce::new() }; MAX_VPS as usize],
                yielded_to: AtomicU32::new(0),
                resampled <- Registry::new(),
                connections <- new_mutex!(KVec::new()),
                monitors: MonitorSchedule::new(),
                ioeventfds <- Registry::new(),
                memory <- Memory::new(space),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// INITIALIZE_PARTITION: fixes the features. A second time it does nothing.
    fn initialize(&self) -> Result {
        let setup = self.setup.lock();
        if self.config.as_ref().is_some() {
            return Ok(());
        }
        let config = self.make_config(&setup)?;
        let page = Pages::new(0)?;
        config.time.fill_page(&page);
        self.tsc_page.populate(page);
        self.config.populate(config);
        Ok(())
    }

    fn make_config(&self, setup: &Setup) -> Result<KBox<Config>> {
        let tsc_hz = u64::from(host::tsc_khz()) * 1000;
        let reliable = host::tsc_reliable();
        let physical_address_bits = cpu::physical_address_bits();
        let features = PartitionFeatures::new(
            setup.requested,
            PartitionLimits {
                max_vps: MAX_VPS,
                physical_address_bits,
                tsc_hz,
                apic_hz: u64::from(APIC_HZ),
                lapic: self.has_lapic,
                tsc_reliable: reliable,
                hardware: HvHardwareFeatures::empty(),
                asked: setup.asked,
            },
        );
        let time = Clock::new(tsc_hz, reliable).ok_or_else(eopnotsupp)?;
        let mut config = KBox::new(
            Config {
                features,
                cpu: CpuModel::new(),
                cr4_allowed: 0,
                lapic: vapic::Config {
                    tsc_khz: host::tsc_khz(),
                    apic_hz: APIC_HZ,
                    x2apic_available: self.has_x2apic,
                    tsc_deadline_available: true,
                    maxphyaddr: physical_address_bits,
                    present: self.has_lapic,
                },
                time,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        config.cpu.build(
            &cpuid,
            &cpumodel::Machine {
                disabled: setup.disabled,
                lapic: self.has_lapic,
                x2apic: self.has_x2apic,
                hypervisor_present: features.hypervisor_present(),
                ..cpu::most(&self.machine)
            },
        );
        if config.cpu.has(cpumodel::Feature::InvariantTsc) {
            config.features.grant_tsc_invariant();
        }
        if config.cpu.npiep() {
            config.features.grant_npiep();
        }
        config.cr4_allowed = config.cpu.cr4_legal_bits();
        config.lapic.tsc_deadline_available = config.cpu.has(cpumodel::Feature::TscDeadline);
        Ok(config)
    }

    /// What INITIALIZE_PARTITION fixed. EINVAL before it.
    pub(crate) fn config(&self) -> Result<&Config> {
        self.config.as_ref().map(|c| &**c).ok_or(EINVAL)
    }

    /// Only the creator's memory is the guest's: others get EIO.
    pub(crate) fn check_creator(&self) -> Result {
        if MmId::current() == self.creator {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// The VP `index`.
    pub(crate) fn vp(&self, index: u32) -> Option<&Vp> {
        self.vps
            .get(index as usize)
            .and_then(|vp| vp.as_ref())
            .map(|vp| &**vp)
    }

    /// All VPs.
    pub(crate) fn vps(&self) -> impl Iterator<Item = &Vp> {
        self.vps.iter().filter_map(|vp| Some(&**vp.as_ref()?))
    }

    /// The part of the VPs that other threads may touch, with their indexes.
    #[inline]
    pub(crate) fn shared_vps(&self) -> impl Iterator<Item = (u32, &VpShared)> + Clone {
        (0..self.memory.space.vps_end())
            .zip(&self.vps)
            .filter_map(|(i, vp)| Some((i, &vp.as_ref()?.shared)))
    }

    /// Number of VPs.
    pub(crate) fn nr_vps(&self) -> u32 {
        self.summary.nr_vps()
    }

    /// VPs that share a package, as far as CPUID tells.
    #[inline]
    pub(crate) fn vps_of_package(&self) -> u32 {
        match self.processors_per_socket.load(Ordering::Relaxed) {
            0 => self.nr_vps(),
            n => n.min(self.nr_vps()),
        }
    }

    /// Kicks VPs. Not in guest context.
    pub(crate) fn kick_all(&self, vps: &VpMask) {
        for (index, shared) in self.shared_vps().filter(|(index, _)| vps.contains(*index)) {
            shared.kick(&self.memory.space, index);
        }
    }

    /// Waits until these VPs have flushed, or will before they enter the guest. In a window, out of guest mode.
    pub(crate) fn finish_flushes(&self, vps: &VpMask) {
        let asked = self.shared_vps().filter_map(|(index, shared)| {
            let mode = self.memory.space.guest_mode(index)?;
            vps.contains(index).then_some((&shared.linear_flush, mode))
        });
        ept::finish_linear_flush(asked, host::kick_cpu, host::cpu_relax);
    }

    /// CREATE_VP: EINVAL for an index out of range, EEXIST, EIO before INITIALIZE_PARTITION.
    fn create_vp(this: &Arc<Self>, arg: usize) -> Result<isize> {
        let index = user::read::<mshv_create_vp>(arg)?.vp_index;
        let setup = this.setup.lock();
        let slot = this.vps.get(index as usize).ok_or(EINVAL)?;
        if slot.as_ref().is_some() {
            return Err(EEXIST);
        }
        let config = this.config().map_err(|_| EIO)?;
        let vp = Vp::new(this, config, setup.cpuid_overrides.as_deref(), index)?;
        let file = Arc::new(VpFile::new(this.clone(), index), GFP_KERNEL_ACCOUNT)?;
        this.summary.add_vp(index, &vp.stats)?;
        // What the partition told its VPs before is for this one, too.
        vp.shared.set_event(event::PARTITION);
        slot.populate(vp);
        this.memory.space.add_vp(index);
        // Should the descriptor table be full, the VP stays without a file until the partition
        // goes, as a second try would find it.
        Ok(anon_fd(file)? as isize)
    }

    /// Leaf of CPUID at 0x400000xx.
    pub(crate) fn hv_cpuid(&self, config: &Config, leaf: u32) -> [u32; 4] {
        hv1::cpuid(leaf, &config.features).unwrap_or([0; 4])
    }

    /// Whether CPUID shows an invariant TSC: when the guest has asked for it, or if it cannot ask (F-TM15).
    #[inline(always)]
    pub(crate) fn shows_invariant_tsc(&self, config: &Config) -> bool {
        let control = HvPartitionPrivilege::ACCESS_TSC_INVARIANT_CONTROLS;
        !config.features.privileges.contains(control) || self.tsc_invariant.load(Ordering::Relaxed)
    }

    /// HV_X64_MSR_GUEST_OS_ID.
    #[inline]
    pub(crate) fn guest_os_id(&self) -> u64 {
        self.guest_os_id.load(Ordering::Relaxed)
    }

    /// Reads a synthetic MSR.
    pub(crate) fn read_msr(
        &self,
        msr: u32,
        origin: Origin,
        env: &impl VpEnv,
    ) -> Result<u64, MsrError> {
        let config = self.config().map_err(|_| MsrError::NotMine)?;
        let state = self.synthetic.lock();
        hv1::msr::read_msr(msr, origin, &config.features, &state, env)
    }

    /// Writes a synthetic MSR.
    pub(crate) fn write_msr(
        &self,
        msr: u32,
        value: u64,
        origin: Origin,
    ) -> Result<Written, MsrError> {
        let config = self.config().map_err(|_| MsrError::NotMine)?;
        let mut state = self.synthetic.lock();
        let effect = hv1::msr::write_msr(msr, value, origin, &config.features, &mut state)?;
        self.guest_os_id
            .store(state.guest_os_id(), Ordering::Relaxed);
        self.tsc_invariant
            .store(state.tsc_invariant(), Ordering::Relaxed);
        match effect {
            MsrEffect::None => {}
            MsrEffect::Overlay { overlay, gpn } => self.place_overlay(overlay, gpn),
            MsrEffect::Crash(crash) => {
                drop(state);
                self.log_crash(&crash);
            }
            MsrEffect::Reset => return Ok(Written::Reset),
        }
        Ok(Written::Done)
    }

    /// Synthetic registers as after creation, and their pages nowhere. Not in a window.
    pub(crate) fn reset_synthetic(&self) {
        let mut state = self.synthetic.lock();
        *state = PartitionState::new();
        self.guest_os_id.store(0, Ordering::Relaxed);
        self.tsc_invariant.store(false, Ordering::Relaxed);
        for kind in [
            OverlayKind::HypercallPage,
            OverlayKind::ReferenceTsc,
            OverlayKind::Stats,
            OverlayKind::InternalStats,
        ] {
            self.place_overlay(Overlay::partition(kind), None);
        }
    }

    /// F-CR1: the guest's last words, as far as its memory can be read.
    fn log_crash(&self, crash: &Crash) {
        let id = self.summary.id;
        host::log_crash(id, &crash.parameters);
        let (Some((mut gpa, mut left)), Ok(mut line)) =
            (crash.text, KVec::from_elem(0u8, 240, GFP_KERNEL_ACCOUNT))
        else {
            return;
        };
        while left != 0 {
            let in_page = 4096 - gpa % 4096;
            let size = left.min(in_page).min(240);
            let Some(bytes) = line.get_mut(..size as usize) else {
                return;
            };
            if self.memory.read(gpa, bytes).is_none() {
                return;
            }
            host::log_guest_text(id, bytes);
            (gpa, left) = (gpa.wrapping_add(size), left - size);
        }
    }

    fn place_overlay(&self, overlay: Overlay, gpn: Option<u64>) {
        let page = match overlay.kind {
            OverlayKind::HypercallPage => Some(self.hypercall_page.phys()),
            OverlayKind::ReferenceTsc => self.tsc_page.as_ref().map(Pages::phys),
            OverlayKind::Stats => Some(self.summary.stats.pages().phys(0)),
            OverlayKind::InternalStats => Some(self.summary.stats.pages().phys(1)),
            // Those of a VP come from its own MSRs.
            _ => None,
        };
        if let Some(page) = page {
            self.place_page(page, overlay.kind, gpn);
        }
    }

    /// Shows the overlay page `page`, of the machine, at `gpn`, or nowhere.
    pub(crate) fn place_page(&self, page: u64, kind: OverlayKind, gpn: Option<u64>) {
        let rights = kind.rights();
        let rights = Rights {
            read: true,
            write: rights.write,
            execute: rights.execute,
        };
        // There are fewer overlays than places.
        let _ = self.memory.space.place_overlay(page, gpn, rights);
    }

    /// The exception that a forbidden access to an overlay at `gpn` raises.
    pub(crate) fn overlay_fault(&self, gpn: u64) -> Option<u8> {
        let overlay = self.memory.space.overlay(gpn)?;
        Some(if overlay.spa.0 == self.hypercall_page.phys() {
            x86def::vector::GP
        } else {
            x86def::vector::MC
        })
    }

    /// SYNTHETIC_PROC_FEATURES, before INITIALIZE_PARTITION only; false after it.
    fn request_features(&self, features: u64) -> bool {
        let mut setup = self.setup.lock();
        if self.config.as_ref().is_some() {
            return false;
        }
        setup.requested = HvSyntheticProcessorFeatures(features);
        true
    }

    /// PRIVILEGE_FLAGS, as [`Self::request_features`].
    fn request_privileges(&self, privileges: HvPartitionPrivilege) -> bool {
        let mut setup = self.setup.lock();
        if self.config.as_ref().is_some() {
            return false;
        }
        setup.asked = privileges;
        true
    }
}

fn ept_config(machine: &Machine, super_pages: bool) -> EptConfig {
    let caps = machine.root.caps.ept_vpid;
    let max_leaf = if !super_pages || !machine.options.large_pages {
        PageSize::Size4K
    } else if caps & ept_vpid::PAGE_1G != 0 {
        PageSize::Size1G
    } else if caps & ept_vpid::PAGE_2M != 0 {
        PageSize::Size2M
    } else {
        PageSize::Size4K
    };
    EptConfig {
        max_leaf,
        accessed_dirty: caps & ept_vpid::ACCESSED_DIRTY != 0,
        execute_only: false,
    }
}

/// An open partition. What the kernel does for it by eventfds ends with it.
#[pin_data]
pub(crate) struct PartitionFile {
    partition: Arc<Partition>,
    #[pin]
    irqfds: Mutex<Irqfds>,
}

impl PartitionFile {
    /// The file of `partition`.
    pub(crate) fn new(partition: Arc<Partition>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                irqfds <- new_mutex!(Irqfds::new(partition.clone())),
                partition,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }
}

impl FileOps for PartitionFile {
    const NAME: &'static CStr = c"mshv_partition";

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize> {
        let partition = &this.partition;
        match cmd {
            INITIALIZE_PARTITION => partition.initialize()?,
            CREATE_VP => return Partition::create_vp(partition, arg),
            SET_GUEST_MEMORY => {
                partition.check_creator()?;
                let region = user::read(arg)?;
                partition.memory.set(&region)?;
                let stats = &partition.summary.stats;
                let pages = partition.memory.bytes.load(Ordering::Relaxed) >> 12;
                stats.set(HvPartitionCounter::GpaPages, pages);
                stats.count(HvPartitionCounter::GpaSpaceModifications);
            }
            // Its interrupts come by the local APICs.
            IRQFD if !partition.has_lapic => return Err(eopnotsupp()),
            IRQFD => this.irqfds.lock().set(&user::read(arg)?)?,
            IOEVENTFD => partition.ioeventfds.set(&user::read(arg)?)?,
            SET_MSI_ROUTING => {
                let routes = Routes::read(arg)?;
                this.irqfds.lock().set_routes(routes);
            }
            GET_GPAP_ACCESS_BITMAP => partition.memory.access_bitmap(arg)?,
            ROOT_HVCALL => return hvcall::on_partition(partition, arg),
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}
