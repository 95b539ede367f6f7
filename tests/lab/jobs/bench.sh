# shellcheck shell=busybox
# The benchmark guest on hvrs and, in the same boot, on KVM. Lines "begin hvrs|kvm" tell which; the guest prints "bench ...".
. ./common.sh
# The first touch of a page of 4 KiB is measured, not of 2 MiB.
huge=/sys/kernel/mm/transparent_hugepage/enabled
setting=$(sed 's/.*\[\(.*\)\].*/\1/' $huge)
echo never > $huge
insmod hvrs.ko || exit
echo "begin hvrs"
hvrsctl start --console stdio --kernel guests/bench --debug-exit --cpus 2 --memory 128M < /dev/null 2>&1 | tr -d '\r'
echo
rmmod hvrs || exit

# The same once more with the module that counts dear instructions, which costs what it counts: no times from this one.
# The line "counts" after a line "bench" has the counters' differences between its lines "<" and ">".
insmod counting/hvrs.ko || exit
echo "begin counts"
counters=/sys/kernel/debug/hvrs/instructions
return=$(printf '\r')
# No tr(1) here: it would hold lines back until it has many.
hvrsctl start --console stdio --kernel guests/bench --debug-exit --cpus 2 --memory 128M < /dev/null 2>&1 |
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
echo
rmmod hvrs || exit
echo "begin kvm"
# With what of Hyper-V the guest measures.
qemu -accel kvm -cpu host,hv-relaxed,hv-vapic,hv-time,hv-vpindex,hv-runtime,hv-frequencies,hv-tlbflush,hv-ipi -m 128 -smp 2 \
	-nodefaults -display none -no-reboot -serial stdio \
	-device isa-debug-exit,iobase=0xf4,iosize=4 -kernel guests/bench < /dev/null 2>&1 | tr -d '\r'
echo
echo "begin nothing"
echo "$setting" > $huge
