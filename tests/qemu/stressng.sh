#!/bin/sh
# Debian's stress-ng in stock guests that flush by hypercall: its stressors of memory mappings, with
# their own checks on. Short, as part of `make check`; LONG=1 is for `make stress`: longer, both
# kernels, and with processors that leave and come back meanwhile.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

mode paravisor || {
	echo "1..0 # SKIP nothing here runs on the bare machine"
	exit 0
}

cat "$GUEST/initrd.img" "$GUEST/stress-ng.img" >"$WORK/initrd.img" || {
	echo "Bail out! the initrd with stress-ng is missing: say make guest-kernels"
	exit 1
}

# stressed IMAGE CPUS WHAT SECONDS: all stressors for so long each
stressed() {
	run paravisor $((120 + $4 * 20)) --cpus "$2" --memory 1G --tlb-flush hypercall \
		--kernel "$GUEST/$1" --initrd "$WORK/initrd.img" --stats "$WORK/stats" \
		--append "console=ttyS0 panic=-1 quiet demo.run=$3 demo.seconds=$4 demo.messages"
	[ "$status" -eq 0 ] && printed '^demo: ok$' && printed '^stress: vm done$' &&
		printed '^storm: 0 TLB shootdowns by interrupt$' &&
		printed '^storm: 0 accesses through a stale mapping$' &&
		! grep -aqE 'stress-ng: (fail|error):|WARNING:|BUG:|soft lockup|rcu.*stall' \
			"$WORK/out" &&
		jq -e '.flush.requests > 20' "$WORK/stats" >/dev/null
	ok "$1, $2 CPUs, $3, $4 s each: $(jq .flush.requests "$WORK/stats") flushes"
}

if [ "${LONG:-0}" = 0 ]; then
	stressed vmlinuz 2 stress 3
	stressed vmlinuz 4 stress 2
	stressed vmlinuz-6.1 8 stress 2
else
	for cpus in 2 4 8; do
		for image in vmlinuz vmlinuz-6.1; do
			stressed $image $cpus stress "${SECONDS_EACH:-20}"
		done
		# The other kernel cannot bring a processor back through the mailbox.
		stressed vmlinuz $cpus stress-hotplug "${SECONDS_EACH:-20}"
	done
fi
finish
