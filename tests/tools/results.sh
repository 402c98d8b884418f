#!/bin/sh
# What a run leaves behind: statistics, trace, arguments for QEMU; and nothing else.
# shellcheck disable=SC2034,SC2154 # the shared file uses and sets these
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tools/common.inc
. tests/tools/common.inc
plan 43

HELLO="channel @block 0x1000000 %BLOCK
channel @guest
console hello\\n"
BYE="channel @end power-off 0
wait-k
shutdown guest-shutdown"

if command -v jq >/dev/null; then
	# has FILE EXPRESSION: jq says that it is true
	has() { jq -e "$2" "$1" >/dev/null 2>>"$WORK/err"; }
	check() { has "$WORK/stats" "$1"; ok "statistics: $1"; }
	check_trace() { has "$WORK/trace" "$1"; ok "trace: $1"; }
else
	check() { skip "statistics: $1" "jq is not installed"; }
	check_trace() { skip "trace: $1" "jq is not installed"; }
fi

fake "$HELLO
$BYE" --cpus 2 --stats "$WORK/stats" --trace "$WORK/trace"
[ "$status" -eq 0 ] && [ -s "$WORK/stats" ] && [ -s "$WORK/trace" ]
ok "both files are written"
[ "$(find "$WORK" -name 'stats*' -o -name 'trace*' | wc -l)" -eq 2 ]
ok "nothing is left beside them"
check '.platform == "svm" and .vps == 2'
check '.boot_us == 500000'
check '.ap_start.method == "sipi"'
check '.ap_start.total_us == 10000 and .ap_start.per_vp_us == [1000]'
check '.exits.total == ([.exits.per_vp[][]] | add)'
check '.exits | .hypercall + .cpuid + .msr + .io + .memory_fault + .halt + .interrupt + .nmi + .debug + .init_sipi + .shutdown + .other == .total'
check '.exits.msr == 3004'
check '.flush | [.requests, .ranges, .full, .kicks_sent, .kicks_skipped, .over] == [0, 0, 0, 0, 0, 0]'
check '.protect | [.transactions, .ranges, .entries_written, .shootdowns, .deferred, .denied] == [0, 0, 0, 0, 0, 0]'
check '.debug | [.register_accesses, .interrupt_exit_accesses, .hypervisor_queries] == [0, 0, 0]'
check '.denied.io == 6 and .text_bytes == 65536'
check '.end.reason == "power-off" and .end.status == 0'
check_trace '[.traceEvents[] | select(.ph == "b")] | length == 2'
check_trace '[.traceEvents[] | select(.ph == "e")] | length == 2'
check_trace '[.traceEvents[] | select(.ph == "b" or .ph == "e")] | all(.name == "AP start" and .id == "0x1")'
check_trace '[.traceEvents[] | select(.ph == "b")] | all(.ts == 1000000)'
check_trace '[.traceEvents[] | select(.name == "thread_name")] | length == 2'

echo old >"$WORK/stats"
chmod 640 "$WORK/stats"
ln -sf stats "$WORK/link"
fake "$HELLO
$BYE" --stats "$WORK/link"
[ -L "$WORK/link" ] && ! grep -q old "$WORK/stats" && [ "$(stat -c %a "$WORK/stats")" = 640 ]
ok "an old file is replaced where a link leads, and keeps its permissions"
fake "$HELLO
$BYE" --stats /dev/null
[ "$status" -eq 0 ] && [ -c /dev/null ]
ok "a device stays a device"
echo old >"$WORK/stats"
fake "channel @end refused 0
wait-k
shutdown guest-shutdown" --stats "$WORK/stats" --trace "$WORK/trace2"
[ "$status" -eq 2 ] && [ "$(cat "$WORK/stats")" = old ] && [ ! -e "$WORK/trace2" ]
ok "a run that was refused writes nothing"
fake "$HELLO" --timeout 0.5 --stats "$WORK/stats"
[ "$status" -eq 3 ]
ok "timeout"
check '.end.reason == "timeout" and .end.status == 3 and .exits.total > 0'
fake "console x\\n
shutdown guest-shutdown" --no-paravisor --cpus 3 --stats "$WORK/stats"
[ "$status" -eq 0 ]
ok "no paravisor"
check '.platform == "none" and .vps == 3 and .boot_us == null and .exits.total == 0 and .wall_us > 0'

for kind in magic version vps offset rings short empty; do
	rm -f "$WORK/stats"
	fake "$HELLO
block $kind
$BYE" --stats "$WORK/stats"
	[ "$status" -eq 4 ] && said "block is broken" && clean
	ok "broken block: $kind"
done
check '.platform == "svm" and .statistics == false'

# How QEMU is started.
FAKE_ARGS=$WORK/args
export FAKE_ARGS
mkdir "$WORK/a, b"
cp "$WORK/linux" "$WORK/a, b/my kernel, final"
cp "$WORK/initrd" "$WORK/a, b/init,rd"
fake "$HELLO
$BYE" --kernel "$WORK/a, b/my kernel, final" --initrd "$WORK/a, b/init,rd" --cpus 3 --memory 1G \
	--append "console=ttyS0,115200 a=\"b c\"" --allow-io f4-f7 --allow-io 0x80 --verbose \
	-- -device isa-debug-exit,iobase=0xf4,iosize=0x04
[ "$status" -eq 0 ]
ok "names with spaces and commas"
grep -A1 -x -e -append "$WORK/args" | grep -qx \
	"ap-start=mailbox tlb-flush=auto allow-io=0xf4-0xf7 allow-io=0x80-0x80 exit-port=0xf4 verbose"
ok "Parapet's own command line"
grep -A1 -x -e -initrd "$WORK/args" |
	grep -qx "$TMPDIR/parapet-....../kernel/kernel console=ttyS0,,115200 a=\"b c\",$TMPDIR/parapet-....../initrd/initrd"
ok "the guest's files and command line are modules, commas doubled"
grep -A1 -x -e -smp "$WORK/args" | grep -qx 3 && grep -A1 -x -e -m "$WORK/args" | grep -qx 1048576K
ok "processors and memory"
[ "$(tail -n 2 "$WORK/args" | head -n 1)" = -device ]
ok "QEMU options come last"
fake "shutdown guest-shutdown" --no-paravisor --append "a,b c"
grep -A1 -x -e -append "$WORK/args" | grep -qx "a,b c" && ! grep -q parapet-channel "$WORK/args"
ok "no paravisor: the guest's command line goes to QEMU as it is"

# Much output is neither lost nor held back.
fake "flood 512
$HELLO
$BYE"
[ "$status" -eq 0 ] && [ "$(wc -c <"$WORK/out")" -eq $((512 * 1008 + 6)) ]
ok "half a MiB of console output arrives whole"
FAKE_SCRIPT="flood 512"
export FAKE_SCRIPT
(timeout 20 "$PARAPET" run --kernel "$WORK/linux" </dev/null 2>"$WORK/err"; echo $? >"$WORK/status") |
	head -n 1 >"$WORK/out"
status=$(cat "$WORK/status")
[ "$status" -eq 2 ] && said "Broken pipe" && clean
ok "a closed standard output ends the run"
INPUT=$WORK/typed
echo "hello guest" >"$INPUT"
fake "$HELLO
wait-input guest
console got it\\n
$BYE"
[ "$status" -eq 0 ] && grep -q "got it" "$WORK/out"
ok "standard input goes to the guest"
unset INPUT
finish
