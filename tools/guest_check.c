/* A first look at a guest's kernel. Works on bytes in memory; no files. */
#include "tools/guest_check.h"

#include <string.h>

/* Linux: Documentation/arch/x86/boot.rst, offsets from the start of the file. */
#define LINUX_SETUP_SECTS  0x1f1
#define LINUX_SYSSIZE	   0x1f4
#define LINUX_BOOT_FLAG	   0x1fe
#define LINUX_MAGIC	   0x202
#define LINUX_VERSION	   0x206
#define LINUX_XLOADFLAGS   0x236
#define LINUX_CMDLINE_SIZE 0x238
#define LINUX_HEADER_END   0x264
#define LINUX_VERSION_MIN  0x020c
#define LINUX_XLF_64	   0x0001

/* Multiboot specification 0.6.96, section 3.1. */
#define MULTIBOOT_MAGIC	       0x1badb002u
#define MULTIBOOT_ADDRESSES    0x00010000u /* header flag: a.out fields are valid */
#define MULTIBOOT_COMMAND_LINE 65535 /* no limit of its own; this one is ours */

#define ELF_CLASS      4
#define ELF_CLASS_32   1
#define ELF_CLASS_64   2
#define ELF_MACHINE    18
#define ELF_HEADER_END 52
#define ELF_I386       3

static uint16_t read_u16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t read_u32(const uint8_t *at)
{
	return read_u16(at) | (uint32_t)read_u16(at + 2) << 16;
}

static bool is_linux(const uint8_t *head, size_t head_bytes)
{
	return head_bytes >= LINUX_MAGIC + 4 && memcmp(head + LINUX_MAGIC, "HdrS", 4) == 0 &&
		read_u16(head + LINUX_BOOT_FLAG) == 0xaa55;
}

static bool check_linux(const uint8_t *head, size_t head_bytes, uint64_t file_bytes,
	struct guest_info *info, struct tool_error *error)
{
	if (head_bytes < LINUX_HEADER_END)
		return tool_error_set(
			error, "the Linux image ends inside its header; copy the file again");
	if (read_u16(head + LINUX_VERSION) < LINUX_VERSION_MIN)
		return tool_error_set(error,
			"the Linux image speaks boot protocol %u.%02u, too old for a 64-bit entry; "
			"use a kernel from 3.8 on",
			head[LINUX_VERSION + 1], head[LINUX_VERSION]);
	if (!(read_u16(head + LINUX_XLOADFLAGS) & LINUX_XLF_64))
		return tool_error_set(error,
			"the Linux image has no 64-bit entry point; use a kernel built for x86-64");

	uint64_t sectors = head[LINUX_SETUP_SECTS] ? head[LINUX_SETUP_SECTS] : 4;
	uint64_t setup_bytes = (sectors + 1) * 512;
	uint64_t payload_bytes = (uint64_t)read_u32(head + LINUX_SYSSIZE) * 16;

	/* The size counts in paragraphs, so that the last one may not be whole. */
	if (file_bytes + 15 < setup_bytes + payload_bytes)
		return tool_error_set(error,
			"the Linux image is cut off: it has %llu bytes, its header says %llu; copy "
			"the file again",
			(unsigned long long)file_bytes,
			(unsigned long long)(setup_bytes + payload_bytes));
	*info = (struct guest_info){
		.kind = GUEST_LINUX,
		.command_line_max = read_u32(head + LINUX_CMDLINE_SIZE),
	};
	return true;
}

/* The flags of the Multiboot header; false if there is none. */
static bool find_multiboot(const uint8_t *head, size_t head_bytes, uint32_t *flags)
{
	for (size_t at = 0; at + 12 <= head_bytes && at + 12 <= GUEST_HEAD_BYTES; at += 4) {
		if (read_u32(head + at) != MULTIBOOT_MAGIC)
			continue;
		*flags = read_u32(head + at + 4);
		if (MULTIBOOT_MAGIC + *flags + read_u32(head + at + 8) == 0)
			return true;
	}
	return false;
}

bool guest_check_kernel(const uint8_t *head, size_t head_bytes, uint64_t file_bytes,
	struct guest_info *info, struct tool_error *error)
{
	bool elf = head_bytes >= ELF_HEADER_END && memcmp(head, "\177ELF", 4) == 0;
	uint32_t flags;

	if (is_linux(head, head_bytes))
		return check_linux(head, head_bytes, file_bytes, info, error);

	bool multiboot = find_multiboot(head, head_bytes, &flags);

	if (elf && head[ELF_CLASS] == ELF_CLASS_64)
		return tool_error_set(error,
			multiboot
				? "a Multiboot kernel in a 64-bit ELF file; turn it into a 32-bit "
				  "one with objcopy -O elf32-i386"
				: "a 64-bit ELF file without a Multiboot header; for Linux use the "
				  "bzImage, not vmlinux");
	if (!multiboot)
		return tool_error_set(error,
			"neither a Linux bzImage nor a 32-bit Multiboot v1 ELF file; name such a "
			"kernel");
	if (!(flags & MULTIBOOT_ADDRESSES) &&
		!(elf && head[ELF_CLASS] == ELF_CLASS_32 &&
			read_u16(head + ELF_MACHINE) == ELF_I386))
		return tool_error_set(error,
			"has a Multiboot header, but is not a 32-bit x86 ELF file; name such a "
			"kernel");
	*info = (struct guest_info){
		.kind = GUEST_MULTIBOOT,
		.command_line_max = MULTIBOOT_COMMAND_LINE,
	};
	return true;
}
