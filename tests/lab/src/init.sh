#!/bin/sh
# First process of the lab's machine: mounts, modules, the job, and its exit status as the last line of the second serial port.
# A line that starts with the byte 01 is for the lab driver.
/bin/busybox --install -s /bin
export PATH=/job:/bin:/usr/bin:/sbin:/usr/sbin HOME=/root DATA=/data
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
stty -F /dev/ttyS1 raw -echo
exec > /dev/ttyS1 2>&1 < /dev/null
ip link set lo up
while read -r module options; do
	# shellcheck disable=SC2086
	insmod "$module" $options || printf '\001lab-boot cannot load %s\n' "$module"
done < /modules.list
if [ -e /disk.wanted ]; then
	mount -t squashfs /dev/sda /data || printf '\001lab-boot no data disk\n'
fi
printf '\001lab-start\n'
cd /job || exit
sh /job.sh
status=$?
cd /
dmesg > /tmp/dmesg
# What the kernel says when something in it went wrong, whatever the job made of it.
grep -E 'WARNING: |BUG: |Oops|general protection|UBSAN|INFO: (task|rcu)|soft lockup|hard LOCKUP' /tmp/dmesg | sed "s/^/$(printf '\001')lab-kernel /"
if [ "$status" -ne 0 ] || [ -e /dmesg.wanted ]; then
	sed "s/^/$(printf '\001')lab-dmesg /" /tmp/dmesg
fi
printf '\001lab-exit %s\n' "$status"
# Closing the port waits until it is empty.
exec > /dev/null 2>&1
poweroff -f
