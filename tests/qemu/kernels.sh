#!/bin/sh
# The test kernels, under Parapet and on the bare machine.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

# restores MODE [ACCELERATION]: QEMU loses exits here, unless it has one thread; then Parapet must say so
restores() {
	mode "$1" || return 0
	run "$1" 60 --cpus 4 --memory 256M --kernel "$GUEST/tests/restores.elf" \
		--allow-io f4-f7 ${2:+--accel "$2"} -- -device isa-debug-exit,iobase=0xf4,iosize=4
	if [ "$1" = paravisor ] && [ -z "${2:-}" ] && lost_exit; then
		ok "restores, 4 CPUs, $1: QEMU lost an exit, and Parapet says so"
		return
	fi
	[ "$status" -eq 0 ] && tap_complete && as_expected "$1"
	ok "restores, 4 CPUs, $1${2:+, $2}: $(grep -ac '^ok' "$WORK/out") checks"
}

for m in bare paravisor; do
	kernel $m 1 basic ""
	for cpus in 1 2 4 8; do
		kernel $m $cpus smp ""
	done
	for cpus in 1 4; do
		kernel $m $cpus isolation ""
		kernel $m $cpus devices "" -device edu -device e1000e
	done
	for cpus in 2 4; do
		kernel $m $cpus halts ""
	done
	kernel $m 2 arrivals "count=2000"
	# Without the test device the chipset's own disk controller has to do.
	kernel $m 2 devices ""
	restores $m
	restores $m tcg-single
	for cpus in 2 8; do
		kernel $m $cpus stormy "ms=3000 seed=$cpus"
	done
done
finish
