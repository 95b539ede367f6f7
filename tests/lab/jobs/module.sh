# shellcheck shell=busybox
# The module by itself: load, device nodes, unload, and again.
. ./common.sh
begin load
check "insmod" insmod hvrs.ko
check "/dev/mshv is there" test -c /dev/mshv
check "/dev/hvrs is there" test -c /dev/hvrs
check "hvrsctl info" hvrsctl info
check "rmmod" rmmod hvrs
check "/dev/mshv is gone" test ! -e /dev/mshv
check "insmod again" insmod hvrs.ko
check "rmmod again" rmmod hvrs
finish load
