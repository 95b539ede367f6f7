# shellcheck shell=bash
# Shared by the lab's scripts: where things are, and how a long step shows that it is alive.

# shellcheck disable=SC2034
lab_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$lab_dir/../.." && pwd)
cache=${HVRS_CACHE:-/var/cache/hvrs}

die() { echo "hvrs lab: $*" >&2; exit 1; }

# The root file system is named after what decides its contents.
lab_root() {
	local key
	key=$(cat "$lab_dir/packages" "$lab_dir/preferences" "$lab_dir"/bochs/* | sha256sum | cut -c1-12)
	echo "$cache/root-$key"
}

# step NAME LOG COMMAND...: runs COMMAND with its output in LOG, showing NAME and the elapsed time.
step() {
	local name=$1 log=$2 start=$SECONDS pid status=0
	shift 2
	mkdir -p "$(dirname "$log")"
	"$@" > "$log" 2>&1 &
	pid=$!
	while kill -0 "$pid" 2> /dev/null; do
		if [ -t 2 ]; then
			printf '\r%s … %d s ' "$name" $((SECONDS - start)) >&2
		elif [ $(((SECONDS - start) % 30)) -eq 0 ]; then
			printf '%s … %d s\n' "$name" $((SECONDS - start)) >&2
		fi
		sleep 1
	done
	wait "$pid" || status=$?
	[ -t 2 ] && printf '\r' >&2
	if [ "$status" -ne 0 ]; then
		printf '%s: failed after %d s; the end of %s:\n' "$name" $((SECONDS - start)) "$log" >&2
		tail -n 25 "$log" >&2
		return "$status"
	fi
	printf '%s: done in %d s\n' "$name" $((SECONDS - start)) >&2
}
