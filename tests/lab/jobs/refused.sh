# shellcheck shell=busybox
# A machine on which hvrs cannot run: insmod says so, with the reason that the argument names.
. ./common.sh
begin refused
refused() { ! insmod hvrs.ko; }
reason() { dmesg | grep 'hvrs:' | grep -q "$1"; }
check "insmod is refused [C-R12]" refused
check "the log names the reason: $1" reason "$1"
check "nothing is left of it" test ! -e /dev/mshv
finish refused
