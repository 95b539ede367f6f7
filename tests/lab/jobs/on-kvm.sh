# shellcheck shell=busybox
# The micro-guests on QEMU and KVM. The file on-kvm (tests/on-kvm) says which tests would end the machine: they are left out.
. ./common.sh
for image in guests/*; do
	name=$(basename "$image")
	without=$(sed -n "s/^$name: \([a-z0-9_]*\) | [a-z]* (left out) |.*/\1/p" on-kvm | tr '\n' ',')
	wanted=1
	# These end in a triple fault and a reset, which -no-reboot makes ends like any other.
	case $name in triple | reset) wanted=0 ;; esac
	# Of QEMU's own things these two are off: what it does at a guest's crash, and its help for old Windows, which loses the
	# lower half of TPR.
	LIMIT="timeout 300" run "$name" $wanted qemu -accel kvm -machine pc -cpu host,hv-passthrough -m 128 -smp 2 -nodefaults \
		-display none -no-reboot -action panic=none -global kvm-apic.vapic=off -serial stdio \
		-device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$image" -append "without=$without"
done
