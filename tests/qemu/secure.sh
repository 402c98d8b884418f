#!/bin/sh
# VTL1's side of the run loop: its interrupts, what it watches and is told, and VTL0's interrupts, NMIs
# and breakpoints beside it; and a stock kernel that is offered a VTL1 and does not want one.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

mode paravisor || {
	echo "1..0 # SKIP nothing here runs on the bare machine"
	exit 0
}

# secure CPUS OPTION...: the test kernel, which must pass whole
secure() {
	cpus=$1
	shift
	run paravisor "${LIMIT:-240}" --cpus "$cpus" --memory 256M --vsm "$@" --stats "$WORK/stats" \
		--kernel "$GUEST/tests/secure.elf" --allow-io f4-f7 \
		-- -device isa-debug-exit,iobase=0xf4,iosize=4
	[ "$status" -eq 0 ] && tap_complete && as_expected paravisor &&
		jq -e '.vtl1.entries > 0 and .vtl1.intercepts > 0' "$WORK/stats" >/dev/null
	result=$?
	count=$(grep -ac '^ok' "$WORK/out")
	(exit $result)
	ok "secure, $cpus CPUs${1:+, $*}: $count checks"
}

for cpus in 1 2 4 8; do
	secure $cpus
done
secure 4 --interrupt-exits
secure 2 --vp-stride 64

run paravisor "${LIMIT:-240}" --cpus 2 --vsm --kernel "$GUEST/vmlinuz" --initrd "$GUEST/initrd.img" \
	--append "console=ttyS0 panic=-1 demo.seconds=1" --stats "$WORK/stats"
[ "$status" -eq 0 ] && printed '^demo: ok$' &&
	jq -e '.vtl1.entries == 0 and .vtl1.intercepts == 0' "$WORK/stats" >/dev/null
ok "Linux with --vsm, which asks for no VTL1"
finish
