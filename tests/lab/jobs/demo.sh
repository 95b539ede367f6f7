# shellcheck shell=busybox
# The demo: what a person would type on a machine with hvrs, and what they would see.
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
if [ -z "${HVRS_HOST:-}" ]; then
	# A whole Debian has its kernel there.
	mkdir -p /boot
	ln -s "$DATA/vmlinuz" "/boot/vmlinuz-$(uname -r)"
fi
tmp=$(mktemp -d)
trap 'rm -r "$tmp"' EXIT

say "host$ insmod hvrs.ko"
insmod hvrs.ko || exit
dmesg | grep 'hvrs: ' | tail -n 3
say "host$ hvrsctl info"
hvrsctl info || exit
say "host$ hvrsctl start --cpus 2 --memory 256M"
mkfifo "$tmp/keys"
{
	hvrsctl start --cpus 2 --memory 256M --append "console=ttyS0 quiet cryptomgr.notests initcall_blacklist=ima_init,init_evm" < "$tmp/keys" 2>&1
	echo $? > "$tmp/status"
} | tee "$tmp/screen" &
exec 4> "$tmp/keys"

# type TEXT: waits for the guest's prompt, then types a line.
prompts=0
type_line() {
	prompts=$((prompts + 1))
	until [ "$(grep -o 'guest# ' "$tmp/screen" | wc -l)" -ge "$prompts" ]; do
		[ ! -e "$tmp/status" ] || return
		sleep 0.2
	done
	printf '%s\n' "$1" >&4
}
type_line 'uname -a; nproc; grep MemTotal /proc/meminfo'
type_line 'dmesg | grep -i -e hyper-v -e clocksource: | cut -c1-110'
type_line 'cat /sys/devices/system/clocksource/clocksource0/current_clocksource'
# shellcheck disable=SC2016
type_line 'echo "6 * 7 = $((6 * 7))"'
type_line 'poweroff -f'
wait
exec 4>&-
status=$(cat "$tmp/status")
say "host$ rmmod hvrs      # the guest is off, hvrsctl's exit status was $status"
rmmod hvrs || exit
# The guest has to have said what it was asked for.
for text in 'Hypervisor detected: Microsoft Hyper-V' '^hyperv_clocksource_tsc_page' '^6 \* 7 = 42'; do
	tr -d '\r' < "$tmp/screen" | grep -q "$text" || { echo "the guest did not say: $text"; exit 1; }
done
exit "$status"
