# shellcheck shell=busybox
# The benchmark guest on hvrs, with hvrsctl and with QEMU, and, in the same boot, with QEMU on KVM. Lines "begin hvrs|qemu|kvm" tell which;
# the guest prints "bench ...".
. ./common.sh
# The first touch of a page of 4 KiB is measured, not of 2 MiB.
huge=/sys/kernel/mm/transparent_hugepage/enabled
setting=$(sed 's/.*\[\(.*\)\].*/\1/' $huge)
echo never > $huge
# micro CPUS CPU ARGUMENT...: the guest for so many VPs in QEMU with this CPU.
micro() {
	cpus=$1 cpu=$2
	shift 2
	qemu "$@" -cpu "$cpu" -m 128 -smp "$cpus" -nodefaults -display none -no-reboot -serial stdio \
		-device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$(image "$cpus")" < /dev/null 2>&1 | tr -d '\r'
	echo
}

image() {
	case $1 in
	8) echo guests/bench8 ;;
	*) echo guests/bench ;;
	esac
}

# on_hvrs CPUS: the guest for so many VPs with hvrsctl.
on_hvrs() {
	hvrsctl start --console stdio --kernel "$(image "$1")" --debug-exit --cpus "$1" --memory 128M < /dev/null 2>&1
	echo
}

uptime_ms() { sed 's/\([0-9]*\)\.\([0-9]*\) .*/\1\20/' /proc/uptime; }

# boot CPU ARGUMENT...: Debian's stock kernel in QEMU, from QEMU's start to the first process.
boot() {
	cpu=$1 start=$(uptime_ms)
	shift
	qemu "$@" -cpu "$cpu" -m 256 -smp 1 -nodefaults -display none -no-reboot -serial stdio \
		-kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" \
		-append "console=ttyS0 quiet panic=-1 cryptomgr.notests audit=0 initcall_blacklist=ima_init,init_evm lab.test=nothing" < /dev/null 2>&1 |
		while read -r line; do
			case $line in
			userspace*) echo "bench linux_boot_ms ticks $(($(uptime_ms) - start)) min - n 1" ;;
			esac
		done
}
kvm_cpu=host,hv-relaxed,hv-vapic,hv-time,hv-vpindex,hv-runtime,hv-frequencies,hv-tlbflush,hv-ipi,hv-synic,hv-stimer,hv-stimer-direct

insmod hvrs.ko || exit
echo "begin hvrs"
for cpus in 2 8; do
	on_hvrs $cpus | tr -d '\r'
done
echo "begin qemu"
micro 2 host -accel mshv
boot host -accel mshv
rmmod hvrs || exit

# The same once more with the module that counts dear instructions, which costs what it counts: no times from this one.
# The line "counts" after a line "bench" has the counters' differences between its lines "<" and ">".
insmod counting/hvrs.ko || exit
echo "begin counts"
counters=/sys/kernel/debug/hvrs/instructions
return=$(printf '\r')
# No tr(1) here: it would hold lines back until it has many.
for cpus in 2 8; do
	on_hvrs $cpus |
		while read -r line; do
			line=${line%"$return"}
			case $line in
			'<') cp $counters before.txt ;;
			'>') cp $counters after.txt ;;
			'bench '*)
				echo "$line"
				printf 'counts %s' "$(echo "$line" | cut -d' ' -f2)"
				paste -d' ' before.txt after.txt | while read -r name before _ after; do printf ' %s=%s' "$name" $((after - before)); done
				echo
				;;
			esac
		done
done
rmmod hvrs || exit
echo "begin kvm"
# With what of Hyper-V the guest measures.
micro 2 "$kvm_cpu" -accel kvm
micro 8 "$kvm_cpu" -accel kvm
boot "$kvm_cpu" -accel kvm
echo "begin nothing"
echo "$setting" > $huge
