// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The two device nodes, and what every kind of file refuses.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use mshv_bindings::{mshv_create_partition, mshv_create_partition_v2};

use crate::hvrs;
use crate::run::{case, ensure, equal, errno, good, Case};
use crate::sys::{self, edge, KERNEL, NOWHERE, PAGE};
use crate::vm::*;

/// Files that know an ioctl.
const MSHV: u8 = 1;
const HVRS: u8 = 2;
const PARTITION: u8 = 4;
const VP: u8 = 8;

/// What the files are: a name, how to get one, its bit.
type Kind = (&'static str, fn() -> OwnedFd, u8);
const KINDS: [Kind; 4] = [
    ("/dev/mshv", device, MSHV),
    ("/dev/hvrs", hvrs::open, HVRS),
    ("partition", || take(Partition::ready()), PARTITION),
    (
        "VP",
        || {
            let vp = Partition::ready().vp(0);
            std::sync::Arc::into_inner(vp.fd).expect("one owner")
        },
        VP,
    ),
];

/// Each ioctl of this ABI, those that the crate mshv-ioctls knows besides, and wrong ones: name, number, who knows it.
/// Some numbers mean different things on different files.
const IOCTLS: &[(&str, u32, u8)] = &[
    ("CREATE_PARTITION", 0x4010_b800, MSHV),
    ("ROOT_HVCALL", 0xc020_b807, MSHV | PARTITION | VP),
    ("INITIALIZE_PARTITION", 0xb800, PARTITION),
    ("CREATE_VP", 0x4004_b801, PARTITION),
    ("SET_GUEST_MEMORY", 0x4020_b802, PARTITION),
    ("IRQFD", 0x4010_b803, PARTITION),
    ("IOEVENTFD", 0x4020_b804, PARTITION),
    ("SET_MSI_ROUTING", 0x4008_b805, PARTITION),
    ("GET_GPAP_ACCESS_BITMAP", 0xc020_b806, PARTITION),
    ("RUN_VP", 0x8100_b800, VP),
    ("GET_VP_STATE, GET_HOST_PARTITION_PROPERTY", 0xc010_b801, VP),
    ("SET_VP_STATE", 0xc010_b802, VP),
    ("HVRS_GET_INFO", hvrs::GET_INFO, HVRS),
    ("HVRS_NEXT_PARTITION", hvrs::NEXT_PARTITION, HVRS),
    ("HVRS_GET_STATS", hvrs::GET_STATS, HVRS),
    // Not in Linux.
    ("CREATE_DEVICE", 0xc00c_b808, 0),
    ("MODIFY_GPA_HOST_ACCESS", 0x4010_b809, 0),
    ("IMPORT_ISOLATED_PAGES", 0x4010_b80a, 0),
    ("INSTALL_INTERCEPT", 0x4010_b8f0, 0),
    ("ASSERT_INTERRUPT", 0x4018_b8f1, 0),
    ("SET_PARTITION_PROPERTY", 0x4010_b8f2, 0),
    ("GET_PARTITION_PROPERTY", 0xc010_b8f3, 0),
    ("COMPLETE_ISOLATED_IMPORT", 0x4d06_b8f4, 0),
    ("ISSUE_PSP_GUEST_REQUEST", 0x4010_b8f5, 0),
    ("SEV_SNP_AP_CREATE", 0x4010_b8f6, 0),
    ("SIGNAL_EVENT_DIRECT", 0xc00c_b8f7, 0),
    ("POST_MESSAGE_DIRECT", 0x4010_b8f8, 0),
    ("REGISTER_DELIVERABILITY_NOTIFICATIONS", 0x4010_b8f9, 0),
    ("GET_VP_REGISTERS", 0xc010_b8f0, 0),
    ("SET_VP_REGISTERS", 0x4010_b8f1, 0),
    // By this the crate finds out whether ROOT_HVCALL is there.
    ("VP_TRANSLATE_GVA", 0xc020_b8f2, 0),
    ("VP_REGISTER_INTERCEPT_RESULT", 0x4030_b8f3, 0),
    ("GET_VP_CPUID_VALUES", 0xc028_b8f4, 0),
    ("READ_GPA", 0xc020_b8f5, 0),
    ("WRITE_GPA", 0x4020_b8f6, 0),
    ("SET_DEVICE_ATTR", 0x4018_b800, 0),
    ("GET_DEVICE_ATTR", 0x4018_b801, 0),
    ("HAS_DEVICE_ATTR", 0x4018_b802, 0),
    // Other types, wrong sizes and directions.
    ("number 0xff", 0xb8ff, 0),
    ("CREATE_VP without its argument", 0xb801, 0),
    ("CREATE_PARTITION that reads", 0x8010_b800, 0),
    ("CREATE_VP of 8 bytes", 0x4008_b801, 0),
    ("ROOT_HVCALL of type 0xb7", 0xc020_b707, 0),
    ("ROOT_HVCALL that only writes", 0x4020_b807, 0),
    ("RUN_VP of 64 bytes", 0x8040_b800, 0),
    ("all ones", 0xffff_ffff, 0),
];

fn take(partition: Partition) -> OwnedFd {
    std::sync::Arc::into_inner(partition.0).expect("one owner")
}

pub fn cases() -> Vec<Case> {
    let mut cases = nodes();
    for (kind, open, own) in KINDS {
        cases.push(case(
            format!("{kind}: its ioctls; all others give ENOTTY [V-I1]"),
            move || {
                let fd = open();
                for &(name, number, files) in IOCTLS {
                    let result = sys::ioctl(&fd, number, 0);
                    let known = !matches!(result, Err(sys::Errno(libc::ENOTTY)));
                    equal(name, known, files & own != 0)?;
                }
                Ok(())
            },
        ));
        cases.push(case(format!("{kind}: lseek gives 0 [V-I2]"), move || {
            let fd = open();
            // SAFETY: No memory involved.
            let at = sys::check(unsafe { libc::lseek(fd.as_raw_fd(), 5, libc::SEEK_SET) });
            equal("lseek", good("lseek", at)?, 0)
        }));
        cases.push(case(
            format!("{kind}: read and write give EINVAL [V-I2]"),
            move || {
                let fd = open();
                let mut byte = [0u8];
                // SAFETY: One byte.
                let read =
                    sys::check(
                        unsafe { libc::read(fd.as_raw_fd(), byte.as_mut_ptr().cast(), 1) } as i64,
                    );
                errno("read", read, libc::EINVAL)?;
                // SAFETY: One byte.
                let write =
                    sys::check(
                        unsafe { libc::write(fd.as_raw_fd(), byte.as_ptr().cast(), 1) } as i64,
                    );
                // A file opened for reading refuses before the driver is asked.
                ensure(
                    matches!(write, Err(e) if e.0 == libc::EINVAL || e.0 == libc::EBADF),
                    || format!("write: {write:?}"),
                )
            },
        ));
    }
    cases.extend(create());
    cases.extend(info());
    cases
}

fn nodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in ["/dev/mshv", "/dev/hvrs"] {
        cases.push(case(
            format!("{path}: character device, mode 0660"),
            move || {
                let metadata = std::fs::metadata(path).map_err(|e| e.to_string())?;
                ensure(metadata.file_type().is_char_device(), || {
                    "not a character device".into()
                })?;
                equal("mode", metadata.permissions().mode() & 0o7777, 0o660)
            },
        ));
        cases.push(case(
            format!("{path}: opens for reading, writing, both [V-I2]"),
            move || {
                for flags in [
                    libc::O_RDONLY,
                    libc::O_WRONLY,
                    libc::O_RDWR,
                    libc::O_RDONLY | libc::O_NONBLOCK,
                ] {
                    good("open", sys::open(path, flags | libc::O_CLOEXEC))?;
                }
                Ok(())
            },
        ));
    }
    for (kind, open, _) in &KINDS[..3] {
        cases.push(case(
            format!("{kind}: mmap gives ENODEV [V-I2]"),
            move || {
                let fd = open();
                errno("mmap", map(&fd, 0, PAGE), libc::ENODEV)
            },
        ));
    }
    cases
}

