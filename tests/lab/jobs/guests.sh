# shellcheck shell=busybox
# All micro-guests, one after the other, each in a partition of its own with 2 VPs.
. ./common.sh
insmod hvrs.ko || exit
for image in guests/*; do
	guest "$(basename "$image")" 1 --kernel "$image" --debug-exit --cpus 2 --memory 128
done
rmmod hvrs
