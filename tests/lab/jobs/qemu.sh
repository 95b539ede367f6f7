# shellcheck shell=busybox
# Debian's QEMU, unmodified, with -accel mshv on hvrs. Arguments: "exit", "reset:VPS", "devices:VPS", "load:VPS", "bios:VPS",
# "efi:VPS", or MACHINE:VPS.
. ./common.sh
insmod hvrs.ko || exit
common="console=ttyS0 quiet panic=-1 cryptomgr.notests audit=0 initcall_blacklist=ima_init,init_evm"
dd if=/dev/urandom of=download bs=64k count=16 2> /dev/null

return=$(printf '\r')

# monitored ARGUMENT...: QEMU, whose monitor is given what the guest prints behind "monitor: ". A stopped guest goes on after 4 seconds.
monitored() {
	mkfifo monitor.in monitor.out
	cat monitor.out > monitor &
	exec 3<> monitor.in
	{
		qemu -serial stdio -monitor pipe:monitor "$@"
		echo $? > monitored.txt
	} | while read -r line; do
		echo "$line"
		line=${line%"$return"}
		[ "$line" = "${line#monitor: }" ] || echo "${line#monitor: }" >&3
		[ "$line" != "monitor: stop" ] || { sleep 4; echo cont >&3; }
	done
	exec 3>&-
	rm monitor.in monitor.out
	return "$(cat monitored.txt)"
}

# until_said TEXT: waits until the guest has printed that. Fails if it ended before.
until_said() {
	until grep -qF "$1" said 2> /dev/null; do
		[ ! -e ended ] || return
		sleep 1
	done
}

# login VPS: a machine from its disk to a login and a command.
login() {
	mkfifo keys
	{
		TMPDIR=. qemu -accel mshv -machine pc -m 384 -smp "$1" -nodefaults -display none -no-reboot -serial stdio \
			-drive file="$DATA/debian.img",format=raw,if=virtio,snapshot=on < keys > said 2>&1
		echo $? > ended
	} &
	exec 3> keys
	until_said "login: " && echo root >&3
	until_said "Password: " && echo hvrs >&3
	until_said ":~# " && echo "echo \$(nproc) VPs, \$(findmnt -n -o FSTYPE /), \$(systemctl is-system-running --wait)" >&3
	until_said "VPs, ext4, " && echo poweroff >&3
	wait
	exec 3>&-
	tail -n 3 said
	return "$(cat ended)"
}

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
		run "devices, ${spec#*:} VPs" 0 monitored -accel mshv -machine q35,i8042=off -m 256 -smp "${spec#*:}" -nodefaults -display none -no-reboot \
			-drive if=none,id=ahci,file=ahci.img,format=raw -device ide-hd,bus=ide.0,drive=ahci \
			-drive if=none,id=nvme,file=nvme.img,format=raw -device nvme,serial=1,drive=nvme \
			-device virtio-rng-pci -device qemu-xhci -device usb-kbd -device e1000,netdev=net,romfile= \
			-netdev "user,id=net,guestfwd=tcp:10.0.2.100:1234-cmd:cat $PWD/download" \
			-kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" \
			-append "$common lab.test=devices lab.cpus=${spec#*:} lab.memory=256 lab.sum=$(sha256sum download | cut -c1-64)"
		rm -f ahci.img nvme.img
		;;
	bios:*)
		begin "GRUB, Debian, ${spec#*:} VPs"
		check "power-off" login "${spec#*:}"
		check "login" grep -F "guest login: root" said
		check "a command after login" grep -F "${spec#*:} VPs, ext4, running" said
		finish "GRUB, Debian, ${spec#*:} VPs"
		;;
	efi:*)
		dd if=/dev/zero of=disk.img bs=1M count=0 seek=16 2> /dev/null
		run "OVMF, ${spec#*:} VPs" 0 qemu -accel mshv -machine q35 -m 384 -smp "${spec#*:}" -nodefaults -display none -no-reboot -serial stdio \
			-bios "$DATA/usr/share/ovmf/OVMF.fd" -drive file=disk.img,format=raw,if=virtio \
			-kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" \
			-append "$common lab.test=efi lab.cpus=${spec#*:}"
		rm -f disk.img
		;;
	load:*)
		dd if=/dev/zero of=disk.img bs=1M count=0 seek=16 2> /dev/null
		run "load, ${spec#*:} VPs" 0 qemu -accel mshv -machine q35 -m 384 -smp "${spec#*:}" -nodefaults -display none -no-reboot -serial stdio \
			-drive file=disk.img,format=raw,if=virtio -device virtio-net-pci,netdev=net,romfile= \
			-netdev "user,id=net,guestfwd=tcp:10.0.2.100:1234-cmd:cat $PWD/download" \
			-kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" \
			-append "$common lab.test=pcload lab.cpus=${spec#*:} lab.sum=$(sha256sum download | cut -c1-64)"
		rm -f disk.img
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
