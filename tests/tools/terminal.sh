#!/bin/sh
# On a terminal: raw while the guest runs, as it was afterwards; Ctrl-A X ends the run.
# shellcheck disable=SC2034,SC2154 # the shared file uses and sets these
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tools/common.inc
. tests/tools/common.inc
plan 8

if ! command -v script >/dev/null; then
	for name in 1 2 3 4 5 6 7 8; do
		skip "terminal $name" "script (bsdutils) is not installed"
	done
	finish
	exit
fi

# on_terminal KEYS: runs the command on a terminal of its own and types the keys once it says hello.
# The terminal's settings before and after are kept.
# shellcheck disable=SC2094 # what is typed depends on what has been printed
on_terminal() {
	cat >"$WORK/session" <<-END
		stty -a >"$WORK/before"
		"$PARAPET" run --kernel "$WORK/linux" --timeout 20 2>"$WORK/err"
		echo \$? >"$WORK/status"
		stty -a >"$WORK/after"
	END
	: >"$WORK/out"
	{
		for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
			grep -q hello "$WORK/out" && break
			sleep 0.1
		done
		printf '%b' "$1"
		sleep 2
	} | timeout 30 script -qec "sh $WORK/session" /dev/null >"$WORK/out"
	status=$(cat "$WORK/status")
}

FAKE_SCRIPT="channel @guest
console hello\\r\\n"
export FAKE_SCRIPT
on_terminal '\001x'
[ "$status" -eq 130 ] && said "Ctrl-A X"
ok "Ctrl-A X ends the run"
cmp -s "$WORK/before" "$WORK/after"
ok "the terminal is as it was"
clean
ok "nothing is left"

FAKE_SCRIPT="channel @guest
console hello\\r\\n
wait-input $(printf 'a\003b\001c')
console got it\\r\\n
channel @end power-off 0
wait-k
shutdown guest-shutdown"
on_terminal 'a\003b\001\001c'
[ "$status" -eq 0 ] && grep -q "got it" "$WORK/out"
ok "Ctrl-C goes to the guest, Ctrl-A twice sends one"
cmp -s "$WORK/before" "$WORK/after"
ok "the terminal is as it was"

FAKE_SCRIPT="channel @guest
console hello\\r\\n
signal 9"
on_terminal ''
[ "$status" -eq 4 ]
ok "QEMU is killed"
cmp -s "$WORK/before" "$WORK/after"
ok "the terminal is as it was"
clean
ok "nothing is left"
finish