/// mmap(2), read-only and shared. The mapping stays.
pub fn map(fd: &impl AsRawFd, offset: usize, len: usize) -> sys::Sys<usize> {
    // SAFETY: A new mapping.
    let addr = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    if addr == libc::MAP_FAILED {
        Err(sys::last())
    } else {
        Ok(addr as usize)
    }
}

fn create_at(addr: usize) -> sys::Sys<i32> {
    sys::ioctl(&device(), CREATE_PARTITION, addr)
}

fn create_v1(flags: u64, isolation: u64) -> sys::Sys<i32> {
    let mut argument = mshv_create_partition {
        pt_flags: flags,
        pt_isolation: isolation,
    };
    sys::ioctl_on(&device(), CREATE_PARTITION, &mut argument)
}

pub fn v2() -> mshv_create_partition_v2 {
    mshv_create_partition_v2 {
        pt_flags: FLAGS | (1 << 3),
        pt_num_cpu_fbanks: 2,
        ..Default::default()
    }
}

pub fn create_v2(argument: mshv_create_partition_v2) -> sys::Sys<i32> {
    let mut argument = argument;
    sys::ioctl_on(&device(), CREATE_PARTITION, &mut argument)
}

/// A change to a valid version 2 argument.
type Change = fn(&mut mshv_create_partition_v2);
/// What version 2 must refuse.
const BAD_V2: [(&str, Change); 9] = [
    ("no banks", |a| a.pt_num_cpu_fbanks = 0),
    ("one bank", |a| a.pt_num_cpu_fbanks = 1),
    ("three banks", |a| a.pt_num_cpu_fbanks = 3),
    ("65535 banks", |a| a.pt_num_cpu_fbanks = u16::MAX),
    ("pt_rsvd[0]", |a| a.pt_rsvd[0] = 1),
    ("pt_rsvd[5]", |a| a.pt_rsvd[5] = 0x80),
    ("pt_rsvd1[0]", |a| a.pt_rsvd1 = [1, 0]),
    ("pt_rsvd1[1]", |a| a.pt_rsvd1 = [0, 1 << 63]),
    ("isolation", |a| a.pt_isolation = 1),
];

