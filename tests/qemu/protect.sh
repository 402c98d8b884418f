#!/bin/sh
# --protect kernel: a module in a stock Linux guest writes to the kernel's code and read-only data on
# every processor, by every way it has, and has Parapet write there. Without the option every write lands,
# so the attack is one; with it none does, each is counted, and the kernel's own patching goes on, before
# and after.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

STATS=$WORK/stats.json
INITRD=$WORK/initrd.img
ATTEMPTS=72 # of the module, on each processor
# What it has Parapet do, in code and in read-only data: accesses of the guest's, counted like its stores;
# pages of MSRs, counted as MSRs; and what exists with --vsm alone, and so never here. In all, with a walk
# through one page of data:
ACCESSES='(insb|insw|insl|movsb|movsl|movsl across pages|page table)'
MSRS='(hypercall|assist|reference) page'
ABSENT='((message|event) page|call for registers|call for an index)'
ASKED_ACCESSES=13
ASKED_MSRS=6
ASKED_ABSENT=8
cat "$GUEST/initrd.img" "$GUEST/attack.img" >"$INITRD" || exit 1

# attack MODE VERSION CPUS APPEND [OPTIONS...]
attack() {
	a_mode=$1 a_version=$2 a_cpus=$3 a_append=$4
	shift 4
	case $a_version in
	6.12) image=$GUEST/vmlinuz ;;
	6.1) image=$GUEST/vmlinuz-6.1 ;;
	esac
	rm -f "$STATS"
	run "$a_mode" "${LIMIT:-300}" --cpus "$a_cpus" --kernel "$image" --initrd "$INITRD" \
		--append "console=ttyS0 panic=-1 quiet demo.run=protect demo.cycles=1 demo.messages $a_append" \
		--stats "$STATS" "$@"
}

# well: ended well, and the kernel's own patching worked all the time
well() {
	[ "$status" -eq 0 ] && printed '^demo: ok$' && printed '^protect: done$' &&
		[ "$(grep -ac '^protect: two tracers' "$WORK/out")" -eq 2 ]
}

# quiet: the guest's kernel has nothing to complain about
quiet() {
	! printed '(WARNING|BUG|Oops|general protection|int3|stack guard)'
}

# outcome OUTCOME CPUS: of every attempt on every processor, as the module saw it
outcome() {
	for cpu in $(seq 0 $(($2 - 1))); do
		[ "$(grep -acE "^attack: CPU $cpu, .*: $1\$" "$WORK/out")" -eq "$ATTEMPTS" ] || return 1
	done
	case $1 in
	landed) printed "^attack: $((ATTEMPTS * $2)) landed, 0 stopped, 0 odd$" ;;
	stopped) printed "^attack: 0 landed, $((ATTEMPTS * $2)) stopped, 0 odd$" ;;
	esac
}

# asked OUTCOME CPUS COUNT NAMES: of what it has had done on every processor
asked() {
	for cpu in $(seq 0 $(($2 - 1))); do
		[ "$(grep -acE "^attack: deputy: CPU $cpu, [a-z -]+, $4: $1\$" "$WORK/out")" -eq "$3" ] ||
			return 1
	done
}

# counted CPUS: by Parapet too, on each processor; and said, the first ones of each
counted() {
	jq -e --argjson cpus "$1" --argjson each $((ATTEMPTS + ASKED_ACCESSES)) \
		--argjson msrs $((ASKED_MSRS + 4)) '.protect.denied == $cpus * $each and
		([.protect.per_vp.denied[] == $each] | all) and
		([.denied.per_vp.msr[] >= $msrs] | all)' "$STATS" >/dev/null || return 1
	for cpu in $(seq 0 $(($1 - 1))); do
		[ "$(grep -c "warning: VP $cpu: a write to the sealed kernel" "$WORK/said")" -eq 8 ] ||
			return 1
	done
}

