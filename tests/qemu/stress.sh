#!/bin/sh
# The long version: twenty boots of everything, to find what goes wrong once in a while, and
# processors that leave and come back a thousand times. ROUNDS=N and CYCLES=N for other numbers.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

m=paravisor
mode $m || m=bare

# A thousand times off and on: Linux through the mailbox, then the test kernel as often, with every
# mistake there is in between.
run $m 3000 --cpus 4 --append "console=ttyS0 panic=-1 demo.run=cycles demo.cycles=${CYCLES:-1000}"
[ "$status" -eq 0 ] && printed '^demo: ok$' && printed '^cycles: [1-9][0-9]* times off and on$'
ok "Linux 6.12, 4 CPUs, $m: $(sed -n 's/^cycles: //p' "$WORK/out")"

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
