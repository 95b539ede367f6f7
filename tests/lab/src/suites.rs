//! What `make test` consists of. To add a test, add a row here (and, for a boot, a script in `tests/lab/jobs`).

use crate::guest::Initramfs;

/// Cargo packages whose tests run on this machine. A path that ends in `/*` is every package in that directory.
pub const PACKAGES: &[&str] = &["rust/crates/*", "userspace-tool", "tests/lab"];

/// Cargo workspaces for rustfmt and clippy.
pub const WORKSPACES: &[&str] = &[
    "rust/crates",
    "userspace-tool",
    "tests/abi",
    "tests/guests",
    "tests/lab",
];

/// One boot of the lab's machine and the tests in it.
#[derive(Debug)]
pub struct Boot {
    /// Name of the suite.
    pub name: &'static str,
    /// CPU model of Bochs.
    pub model: &'static str,
    /// CPUs of the lab's machine.
    pub cpus: u32,
    /// Its memory in MiB.
    pub memory: u32,
    /// kvm_intel loaded.
    pub kvm: bool,
    /// Script in `tests/lab/jobs`.
    pub job: &'static str,
    /// First argument of the script: what it should do.
    pub argument: &'static str,
    /// What it needs besides hvrs.ko, hvrsctl and the scripts.
    pub needs: &'static [Need],
    /// Host seconds after which it hangs: many times what it needs, because a machine may be busy with something else.
    pub timeout: u64,
    /// Only in `make test-all`, or when asked for by its name.
    pub long: bool,
}

/// What a boot can bring along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The micro-guests, in /job.
    MicroGuests,
    /// The ABI tests, in /job, and something to swap to.
    Abi,
    /// The tests of the published crate mshv-ioctls, in /job.
    MshvIoctls,
    /// The stock kernel and an initramfs for guests, as /data/vmlinuz and /data/guest-initrd.
    LinuxGuest(Initramfs),
    /// Debian's QEMU under /data.
    Qemu,
    /// UEFI firmware there.
    Ovmf,
    /// A disk with GRUB and Debian, as /data/debian.img.
    BiosDisk,
    /// The list of where KVM and hvrs differ, in /job: what runs is KVM, and its results are judged by it.
    Differences,
    /// KVM itself: something runs on it.
    Kvm,
    /// A machine whose CPU and modules are the test's to choose: never this one (`HOST=1`).
    Lab,
}

const BASE: Boot = Boot {
    name: "",
    model: "corei7_skylake_x",
    cpus: 1,
    memory: 1024,
    kvm: false,
    job: "",
    argument: "",
    needs: &[],
    timeout: 600,
    long: false,
};

/// Linux on hvrs and on KVM at the same time.
const BESIDE: Boot = Boot {
    kvm: true,
    memory: 1536,
    job: "beside.sh",
    argument: "load",
    needs: &[Need::LinuxGuest(Initramfs::Load), Need::Qemu, Need::Kvm],
    timeout: 1800,
    long: true,
    ..BASE
};

/// What takes long with Debian's QEMU on hvrs.
const QEMU_LONG: Boot = Boot {
    job: "qemu.sh",
    timeout: 1800,
    long: true,
    ..BASE
};