fn create() -> Vec<Case> {
    let mut cases = vec![
        case("CREATE_PARTITION: the file closes on exec", || {
            let partition = good("create", Partition::create(FLAGS))?;
            ensure(sys::is_cloexec(&partition), || {
                "FD_CLOEXEC is not set".into()
            })
        }),
        case(
            "CREATE_PARTITION: all known flags, each alone [V-I3]",
            || {
                // Local APIC, x2APIC with it, large pages, nested virtualization, SMT.
                for flags in [0, 1, 3, 4, 0x10, 0x20, 0x37] {
                    let made = Partition::create(flags);
                    let partition = good(&format!("flags {flags:#x}"), made)?;
                    good("initialize", partition.initialize())?;
                    partition.vp(0);
                }
                Ok(())
            },
        ),
        case("CREATE_PARTITION: unknown flags give EINVAL [V-I3]", || {
            for bit in 6..64 {
                errno(
                    &format!("bit {bit}"),
                    create_v1(FLAGS | (1 << bit), 0),
                    libc::EINVAL,
                )?;
            }
            Ok(())
        }),
        case("CREATE_PARTITION: isolation gives EINVAL [V-I3]", || {
            for isolation in [1, 2, 1 << 32, u64::MAX] {
                errno(
                    &format!("{isolation:#x}"),
                    create_v1(FLAGS, isolation),
                    libc::EINVAL,
                )?;
            }
            Ok(())
        }),
        case("CREATE_PARTITION: bad addresses give EFAULT", || {
            for addr in [0, NOWHERE, KERNEL, usize::MAX - 7] {
                errno(&format!("{addr:#x}"), create_at(addr), libc::EFAULT)?;
            }
            Ok(())
        }),
        case(
            "CREATE_PARTITION: 16 bytes of version 1 are enough, 15 give EFAULT [V-I3]",
            || {
                let (memory, addr) = edge(16);
                memory.write(addr - memory.addr(), &FLAGS.to_le_bytes());
                drop(sys::owned(good("16 bytes", create_at(addr))?));
                memory.write(addr + 1 - memory.addr(), &FLAGS.to_le_bytes());
                errno("15 bytes", create_at(addr + 1), libc::EFAULT)
            },
        ),
        case(
            "CREATE_PARTITION: 64 bytes of version 2 are enough, 63 give EFAULT [V-I3]",
            || {
                let (memory, addr) = edge(64);
                // SAFETY: The structure is packed integers.
                let bytes: [u8; 64] = unsafe { std::mem::transmute(v2()) };
                memory.write(addr - memory.addr(), &bytes);
                drop(sys::owned(good("64 bytes", create_at(addr))?));
                memory.write(addr + 1 - memory.addr(), &bytes[..63]);
                errno("63 bytes", create_at(addr + 1), libc::EFAULT)
            },
        ),
        case(
            "CREATE_PARTITION: version 2, all features, none disabled",
            || {
                drop(sys::owned(good("create", create_v2(v2()))?));
                Ok(())
            },
        ),
        case(
            "CREATE_PARTITION: version 2, everything disabled, still initializes and runs",
            || {
                let mut argument = v2();
                argument.pt_cpu_fbanks = [u64::MAX; 2];
                argument.pt_disabled_xsave = u64::MAX;
                let partition = Partition(sys::owned(good("create", create_v2(argument))?).into());
                good("initialize", partition.initialize())?;
                partition.vp(0);
                Ok(())
            },
        ),
    ];
    for (name, change) in BAD_V2 {
        cases.push(case(
            format!("CREATE_PARTITION: version 2, {name}: EINVAL [V-I3]"),
            move || {
                let mut argument = v2();
                change(&mut argument);
                errno("create", create_v2(argument), libc::EINVAL)
            },
        ));
    }
    cases
}

