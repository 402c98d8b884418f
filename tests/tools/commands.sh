#!/bin/sh
# The commands beside run: help, version, doctor.
# shellcheck disable=SC2034,SC2154 # the shared file uses and sets these
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tools/common.inc
. tests/tools/common.inc
plan 17

run --version
[ "$status" -eq 0 ] && grep -qE '^parapet [0-9]+\.[0-9]+\.[0-9]+$' "$WORK/out"
ok "version"
run --help
[ "$status" -eq 0 ] && grep -q "parapet doctor" "$WORK/out" && [ ! -s "$WORK/err" ]
ok "help"
run help run
[ "$status" -eq 0 ]
ok "help run"
for option in cpus memory kernel initrd append platform accel ap-start tlb-flush vp-stride no-paravisor \
	allow-io stats trace timeout verbose; do
	grep -q -e "--$option" "$WORK/out" || break
done
grep -q -e "--$option" "$WORK/out" && [ "$option" = verbose ]
ok "help run names every option"
[ "$(wc -L <"$WORK/out")" -le 100 ]
ok "help run fits the screen"
cp "$WORK/out" "$WORK/help"
run run --help
[ "$status" -eq 0 ] && cmp -s "$WORK/out" "$WORK/help"
ok "run --help"
run help doctor
[ "$status" -eq 0 ] && grep -q "Exit status" "$WORK/out"
ok "help doctor"
run
[ "$status" -eq 2 ] && [ -s "$WORK/err" ] && [ ! -s "$WORK/out" ]
ok "no command"
run rum
refused "did you mean \`parapet run\`"
ok "unknown command"
run frobnicate
refused "parapet help"
ok "unknown command, nothing near"
run help frobnicate
refused "unknown command"
ok "help for an unknown command"
run doctor now
refused "no arguments"
ok "doctor with arguments"

mkdir -p "$WORK/bin/guest"
cp "$PARAPET" "$WORK/bin/parapet"
PARAPET=$WORK/bin/parapet
unset PARAPET_IMAGE
run doctor
[ "$status" -eq 2 ] && grep -q "^missing  image" "$WORK/out" && grep -q "make" "$WORK/out"
ok "doctor: no image"
echo image >"$WORK/bin/parapet.elf"
run doctor
[ "$status" -eq 2 ] && grep -q "^missing  demo kernel" "$WORK/out"
ok "doctor: no demo guest"
echo kernel >"$WORK/bin/guest/vmlinuz"
echo initrd >"$WORK/bin/guest/initrd.img"
run doctor
[ "$status" -eq 0 ] && grep -q "can run: parapet run" "$WORK/out" && ! grep -q ^missing "$WORK/out"
ok "doctor: all there"
PARAPET_QEMU=$WORK/none
run doctor
[ "$status" -eq 2 ] && grep -q "^missing  QEMU" "$WORK/out"
ok "doctor: no QEMU"
PARAPET_QEMU=/bin/false
run doctor
[ "$status" -eq 2 ] && grep -q "does not run" "$WORK/out"
ok "doctor: a QEMU that does not run"
finish
