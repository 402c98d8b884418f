#!/bin/sh
# The bootable image, as a machine without Parapet's command would start it: GRUB from the CD, the
# demo guest under Parapet, power-off; no second serial port, so that Parapet has nobody to talk to.
cd "$(dirname "$0")/.." || exit 1
ISO=${B:-build}/parapet.iso
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
trap 'exit 1' HUP INT TERM

tests=0
failures=0

# ok NAME: the last command was true, or show what was seen
ok() {
	result=$?
	tests=$((tests + 1))
	if [ "$result" -eq 0 ]; then
		echo "ok $tests - $1"
		return
	fi
	failures=$((failures + 1))
	echo "not ok $tests - $1"
	echo "# status $status"
	tail -n 60 "$WORK/out" | cut -c 1-300 | sed 's/^/# console: /'
	sed 's/^/# stderr: /' "$WORK/err"
}

# boot QEMU-OPTIONS...: until the machine is off; its first serial port is kept
boot() {
	timeout -k 5 180 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
		-machine q35 -accel tcg,thread=multi -cpu max -m 512M -cdrom "$ISO" \
		"$@" </dev/null >"$WORK/console" 2>"$WORK/err"
	status=$?
	tr -d '\r' <"$WORK/console" >"$WORK/out"
}

printed() {
	grep -aqE -- "$1" "$WORK/out"
}

boot -smp 2 -serial stdio
[ "$status" -eq 0 ]
ok "the machine powers off"
printed "Parapet: the demo guest"
ok "GRUB shows its menu"
printed '^Parapet demo guest$' && printed '^demo: processors  2 online \(0-1\) of 0-1$' &&
	printed '^demo: ok$'
ok "the demo guest ends well, with two processors"
printed '^demo: hypervisor  Microsoft Hyper-V$'
ok "it runs under Parapet"
printed '^demo: ok$' && ! printed '^E |^I |^@|parapet: '
ok "Parapet is silent"

# A Linux kernel learns its command line without a file's name in front.
printed '] Command line: console=tty0 console=ttyS0,115200 panic=-1$'
ok "the guest's command line is what the menu says"

# A machine without any serial port must come to its end all the same.
boot -smp 1 -vga std
[ "$status" -eq 0 ]
ok "without a serial port the machine powers off as well"

echo "1..$tests"
[ "$failures" -eq 0 ]
