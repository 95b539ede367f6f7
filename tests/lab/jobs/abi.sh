# shellcheck shell=busybox
# The ABI tests: a program of the host against /dev/mshv.
. ./common.sh
# For the cases that swap. This machine's own memory is not to be swapped to a file of ours, so on it they run if it has swap.
if [ -z "${HVRS_HOST:-}" ]; then
	echo 128M > /sys/block/zram0/disksize && mkswap /dev/zram0 > /dev/null && swapon /dev/zram0 || exit
	mkdir -p /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup || exit
fi
insmod hvrs.ko || exit
echo "begin abi"
abi --module "$PWD/hvrs.ko" 2>&1
echo "end abi $? 0"
rmmod hvrs
