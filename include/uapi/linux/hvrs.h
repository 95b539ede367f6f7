/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR MIT */
/*
 * Userspace interface of /dev/hvrs: what hvrs adds to <linux/mshv.h>.
 *
 * Virtual machines are made and run through /dev/mshv with the structures and
 * numbers of <linux/mshv.h>. /dev/hvrs only tells about hvrs itself: its
 * version, what it uses of this machine, which partitions exist, and what they
 * count.
 */
#ifndef _UAPI_LINUX_HVRS_H
#define _UAPI_LINUX_HVRS_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Version of this interface; a higher one only adds to it. */
#define HVRS_ABI_VERSION	2

#define HVRS_IOCTL		0xB9

/*
 * Bits of struct hvrs_info.capabilities: features of this machine's VMX that
 * hvrs has found and uses.
 */
#define HVRS_CAP_BIT_VPID			0
#define HVRS_CAP_BIT_UNRESTRICTED_GUEST		1
#define HVRS_CAP_BIT_EPT_2MB			2
#define HVRS_CAP_BIT_EPT_1GB			3
#define HVRS_CAP_BIT_EPT_ACCESSED_DIRTY		4
#define HVRS_CAP_BIT_TPR_SHADOW			5
#define HVRS_CAP_BIT_APIC_REGISTER_VIRT		6
#define HVRS_CAP_BIT_VIRTUAL_INTR_DELIVERY	7
#define HVRS_CAP_BIT_PML			8
#define HVRS_CAP_BIT_VMCS_SHADOWING		9
#define HVRS_CAP_BIT_MBEC			10
#define HVRS_CAP_BIT_TSC_SCALING		11
#define HVRS_CAP_BIT_PREEMPTION_TIMER		12

/**
 * struct hvrs_info - What hvrs is and what it has found
 * @abi_version: out: HVRS_ABI_VERSION of the module.
 * @nr_partitions: out: Number of partitions that exist.
 * @capabilities: out: Bit mask of HVRS_CAP_BIT_*.
 * @version: out: Version of the module, a NUL-terminated string.
 * @reserved: out: Zero.
 *
 * Argument of HVRS_GET_INFO.
 */
struct hvrs_info {
	__u32 abi_version;
	__u32 nr_partitions;
	__u64 capabilities;
	char version[32];
	__u64 reserved[2];
};

/**
 * struct hvrs_partition_info - One partition
 * @id: in: 0 to find the first partition, or the id of the one before it;
 *      out: Partition id of the one found. Ids are not used twice.
 * @pid: out: Thread group id of the process that created it.
 * @nr_vps: out: Number of virtual processors created so far.
 * @memory_bytes: out: Size of the memory regions that are set now.
 * @comm: out: Command name of that process, NUL-terminated.
 * @exits: out: VM exits of all its virtual processors.
 * @windows: out: How often a processor entered VMX root mode for it; one
 *           window can serve many exits.
 * @reserved: out: Zero.
 *
 * Argument of HVRS_NEXT_PARTITION, which fails with ENOENT when there is no
 * further partition.
 */
struct hvrs_partition_info {
	__u64 id;
	__s32 pid;
	__u32 nr_vps;
	__u64 memory_bytes;
	char comm[16];
	__u64 exits;
	__u64 windows;
	__u64 reserved[2];
};

#define HVRS_STATS_PARTITION	0x00010001
#define HVRS_STATS_VP		0x00010002
#define HVRS_STATS_SIZE		4096

/**
 * struct hvrs_stats - Counters of a partition or of one virtual processor
 * @id: in: Partition id.
 * @object: in: HVRS_STATS_PARTITION or HVRS_STATS_VP, the numbers of
 *          HV_STATS_OBJECT_TYPE.
 * @vp_index: in: Index of the virtual processor; 0 for a partition.
 * @buffer: in: Address to which HVRS_STATS_SIZE bytes are written: the
 *          statistics page, as the guest sees it. Its words are numbered as
 *          the counters in the kernel's drivers/hv/mshv_debugfs_counters.c;
 *          what hvrs does not count is zero.
 * @reserved: in: Zero.
 *
 * Argument of HVRS_GET_STATS, which fails with ENOENT when there is no such
 * partition or virtual processor.
 */
struct hvrs_stats {
	__u64 id;
	__u32 object;
	__u32 vp_index;
	__u64 buffer;
	__u64 reserved;
};

#define HVRS_GET_INFO		_IOR(HVRS_IOCTL, 0x00, struct hvrs_info)
#define HVRS_NEXT_PARTITION	_IOWR(HVRS_IOCTL, 0x01, struct hvrs_partition_info)
#define HVRS_GET_STATS		_IOW(HVRS_IOCTL, 0x02, struct hvrs_stats)

#endif /* _UAPI_LINUX_HVRS_H */
