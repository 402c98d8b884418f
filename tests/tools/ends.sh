#!/bin/sh
# Every way in which a run can end, with the status that the contract names for it.
# shellcheck disable=SC2034,SC2154 # the shared file uses and sets these
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tools/common.inc
. tests/tools/common.inc
plan 48

HELLO="channel @block 0x1000000 %BLOCK
channel @guest
console hello\\n"

# end NAME STATUS TEXT SCRIPT ARGUMENTS...
end() {
	name=$1 expected=$2 text=$3
	shift 3
	fake "$@"
	[ "$status" -eq "$expected" ] && said "$text" && clean
	ok "$name: status $expected, \"$text\""
}

end "power-off" 0 "it powered off" "$HELLO
channel @end power-off 0
wait-k
shutdown guest-shutdown"
[ "$(cat "$WORK/out")" = hello ]
ok "standard output is the console and nothing else"
said "DMA is not covered"
ok "the summary says what is not covered"
said "memory fault" && said "3,008"
ok "the summary counts exits"
said "6 I/O"
ok "the summary counts what was denied"

end "reset" 0 "asked for a reset" "$HELLO
channel @end reset 0
wait-k
shutdown guest-reset"
end "triple fault" 1 "triple fault" "$HELLO
channel @end triple-fault 0
wait-k
shutdown guest-reset"
end "exit port with 0" 0 "wrote 0" "$HELLO
channel @end exit-port 0
wait-k
exit 1" -- -device isa-debug-exit
end "exit port with 7" 1 "wrote 7 (0x7)" "$HELLO
channel @end exit-port 7
wait-k
exit 15" -- -device isa-debug-exit
end "refused" 2 "the kernel is a poem" "channel @block 0x1000000 %BLOCK
channel E the kernel is a poem
channel @end refused 0
wait-k
shutdown guest-shutdown"
! said "summary"
ok "no summary if the guest was not started"
end "Parapet's own fault" 4 "itself failed" "$HELLO
channel @end parapet-fault 14
channel rip ffffffff80101234
wait-k
shutdown guest-reset"
grep -qx "rip ffffffff80101234" "$WORK/err"
ok "its report is shown as it is"
end "panic and reset" 1 "kernel panicked" "$HELLO
console [ 1.0] Kernel panic - not sync
sleep 100
console ing: Attempted to kill init!\\n
channel @end reset 0
wait-k
shutdown guest-reset"
end "panic and silence" 1 "kernel panicked" "$HELLO
console Kernel panic - not syncing: hung\\n"
end "pvpanic" 1 "kernel panicked" "$HELLO
event GUEST_PANICKED
sleep 100
channel @end reset 0
wait-k
shutdown guest-reset"
end "timeout" 3 "after 1 s" "$HELLO" --timeout 1
said "3,008"
ok "a timeout has its statistics"
end "timeout while QEMU starts" 3 timeout "early-mute" --timeout 1
end "timeout, QEMU does not stop" 3 timeout "$HELLO
mute" --timeout 0.5
end "timeout, QEMU does not quit" 3 timeout "$HELLO
hold-quit" --timeout 0.5
end "QEMU refuses the machine" 2 "did not start the machine (exit status 1)" "early-exit 1"
said "QEMU: qemu-system-x86_64: something is wrong"
ok "QEMU's own message is shown"
end "QEMU dies at once" 2 "did not start" "early-exit 0"
end "QEMU dies later" 4 "ended by itself" "$HELLO
exit 0"
end "QEMU is killed" 4 "signal 9" "$HELLO
signal 9"
end "the machine ends without Parapet's word" 4 "without its word" "$HELLO
shutdown guest-reset"
end "the machine ends before Parapet's first word" 4 "without its word" "shutdown guest-reset"
PARAPET_START_LIMIT=1
export PARAPET_START_LIMIT
end "Parapet is silent" 4 "did not say a word" "sleep 1"
unset PARAPET_START_LIMIT
end "QEMU is told to quit from outside" 2 "from outside" "$HELLO
shutdown host-signal"
end "the guest does not end after the answer" 0 "powered off" "$HELLO
channel @end power-off 0
wait-k"
end "memory cannot be copied" 0 "no such memory" "$HELLO
refuse-save
channel @end power-off 0
wait-k
shutdown guest-shutdown"
end "impossible block address" 0 "cannot be where it says" "channel @block 0xffffffffffffff00 0x1000
channel @end power-off 0
wait-k
shutdown guest-shutdown"
end "unknown @ line" 0 "does not know" "channel @frobnicate 1
$HELLO
channel @end power-off 0
wait-k
shutdown guest-shutdown"
end "a warning is shown" 0 "parapet: warning: look" "channel W look
$HELLO
channel @end power-off 0
wait-k
shutdown guest-shutdown"
end "information is shown on request" 0 "parapet: by the way" "channel I by the way
$HELLO
channel @end power-off 0
wait-k
shutdown guest-shutdown" --verbose

