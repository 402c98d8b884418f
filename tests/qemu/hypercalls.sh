#!/bin/sh
# The guest interface: test kernels that know every rule of it, with VPs numbered densely and sparsely,
# and stock kernels that flush by hypercall.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

mode paravisor || {
	echo "1..0 # SKIP nothing here runs on the bare machine"
	exit 0
}

# tested CPUS STRIDE FLUSH NAME COMMAND-LINE: one test kernel, which must pass whole, and at none of whose
# hypercalls and kicks a debug register is touched
tested() {
	run paravisor "${LIMIT:-180}" --cpus "$1" --memory 256M --tlb-flush "$3" --vp-stride "$2" \
		--stats "$WORK/stats" \
		--kernel "$GUEST/tests/$4.elf" --append "$5" --allow-io f4-f7 \
		-- -device isa-debug-exit,iobase=0xf4,iosize=4
	[ "$status" -eq 0 ] && tap_complete && as_expected paravisor &&
		jq -e '.debug.interrupt_exit_accesses == 0' "$WORK/stats" >/dev/null
	result=$?
	count=$(grep -ac '^ok' "$WORK/out")
	(exit $result)
	ok "$4${5:+ $5}, $1 CPUs, indexes $2 apart: $count checks"
}

for cpus in 1 2 4 8; do
	for stride in 1 64; do
		tested $cpus $stride hypercall hypercalls hypercall
		tested $cpus $stride hypercall flushes ""
	done
done
tested 2 1 ipi hypercalls ipi

# A VP that halts is kicked out of its guest twice, and waits in VTL2 from then on: 2,000 flushes need no
# kick. Some more are allowed for interrupts that wake it.
tested 2 1 hypercall halts only=1
jq -e '.flush.kicks_sent < 100 and .flush.kicks_skipped > 1900' "$WORK/stats" >/dev/null
ok "flushes of a VP that halts: $(jq -r .flush.kicks_sent "$WORK/stats") kicks"

# stock VERSION CPUS STRIDE: flushes by hypercall and not by interrupt, in the form that the numbering
# needs
stock() {
	case $1 in
	6.12) image=$GUEST/vmlinuz ;;
	6.1) image=$GUEST/vmlinuz-6.1 ;;
	esac
	# Flushes of all processors need no sparse set: then all but one are stormed on.
	cpus=0-$(($2 - 1))
	[ "$3" -eq 1 ] || [ "$2" -lt 3 ] || cpus=1-$(($2 - 1))
	run paravisor "${LIMIT:-180}" --cpus "$2" --tlb-flush hypercall --vp-stride "$3" --verbose \
		--kernel "$image" --initrd "$GUEST/initrd.img" --stats "$WORK/stats" \
		--append "console=ttyS0 panic=-1 demo.seconds=1 demo.messages demo.cpus=$cpus"
	[ "$status" -eq 0 ] && printed '^demo: ok$' && printed "^demo: processors  $2 online" &&
		printed '^storm: 0 TLB shootdowns by interrupt$' &&
		printed '^storm: 0 accesses through a stale mapping$' &&
		jq -e '.flush.requests > 0 and .flush.kicks_sent > 0' \
			"$WORK/stats" >/dev/null
	ok "Linux $1, $2 CPUs, indexes $3 apart: flushes by hypercall alone"
	if [ "$3" -gt 1 ] && [ "$2" -gt 2 ]; then
		# Spaces (13) or lists (14), as many pages as there were; and interrupts.
		said 'first hypercall 0x0*1[34]' && said 'first hypercall 0x0*15'
		ok "Linux $1, $2 CPUs, indexes $3 apart: flushes and interrupts to sparse sets"
	else
		said 'first hypercall 0x0*3$'
		ok "Linux $1, $2 CPUs, indexes $3 apart: lists of pages"
	fi
	complaints >"$WORK/complaints.$3"
	bare_complaints "$1" "$2" "$image"
	# Shown instead of the console if it fails.
	comm -13 "$WORK/bare.$1.$2" "$WORK/complaints.$3" | grep -vE "$MEASURING" >"$WORK/out"
	[ ! -s "$WORK/out" ]
	ok "Linux $1, $2 CPUs, indexes $3 apart: complains of nothing new"
}

# bare_complaints VERSION CPUS IMAGE: what the kernel complains of on the bare machine, asked for once
bare_complaints() {
	[ -e "$WORK/bare.$1.$2" ] && return
	run bare "${LIMIT:-180}" --cpus "$2" --kernel "$3" --initrd "$GUEST/initrd.img" \
		--append "console=ttyS0 panic=-1 demo.seconds=1 demo.messages"
	complaints >"$WORK/bare.$1.$2"
}

# As in linux.sh: messages of warning level or worse, and words of alarm at any level, without what
# varies from boot to boot.
complaints() {
	{
		sed -n 's/^demo: message //p' "$WORK/out"
		grep -aE 'WARNING|BUG|[Ee]rror|Call Trace|unstable|[Ff]ailed|not responding' \
			"$WORK/out" | grep -av '^demo: '
	} | sed -E -e 's/^<[0-9]+>//' -e 's/^\[ *[0-9.]+\] //' -e 's/0x[0-9a-f]+/N/g' \
		-e 's/[0-9a-f]{8,}/N/g' -e 's/[0-9]+/N/g' | sort -u
}

MEASURING='calibrate_delay_direct\(\) failed|APIC calibration not consistent with PM-Timer'
MEASURING="$MEASURING|tsc: (Unable to calibrate against PIT|Fast TSC calibration failed)"
MEASURING="$MEASURING|hpet: Lost N RTC interrupts"
# What 6.1 says on every machine with a wakeup mailbox: see linux.sh.
MEASURING="$MEASURING|ACPI: Found unsupported MADT entry"

for version in 6.12 6.1; do
	for cpus in 2 4 8; do
		stock $version $cpus 1
	done
	stock $version 4 64
done
finish
