# shellcheck shell=busybox
# hvrs and KVM at the same time. Arguments: "reload", "load".
. ./common.sh
insmod hvrs.ko || exit
for what in "$@"; do
	case $what in
	reload)
		# kvm_intel comes and goes while a guest of hvrs runs.
		read -r module options << LINE
$(grep kvm.intel /modules.list)
LINE
		touch running
		echo 0 > count.txt
		(
			while [ -e running ]; do
				# shellcheck disable=SC2086
				rmmod kvm_intel && insmod "$module" $options && echo $(($(cat count.txt) + 1)) > count.txt
				sleep 0.1
			done
		) 2> reload.err &
		guest "stress, while kvm_intel comes and goes" 1 --kernel guests/stress --debug-exit --cpus 8 --memory 128
		rm running
		wait
		begin "kvm_intel comes and goes"
		check "at least 2 times" test "$(cat count.txt)" -ge 2
		check "without error" test ! -s reload.err
		finish "kvm_intel comes and goes"
		;;
	load)
		# Both check their own work: 10^10 ticks each.
		append="console=ttyS0 quiet panic=-1 cryptomgr.notests audit=0 initcall_blacklist=ima_init,init_evm lab.test=load lab.cpus=1 lab.memory=256"
		run "load on KVM, beside hvrs" 0 qemu -accel kvm -cpu host -m 256 -nodefaults -display none -no-reboot -serial stdio \
			-kernel "$DATA/vmlinuz" -initrd "$DATA/guest-initrd" -append "$append" > kvm.out 2>&1 &
		(mkdir -p hvrs && cd hvrs && guest "load on hvrs, beside KVM" 0 --kernel "$DATA/vmlinuz" --initrd "$DATA/guest-initrd" \
			--memory 256 --cpus 1 --append "$append")
		wait
		cat kvm.out
		;;
	esac
done
rmmod hvrs
