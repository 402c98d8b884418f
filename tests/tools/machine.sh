#!/bin/sh
# The command with a real QEMU: its options are taken, channel, monitor and memory copy work.
# shellcheck disable=SC2034,SC2154 # the shared file uses and sets these
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tools/common.inc
. tests/tools/common.inc
plan 5

PARAPET_IMAGE=$(dirname "$PARAPET")/tests/probe.elf
unset PARAPET_QEMU
if ! command -v qemu-system-x86_64 >/dev/null; then
	for name in 1 2 3 4 5; do
		skip "real QEMU $name" "QEMU is not installed"
	done
	finish
	exit
fi

mkdir "$WORK/a, b"
cp "$WORK/linux" "$WORK/a, b/my kernel"
run run --accel tcg --cpus 2 --kernel "$WORK/a, b/my kernel" --initrd "$WORK/initrd" \
	--append "console=ttyS0,115200 x" --timeout 30 --stats "$WORK/stats" --verbose
[ "$status" -eq 0 ] && said "it powered off" && clean
ok "a whole run ends well"
grep -q "^options: .*/parapet.elf ap-start=.* tlb-flush=.* verbose$" "$WORK/out" ||
	grep -q "^options: .*/probe.elf ap-start=.* tlb-flush=.* verbose$" "$WORK/out"
ok "Parapet gets its options"
grep -q "^module: .*/kernel/kernel console=ttyS0,115200 x$" "$WORK/out" &&
	grep -q "^module: .*/initrd/initrd$" "$WORK/out"
ok "and the guest's files with the command line"
said "hello from the probe" && grep -q "^answered" "$WORK/out"
ok "the channel works both ways"
grep -q '"cpuid": 4711' "$WORK/stats"
ok "the block is copied out of the machine's memory"
finish
