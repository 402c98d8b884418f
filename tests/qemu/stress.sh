#!/bin/sh
# The long version: twenty boots of everything, to find what goes wrong once in a while, processors that
# leave and come back a thousand times, and a million changes of permissions under attack. ROUNDS=N,
# CYCLES=N and FLIPS=N for other numbers.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

m=paravisor
mode $m || m=bare

# A thousand times off and on: Linux through the mailbox, then the test kernel as often, with every
# mistake there is in between.
run $m 3000 --cpus 4 --append "console=ttyS0 panic=-1 demo.run=cycles demo.cycles=${CYCLES:-1000}"
[ "$status" -eq 0 ] && printed '^demo: ok$' && printed '^cycles: [1-9][0-9]* times off and on$'
ok "Linux 6.12, 4 CPUs, $m: $(sed -n 's/^cycles: //p' "$WORK/out")"

# A million changes of permissions while every processor does what they forbid.
for cpus in 4 8; do
	[ $m = bare ] && break
	run $m 3000 --cpus $cpus --memory 256M --vsm --kernel "$GUEST/tests/flips.elf" \
		--append "flips=${FLIPS:-1000000} seed=$cpus" --allow-io f4-f7 \
		-- -device isa-debug-exit,iobase=0xf4,iosize=4
	[ "$status" -eq 0 ] && tap_complete && as_expected $m
	ok "flips, $cpus CPUs: $(grep -a '^# [0-9]* flips' "$WORK/out" | cut -c 3-)"
done

for round in $(seq "${ROUNDS:-20}"); do
	for cpus in 1 2 4 8; do
		for image in vmlinuz vmlinuz-6.1; do
			run $m 180 --cpus $cpus --kernel "$GUEST/$image" \
				--initrd "$GUEST/initrd.img" \
				--append "console=ttyS0 panic=-1 demo.seconds=1"
			[ "$status" -eq 0 ] && printed '^demo: ok$' &&
				printed "^demo: processors  $cpus online"
			ok "$image, $cpus CPUs, $m, round $round"
		done
	done
	for cpus in 2 4 8; do
		kernel $m $cpus smp ""
		kernel $m $cpus stormy "ms=4000 seed=$round"
		[ $m = bare ] || kernel $m $cpus mailbox "cycles=1000 seed=$round"
	done
done
finish
