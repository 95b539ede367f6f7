# shellcheck shell=busybox
# Debian's QEMU, unmodified, with -accel mshv on hvrs. Arguments: "exit", "reset:VPS", "devices:VPS", or MACHINE:VPS.
. ./common.sh
insmod hvrs.ko || exit
common="console=ttyS0 quiet panic=-1 cryptomgr.notests audit=0 initcall_blacklist=ima_init,init_evm"
dd if=/dev/urandom of=download bs=64k count=16 2> /dev/null
for spec in "$@"; do
	case $spec in
	exit)
		# QEMU ends with the guest's word: 2 * value + 1.
		run "isa-debug-exit" 1 qemu -accel mshv -machine pc -m 128 -smp 2 -nodefaults -display none -no-reboot -serial stdio \
			-device isa-debug-exit,iobase=0xf4,iosize=4 -kernel guests/smp
		;;
	reset:*)
		# The guest reboots, and goes on with what it left on the disk.
		dd if=/dev/zero of=disk.img bs=1M count=0 seek=16 2> /dev/null
		run "reset, ${spec#*:} VPs" 0 qemu -accel mshv -machine pc -m 256 -smp "${spec#*:}" -nodefaults -display none -serial stdio \
			-drive file=disk.img,format=raw,if=virtio -kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" \
			-append "$common lab.test=disk lab.cpus=${spec#*:} lab.memory=256"
		rm -f disk.img
		;;
	devices:*)
		for disk in ahci nvme; do dd if=/dev/zero of=$disk.img bs=1M count=0 seek=16 2> /dev/null; done
		run "devices, ${spec#*:} VPs" 0 qemu -accel mshv -machine q35 -m 256 -smp "${spec#*:}" -nodefaults -display none -no-reboot -serial stdio \
			-drive if=none,id=ahci,file=ahci.img,format=raw -device ide-hd,bus=ide.0,drive=ahci \
			-drive if=none,id=nvme,file=nvme.img,format=raw -device nvme,serial=1,drive=nvme \
			-device virtio-rng-pci -device qemu-xhci -device usb-kbd -device e1000,netdev=net,romfile= \
			-netdev "user,id=net,guestfwd=tcp:10.0.2.100:1234-cmd:cat $PWD/download" \
			-kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" \
			-append "$common lab.test=devices lab.cpus=${spec#*:} lab.memory=256 lab.sum=$(sha256sum download | cut -c1-64)"
		rm -f ahci.img nvme.img
		;;
	*)
		dd if=/dev/zero of=disk.img bs=1M count=0 seek=16 2> /dev/null
		run "${spec%:*}, ${spec#*:} VPs" 0 qemu -accel mshv -machine "${spec%:*}" -m 256 -smp "${spec#*:}" \
			-nodefaults -display none -no-reboot -serial stdio \
			-drive file=disk.img,format=raw,if=virtio -device virtio-net-pci,netdev=net,romfile= \
			-netdev "user,id=net,guestfwd=tcp:10.0.2.100:1234-cmd:cat $PWD/download" \
			-kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" \
			-append "$common lab.test=pc lab.cpus=${spec#*:} lab.memory=256 lab.sum=$(sha256sum download | cut -c1-64)"
		rm -f disk.img
		;;
	esac
done
rmmod hvrs
