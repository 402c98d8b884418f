#!/bin/bash
# tests/run itself: programs that end in every way, and how it must count them; prints TAP.
cd "$(dirname "$0")/.." || exit 1
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
trap 'exit 1' HUP INT TERM
tests=0
failures=0

# counts NAME COUNT-LINE STATUS SCRIPT: what is said of one program that does what SCRIPT says
counts()
{
	local said status
	rm -rf "$WORK/tree"
	mkdir -p "$WORK/tree/tests/unit" "$WORK/tree/build/unit"
	cp tests/run "$WORK/tree/tests/"
	: >"$WORK/tree/tests/unit/test_it.c"
	if [ -n "$4" ]; then
		printf '#!/bin/sh\n%s\n' "$4" >"$WORK/tree/build/unit/test_it"
		chmod +x "$WORK/tree/build/unit/test_it"
	fi
	said=$(B=build LIMIT=2 "$WORK/tree/tests/run" unit 2>&1)
	status=$?
	tests=$((tests + 1))
	if [ "$(tail -n 1 <<<"$said")" = "$2" ] && [ "$status" -eq "$3" ]; then
		echo "ok $tests - $1"
	else
		failures=$((failures + 1))
		echo "not ok $tests - $1: wanted \"$2\", status $3; it was $status with this:"
		# shellcheck disable=SC2001 # of every line
		sed 's/^/# /' <<<"$said"
	fi
}

counts 'all is well' '2 passed, 0 failed, 0 skipped' 0 'echo 1..2; echo ok 1; echo ok 2 - b'
counts 'the plan at the end' '1 passed, 0 failed, 0 skipped' 0 'echo ok 1; echo 1..1'
counts 'two plans' '2 passed, 0 failed, 0 skipped' 0 'echo 1..1; echo ok 1; echo 1..1; echo ok 1'
counts 'other output' '1 passed, 0 failed, 0 skipped' 0 \
	'echo 1..1; echo okay; echo " not ok"; echo "# ok - x"; echo "not ok 9" >&2; echo ok 1'
counts 'a skip' '1 passed, 0 failed, 1 skipped' 0 'echo 1..2; echo ok 1; echo "ok 2 # skip no b"'
counts "a skip of cmocka's" '1 passed, 0 failed, 1 skipped' 0 \
	'echo 1..2; echo ok 1; echo "not ok 2 # SKIP test_b"'
counts 'a failure' '1 passed, 1 failed, 0 skipped' 1 \
	'echo 1..2; echo ok 1; echo "not ok 2 - b"; exit 1'
counts 'a failure that is said to be a skip' '1 passed, 1 failed, 0 skipped' 1 \
	'echo 1..2; echo ok 1; echo "not ok 2 - b # SKIP"; exit 1'
counts 'a failure, and status 0' '0 passed, 2 failed, 0 skipped' 1 'echo 1..1; echo not ok 1'
counts 'a bad status without a failure' '1 passed, 1 failed, 0 skipped' 1 \
	'echo 1..1; echo ok 1; exit 3'
counts 'a death' '1 passed, 1 failed, 0 skipped' 1 'echo 1..1; echo ok 1; kill -SEGV $$'
counts 'no plan' '1 passed, 1 failed, 0 skipped' 1 'echo ok 1'
counts 'too few' '1 passed, 1 failed, 0 skipped' 1 'echo 1..2; echo ok 1'
counts 'too many' '2 passed, 1 failed, 0 skipped' 1 'echo 1..1; echo ok 1; echo ok 2'
counts 'nothing planned' '0 passed, 1 failed, 0 skipped' 1 'echo 1..0'
counts 'nothing said' '0 passed, 1 failed, 0 skipped' 1 'true'
counts 'nothing but skips' '0 passed, 0 failed, 1 skipped' 1 'echo "1..0 # SKIP no machine"'
counts 'a bail-out' '1 passed, 1 failed, 0 skipped' 1 'echo 1..1; echo ok 1; echo "Bail out!"'
counts 'no end' '1 passed, 1 failed, 0 skipped' 1 'echo 1..1; echo ok 1; exec sleep 60'
counts 'no program' '0 passed, 1 failed, 0 skipped' 1 ''

echo "1..$tests"
[ "$failures" -eq 0 ]
