/*
 * The sentence for each thing that can be wrong with what Parapet is asked to load. Sentences only.
 */
#include "boot/load/load_error.h"

static const char *const texts[LOAD_ERR_COUNT] = {
	[LOAD_OK] = "no error",

	[LOAD_ERR_MAP_FULL] = "the memory map has more than 128 ranges",
	[LOAD_ERR_MAP_RANGE] =
		"a range of the memory map ends above the 52-bit physical address space",
	[LOAD_ERR_MAP_TYPE] = "a range of the memory map has a type that cannot be used here",
	[LOAD_ERR_MAP_TRUNCATED] = "the memory map ends in the middle of an entry",
	[LOAD_ERR_MAP_ENTRY] = "an entry of the memory map is shorter than its fixed fields",
	[LOAD_ERR_MAP_NO_RAM] = "the memory map has no RAM",
	[LOAD_ERR_MANY_SPANS] = "more than 96 ranges of memory have to be kept clear",

	[LOAD_ERR_MEMORY_ACCESS] = "a range that is needed is not accessible memory",
	[LOAD_ERR_NO_ROOM_KERNEL] =
		"not enough free memory for the guest kernel: give the guest more",
	[LOAD_ERR_NO_ROOM_BOOT_DATA] =
		"not enough free memory below 4 GiB for the guest's boot data: give the guest more",
	[LOAD_ERR_NO_ROOM_MODULE] =
		"not enough free memory below 4 GiB for the guest's modules: give the guest more",
	[LOAD_ERR_SOURCE_CHANGED] = "the image is not the one that was inspected",

	[LOAD_ERR_LINUX_TOO_SHORT] = "the kernel file is too short to hold a Linux setup header",
	[LOAD_ERR_LINUX_NO_BOOT_FLAG] = "the kernel file has no boot flag (0xAA55): it is not a "
					"Linux bzImage, or it is damaged",
	[LOAD_ERR_LINUX_NO_MAGIC] =
		"the kernel file has no HdrS mark: it is not a Linux bzImage, or it is damaged",
	[LOAD_ERR_LINUX_TOO_OLD] =
		"the Linux kernel is too old: it needs boot protocol 2.12 (Linux 3.8) or later",
	[LOAD_ERR_LINUX_ZIMAGE] =
		"the Linux kernel is a zImage that loads low: a bzImage is needed",
	[LOAD_ERR_LINUX_32BIT] =
		"the Linux kernel has no 64-bit entry point: a kernel for x86-64 is needed",
	[LOAD_ERR_LINUX_HEADER] = "the Linux setup header is damaged: its own length is impossible",
	[LOAD_ERR_LINUX_TRUNCATED] =
		"the kernel file is truncated: it is shorter than its setup header says",
	[LOAD_ERR_LINUX_SIZE] =
		"the Linux setup header is damaged: the kernel's sizes contradict each other",
	[LOAD_ERR_LINUX_ALIGNMENT] =
		"the Linux setup header is damaged: alignment and preferred address do not fit",
	[LOAD_ERR_LINUX_PAYLOAD] =
		"the Linux setup header is damaged: the compressed kernel lies outside the file",
	[LOAD_ERR_LINUX_NOT_RELOCATABLE] =
		"the Linux kernel is not relocatable and the memory at its "
		"preferred address is not free",
	[LOAD_ERR_LINUX_COMMAND_LINE] = "the command line is longer than this Linux kernel accepts",
	[LOAD_ERR_LINUX_INITRD_EMPTY] = "the initrd is empty",
	[LOAD_ERR_LINUX_NO_ROOM_INITRD] =
		"the initrd does not fit into the guest's memory: give the guest more",

	[LOAD_ERR_MULTIBOOT_NO_HEADER] = "the kernel file has no Multiboot header with a right "
					 "checksum in its first 8192 bytes",
	[LOAD_ERR_MULTIBOOT_FLAGS] =
		"the Multiboot header demands a feature that Parapet does not have",
	[LOAD_ERR_MULTIBOOT_ADDRESSES] =
		"the address fields of the Multiboot header contradict each other or the file",
	[LOAD_ERR_MULTIBOOT_NOT_ELF] =
		"the Multiboot kernel is not an ELF file and its header gives no load addresses",
	[LOAD_ERR_MULTIBOOT_ELF64] =
		"the Multiboot kernel is a 64-bit x86-64 ELF file: a 32-bit one is "
		"needed (objcopy -O elf32-i386)",
	[LOAD_ERR_MULTIBOOT_ELF_MACHINE] = "the Multiboot kernel is not a 32-bit x86 executable",
	[LOAD_ERR_MULTIBOOT_ELF_HEADER] = "the ELF header of the Multiboot kernel is damaged",
	[LOAD_ERR_MULTIBOOT_TRUNCATED] =
		"the Multiboot kernel is truncated: a segment or table ends beyond the file",
	[LOAD_ERR_MULTIBOOT_NO_SEGMENT] = "the Multiboot kernel has nothing to load",
	[LOAD_ERR_MULTIBOOT_MANY_SEGMENTS] =
		"the Multiboot kernel has more than 32 segments to load",
	[LOAD_ERR_MULTIBOOT_SEGMENT_SIZE] =
		"a segment of the Multiboot kernel is larger in the file than in memory",
	[LOAD_ERR_MULTIBOOT_SEGMENT_WRAPS] =
		"a segment of the Multiboot kernel does not end below 4 GiB",
	[LOAD_ERR_MULTIBOOT_SEGMENT_OVERLAP] = "two segments of the Multiboot kernel overlap",
	[LOAD_ERR_MULTIBOOT_SEGMENT_NOT_RAM] =
		"a segment of the Multiboot kernel lies in memory that is not free RAM",
	[LOAD_ERR_MULTIBOOT_SOURCE_IN_WAY] =
		"a segment of the Multiboot kernel lies where a file of the guest is stored",
	[LOAD_ERR_MULTIBOOT_ENTRY] =
		"the entry point of the Multiboot kernel is in none of its segments",
	[LOAD_ERR_MULTIBOOT_MANY_MODULES] = "the guest has more than 16 modules",
	[LOAD_ERR_MULTIBOOT_COMMAND_LINE] = "a command line of the guest is longer than 4095 bytes",

	[LOAD_ERR_ACPI_NO_RSDP] = "the firmware has no ACPI root pointer",
	[LOAD_ERR_ACPI_RSDP] = "the firmware's ACPI root pointer is damaged",
	[LOAD_ERR_ACPI_ROOT] = "the firmware's ACPI root table is missing or damaged",
	[LOAD_ERR_ACPI_TABLE_MISSING] = "the firmware lacks an ACPI table that is needed",
	[LOAD_ERR_ACPI_TABLE_LENGTH] = "an ACPI table has an impossible length",
	[LOAD_ERR_ACPI_TABLE_CHECKSUM] = "an ACPI table has a wrong checksum",
	[LOAD_ERR_ACPI_TABLE_ENTRY] = "an entry of an ACPI table is damaged",
	[LOAD_ERR_ACPI_NO_S5] = "the firmware's ACPI tables do not say how to power off",
	[LOAD_ERR_ACPI_BUFFER] =
		"the new ACPI tables do not fit into the memory set aside for them",
	[LOAD_ERR_ACPI_ABOVE_4G] =
		"an ACPI table above 4 GiB cannot be listed in a 32-bit root table",
};

const char *load_error_text(enum load_error error)
{
	if ((unsigned int)error >= LOAD_ERR_COUNT || !texts[error])
		return "unknown error of the loader";
	return texts[error];
}
