#!/bin/sh
# The wakeup mailbox: a test kernel that does everything wrong that can be done wrong, what Parapet's
# own counters and trace say about it, and what waiting costs. docs/mailbox.md.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc
. tests/qemu/mailbox.inc

mode paravisor || { finish; echo "# the bare machine has no mailbox"; exit 0; }

# --- the test kernel -------------------------------------------------------------------------------
# test_kernel CPUS COMMAND-LINE: without --allow-io, so that Parapet sees the end and counts to it
test_kernel() {
	rm -f "$WORK/stats.json" "$WORK/trace.json"
	run paravisor "${LIMIT:-120}" --cpus "$1" --memory 256M --kernel "$GUEST/tests/mailbox.elf" \
		--append "$2" --stats "$WORK/stats.json" --trace "$WORK/trace.json" \
		-- -device isa-debug-exit,iobase=0xf4,iosize=4
	[ "$status" -eq 0 ] && tap_complete && printed '^# under a paravisor'
}

test_kernel 1 ""
ok "one processor: no mailbox"
for cpus in 2 4 8; do
	test_kernel $cpus ""
	ok "mailbox, $cpus CPUs: $(grep -ac '^ok' "$WORK/out") checks"
	starts=$(sed -n 's/^# starts \([0-9]*\), .*/\1/p' "$WORK/out")
	[ "$starts" -gt 100 ] &&
		[ "$(($(counter mailbox wakeups) + $(counter events sipi_received)))" -eq "$starts" ]
	ok "mailbox, $cpus CPUs: every wakeup that was counted is a start, and the other way round"
	refused=$(sed -n 's/^# starts .*at least \([0-9]*\)$/\1/p' "$WORK/out")
	[ "$(counter mailbox refused)" -ge "$refused" ]
	ok "mailbox, $cpus CPUs: refusals are counted"
done

test_kernel 8 "burst"
ok "eight processors, asked for one after the other while some work"
drawn $((7 + 20 * 4)) 2
ok "their starts overlap in the trace"

# --- what waiting costs ----------------------------------------------------------------------------
# parked CPUS: hundredths of a second of processor time that QEMU takes in ten seconds of rest
parked() {
	"$PARAPET" run --accel "${ACCEL:-tcg}" --timeout 90 --cpus "$1" --append \
		"console=ttyS0 panic=-1 quiet maxcpus=1 demo.run=sleep demo.seconds=14" \
		</dev/null >"$WORK/console" 2>"$WORK/said" &
	parapet=$!
	for _ in $(seq 600); do
		! grep -aq '^demo: sleeps' "$WORK/console" || break
		sleep 0.1
	done
	sleep 2
	read -r qemu _ <"/proc/$parapet/task/$parapet/children"
	before=$(awk '{ print $14 + $15 }' "/proc/$qemu/stat")
	sleep 10
	after=$(awk '{ print $14 + $15 }' "/proc/$qemu/stat")
	wait $parapet
	status=$?
	tr -d '\r' <"$WORK/console" >"$WORK/out"
	ticks=$(((after - before) * 100 / $(getconf CLK_TCK)))
	[ "$status" -eq 0 ] && printed '^demo: ok$' && printed '^demo: processors  1 online'
}

parked 1
ok "one processor at rest for ten seconds"
alone=$ticks
parked 8
ok "eight, of which seven were never started"
echo "# processor time in 10 s: $alone cs alone, $ticks cs with seven parked"
[ "$ticks" -le $((alone + 100)) ]
ok "seven parked processors cost next to nothing"
finish