/// All boots. Two run at a time where there are two CPUs, so the long ones come first.
pub const BOOTS: &[Boot] = &[
    Boot {
        name: "load-kvm",
        cpus: 2,
        kvm: true,
        job: "linux.sh",
        argument: "load:2",
        needs: &[Need::LinuxGuest(Initramfs::Load)],
        timeout: 1800,
        ..BASE
    },
    Boot {
        name: "load",
        cpus: 2,
        job: "linux.sh",
        argument: "load:2",
        needs: &[Need::LinuxGuest(Initramfs::Load)],
        timeout: 1800,
        long: true,
        ..BASE
    },
    Boot {
        name: "storm",
        cpus: 2,
        job: "linux.sh",
        argument: "storm:4",
        needs: &[Need::LinuxGuest(Initramfs::Load)],
        timeout: 1800,
        long: true,
        ..BASE
    },
    Boot {
        name: "linux",
        job: "linux.sh",
        argument: "boot:1 boot:2 boot:4 boot:8 disk:1 crash:1",
        needs: &[Need::LinuxGuest(Initramfs::Plain)],
        timeout: 1800,
        ..BASE
    },
    Boot {
        name: "linux-kvm",
        cpus: 2,
        kvm: true,
        job: "linux.sh",
        argument: "boot:1 boot:4 disk:2",
        needs: &[Need::LinuxGuest(Initramfs::Plain)],
        timeout: 1800,
        ..BASE
    },
    // More VPs than one bank of a VP set has.
    Boot {
        name: "linux-72",
        memory: 1536,
        job: "linux.sh",
        argument: "boot:72",
        needs: &[Need::LinuxGuest(Initramfs::Plain)],
        timeout: 1800,
        long: true,
        ..BASE
    },
    // Debian's QEMU on hvrs: a VMM that knows nothing of it.
    Boot {
        name: "qemu",
        job: "qemu.sh",
        argument: "exit reset:1 reset:2 pc:1 q35:2",
        needs: &[
            Need::MicroGuests,
            Need::LinuxGuest(Initramfs::Pc),
            Need::Qemu,
        ],
        timeout: 1800,
        ..BASE
    },
    Boot {
        name: "qemu-4",
        argument: "q35:4",
        needs: &[Need::LinuxGuest(Initramfs::Pc), Need::Qemu],
        ..QEMU_LONG
    },
    Boot {
        name: "qemu-devices",
        argument: "devices:2",
        needs: &[Need::LinuxGuest(Initramfs::Devices), Need::Qemu],
        ..QEMU_LONG
    },
    Boot {
        name: "qemu-load",
        argument: "load:4",
        needs: &[Need::LinuxGuest(Initramfs::PcLoad), Need::Qemu],
        ..QEMU_LONG
    },
    Boot {
        name: "qemu-bios",
        argument: "bios:2",
        needs: &[Need::Qemu, Need::BiosDisk, Need::Lab],
        ..QEMU_LONG
    },
    Boot {
        name: "qemu-efi",
        argument: "efi:2",
        needs: &[
            Need::LinuxGuest(Initramfs::Pc),
            Need::Qemu,
            Need::Ovmf,
            Need::Lab,
        ],
        ..QEMU_LONG
    },
    Boot {
        name: "guests",
        job: "guests.sh",
        needs: &[Need::MicroGuests],
        timeout: 1200,
        ..BASE
    },
    Boot {
        name: "guests-kvm",
        cpus: 2,
        kvm: true,
        job: "guests.sh",
        needs: &[Need::MicroGuests],
        timeout: 1200,
        ..BASE
    },
    Boot {
        name: "abi",
        cpus: 2,
        job: "abi.sh",
        needs: &[Need::Abi, Need::MicroGuests],
        timeout: 1200,
        ..BASE
    },
    Boot {
        name: "mshv-ioctls",
        job: "mshv-ioctls.sh",
        needs: &[Need::MshvIoctls],
        ..BASE
    },
    Boot {
        name: "abi-kvm",
        kvm: true,
        job: "abi.sh",
        needs: &[Need::Abi, Need::MicroGuests],
        timeout: 1200,
        ..BASE
    },
    Boot {
        name: "kills",
        cpus: 2,
        job: "abi.sh",
        argument: "--long kill",
        needs: &[Need::Abi],
        timeout: 2400,
        long: true,
        ..BASE
    },
    // The oldest CPU that hvrs runs on: no APICv, pause-loop exiting, PML, accessed and dirty flags.
    Boot {
        name: "guests-floor",
        model: "corei7_sandy_bridge_2600k",
        job: "guests.sh",
        needs: &[Need::MicroGuests, Need::Lab],
        timeout: 1200,
        ..BASE
    },
    // It has no accessed and dirty flags in its EPT.
    Boot {
        name: "tracking-floor",
        model: "corei7_sandy_bridge_2600k",
        job: "abi.sh",
        argument: "tracking",
        needs: &[Need::Abi, Need::Lab],
        ..BASE
    },
    // A CPU with what the others lack: protection keys, SPEC_CTRL and its kin.
    Boot {
        name: "guests-tigerlake",
        model: "tigerlake",
        job: "guests.sh",
        needs: &[Need::MicroGuests, Need::Lab],
        timeout: 1200,
        ..BASE
    },
    Boot {
        name: "refused",
        model: "corei5_lynnfield_750",
        job: "refused.sh",
        argument: "XSAVE",
        needs: &[Need::Lab],
        ..BASE
    },
    Boot {
        name: "reload",
        kvm: true,
        cpus: 2,
        job: "beside.sh",
        argument: "reload",
        needs: &[Need::MicroGuests, Need::Lab],
        ..BASE
    },
    // Who is right: the same guests on KVM.
    Boot {
        name: "on-kvm",
        kvm: true,
        job: "on-kvm.sh",
        needs: &[
            Need::MicroGuests,
            Need::Qemu,
            Need::Differences,
            Need::Kvm,
            Need::Lab,
        ],
        timeout: 2400,
        long: true,
        ..BASE
    },
    Boot {
        name: "beside",
        ..BESIDE
    },
    Boot {
        name: "beside-2",
        cpus: 2,
        ..BESIDE
    },
    Boot {
        name: "module",
        job: "module.sh",
        ..BASE
    },
    Boot {
        name: "module-kvm",
        kvm: true,
        job: "module.sh",
        ..BASE
    },
];
