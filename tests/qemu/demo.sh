#!/bin/sh
# The demo guest: what a user sees first, its workloads, and its way of failing.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

# The processor looks at memory through every mapping it ever had: none may be stale.
for m in bare paravisor; do
	mode $m || continue
	run $m 120
	[ "$status" -eq 0 ] && printed '^Parapet demo guest$' && printed '^demo: ok$'
	ok "demo, $m: ends well without any option"
	printed '^demo: processors  4 online \(0-3\) of 0-3$'
	ok "demo, $m: four processors"
	printed '^storm: 0 accesses through a stale mapping$'
	ok "demo, $m: no stale mapping"
	! grep -aq '^parapet:' "$WORK/out"
	ok "demo, $m: standard output is the guest's console"
	said 'the guest ended well'
	ok "demo, $m: the summary says so"

	for workload in cpu fork; do
		run $m 120 --cpus 2 --append "console=ttyS0 panic=-1 quiet demo.run=$workload"
		[ "$status" -eq 0 ] && printed "^bench: $workload [1-9][0-9]*\$"
		ok "demo, $m: workload $workload"
	done
	run $m 120 --cpus 4 --append "console=ttyS0 panic=-1 demo.run=hotplug demo.seconds=3"
	[ "$status" -eq 0 ] && printed '^hotplug: [1-9][0-9]* times off and on$'
	ok "demo, $m: processors off and on"
	run $m 120 --cpus 2 --append "console=ttyS0 panic=-1 demo.run=bogus"
	[ "$status" -eq 1 ] && printed '^demo: FAILED' && printed 'Kernel panic - not syncing'
	ok "demo, $m: a failure is a panic, status 1"
done
if mode paravisor; then
	run paravisor 120 --cpus 2 --append "console=ttyS0 panic=-1 demo.run=none" \
		--stats "$WORK/stats.json"
	[ "$status" -eq 0 ] && grep -q '"vps"' "$WORK/stats.json"
	ok "demo: statistics are written"
fi
finish
