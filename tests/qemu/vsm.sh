#!/bin/sh
# VSM as a guest sees it: test kernels that bring up a VTL1 on every processor, that know the rules of
# every call, and that change permissions while all processors attack them.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

mode paravisor || {
	echo "1..0 # SKIP nothing here runs on the bare machine"
	exit 0
}

# boot CPUS NAME COMMAND-LINE OPTION...: one test kernel, with VSM
boot() {
	v_cpus=$1 v_name=$2 v_append=$3
	shift 3
	run paravisor "${LIMIT:-240}" --cpus "$v_cpus" --memory 256M --vsm "$@" \
		--kernel "$GUEST/tests/$v_name.elf" --append "$v_append" --stats "$WORK/stats" --trace "$WORK/trace" \
		--allow-io f4-f7 -- -device isa-debug-exit,iobase=0xf4,iosize=4
}

# whole CPUS NAME COMMAND-LINE OPTION...: it must pass whole
whole() {
	boot "$@"
	[ "$status" -eq 0 ] && tap_complete && as_expected paravisor
	result=$?
	count=$(grep -ac '^ok' "$WORK/out")
	name="$2${3:+ $3}, $1 CPUs"
	shift 3
	(exit $result)
	ok "$name${1:+, $*}: $count checks"
}

# kept NAME: Parapet's own record of the two changes that the test kernel vsm makes last, and its trace of them
kept() {
	base=$(sed -n 's/^# kept: from \([0-9]*\) on, by VP [0-9]*$/\1/p' "$WORK/out")
	vp=$(sed -n 's/^# kept: from [0-9]* on, by VP \([0-9]*\)$/\1/p' "$WORK/out")
	jq -e --argjson base "${base:-0}" --argjson vp "${vp:-0}" '
		[.protect.regions[] | select(.base < $base + 16384 and .base + .bytes > $base)] |
		sort_by(.transaction) | (length == 2) and (.[0].transaction < .[1].transaction) and
		([.[] | [.base, .bytes, .old, .new]] ==
			[[$base, 16384, "rwx", "---"], [$base, 12288, "---", "r-x"]]) and
		([.[] | .state == "stable" and .reason == "vtl-mask" and .target_vtl == 0 and
			.by_vtl == 1 and .vp == $vp and (.mixed or .hull | not)] | all)' \
		"$WORK/stats" >/dev/null
	ok "$1: the statistics show what VTL1 changed last, and who it was"
	tests/qemu/protect_trace.py "$WORK/trace" "$vp" "$base:16384:rwx:---" "$base:12288:---:r-x"
	ok "$1: the trace shows every change from its beginning to its end, and these two"
}

for cpus in 1 2 4 8; do
	whole $cpus vsm ""
	kept "vsm, $cpus CPUs"
done
whole 4 vsm "start default"
whole 2 vsm "start" --ap-start sipi
for cpus in 1 4; do
	whole $cpus vsmcalls ""
done
whole 4 vsmcalls "" --vp-stride 64
whole 4 vsmcalls "start"
whole 2 vsmcalls "start" --ap-start sipi
for cpus in 2 4 8; do
	whole $cpus flips "seed=$cpus"
	jq -e '.protect.transactions > 0 and .protect.shootdowns > 0 and .protect.denied > 0' \
		"$WORK/stats" >/dev/null
	ok "flips, $cpus CPUs: $(grep -a '^# [0-9]* flips' "$WORK/out" | cut -c 3-), none of them too late"
done
whole 1 exitcost ""
printed '^exitcost: vtl-call ' && printed '^exitcost: vtl-protect '
ok "exitcost measures VTL calls and changes of permissions"

# What VTL1 had is not there any more after a reset.
boot 2 vsm "reset" --verbose
[ "$status" -eq 1 ] && printed '^ok' && ! printed '^(not ok|Bail out)' && said 'the guest.s memory is zero'
ok "a reset zeroes the guest's memory"
finish
