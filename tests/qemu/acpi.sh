#!/bin/sh
# What the guest reads of the firmware's tables: the same as on the bare machine, but for a MADT that
# has one structure more; and the memory map, in which Parapet and the mailbox are named.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

{ mode bare && mode paravisor; } || { finish; echo "# needs both machines"; exit 0; }

# tables MODE VERSION CPUS [QEMU OPTIONS...]: boots, and decodes what the guest prints of its tables
tables() {
	t_mode=$1 t_cpus=$3
	case $2 in
	6.12) image=$GUEST/vmlinuz ;;
	6.1) image=$GUEST/vmlinuz-6.1 ;;
	esac
	shift 3
	run "$t_mode" 120 --cpus "$t_cpus" --kernel "$image" --initrd "$GUEST/initrd.img" \
		--append "console=ttyS0 panic=-1 demo.run=none demo.acpi" "$@"
	rm -rf "${WORK:?}/$t_mode"
	mkdir "$WORK/$t_mode"
	sed -n 's/^demo: acpi \([A-Z0-9]*\) .*/\1/p' "$WORK/out" | sort -u >"$WORK/found"
	while read -r table; do
		sed -n "s/^demo: acpi $table //p" "$WORK/out" | base64 -d >"$WORK/$t_mode/$table"
	done <"$WORK/found"
	[ "$status" -eq 0 ] && printed '^demo: ok$' && [ -s "$WORK/$t_mode/APIC" ]
}

# word FILE OFFSET: a 32-bit word
word() {
	od -An -tu4 -j "$2" -N 4 "$1" | tr -d ' '
}

# same_but_madt: all tables of both machines, byte by byte
same_but_madt() {
	(cd "$WORK/bare" && ls) >"$WORK/names"
	(cd "$WORK/paravisor" && ls) | cmp -s - "$WORK/names" || return 1
	while read -r name; do
		[ "$name" = APIC ] || cmp "$WORK/bare/$name" "$WORK/paravisor/$name" || return 1
	done <"$WORK/names"
}

# madt_grew: length, sum and the new structure are right, and nothing else is different
madt_grew() {
	old=$WORK/bare/APIC new=$WORK/paravisor/APIC
	bytes=$(wc -c <"$old")
	[ "$(wc -c <"$new")" -eq $((bytes + 24)) ] && [ "$(word "$new" 4)" -eq $((bytes + 24)) ] &&
		[ "$(od -An -v -tu1 "$new" | awk '{ for (i = 1; i <= NF; i++) s += $i }
			END { print s % 256 }')" -eq 0 ] &&
		[ "$(od -An -tx1 -j "$bytes" -N 4 "$new" | tr -d ' ')" = 10180100 ] || return 1
	# The length and the sum are at bytes 5 to 8 and 10, counted from 1.
	head -c "$bytes" "$new" | cmp -l - "$old" | awk '$1 != 10 && ($1 < 5 || $1 > 8) { exit 1 }'
}

# memory_map: the mailbox is NVS memory, and so much is reserved that Parapet fits
memory_map() {
	mailbox=$(printf '%016x-%016x' "$(word "$WORK/paravisor/APIC" $((bytes + 8)))" \
		$(($(word "$WORK/paravisor/APIC" $((bytes + 8))) + 4095)))
	printed "BIOS-e820: \[mem 0x${mailbox%-*}-0x${mailbox#*-}\] ACPI NVS" &&
		sed -n 's/.*BIOS-e820: \[mem 0x\(0000[0-9a-f]*\)-0x\(0000[0-9a-f]*\)\] reserved.*/\1 \2/p' \
			"$WORK/out" | {
			while read -r first last; do
				[ $((0x$last - 0x$first)) -lt $((16 << 20)) ] ||
					[ $((0x$last)) -gt $((512 << 20)) ] || exit 0
			done
			exit 1
		}
}

# The paravisor's machine has a second serial port, which the firmware's tables name.
for version in 6.12 6.1; do
	tables bare $version 4 -- -serial null
	ok "Linux $version, bare: shows its tables"
	tables paravisor $version 4
	ok "Linux $version: shows its tables"
	same_but_madt
	ok "Linux $version: $(($(wc -l <"$WORK/names") - 1)) tables are the bare machine's"
	madt_grew
	ok "Linux $version: the MADT has the wakeup structure, and no other difference"
	memory_map
	ok "Linux $version: the mailbox is NVS, Parapet's memory is reserved"
	if command -v iasl >"$WORK/iasl"; then
		iasl -d "$WORK/paravisor/APIC" >"$WORK/iasl" 2>&1 &&
			! grep -iE 'error|warning|checksum.*(bad|incorrect)' "$WORK/iasl"
		ok "Linux $version: iasl reads the MADT"
	else
		tests=$((tests + 1))
		echo "ok $tests - iasl reads the MADT # SKIP iasl (package acpica-tools) is missing"
	fi
done
tables paravisor 6.12 4 --ap-start sipi
ok "--ap-start sipi: shows its tables"
cmp "$WORK/bare/APIC" "$WORK/paravisor/APIC"
ok "--ap-start sipi: the MADT is the bare machine's"
finish
