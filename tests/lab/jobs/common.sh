# shellcheck shell=busybox
# Shared by the jobs, which run in the lab's machine. What they print is described in tests/lab/src/protocol.rs.
passed=0 failed=0

# begin GROUP: the tests that follow belong together.
begin() {
	passed=0 failed=0
	echo "begin $1"
}

# check NAME COMMAND...: one test, which passes if the command succeeds. IDs of the matrix may be at the end of its name, in brackets.
check() {
	case $1 in
	*]) name=$1 ;;
	*) name="$1 [-]" ;;
	esac
	shift
	if output=$("$@" 2>&1); then
		passed=$((passed + 1))
		echo "ok $name"
	else
		status=$?
		failed=$((failed + 1))
		echo "not ok $name: status $status: $(echo "$output" | tail -n 3 | tr '\n' ' ')"
	fi
}

# finish GROUP: counts and end of a group made of checks.
finish() {
	echo "done $passed $failed"
	echo "end $1 0 0"
}

# run GROUP STATUS COMMAND...: a program whose output speaks the protocol, and which should end with STATUS.
run() {
	group=$1 wanted=$2
	shift 2
	echo "begin $group"
	# The status goes through a file because the pipeline's own is the last command's.
	{
		"$@" < /dev/null 2>&1
		echo $? > status.txt
	} | tr -d '\r'
	echo
	echo "end $group $(cat status.txt) $wanted"
}

# guest GROUP STATUS ARGUMENT...: a guest of hvrsctl's.
guest() {
	group=$1 wanted=$2
	shift 2
	run "$group" "$wanted" hvrsctl start --console stdio "$@"
}

# qemu ARGUMENT...: Debian's QEMU, under the command LIMIT if there is one. In the lab it comes with its libraries on the data disk.
qemu() {
	# shellcheck disable=SC2086
	if [ -n "${HVRS_HOST:-}" ]; then
		${LIMIT:-} qemu-system-x86_64 "$@"
	else
		${LIMIT:-} "$DATA/lib64/ld-linux-x86-64.so.2" --library-path "$DATA/lib/x86_64-linux-gnu:$DATA/usr/lib/x86_64-linux-gnu" \
			"$DATA/usr/bin/qemu-system-x86_64" -L "$DATA/usr/share/qemu" -L "$DATA/usr/share/seabios" "$@"
	fi
}
