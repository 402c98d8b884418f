#!/bin/sh
# Stock kernels and the wakeup mailbox: they start by it and by nothing else, with any paging mode, and
# leave and come back through it as far as they can. docs/mailbox.md says what 6.1 cannot, and why.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc
. tests/qemu/mailbox.inc

mode paravisor || { finish; echo "# the bare machine has no mailbox"; exit 0; }

# --- stock kernels ---------------------------------------------------------------------------------
# linux VERSION SECONDS CPUS WORDS [OPTIONS...]
linux() {
	case $1 in
	6.12) image=$GUEST/vmlinuz ;;
	6.1) image=$GUEST/vmlinuz-6.1 ;;
	esac
	limit=$2 cpus=$3 words=$4
	shift 4
	rm -f "$WORK/stats.json" "$WORK/trace.json"
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
		linux $version 120 "$cpus" "demo.run=none" && started $version "$cpus"
		ok "Linux $version, $cpus CPUs: all by the mailbox, not one INIT or SIPI"
		linux $version 120 "$cpus" "demo.run=none" -- -cpu max,la57=off &&
			started $version "$cpus"
		ok "Linux $version, $cpus CPUs, four levels of page tables: the same"
	done
	drawn 7
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

finish
