#!/bin/sh
# The test kernels, under Parapet and on the bare machine.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

for m in bare paravisor; do
	kernel $m 1 basic ""
	for cpus in 1 2 4 8; do
		kernel $m $cpus smp ""
	done
	for cpus in 1 4; do
		kernel $m $cpus isolation ""
		kernel $m $cpus devices "" -device edu -device e1000e
	done
	kernel $m 2 arrivals "count=2000"
	# Without the test device the chipset's own disk controller has to do.
	kernel $m 2 devices ""
	for cpus in 2 8; do
		kernel $m $cpus stormy "ms=3000 seed=$cpus"
	done
done
finish
