# shellcheck shell=busybox
# The benchmark guests on hvrs, with hvrsctl and with QEMU, and, in the same boot, with QEMU on KVM. Lines "begin hvrs|qemu|kvm" tell which;
# the guests print "bench ...".
. ./common.sh
msr=/dev/cpu/0/msr
modprobe -q msr 2> /dev/null

# Takes down the emulator's counters of dear instructions, see bochs/counts.patch. Other machines have none.
stock() { dd if=$msr bs=128 skip=$((0x0d0a5000 / 128)) count=1 >> stock 2> /dev/null; }
hex() { hexdump -v -e '/1 "%02x"'; }
tsc() { dd if=$msr bs=8 skip=2 count=1 2> /dev/null | hex; }

# All that was taken down, before and after each row.
counts() {
	echo "counts $(hex < stock)"
	rm stock
}

return=$(printf '\r')
# What a guest prints. Behind its lines "<" and ">", between which a row is measured, it is quiet for as long as one program takes. No tr(1)
# here: it would hold lines back until it has many.
take_stock() {
	while read -r line; do
		line=${line%"$return"}
		case $line in
		'<' | '>') stock ;;
		'monitor: '*) echo "${line#monitor: }" > monitor.in ;;
		*) echo "$line" ;;
		esac
	done
	counts
}

# pc CPU MIB ARGUMENT...: QEMU's machine with this CPU and so much memory.
pc() {
	cpu=$1 memory=$2
	shift 2
	qemu "$@" -cpu "$cpu" -m "$memory" -nodefaults -display none -no-reboot -serial stdio < /dev/null 2>&1
}

# micro MIB IMAGE CPUS CPU ARGUMENT...: a guest for so many VPs in QEMU.
micro() {
	memory=$1 image=$2 cpus=$3 cpu=$4
	shift 4
	pc "$cpu" "$memory" -smp "$cpus" -device isa-debug-exit,iobase=0xf4,iosize=4 -device pci-testdev -kernel "guests/$image" "$@" | take_stock
}

# on_hvrs IMAGE CPUS: the same with hvrsctl.
on_hvrs() {
	hvrsctl start --console stdio --kernel "guests/$1" --debug-exit --cpus "$2" --memory 128M < /dev/null 2>&1 | take_stock
}

# boot COUNTERS CPU ARGUMENT...: Debian's stock kernel in QEMU, from QEMU's start to the first process, and the exits until then; then reads
# of its disk, which begin with an ioeventfd and end with an irqfd.
boot() {
	counters=$1 cpu=$2 start=$(tsc)
	shift 2
	stock
	pc "$cpu" 256 "$@" -object iothread,id=io -device virtio-blk-pci,drive=disk,iothread=io -drive if=none,id=disk,file=disk.img,format=raw -kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" \
		-append "console=ttyS0 quiet panic=-1 cryptomgr.notests audit=0 initcall_blacklist=ima_init,init_evm lab.test=bench" |
		while read -r line; do
			case $line in
			userspace*)
				echo "span linux_boot 1 $start $(tsc)"
				stock
				counts
				# shellcheck disable=SC2086
				grep -H . $counters | sed 's/^/exits /'
				;;
			'<'*)
				stock
				start=$(tsc)
				;;
			'>'*)
				echo "span virtio_blk_read_4k 1000 $start $(tsc)"
				stock
				counts
				;;
			esac
		done
}

# all CPU ARGUMENT...: everything with QEMU. Pages of 2 MiB are there already when they are touched first: clearing them would be all.
all() {
	micro 128 bench 2 "$@"
	micro 128 bench8 8 "$@"
	echo always > $huge
	micro 512 bench2m 1 "$@" -machine memory-backend=ram -object memory-backend-ram,id=ram,size=512M,prealloc=on
	echo never > $huge
	mkfifo monitor.in monitor.out
	cat monitor.out > monitor &
	micro 512 benchlog 1 "$@" -monitor pipe:monitor
	rm monitor*
}
kvm_cpu=host,hv-relaxed,hv-vapic,hv-time,hv-vpindex,hv-runtime,hv-frequencies,hv-tlbflush,hv-ipi,hv-synic,hv-stimer,hv-stimer-direct

huge=/sys/kernel/mm/transparent_hugepage/enabled
setting=$(sed 's/.*\[\(.*\)\].*/\1/' $huge)
echo never > $huge
insmod hvrs.ko || exit
echo "begin hvrs"
on_hvrs bench 2
on_hvrs bench8 8
dd if=/dev/urandom of=disk.img bs=1M count=4 2> /dev/null
# Whoever boots first would read them from the disk.
cat "$DATA/vmlinuz" "$DATA/guest-initrd" > /dev/null
echo "begin qemu"
all host -accel mshv
boot '/sys/kernel/debug/hvrs/partition/*' host -accel mshv
rmmod hvrs || exit
echo "begin kvm"
# With what of Hyper-V the guests measure.
all "$kvm_cpu" -accel kvm
boot '/sys/kernel/debug/kvm/*exits /sys/kernel/debug/kvm/pf_taken' "$kvm_cpu" -accel kvm
echo "begin nothing"
echo "$setting" > $huge
