#!/bin/sh
# The long version: twenty boots of everything, to find what goes wrong once in a while.
# ROUNDS=N for another number.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

m=paravisor
mode $m || m=bare
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
	done
done
finish