# Without a paravisor the end is QEMU's to tell.
end "bare: power-off" 0 "it powered off" "console hello\\n
shutdown guest-shutdown" --no-paravisor
end "bare: reset" 0 "asked for a reset" "shutdown guest-reset" --no-paravisor
end "bare: panic and reset" 1 "kernel panicked" "console Kernel panic - not syncing: x\\n
shutdown guest-reset" --no-paravisor
end "bare: exit device with 0" 0 "wrote 0" "exit 1" --no-paravisor -- -device isa-debug-exit
end "bare: exit device with 2" 1 "wrote 2" "exit 5" --no-paravisor -- -device isa-debug-exit
end "bare: QEMU dies" 4 "ended by itself" "exit 1" --no-paravisor

wait_for_hello() {
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		grep -q hello "$WORK/out" && break
		sleep 0.1
	done
}

# Signals, from the terminal or from anywhere.
signal() {
	name=$1 expected=$2
	FAKE_SCRIPT="$HELLO
$3"
	export FAKE_SCRIPT
	# A shell starts its background processes with SIGINT ignored; Perl gives it back.
	: >"$WORK/out"
	perl -e '$SIG{INT} = shift; exec @ARGV' "$5" "$PARAPET" run --kernel "$WORK/linux" \
		</dev/null >"$WORK/out" 2>"$WORK/err" &
	pid=$!
	wait_for_hello
	kill -s "$name" "$pid"
	wait "$pid"
	status=$?
	[ "$status" -eq "$expected" ] && { [ "$status" -eq 0 ] || said "interrupted"; } && clean
	ok "$4: status $expected"
}
signal TERM 143 "" "SIGTERM" DEFAULT
signal HUP 129 "" "SIGHUP" DEFAULT
signal INT 130 "" "SIGINT" DEFAULT
signal TERM 143 "mute" "SIGTERM, and QEMU does not answer" DEFAULT
signal INT 0 "sleep 1000
channel @end power-off 0
wait-k
shutdown guest-shutdown" "an ignored SIGINT stays ignored" IGNORE

# If the command itself is killed, QEMU goes with it (its directory cannot be helped).
FAKE_SCRIPT="$HELLO"
export FAKE_SCRIPT
: >"$WORK/out"
"$PARAPET" run --kernel "$WORK/linux" </dev/null >"$WORK/out" 2>"$WORK/err" &
pid=$!
wait_for_hello
child=$(cat "/proc/$pid/task/$pid/children")
kill -KILL "$pid"
wait "$pid" 2>/dev/null
sleep 0.3
# It may still wait for somebody to collect it: that is a zombie, and dead.
[ -n "$child" ] && ! grep -q '^State:[[:space:]]*[A-Y]' "/proc/${child% }/status" 2>/dev/null
ok "QEMU does not outlive the command"
finish
