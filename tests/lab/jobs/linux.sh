# shellcheck shell=busybox
# Debian's stock kernel as a guest. Arguments: TEST:VPS... with the tests of guest-init.sh.
. ./common.sh
insmod hvrs.ko || exit
# Left out of the guest's boot is what takes long in an emulator and tests nothing of ours.
common="console=ttyS0 quiet panic=-1 cryptomgr.notests audit=0 initcall_blacklist=ima_init,init_evm"
for spec in "$@"; do
	test=${spec%:*} cpus=${spec#*:} memory=256
	# Linux has much for each CPU.
	[ "$cpus" -le 8 ] || memory=640
	set -- --kernel "$DATA"/vmlinuz --initrd "$DATA"/guest-initrd --memory "$memory" --cpus "$cpus"
	if [ "$test" = disk ]; then
		dd if=/dev/zero of=disk.img bs=1M count=0 seek=16 2> /dev/null
		set -- "$@" --disk disk.img
	fi
	set -- "$@" --append "$common lab.test=$test lab.cpus=$cpus lab.memory=$memory"
	if [ "$test" = crash ]; then
		begin crash
		check "the guest ends itself" sh -c '"$@" > crash.txt 2>&1' hvrsctl hvrsctl start --console stdio --on-reboot exit "$@"
		check "hvrsctl tells of the crash" grep '^hvrsctl: the guest reports a crash: 0x' crash.txt
		check "and its text" grep '^    .*sysrq: Trigger a crash' crash.txt
		check "the host's log, too" sh -c 'dmesg | grep "hvrs: .*the guest crashed (0x"'
		finish crash
	else
		guest "$test, $cpus VPs" 0 "$@"
	fi
	rm -f disk.img
done
rmmod hvrs
