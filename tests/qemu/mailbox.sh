#!/bin/sh
# The wakeup mailbox: a test kernel that does everything wrong that can be done wrong, stock kernels
# that do it right, and what Parapet's own counters and trace say about it. docs/mailbox.md.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

mode paravisor || { finish; echo "# the bare machine has no mailbox"; exit 0; }

# counter SECTION KEY: a total from the statistics of the last run
counter() {
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]][sys.argv[3]])' \
		"$WORK/stats.json" "$1" "$2"
}

# --- the test kernel -------------------------------------------------------------------------------
# test_kernel CPUS COMMAND-LINE: without --allow-io, so that Parapet sees the end and counts to it
test_kernel() {
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
ok "eight processors, asked for one after the other"
tests/qemu/ap_trace.py "$WORK/trace.json" 7 2 >"$WORK/drawn"
result=$?
cat "$WORK/drawn"
cp "$WORK/drawn" "$WORK/out"
(exit $result)
ok "their starts overlap in the trace"

# --- stock kernels ---------------------------------------------------------------------------------
# linux VERSION SECONDS CPUS WORDS [OPTIONS...]
linux() {
	case $1 in
	6.12) image=$GUEST/vmlinuz ;;
	6.1) image=$GUEST/vmlinuz-6.1 ;;
	esac
	limit=$2 cpus=$3 words=$4
	shift 4
	run paravisor "$limit" --cpus "$cpus" --kernel "$image" --initrd "$GUEST/initrd.img" \
		--append "console=ttyS0 panic=-1 $words" --stats "$WORK/stats.json" \
		--trace "$WORK/trace.json" "$@"
	[ "$status" -eq 0 ] && printed '^demo: ok$'
}

# started VERSION CPUS: by the mailbox alone; and 6.12 says so itself
started() {
	printed "^demo: processors  $2 online" &&
		[ "$(counter events init_received)" -eq 0 ] &&
		[ "$(counter events sipi_received)" -eq 0 ] &&
		[ "$(counter mailbox wakeups)" -eq $(($2 - 1)) ] &&
		[ "$(counter mailbox refused)" -eq 0 ] || return 1
	[ "$1" = 6.1 ] || printed 'wakeup_secondary_cpu_64\(\) replaced with acpi_wakeup_cpu\(\)'
}

for version in 6.12 6.1; do
	for cpus in 2 4 8; do
		linux $version 120 $cpus "demo.run=none" && started $version $cpus
		ok "Linux $version, $cpus CPUs: all by the mailbox, not one INIT or SIPI"
		linux $version 120 $cpus "demo.run=none" -- -cpu max,la57=off &&
			started $version $cpus
		ok "Linux $version, $cpus CPUs, four levels of page tables: the same"
	done
	tests/qemu/ap_trace.py "$WORK/trace.json" 7 >"$WORK/drawn"
	result=$?
	cat "$WORK/drawn"
	cp "$WORK/drawn" "$WORK/out"
	(exit $result)
	ok "Linux $version, 8 CPUs: every start is one span with its steps in the trace"
	linux $version 300 32 "demo.run=none" --memory 1G && started $version 32
	ok "Linux $version, 32 CPUs: all by the mailbox"
done

# --- offline and online ----------------------------------------------------------------------------
linux 6.12 300 4 "demo.run=cycles demo.cycles=20"
ok "Linux 6.12: processors leave and come back in any order while others work"
[ "$(counter events init_received)" -eq 0 ] && [ "$(counter events sipi_received)" -eq 0 ] &&
	[ "$(counter mailbox wakeups)" -ge 23 ] && [ "$(counter mailbox tests)" -ge 20 ]
ok "Linux 6.12: through the mailbox and nothing else"
linux 6.1 120 4 "demo.run=hotplug demo.seconds=2" --ap-start sipi &&
	[ "$(counter mailbox wakeups)" -eq 0 ]
ok "Linux 6.1 without a mailbox: processors off and on"
linux 6.1 120 4 "demo.run=away" && printed '^away: gone$' && printed '^away: does not come back$' &&
	printed '^away: the others are well$'
ok "Linux 6.1 with the mailbox: one stays away, the others and the guest's end are not disturbed"
[ "$(counter mailbox refused)" -ge 1 ] && ! printed 'rcu.*stall|soft lockup|Call Trace'
ok "Linux 6.1 with the mailbox: its wakeup is refused, and nobody waits for it"

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
echo "# processor time in 10 s: $alone ms/10 alone, $ticks ms/10 with seven parked"
[ "$ticks" -le $((alone + 100)) ]
ok "seven parked processors cost next to nothing"
finish
