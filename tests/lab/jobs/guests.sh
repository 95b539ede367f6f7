# shellcheck shell=busybox
# All micro-guests, one after the other, each in a partition of its own with 2 VPs; those about several VPs with 8, too, and one
# with 80.
. ./common.sh
insmod hvrs.ko || exit
for image in guests/*; do
	wanted=1
	# It ends in a triple fault, which is a crash.
	[ "$image" != guests/triple ] || wanted=2
	# It reboots.
	[ "$image" != guests/reset ] || wanted=0
	guest "$(basename "$image")" $wanted --on-reboot exit --invariant-tsc --kernel "$image" --debug-exit --cpus 2 --memory 128
done
for image in smp stress msr hypercall processors synic stimer; do
	guest "$image, 8 VPs" 1 --invariant-tsc --kernel guests/$image --debug-exit --cpus 8 --memory 128
done
guest "many, 80 VPs" 1 --invariant-tsc --kernel guests/many --debug-exit --cpus 80 --memory 128
begin stats
# It runs on after its tests.
hvrsctl start --console file:stats.txt --kernel guests/hlt --name counted --cpus 2 --memory 128 &
tries=0
until hvrsctl stats counted --json > stats.json 2> /dev/null || [ $tries = 30 ]; do
	tries=$((tries + 1))
	sleep 1
done
check "hvrsctl stats --json" grep -E '"VpCpuidInstructionsCount": [1-9]' stats.json
check "hvrsctl stats" sh -c "hvrsctl stats counted | grep -E \"^ +VP 0 +VP 1\$\""
check "the guest ends" hvrsctl stop --force counted
wait
finish stats
begin log
# What image msr reported.
check "a guest's crash is in the log" sh -c 'dmesg | grep "the guest crashed (0xdead0000, 0x1, 0x2, "'
check "its text, escaped" sh -c 'dmesg | grep -F "\"last words\\n\\e[0m\""'
finish log
rmmod hvrs
