#!/bin/sh
# Debian's kernels 6.12 and 6.1 with 1, 2, 4 and 8 processors: every processor comes up, and nothing
# is complained about that the bare machine's kernel does not complain about as well.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

# boot MODE VERSION CPUS
boot() {
	case $2 in
	6.12) image=$GUEST/vmlinuz ;;
	6.1) image=$GUEST/vmlinuz-6.1 ;;
	esac
	run "$1" "${LIMIT:-120}" --cpus "$3" --kernel "$image" --initrd "$GUEST/initrd.img" \
		--append "console=ttyS0 panic=-1 demo.run=none demo.messages"
}

# complaints: messages of warning level or worse, and words of alarm at any level. Time stamps,
# numbers and addresses vary from boot to boot; what is said does not.
complaints() {
	{
		sed -n 's/^demo: message //p' "$WORK/out"
		grep -aE 'WARNING|BUG|[Ee]rror|Call Trace|unstable|[Ff]ailed|not responding' \
			"$WORK/out" | grep -av '^demo: '
	} | sed -E -e 's/^<[0-9]+>//' -e 's/^\[ *[0-9.]+\] //' -e 's/0x[0-9a-f]+/N/g' \
		-e 's/[0-9a-f]{8,}/N/g' -e 's/[0-9]+/N/g' | sort -u
}

# What depends on how busy the computer is while the kernel measures its clocks, on any machine:
# repeated boots of the bare machine differ in these and in nothing else.
MEASURING='calibrate_delay_direct\(\) failed|APIC calibration not consistent with PM-Timer'
MEASURING="$MEASURING|hpet: Lost [0-9N]+ RTC interrupts"
MEASURING="$MEASURING|tsc: (Unable to calibrate against PIT|Fast TSC calibration failed)"

# 6.1's listing of the MADT is older than the wakeup structure, which it uses all the same: it says so
# on every machine that has one.
MAILBOX='ACPI: Found unsupported MADT entry'

for version in 6.12 6.1; do
	for m in bare paravisor; do
		mode $m || continue
		for cpus in 1 2 4 8; do
			boot $m $version $cpus
			[ "$status" -eq 0 ] && printed "^demo: processors  $cpus online" &&
				printed '^demo: ok$'
			ok "Linux $version, $cpus CPUs, $m: all online, powers off"
			complaints >"$WORK/complaints.$m.$cpus"
		done
	done
	if mode bare && mode paravisor; then
		sort -u "$WORK"/complaints.bare.* >"$WORK/complaints.bare"
		for cpus in 1 2 4 8; do
			# Shown instead of the console if it fails.
			comm -13 "$WORK/complaints.bare" "$WORK/complaints.paravisor.$cpus" |
				grep -vE "$MEASURING|$MAILBOX" >"$WORK/out"
			[ ! -s "$WORK/out" ]
			ok "Linux $version, $cpus CPUs: complains of nothing new"
		done
	fi
done
finish