# recorded [seal]: the regions in the statistics are the seal, which is transaction 1 and megabytes,
# and pages opened for a patch or closed after one; with "seal" there is nothing but the seal.
recorded() {
	jq -e --arg only "${1:-}" '.protect.regions as $all | [$all[] | select(.transaction == 1)] as $seal |
		($seal | length > 0 and (map(.bytes) | add) >= 4194304) and
		([$seal[] | .old == "rwx" and .new == "r-x"] | all) and
		([$all[] | .reason == "kernel-seal" and .state == "stable" and .target_vtl == 0 and
			.by_vtl == 2 and .base % 4096 == 0 and .bytes % 4096 == 0 and
			([.old, .new] | sort) == ["r-x", "rwx"]] | all) and
		($only != "seal" or ($seal == $all and ($all | length) == .protect.ranges))' \
		"$STATS" >/dev/null
}

if mode bare; then
	attack bare 6.12 2 ''
	well && quiet && outcome landed 2
	ok "6.12, 2 CPUs, bare: every write lands"
	asked landed 2 $ASKED_ACCESSES "$ACCESSES"
	ok "6.12, 2 CPUs, bare: so does every one of the processor's own"
fi
if mode paravisor; then
	attack paravisor 6.12 2 ''
	well && quiet && outcome landed 2
	ok "6.12, 2 CPUs, without --protect: every write lands"
	asked landed 2 $ASKED_ACCESSES "$ACCESSES" && asked landed 2 $ASKED_MSRS "$MSRS" &&
		asked stopped 2 $ASKED_ABSENT "$ABSENT"
	ok "6.12, 2 CPUs, without --protect: so does every one that Parapet is had to do"
	jq -e '.protect.denied == 0 and .protect.transactions == 0' "$STATS" >/dev/null
	ok "6.12, 2 CPUs, without --protect: nothing is changed or denied"
	jq -e '[.protect.regions[] | select(.reason == "kernel-seal")] | length == 0' "$STATS" >/dev/null
	ok "6.12, 2 CPUs, without --protect: no region is sealed"

	# One of them where it was linked to be, and with page tables of their own for programs.
	for what in '6.12 1' '6.12 2 nokaslr pti=on' '6.12 4' '6.1 2'; do
		# shellcheck disable=SC2086 # words are wanted
		set -- $what
		version=$1 cpus=$2
		shift 2
		attack paravisor "$version" "$cpus" "$*" --protect kernel
		well && quiet
		ok "$what, --protect kernel: it patches itself, and complains of nothing"
		outcome stopped "$cpus"
		ok "$what, --protect kernel: no write lands"
		asked stopped "$cpus" $ASKED_ACCESSES "$ACCESSES" &&
			asked stopped "$cpus" $ASKED_MSRS "$MSRS" &&
			asked stopped "$cpus" $ASKED_ABSENT "$ABSENT"
		ok "$what, --protect kernel: Parapet is had to do none"
		counted "$cpus"
		ok "$what, --protect kernel: each is reported"
		recorded
		ok "$what, --protect kernel: the statistics show what was sealed, and why"
	done

	# Processors leave and come back, which patches and starts what was sealed meanwhile.
	run paravisor 240 --cpus 4 --protect kernel --stats "$STATS" \
		--append 'console=ttyS0 panic=-1 quiet demo.run=hotplug demo.messages'
	[ "$status" -eq 0 ] && printed '^demo: ok$' && quiet &&
		jq -e '.protect.transactions == 1 and .protect.denied == 0' "$STATS" >/dev/null
	ok "6.12, 4 CPUs: one change seals, and taking processors off and on needs nothing denied"
	recorded seal
	ok "6.12, 4 CPUs: the statistics show that change, and nothing else"

	# A kernel that does not protect itself is not sealed, which must not go unsaid.
	run paravisor 240 --cpus 1 --protect kernel \
		--append 'console=ttyS0 panic=-1 quiet demo.run=none rodata=off'
	[ "$status" -eq 0 ] && printed '^demo: ok$' && said 'warning: the kernel was never sealed'
	ok "rodata=off: says that nothing was sealed"
	run paravisor 120 --cpus 1 --memory 256M --protect kernel --kernel "$GUEST/tests/basic.elf" \
		--allow-io f4-f7 -- -device isa-debug-exit,iobase=0xf4,iosize=4
	[ "$status" -eq 0 ] && tap_complete && said 'warning: the kernel was never sealed: none'
	ok "a guest that is no Linux: runs, and is told from one"
fi
finish
