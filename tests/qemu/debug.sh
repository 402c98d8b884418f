#!/bin/sh
# Debug registers: the test kernel's answers are the same on the bare machine and under Parapet, with
# and without interrupt exits; a real kernel's watchpoints and breakpoints hit exactly, also with VTL1
# active; and nothing touches a debug register at an interrupt exit, or asks the layer below for one.
#
# DEBUG_LONG=1: a hundred thousand hits of perf_event, a million interrupt exits, every byte of
# Parapet's text as a breakpoint's address.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

HITS=400 TICKS=20000 STORM=500 SWEEP=41
if [ -n "${DEBUG_LONG:-}" ]; then
	HITS=100000 TICKS=1000000 STORM=5000 SWEEP=1
	LIMIT=3600 TRIES=8
fi
STATS=$WORK/stats.json

# machine MODE CPUS KERNEL APPEND [OPTIONS...]: like `kernel`, but Parapet sees the end, and counts
machine() {
	m_mode=$1 m_cpus=$2 m_kernel=$3 m_append=$4
	shift 4
	rm -f "$STATS"
	run "$m_mode" "${LIMIT:-120}" --cpus "$m_cpus" --memory 256M \
		--kernel "$GUEST/tests/$m_kernel.elf" --append "$m_append" --stats "$STATS" "$@" \
		-- -device isa-debug-exit,iobase=0xf4,iosize=4
}

# number PATH: a total in the statistics, such as debug.register_accesses
number() {
	sed -n "/^  \"${1%.*}\": {/,/^  }/s/^    \"${1#*.}\": \([0-9]*\),*\$/\1/p" "$STATS"
}

# address_of SYMBOL: of the core, in hexadecimal digits
address_of() {
	nm "$core" | sed -n "s/^\([0-9a-f]*\) . $1\$/\1/p"
}

# untouched: no debug register at an interrupt exit, nobody asked
untouched() {
	[ "$(number debug.interrupt_exit_accesses)" = 0 ] &&
		[ "$(number debug.hypervisor_queries)" = 0 ]
}

for cpus in 1 4; do
	for m in bare paravisor; do
		mode $m || continue
		for option in '' --interrupt-exits; do
			[ "$m$option" != bare--interrupt-exits ] || continue
			machine $m $cpus debug "storm=$STORM sweep=$SWEEP" ${option:+$option}
			[ "$status" -eq 0 ] && tap_complete && as_expected $m
			ok "debug registers, $cpus CPUs, $m $option: $(grep -ac '^ok' "$WORK/out") checks"
			grep -a '^# answer' "$WORK/out" >"$WORK/answers.$m$option"
			[ $m = paravisor ] || continue
			untouched
			ok "debug registers, $cpus CPUs, $m $option: none touched at an interrupt exit"
			mode bare || continue
			diff "$WORK/answers.bare" "$WORK/answers.$m$option" >"$WORK/out"
			ok "debug registers, $cpus CPUs, $m $option: the bare machine's answers"
		done
	done
done

if mode paravisor; then
	machine paravisor 1 intexits "ticks=$TICKS" --interrupt-exits
	[ "$status" -eq 0 ] && tap_complete && untouched
	ok "$TICKS interrupt exits: no debug register touched, nobody asked"
	[ "$(number exits.interrupt)" -ge "$TICKS" ]
	ok "$TICKS interrupt exits: $(number exits.interrupt) there were"
	machine paravisor 1 intexits "ticks=$TICKS"
	[ "$status" -eq 0 ] && tap_complete && [ "$(number exits.interrupt)" = 0 ]
	ok "without the option, interrupts do not exit"
	for option in '' --interrupt-exits; do
		for name in basic smp stormy; do
			machine paravisor 4 $name "ms=2000" ${option:+$option}
			[ "$status" -eq 0 ] && tap_complete && untouched
			ok "$name, 4 CPUs $option: passes, and no debug register touched"
		done
	done
fi

# guest MODE APPEND [OPTIONS...]
guest() {
	g_mode=$1 g_append=$2
	shift 2
	rm -f "$STATS"
	run "$g_mode" "${LIMIT:-240}" --cpus 4 --stats "$STATS" "$@" \
		--append "console=ttyS0 panic=-1 quiet demo.run=watch demo.hits=$HITS $g_append"
	[ "$status" -eq 0 ] && printed '^demo: ok$' &&
		printed '^watch: perf_event: .* 0 others' && printed '^watch: ptrace: .* 0 others'
}

# alternating: VTL1 ran on every processor, often between a breakpoint's arming and its hit, and Parapet
# has counted the entries that VTL1 has
alternating() {
	for cpu in 0 1 2 3; do
		printed "^vtl1: CPU $cpu, [1-9][0-9]* entries, [0-9]+ armed, 0 changed\$" || return 1
	done
	[ "$(vtl1_sum 4)" -eq "$(number vtl1.entries)" ] && [ "$(vtl1_sum 6)" -gt 0 ]
}

# vtl1_sum WORD: over the processors, of a number in the guest's lines
vtl1_sum() {
	awk -v word="$1" '/^vtl1: CPU / { sum += $word } END { print sum + 0 }' "$WORK/out"
}

if mode bare; then
	guest bare ''
	ok "perf_event and ptrace, bare: $HITS hits of each kind, exactly"
fi
if mode paravisor; then
	for flush in ipi hypercall; do
		for option in '' --interrupt-exits; do
			guest paravisor '' --tlb-flush $flush ${option:+$option} && untouched
			ok "perf_event and ptrace, flushes by $flush $option: $HITS hits, exactly"
		done
	done
	cat "$GUEST/initrd.img" "$GUEST/vtl1.img" >"$WORK/initrd.img" || exit 1
	for option in '' --interrupt-exits; do
		guest paravisor demo.vtl1=200 --initrd "$WORK/initrd.img" --vsm ${option:+$option} &&
			untouched
		ok "perf_event and ptrace, VTL1 active $option: $HITS hits, exactly"
		alternating
		ok "VTL1 active $option: $(vtl1_sum 4) entries, $(vtl1_sum 6) of them with VTL0 armed"
	done
	core=$(dirname "$PARAPET")/core.elf
	# Where no breakpoint can be armed nothing is called that lies elsewhere, but for faults.
	leaves=$(objdump -d --start-address="0x$(address_of guarded_text_start)" \
		--stop-address="0x$(address_of guarded_text_end)" "$core" |
		sed -nE 's/.*\t(call|j[a-z]+) +([0-9a-f]+) <([^+>]*).*/\2 \3/p' |
		awk -v start="$(address_of guarded_text_start)" -v end="$(address_of guarded_text_end)" \
			'$1 < start || $1 >= end { print $2 }' | sort -u | tr '\n' ' ')
	echo "it calls: $leaves" >"$WORK/out"
	[ "$leaves" = 'fault_exception fault_resume ' ]
	ok "guarded text calls nothing that is not"
	! nm "$core" | grep -q regs_query_host
	ok "the image has no function that asks the host for a register"
fi
finish
