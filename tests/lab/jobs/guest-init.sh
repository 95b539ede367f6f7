#!/bin/sh
# First process of a Linux guest in the tests. The kernel command line says what to do (lab.test=) and what to expect
# (lab.cpus=, lab.memory= in MiB). What it prints is described in tests/lab/src/protocol.rs.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/sbin:/usr/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
exec > /dev/console 2>&1 < /dev/console
# The kernel's own lines must not break the protocol's.
dmesg -n 1

parameter() { sed -n "s/.*\\<lab\\.$1=\\([^ ]*\\).*/\\1/p" /proc/cmdline; }
test=$(parameter test) cpus=$(parameter cpus) memory=$(parameter memory)
passed=0 failed=0

# check NAME IDS COMMAND...: one test, which passes if the command succeeds.
check() {
	name=$1 ids=$2
	shift 2
	if output=$("$@" 2>&1); then
		passed=$((passed + 1))
		echo "ok $name [$ids]"
	else
		status=$?
		failed=$((failed + 1))
		echo "not ok $name [$ids]: status $status: $(echo "$output" | tail -n 5 | tr '\n' ' ')"
	fi
}

cpu_count() { [ "$(nproc)" -eq "$cpus" ]; }
memory_size() {
	kilobytes=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
	echo "$kilobytes kB of $memory MiB"
	# The kernel keeps some for itself.
	[ "$kilobytes" -le $((memory * 1024)) ] && [ "$kilobytes" -ge $((memory * 1024 * 7 / 10)) ]
}
hypervisor_found() { dmesg | grep 'Hypervisor detected: Microsoft Hyper-V'; }
hypervisor_version() {
	dmesg | grep 'Hyper-V: Hypervisor Build'
	dmesg | grep -q 'Hyper-V: Hypervisor Build 10\.0\.20348\.'
}
# Linux asks for IPIs by hypercall and GUEST_IDLE before it does.
pv_spinlocks() {
	dmesg | grep 'Hyper-V: PV spinlocks'
	dmesg | grep -q 'Hyper-V: PV spinlocks enabled'
}
current=/sys/devices/system/clocksource/clocksource0/current_clocksource
clocksource() {
	cat $current
	[ "$(cat $current)" = hyperv_clocksource_tsc_page ]
}
# Linux takes the TSC itself where Hyper-V says that it is invariant.
tsc_invariant() {
	cat $current
	[ "$(cat $current)" = tsc ]
}