fn info() -> Vec<Case> {
    vec![
        case("HVRS_GET_INFO: ABI version, text, zeros", || {
            let info = hvrs::info();
            equal("abi_version", info.abi_version, 2)?;
            equal("reserved", info.reserved, [0; 2])?;
            let end = info.version.iter().position(|b| *b == 0);
            ensure(end.is_some_and(|end| end > 0), || {
                format!("version {:?}", info.version)
            })?;
            equal("capability bits above 12", info.capabilities >> 13, 0)
        }),
        case("HVRS_GET_INFO: counts partitions", || {
            equal("at first", hvrs::info().nr_partitions, 0)?;
            let one = Partition::ready();
            equal("with one", hvrs::info().nr_partitions, 1)?;
            let two = Partition::ready();
            equal("with two", hvrs::info().nr_partitions, 2)?;
            drop(one);
            equal("with one again", hvrs::info().nr_partitions, 1)?;
            drop(two);
            equal("at last", hvrs::info().nr_partitions, 0)
        }),
        case(
            "HVRS_NEXT_PARTITION: walks, in the order of ids, and ends with ENOENT",
            || {
                errno("none", hvrs::next(0), libc::ENOENT)?;
                let partitions: Vec<_> = (0..3).map(|_| Partition::ready()).collect();
                let ids: Vec<u64> = hvrs::partitions().iter().map(|p| p.id).collect();
                equal("number", ids.len(), 3)?;
                ensure(ids.windows(2).all(|w| w[0] < w[1]), || {
                    format!("ids {ids:?}")
                })?;
                errno("after the last", hvrs::next(ids[2]), libc::ENOENT)?;
                errno("after all", hvrs::next(u64::MAX), libc::ENOENT)?;
                drop(partitions);
                let again = Partition::ready();
                let new = hvrs::partitions()[0].id;
                drop(again);
                ensure(new > ids[2], || {
                    format!("id {new} used again after {ids:?}")
                })
            },
        ),
        case("HVRS_NEXT_PARTITION: pid, name, VPs, memory", || {
            let partition = Partition::ready();
            let memory = sys::Memory::new(16 * PAGE);
            partition.map(0, &memory, RWX);
            let _vps = (partition.vp(0), partition.vp(5));
            let info = hvrs::partitions()[0];
            equal("pid", info.pid as u32, std::process::id())?;
            equal("nr_vps", info.nr_vps, 2)?;
            equal("memory_bytes", info.memory_bytes, 16 * PAGE as u64)?;
            equal("reserved", info.reserved, [0; 2])?;
            let comm = std::fs::read_to_string("/proc/self/comm").map_err(|e| e.to_string())?;
            let end = info.comm.iter().position(|b| *b == 0).unwrap_or(16);
            equal(
                "comm",
                String::from_utf8_lossy(&info.comm[..end]).as_ref(),
                comm.trim_end(),
            )
        }),
        case("/dev/hvrs: bad addresses give EFAULT", || {
            let _partition = Partition::ready();
            for number in [hvrs::GET_INFO, hvrs::NEXT_PARTITION] {
                for addr in [0, NOWHERE, KERNEL, edge(60).1] {
                    errno(
                        &format!("{number:#x} at {addr:#x}"),
                        sys::ioctl(&hvrs::open(), number, addr),
                        libc::EFAULT,
                    )?;
                }
            }
            Ok(())
        }),
    ]
}
