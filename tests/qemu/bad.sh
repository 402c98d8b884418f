#!/bin/sh
# Bad input: one clear line on standard error, the right status, nothing on the console, and no
# guest started. Whether the command or the paravisor finds out makes no difference to the user.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

mode paravisor || { finish; echo "# nothing here runs on the bare machine"; exit 0; }

ELF=$GUEST/tests/ends.elf
LINUX=$GUEST/vmlinuz
INITRD=$GUEST/initrd.img

# refused NAME PATTERN ARGUMENTS...
refused() {
	name=$1 pattern=$2
	shift 2
	run paravisor 30 "$@"
	[ "$status" -eq 2 ] && explained && said "$pattern" && [ ! -s "$WORK/console" ] &&
		! said 'summary'
	ok "refused: $name"
}

# number32 FILE OFFSET: a little-endian 32-bit word of a file
number32() {
	od -An -tu4 -j "$2" -N 4 "$1" | tr -d ' '
}

# patch32 FILE OFFSET VALUE
patch32() {
	# shellcheck disable=SC2059 # the format is what is made here
	printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $(($3 & 255)) $(($3 >> 8 & 255)) \
		$(($3 >> 16 & 255)) $(($3 >> 24 & 255)))" |
		dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# segment NAME PATTERN FIELD VALUE: the test kernel with one field of its first segment changed
segment() {
	cp "$ELF" "$WORK/bad.elf"
	patch32 "$WORK/bad.elf" $(($(number32 "$ELF" 28) + $3)) "$4"
	refused "$1" "$2" --kernel "$WORK/bad.elf"
}

# --- Linux ----------------------------------------------------------------------------------------
refused "a kernel that is not there" 'no-such-file' --kernel "$WORK/no-such-file"
: >"$WORK/empty"
refused "an empty kernel" 'empty' --kernel "$WORK/empty"
refused "a directory" "$WORK" --kernel "$WORK"
echo "a text about kernels" >"$WORK/text"
refused "a text file" 'text' --kernel "$WORK/text"
head -c 700 "$LINUX" >"$WORK/bad"
refused "a bzImage of 700 bytes" 'bad' --kernel "$WORK/bad"
head -c 1000000 "$LINUX" >"$WORK/bad"
refused "a truncated bzImage" 'truncat|cut off' --kernel "$WORK/bad" --initrd "$INITRD"
cp "$LINUX" "$WORK/bad"
patch32 "$WORK/bad" 514 0
refused "a bzImage without its magic" 'bad' --kernel "$WORK/bad"
cp "$LINUX" "$WORK/bad"
patch32 "$WORK/bad" 566 $(($(number32 "$LINUX" 566) & ~1))
refused "a 32-bit-only bzImage" '64' --kernel "$WORK/bad"
refused "an initrd that is not there" 'no-such-file' --initrd "$WORK/no-such-file"
truncate -s 300M "$WORK/big"
refused "an initrd that does not fit" 'initrd|memory' --memory 256M --initrd "$WORK/big"
refused "a command line that is too long" 'command line|long' \
	--append "$(head -c 3000 /dev/zero | tr '\0' x)"

# --- Multiboot ------------------------------------------------------------------------------------
head -c 6000 "$ELF" >"$WORK/bad.elf"
refused "a truncated Multiboot ELF" 'truncat|cut off' --kernel "$WORK/bad.elf"
segment "a segment that wraps" '4 GiB' 12 $((0xfffff000))
segment "a segment over the video memory" 'RAM' 12 $((0xa0000))
segment "a segment behind all memory" 'RAM' 12 $((0x70000000))
segment "a segment larger in the file than in memory" 'larger in the file' 20 16
segment "a segment that starts behind the file" 'truncat|cut off' 4 $((0x7ffff000))
segment "a segment longer than the file" 'truncat|cut off|larger in the file' 16 $((0x7ffff000))
segment "a segment larger than memory" 'memory' 20 $((0x40000000))
# The header is in the first 8 KiB, at the start of the first segment.
header=$(number32 "$ELF" $(($(number32 "$ELF" 28) + 4)))
cp "$ELF" "$WORK/bad.elf"
patch32 "$WORK/bad.elf" $((header + 8)) 12345
refused "a Multiboot header with a wrong sum" 'Multiboot' --kernel "$WORK/bad.elf"
cp "$ELF" "$WORK/bad.elf"
patch32 "$WORK/bad.elf" $((header + 4)) $((0x8003))
patch32 "$WORK/bad.elf" $((header + 8)) $((-(0x1badb002 + 0x8003) & 0xffffffff))
refused "a Multiboot header that demands the unknown" 'demands|feature' --kernel "$WORK/bad.elf"

# --- the machine ----------------------------------------------------------------------------------
refused "no processors" 'cpus' --cpus 0
refused "more processors than there may be" '64' --cpus 65
refused "processors that are no number" 'cpus' --cpus many
refused "too little memory" 'memory' --memory 16M
refused "memory that is no number" 'memory' --memory lots
refused "statistics that cannot be written" 'stats|write|directory' --stats "$WORK/none/stats"
run paravisor 60 --cpus 2 -- -cpu max,-svm
[ "$status" -eq 2 ] && explained && said 'SVM' && [ ! -s "$WORK/console" ]
ok "refused: a processor without SVM"
run paravisor 60 --cpus 2 -- -cpu max,-npt
[ "$status" -eq 2 ] && explained && said 'nested paging|NPT' && [ ! -s "$WORK/console" ]
ok "refused: a processor without nested paging"
finish
