# shellcheck shell=busybox
# Shared by the jobs, which run in the lab's machine. What they print is described in tests/lab/src/protocol.rs.
passed=0 failed=0

# begin GROUP: the tests that follow belong together.
begin() {
	passed=0 failed=0
	echo "begin $1"
}

# check NAME COMMAND...: one test, which passes if the command succeeds.
check() {
	name=$1
	shift
	if output=$("$@" 2>&1); then
		passed=$((passed + 1))
		echo "ok $name [-]"
	else
		status=$?
		failed=$((failed + 1))
		echo "not ok $name [-]: status $status: $(echo "$output" | tail -n 3 | tr '\n' ' ')"
	fi
}

# finish GROUP: counts and end of a group made of checks.
finish() {
	echo "done $passed $failed"
	echo "end $1 0 0"
}

# guest GROUP STATUS ARGUMENT...: a guest whose console speaks the protocol, and whose run should end with STATUS.
guest() {
	group=$1 wanted=$2
	shift 2
	echo "begin $group"
	# The status goes through a file because the pipeline's own is the last command's.
	{
		hvrsctl start --console stdio "$@" < /dev/null 2>&1
		echo $? > status.txt
	} | tr -d '\r'
	echo
	echo "end $group $(cat status.txt) $wanted"
}
