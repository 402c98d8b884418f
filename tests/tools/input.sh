#!/bin/sh
# Bad usage and bad files: one clear line, status 2, before anything is started.
# shellcheck disable=SC2034,SC2154 # the shared file uses and sets these
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tools/common.inc
. tests/tools/common.inc
plan 57

K="--kernel $WORK/linux"
FAKE_SCRIPT="early-exit 3" # must never be reached
export FAKE_SCRIPT

# bad EXPECTED-TEXT ARGUMENTS...
bad() {
	expected=$1
	shift
	# shellcheck disable=SC2086
	run run $K "$@"
	refused "$expected"
	ok "refused: ${*:-nothing}: $expected"
}

for cpus in 0 65 x -1 4x ''; do
	bad "must be a number from 1 to 64" --cpus "$cpus"
done
bad "at least 128M" --memory 127M
bad "at least 128M" --memory 1K
for memory in x 12Q -5 '' 1.5G 99999999999999999999G; do
	bad "not a size" --memory "$memory"
done
bad "too much" --memory 100000G
bad "only" --platform tdx
bad "auto, tcg, tcg-single or kvm" --accel fast
bad "mailbox or sipi" --ap-start init
bad "auto, hypercall or ipi" --tlb-flush never
bad "must be kernel" --protect everything
bad "must be kernel" --protect ""
bad "cannot go with --no-paravisor" --protect kernel --no-paravisor
bad "--protect kernel cannot go with --vsm, where the kernel in VTL1 seals for itself: leave one of them out" --protect kernel --vsm
bad "--protect kernel cannot go with --vsm" --vsm --protect=kernel
bad "1 to 64" --vp-stride 0
bad "1 to 64" --vp-stride 65
bad "FIRST-LAST" --allow-io xyz
bad "FIRST-LAST" --allow-io f4-
bad "swap them" --allow-io f7-f4
bad "up to ffff" --allow-io fff0-10000
for timeout in 0 -1 x 1.2345; do
	bad "seconds above 0" --timeout "$timeout"
done
bad "did you mean --memory" --memroy 1G
bad "did you mean --kernel" --kernal=x
bad "help run" --zzzzzzzzzz
bad "needs a value" --stats
bad "takes no value" --verbose=yes
bad "unexpected argument" vmlinuz
bad "No such file or directory" --stats "$WORK/no/such/file"
bad "Is a directory" --trace "$WORK"
bad "same file" --stats "$WORK/a" --trace "$WORK/a"
bad "No such file" --kernel "$WORK/none"
bad "is empty" --kernel "$WORK/empty"
bad "is a directory" --kernel "$WORK"
bad "neither a Linux bzImage" --kernel "$WORK/initrd"
bad "No such file" --initrd "$WORK/none"
bad "is empty" --initrd "$WORK/empty"

cp "$WORK/linux" "$WORK/old"
patch "$WORK/old" 566 002
bad "no 64-bit entry" --kernel "$WORK/old"
head -c 1500 "$WORK/linux" >"$WORK/cut"
bad "cut off" --kernel "$WORK/cut"
cp "$WORK/multiboot" "$WORK/elf64"
patch "$WORK/elf64" 4 002
bad "32-bit" --kernel "$WORK/elf64"
bad "2047" --append "$(head -c 2048 /dev/zero | tr '\0' a)"

PARAPET_QEMU=$WORK/none
bad "PARAPET_QEMU" --cpus 1
saved=$PATH
unset PARAPET_QEMU
# The command is called by its whole name: what is missing from the PATH is QEMU (and timeout).
env PATH="$WORK" "$PARAPET" run --kernel "$WORK/linux" >"$WORK/out" 2>"$WORK/err"
status=$?
refused "apt install qemu-system-x86"
ok "QEMU not installed"
PATH=$saved
PARAPET_QEMU=$(dirname "$PARAPET")/tests/fake-qemu
export PARAPET_QEMU
PARAPET_IMAGE=$WORK/none
bad "run make" --cpus 1
cp "$PARAPET" "$WORK/parapet"
PARAPET_IMAGE=$WORK/parapet.elf
timeout 10 "$WORK/parapet" run >"$WORK/out" 2>"$WORK/err"
status=$?
refused "demo guest is not built"
ok "demo guest not built"
finish
