# shellcheck shell=busybox
# The ABI tests: a program of the host against /dev/mshv.
. ./common.sh
insmod hvrs.ko || exit
echo "begin abi"
abi --module "$PWD/hvrs.ko" 2>&1
echo "end abi $? 0"
rmmod hvrs
