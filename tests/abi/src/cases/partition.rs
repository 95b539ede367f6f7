// SPDX-License-Identifier: Apache-2.0 OR MIT
//! INITIALIZE_PARTITION and CREATE_VP, and the life of their files.

use crate::hvrs;
use crate::run::{case, ensure, equal, errno, good, Case};
use crate::sys::{self, edge, KERNEL, NOWHERE};
use crate::vm::*;

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "INITIALIZE_PARTITION: twice gives 0 both times [V-I4]",
            || {
                let partition = good("create", Partition::create(FLAGS))?;
                equal("first", good("first", partition.initialize())?, 0)?;
                equal("second", good("second", partition.initialize())?, 0)
            },
        ),
        case(
            "CREATE_VP: before INITIALIZE_PARTITION gives EIO [V-I5]",
            || {
                let partition = good("create", Partition::create(FLAGS))?;
                for (index, wanted) in [(0, libc::EIO), (256, libc::EINVAL)] {
                    let got = partition.create_vp(index).map(|_| ());
                    errno(&format!("{index}"), got, wanted)?;
                }
                Ok(())
            },
        ),
        case(
            "CREATE_VP: an index out of range gives EINVAL [V-I5]",
            || {
                let partition = Partition::ready();
                for index in [256, 257, 1 << 16, 1 << 31, u32::MAX - 1, u32::MAX] {
                    errno(
                        &format!("{index}"),
                        partition.create_vp(index).map(|_| ()),
                        libc::EINVAL,
                    )?;
                }
                equal("VPs", hvrs::mine()[0].nr_vps, 0)
            },
        ),
        case(
            "CREATE_VP: twice gives EEXIST, also after its file was closed [V-I5]",
            || {
                let partition = Partition::ready();
                let vp = partition.vp(0);
                errno("second", partition.create_vp(0).map(|_| ()), libc::EEXIST)?;
                drop(vp);
                errno("third", partition.create_vp(0).map(|_| ()), libc::EEXIST)
            },
        ),
        case("CREATE_VP: any order; the file closes on exec", || {
            let partition = Partition::ready();
            for index in [3, 0, 7, 1] {
                let vp = good("create_vp", partition.create_vp(index))?;
                ensure(sys::is_cloexec(&vp), || "FD_CLOEXEC is not set".into())?;
            }
            equal("VPs", hvrs::mine()[0].nr_vps, 4)
        }),
        case("CREATE_VP: bad addresses give EFAULT [V-I5]", || {
            let partition = Partition::ready();
            for addr in [0, NOWHERE, KERNEL, edge(3).1] {
                errno(
                    &format!("{addr:#x}"),
                    sys::ioctl(&partition, CREATE_VP, addr),
                    libc::EFAULT,
                )?;
            }
            Ok(())
        }),
        case(
            "CREATE_VP: with a full descriptor table gives EMFILE, and leaks nothing",
            || {
                let partition = Partition::ready();
                let limit = libc::rlimit {
                    rlim_cur: 0,
                    rlim_max: 0,
                };
                // SAFETY: A structure that lives during the call.
                unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
                errno(
                    "create_vp",
                    partition.create_vp(0).map(|_| ()),
                    libc::EMFILE,
                )
            },
        ),
        case("partition: lives as long as a VP's file [V-L1]", || {
            let partition = Partition::ready();
            let vp = partition.vp(0);
            drop(partition);
            equal("partitions", hvrs::mine().len(), 1)?;
            vp.register(names::HV_X64_REGISTER_RIP)?;
            drop(vp);
            equal("partitions", hvrs::mine().len(), 0)
        }),
    ]
}
