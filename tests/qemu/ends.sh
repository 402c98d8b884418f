#!/bin/sh
# Every way in which a guest can end, for real, with the status that the contract names for it.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

# end MODE WORD STATUS...: the statuses that are right
end() {
	e_mode=$1 word=$2
	shift 2
	mode "$e_mode" || return 0
	run "$e_mode" "${LIMIT:-20}" --cpus 2 --memory 256M --kernel "$GUEST/tests/ends.elf" \
		--append "$word" --allow-io f4-f7 -- -device isa-debug-exit,iobase=0xf4,iosize=4
	right=1
	for wanted in "$@"; do
		[ "$status" -ne "$wanted" ] || right=0
	done
	printed "^ends: .*$word" && ! printed '^Bail out' && [ $right -eq 0 ]
	ok "$word, $e_mode: status $*"
}

for m in bare paravisor; do
	end $m exit=0 0
	end $m exit=3 1
	end $m poweroff 0
	end $m reset-cf9 0
	end $m reset-kbd 0
	end $m reset-92 0
	# An INIT to oneself starts the firmware over, which resets the machine; or it is refused.
	end $m init-self 0 1
	end $m init-all 0 1
done
# QEMU cannot tell a triple fault from a reset; Parapet can.
end bare triple 0
end paravisor triple 1
LIMIT=4
for m in bare paravisor; do
	end $m hang 3
done
finish