# From here on, so that the page serves all that follows.
reference_tsc_page() {
	echo hyperv_clocksource_tsc_page > $current
	clocksource
}
processor_calls() {
	dmesg | grep 'Hyper-V: Using'
	dmesg | grep -q 'Hyper-V: Using hypercall for remote TLB flush' && dmesg | grep -q 'Hyper-V: Using IPI hypercalls'
}
# What every VP computes must be the same.
every_cpu_computes() {
	for cpu in $(seq 0 $((cpus - 1))); do
		taskset -c "$cpu" sh -c 'seq 1 2000 | sha256sum' || echo "CPU $cpu: failed"
	done > /tmp/sums
	sort -u /tmp/sums
	[ "$(wc -l < /tmp/sums)" -eq "$cpus" ] && [ "$(sort -u /tmp/sums | wc -l)" -eq 1 ]
}
uptime_ms() { sed 's/\([0-9]*\)\.\([0-9]*\) .*/\1\20/' /proc/uptime; }
# A second of sleep is a second of the clock. Upwards there is room: the emulated host is slow.
sleep_a_second() {
	before=$(uptime_ms)
	sleep 1
	after=$(uptime_ms)
	echo "$((after - before)) ms"
	[ $((after - before)) -ge 990 ] && [ $((after - before)) -le 3000 ]
}
# Every CPU's clock is its synthetic timer, in direct mode.
clockevents() {
	grep '^Clock Event Device:' /proc/timer_list
	[ "$(grep -c '^Clock Event Device: Hyper-V clockevent' /proc/timer_list)" -eq "$cpus" ]
}
# Every CPU's timer interrupt comes.
timers_tick() {
	grep '^ *HVS:' /proc/interrupts > /tmp/before
	sleep 1
	grep '^ *HVS:' /proc/interrupts > /tmp/after
	cat /tmp/before /tmp/after
	for column in $(seq 2 $((cpus + 1))); do
		a=$(awk "{ print \$$column }" /tmp/before) b=$(awk "{ print \$$column }" /tmp/after)
		taskset -c $((column - 2)) true && [ "$b" -gt 0 ] && [ "$b" -ge "$a" ] || return 1
	done
}
# disk_keeps_data [DEVICE]
disk_keeps_data() {
	device=${1:-/dev/vda}
	dd if=/dev/urandom of=/tmp/pattern bs=64k count=32 2> /dev/null
	dd if=/tmp/pattern of="$device" bs=64k seek=1 conv=fsync 2> /dev/null || return
	echo 3 > /proc/sys/vm/drop_caches
	dd if="$device" of=/tmp/back bs=64k skip=1 count=32 2> /dev/null || return
	cmp /tmp/pattern /tmp/back
}
random_bytes() {
	cat /sys/class/misc/hw_random/rng_current
	dd if=/dev/hwrng bs=64 count=1 2> /dev/null | sha256sum > /tmp/first || return
	dd if=/dev/hwrng bs=64 count=1 2> /dev/null | sha256sum > /tmp/second || return
	! cmp -s /tmp/first /tmp/second
}
# One pin of the IOAPIC, level-triggered, again and again.
level_interrupts() {
	for _ in 1 2 3; do download || return; done
	grep eth0 /proc/interrupts
	awk '/IO-APIC.*fasteoi.*eth0/ { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { exit sum < 100 }' /proc/interrupts
}
# monitor COMMAND: the job gives QEMU's monitor this command.
monitor() { echo "monitor: $1" > /dev/console; }
keyboard() {
	cat /proc/bus/input/devices
	event=$(grep -A 4 'Name="QEMU QEMU USB Keyboard"' /proc/bus/input/devices | sed -n 's/.*\(event[0-9]*\).*/\1/p')
	timeout 30 dd if="/dev/input/$event" of=/tmp/events bs=24 count=2 2> /dev/null &
	sleep 1
	monitor "sendkey a"
	wait $!
	# Type 1 (a key), code 30 (A), value 1 (pressed), behind the time stamp of the second event.
	od -A n -t u2 -j 40 -N 6 /tmp/events | grep ' 1 *30 *1$'
}
# QEMU stops the machine for 4 seconds.
stands_still() {
	rtc=/sys/class/rtc/rtc0/since_epoch
	longest=0 last=$(cat $rtc)
	monitor stop
	for _ in $(seq 50); do
		usleep 100000
		now=$(cat $rtc)
		[ $((now - last)) -le "$longest" ] || longest=$((now - last))
		last=$now
	done
	echo "longest gap: $longest s"
	[ "$longest" -ge 3 ] && [ "$longest" -le 8 ]
}
# From a program that QEMU starts on the host for each connection.
download() {
	ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up || return
	nc 10.0.2.100 1234 < /dev/null > /tmp/download
	sha256sum /tmp/download | grep "^$(parameter sum) "
}
filesystem() {
	mke2fs /dev/vda > /dev/null && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt || return
	cp /bin/busybox /mnt/ && sync && umount /mnt && mount -t ext4 /dev/vda /mnt || return
	cmp /bin/busybox /mnt/busybox && umount /mnt
}
kernel_content() {
	! dmesg | grep -E 'WARNING: |BUG: |Oops|general protection|UBSAN|INFO: (task|rcu)|soft lockup|hard LOCKUP|unchecked MSR|Unstable clock|clocksource: .*unstable'
}

while read -r module options; do
	# shellcheck disable=SC2086
	insmod "$module" $options || echo "cannot load $module"
done < /modules.list

finish() {
	check "the guest's kernel has no complaint" - kernel_content
	echo "done $passed $failed"
	sync
}

case $test in
bench)
	echo userspace
	# So that the job has taken down what it wants.
	sleep 2
	echo "<"
	dd if=/dev/vda of=/dev/null bs=4k count=1000 iflag=direct 2> /dev/null
	echo ">"
	grep -E 'virtio.*req|vda' /proc/interrupts
	sleep 2
	poweroff -f
	;;
boot)
	check "userspace" - true
	check "CPU count" - cpu_count
	check "memory size" - memory_size
	check "Linux finds Microsoft Hyper-V" "C-R1 C-R2 C-00B C-01" hypervisor_found
	check "clocksource is the reference TSC page" "M-21" clocksource
	check "clock events are synthetic timers" "M-B0 F-TM7 C-3A3 C-3D19" clockevents
	check "TLB flushes and IPIs are hypercalls" "H-02 H-03 H-0B H-15 C-4A2 C-4A10" processor_calls
	check "the hypervisor's version is known early" "C-02 C-R3" hypervisor_version
	check "spinlocks wait by the hypervisor" "M-F0 C-3A10" pv_spinlocks
	check "every VP computes the same" - every_cpu_computes
	check "sleep" - sleep_a_second
	check "timers tick on every VP" "F-TM2 F-TM8" timers_tick
	finish
	poweroff -f
	;;
