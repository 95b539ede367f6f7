# shellcheck shell=busybox
# The ABI tests: a program of the host against /dev/mshv. Arguments: those of the program, instead of all tests.
. ./common.sh
# For the cases that swap. This machine's own memory is not to be swapped to a file of ours, so on it they run if it has swap.
if [ -z "${HVRS_HOST:-}" ]; then
	echo 128M > /sys/block/zram0/disksize && mkswap /dev/zram0 > /dev/null && swapon /dev/zram0 || exit
	mkdir -p /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup || exit
	# And one for those with a file that is written back.
	disk=zram$(cat /sys/class/zram-control/hot_add)
	echo 16M > "/sys/block/$disk/disksize" && mke2fs -b 4096 "/dev/$disk" > /dev/null || exit
	mkdir /disk && mount -t ext2 "/dev/$disk" /disk || exit
fi
insmod hvrs.ko || exit
echo "begin abi"
abi --module "$PWD/hvrs.ko" "$@" 2>&1
echo "end abi $? 0"
if [ $# != 0 ]; then
	rmmod hvrs
	exit
fi
ip link set lo up 2> /dev/null || ifconfig lo 127.0.0.1 up
abi --echo 50000 &
echo=$!
guest debug 1 --kernel guests/debug --debug-exit --debug 127.0.0.1:50000 --cpus 1 --memory 128
kill $echo
rmmod hvrs
