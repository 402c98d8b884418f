#!/bin/sh
# Debian's gdb inside the guest: hardware breakpoints and watchpoints stop where and as often as they
# must. The packages are fetched without being installed; where they cannot be had, this is skipped.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

GDB=$GUEST/gdb

# fetch: gdb and every library that it needs, with all they depend on
fetch() {
	[ -d "$GDB/unpacked" ] && return 0
	rm -rf "$GDB"
	mkdir -p "$GDB/packages" || return 1
	names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
		--no-breaks --no-replaces --no-enhances gdb-minimal 2>/dev/null |
		grep '^[a-z]' | sort -u)
	[ -n "$names" ] || return 1
	# shellcheck disable=SC2086 # a list of names
	(cd "$GDB/packages" && apt-get -q download $names) >"$GDB/log" 2>&1 || return 1
	for package in "$GDB"/packages/*.deb; do
		dpkg-deb -x "$package" "$GDB/unpacking" || return 1
	done
	rm -rf "$GDB/packages"
	mv "$GDB/unpacking" "$GDB/unpacked"
}

# closure FILE: a library's path under $GDB/unpacked for each that the file needs, itself included
closure() {
	wanted=$1
	closed=
	while [ -n "$wanted" ]; do
		next=
		for file in $wanted; do
			case " $closed " in
			*" $file "*) continue ;;
			esac
			closed="$closed $file"
			for name in $(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
				next="$next $(find "$GDB/unpacked" -name "$name" | head -n 1)"
			done
		done
		wanted=$(echo "$next" | xargs)
	done
	echo "$closed" | xargs -n 1
}

fetch || {
	echo "1..0 # SKIP gdb-minimal cannot be downloaded (apt-get update?)"
	exit 0
}

cat >"$WORK/subject.c" <<'END'
#include <stdio.h>
volatile long counter, other;
__attribute__((noinline)) void visit(long i) { other += i; }
int main(void)
{
	for (long i = 1; i <= 10; i++) {
		counter = i * 3;
		visit(i);
	}
	printf("subject: %ld %ld\n", counter, other);
	return 0;
}
END
cc -g -O1 -static -no-pie "$WORK/subject.c" -o "$WORK/subject"

cat >"$WORK/commands" <<'END'
set pagination off
set confirm off
set debuginfod enabled off
set height 0
set can-use-hw-watchpoints 1
starti
hbreak visit
commands
silent
printf "hbreak: visit %ld\n", counter
continue
end
watch counter
commands
silent
printf "watch: counter %ld\n", counter
continue
end
continue
quit
END

cat >"$WORK/init" <<'END'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
export HOME=/root LD_LIBRARY_PATH=/lib SHELL=/bin/sh
/bin/gdb -q -nx -batch -x /commands /bin/subject </dev/null 2>&1
echo "gdb: status $?"
/bin/busybox poweroff -f
END

{
	echo 'dir dev 0755'
	echo 'char dev/console 0600 5 1'
	for directory in proc sys root tmp bin lib lib64; do
		echo "dir $directory 0755"
	done
	echo "file bin/busybox 0755 $GUEST/demo/busybox"
	echo 'link bin/sh /bin/busybox'
	echo "file bin/gdb 0755 $GDB/unpacked/usr/bin/gdb"
	echo "file bin/subject 0755 $WORK/subject"
	echo "file commands 0644 $WORK/commands"
	echo "file init 0755 $WORK/init"
	for file in $(closure "$GDB/unpacked/usr/bin/gdb"); do
		name=$(basename "$file")
		case $name in
		gdb) ;;
		ld-linux-x86-64.so.2) echo "file lib64/$name 0755 $(readlink -f "$file")" ;;
		*) echo "file lib/$name 0755 $(readlink -f "$file")" ;;
		esac
	done
	echo "file lib/libthread_db.so.1 0755 $(find "$GDB/unpacked" -name libthread_db.so.1 | head -n 1)"
} >"$WORK/list"
"$GUEST/demo/mkcpio" <"$WORK/list" >"$WORK/initrd.img" || exit 1

for m in bare paravisor; do
	mode $m || continue
	for option in '' --interrupt-exits; do
		[ "$m$option" != bare--interrupt-exits ] || continue
		run $m "${LIMIT:-240}" --cpus 2 --memory 1G --initrd "$WORK/initrd.img" \
			--append "console=ttyS0 panic=-1 quiet" ${option:+$option}
		[ "$status" -eq 0 ] && printed '^subject: 30 55$' && printed '^gdb: status 0$'
		ok "gdb, $m $option: runs its subject to the end"
		[ "$(grep -ac '^hbreak: visit' "$WORK/out")" -eq 10 ]
		ok "gdb, $m $option: hbreak stops ten times"
		[ "$(grep -a '^watch: counter' "$WORK/out" | sort -u | wc -l)" -eq 10 ]
		ok "gdb, $m $option: watch shows each of ten values"
		grep -aE '^(hbreak|watch):' "$WORK/out" >"$WORK/stops.$m$option"
	done
done
if mode bare && mode paravisor; then
	for option in '' --interrupt-exits; do
		[ -s "$WORK/stops.bare" ] && diff "$WORK/stops.bare" "$WORK/stops.paravisor$option" >"$WORK/out"
		ok "gdb, $option: the same stops as on the bare machine"
	done
fi
finish