disk)
	# Comes twice: the first time it ends with a reboot, and what it wrote must be there the second time.
	if [ "$(dd if=/dev/vda bs=16 count=1 2> /dev/null | tr -d '\0')" = second ]; then
		check "reboot" - true
		check "the disk kept its data" - test "$(dd if=/dev/vda bs=64k skip=1 count=32 2> /dev/null | sha256sum | cut -c1-32)" = \
			"$(dd if=/dev/vda bs=512 skip=1 count=1 2> /dev/null | head -c 32)"
		check "a file system on the disk" - filesystem
		passed=$((passed + 1))
		finish
		poweroff -f
	else
		check "disk write, read back, compare" - disk_keeps_data
		{
			printf second | dd bs=512 conv=sync
			sha256sum /tmp/pattern | cut -c1-32 | dd bs=512 conv=sync
		} 2> /dev/null | dd of=/dev/vda bs=512 conv=fsync,notrunc 2> /dev/null
		[ "$failed" -eq 0 ] || { echo "done $passed $failed"; poweroff -f; }
		reboot -f
	fi
	;;
pc)
	check "userspace" - true
	check "CPU count" - cpu_count
	check "Linux finds Microsoft Hyper-V" "C-R1 C-R2" hypervisor_found
	check "the TSC is invariant" "C-3A15 F-TM15" tsc_invariant
	check "clocksource is the reference TSC page" "M-21" reference_tsc_page
	check "every VP computes the same" - every_cpu_computes
	check "sleep" - sleep_a_second
	check "timers tick on every VP" - timers_tick
	check "virtio-blk: write, read back, compare" - disk_keeps_data
	check "virtio-blk: a file system" - filesystem
	check "virtio-net: 1 MiB by TCP" - download
	finish
	poweroff -f
	;;
devices)
	check "CPU count" - cpu_count
	check "AHCI: write, read back, compare" - disk_keeps_data /dev/sda
	check "NVMe: write, read back, compare" - disk_keeps_data /dev/nvme0n1
	check "virtio-rng" - random_bytes
	check "e1000: 1 MiB by TCP" - download
	check "e1000: level-triggered interrupts" - level_interrupts
	check "xHCI: a key of a USB keyboard" - keyboard
	check "stop, cont" - stands_still
	check "timers tick on every VP" - timers_tick
	finish
	poweroff -f
	;;
efi)
	echo # behind what the firmware wrote
	check "the firmware is UEFI" - test -d /sys/firmware/efi
	check "CPU count" - cpu_count
	check "every VP computes the same" - every_cpu_computes
	check "timers tick on every VP" - timers_tick
	check "virtio-blk: write, read back, compare" - disk_keeps_data
	finish
	poweroff -f
	;;
pcload)
	# As long as below, while disk and network are busy, too.
	touch /tmp/busy
	while [ -e /tmp/busy ]; do disk_keeps_data /dev/vda && echo || echo failed; done > /tmp/disk.log 2>&1 &
	while [ -e /tmp/busy ]; do download > /dev/null && echo || echo failed; done > /tmp/net.log 2>&1 &
	check "stress-ng --verify: cpu, vm, matrix, futex" - \
		stress-ng --verify --timeout 50s --cpu 1 --vm 1 --vm-bytes 32M --matrix 1 --futex 1
	rm /tmp/busy
	wait
	for log in disk net; do
		check "$log: 3 times or more" - test "$(wc -l < /tmp/$log.log)" -ge 3
		check "$log: without error" - sh -c "! grep -m 5 . /tmp/$log.log"
	done
	finish
	poweroff -f
	;;
load)
	# stress-ng checks its own results. At the lab's 200 MHz, 50 seconds are 10^10 ticks.
	check "stress-ng --verify: cpu, vm, matrix, futex" - \
		stress-ng --verify --timeout 50s --cpu 1 --vm 1 --vm-bytes 32M --matrix 1 --futex 1
	finish
	poweroff -f
	;;
storm)
	# Remote TLB flushes and IPIs, which are hypercalls (H-02, H-03, H-0B): as long, and checked in the same way.
	check "stress-ng --verify: tlb-shootdown, membarrier, mprotect, munmap, switch" \
		"H-02 H-03 H-0B" stress-ng --verify --timeout 50s --tlb-shootdown 1 --membarrier 1 --mprotect 1 --munmap 1 --switch 1
	check "TLB flushes and IPIs are hypercalls" "H-02 H-0B" processor_calls
	finish
	poweroff -f
	;;
crash)
	echo 1 > /proc/sys/kernel/sysrq
	echo c > /proc/sysrq-trigger
	;;
*)
	echo "not ok lab.test= on the kernel command line [-]: \"$test\" is unknown"
	echo "done 0 1"
	poweroff -f
	;;
esac
