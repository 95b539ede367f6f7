# shellcheck shell=busybox
# Debian's stock kernel as a guest. Arguments: TEST:VPS... with the tests of guest-init.sh.
. ./common.sh
insmod hvrs.ko || exit
# Left out of the guest's boot is what takes long in an emulator and tests nothing of ours.
common="console=ttyS0 quiet panic=-1 cryptomgr.notests audit=0 initcall_blacklist=ima_init,init_evm"
for spec in "$@"; do
	test=${spec%:*} cpus=${spec#*:}
	set -- --kernel "$DATA"/vmlinuz --initrd "$DATA"/guest-initrd --memory 256 --cpus "$cpus"
	if [ "$test" = disk ]; then
		dd if=/dev/zero of=disk.img bs=1M count=0 seek=16 2> /dev/null
		set -- "$@" --disk disk.img
	fi
	guest "$test, $cpus VPs" 0 "$@" --append "$common lab.test=$test lab.cpus=$cpus lab.memory=256"
	rm -f disk.img
done
rmmod hvrs
