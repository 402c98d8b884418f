/*
 * A 32-bit Multiboot v1 kernel as a guest (Multiboot specification 0.6.96): ELF32, or any format
 * whose header gives the addresses itself. Inspect the file, plan, commit, as for Linux. What the
 * kernel finds is what QEMU's own -kernel option gives it, the loader's name apart. Nothing of any
 * platform enters here; the caller puts the result into a VP.
 *
 * Such a kernel cannot be moved, so its segments may lie where a boot loader has put the guest's
 * files: multiboot_move_sources then moves those files first. What is planned keeps clear of all
 * sources, so the order of copying does not matter.
 */
#ifndef PARAPET_BOOT_MULTIBOOT_H
#define PARAPET_BOOT_MULTIBOOT_H

#include "boot/load/guest_memory.h"
#include "boot/load/memory_map.h"

#define MULTIBOOT_SEGMENTS_MAX	   32
#define MULTIBOOT_MODULES_MAX	   16
#define MULTIBOOT_COMMAND_LINE_MAX 4095 /* bytes without the closing NUL */

/* A part of the file and its place in memory; what the file does not fill is zero. */
struct multiboot_segment {
	uint32_t base;
	uint32_t bytes;
	uint32_t file_offset;
	uint32_t file_bytes;
};

/* What multiboot_inspect_image found; all of it checked against the file. */
struct multiboot_image {
	size_t file_bytes;
	uint32_t entry; /* in a segment */
	uint32_t segment_count;
	struct multiboot_segment segments[MULTIBOOT_SEGMENTS_MAX];
};

struct multiboot_module {
	struct load_source source;
	const char *command_line; /* need not be NUL-terminated */
	size_t command_line_bytes; /* without a NUL */
};

struct multiboot_request {
	const struct memory_map *map; /* as the guest is to see it; sanitised */
	const struct memory_span *avoid; /* RAM in the map that is to be kept clear none the less */
	size_t avoid_count;
	struct load_source kernel;
	const char *command_line; /* file name and arguments; need not be NUL-terminated */
	size_t command_line_bytes;
	struct multiboot_module modules[MULTIBOOT_MODULES_MAX];
	uint32_t module_count;
};

/* Where everything goes: RAM in the request's map, below 4 GiB, apart from each other. */
struct multiboot_plan {
	struct memory_span info; /* a page: information structure, GDT, memory map */
	struct memory_span strings; /* list of modules, command lines, loader's name */
	struct memory_span modules[MULTIBOOT_MODULES_MAX]; /* each on a page boundary */
};

/*
 * The boot processor's state at the kernel's first instruction: 32-bit protected mode (CR0.PE and
 * CR0.ET alone), no paging, interrupts off, flat segments, A20 open. ESP is the kernel's own
 * business.
 */
struct multiboot_entry {
	uint32_t eip;
	uint32_t eax; /* 0x2BADB002 */
	uint32_t ebx; /* the information structure */
	gpa_t gdt_base;
	uint16_t gdt_limit;
	uint16_t cs; /* 0x08, 32-bit code */
	uint16_t ds; /* 0x10, also ES, FS, GS, SS */
};

/*
 * Is there a Multiboot header in the file? What a caller asks to choose a loader: true even if the
 * rest of the file turns out to be damaged.
 */
bool multiboot_find_header(const void *file, size_t bytes);

/*
 * Checks that [file, file + bytes) is a kernel that can be loaded and fills *image. All MULTIBOOT
 * errors but _SEGMENT_NOT_RAM, _SOURCE_IN_WAY, _MANY_MODULES and _COMMAND_LINE. Nothing is kept of
 * `file`.
 */
enum load_error multiboot_inspect_image(
	const void *file, size_t bytes, struct multiboot_image *image);

/*
 * Moves the files (kernel and modules) that lie where a segment goes to the highest free RAM, and
 * says so in the request. NO_ROOM_MODULE, MEMORY_ACCESS, MANY_SPANS: some may have been moved, all
 * are intact.
 */
enum load_error multiboot_move_sources(const struct multiboot_image *image,
	struct multiboot_request *request, const struct guest_memory *memory);

/*
 * Chooses places. Segments must be free RAM: MULTIBOOT_SEGMENT_NOT_RAM, or _SOURCE_IN_WAY, for
 * which multiboot_move_sources is the remedy. The rest goes where QEMU puts it if that is free: the
 * information structure in the page at 0x9000, then after the kernel the strings and the modules.
 * MULTIBOOT_MANY_MODULES, _COMMAND_LINE, NO_ROOM_BOOT_DATA, NO_ROOM_MODULE, MANY_SPANS,
 * SOURCE_CHANGED.
 */
enum load_error multiboot_plan_boot(const struct multiboot_image *image,
	const struct multiboot_request *request, struct multiboot_plan *plan);

/*
 * Copies everything into place; image, request and plan must belong together. MEMORY_ACCESS if a
 * range cannot be mapped (nothing has been written then), SOURCE_CHANGED.
 */
enum load_error multiboot_commit_boot(const struct multiboot_image *image,
	const struct multiboot_request *request, const struct multiboot_plan *plan,
	const struct guest_memory *memory, struct multiboot_entry *entry);

#endif
