/*
 * Linux as a guest: x86 bzImage by the 64-bit boot protocol (Linux,
 * Documentation/arch/x86/boot.rst). Three steps: inspect the file, plan where everything goes,
 * commit to memory. Only commit writes, and it cannot fail half way for a reason that planning
 * could have found. Nothing of any platform enters here; the caller puts the result into a VP.
 *
 * Everything that is planned keeps clear of the sources (kernel file, initrd), of the caller's list
 * and of each other, so the order of copying does not matter and nothing is moved twice.
 */
#ifndef PARAPET_BOOT_LINUX_H
#define PARAPET_BOOT_LINUX_H

#include "boot/load/guest_memory.h"
#include "boot/load/memory_map.h"

#define LINUX_HEADER_OFFSET 0x1f1 /* of the setup header, in the file and in boot_params */
#define LINUX_HEADER_MAX    0x9f /* its bytes in boot_params: 0x1f1 to 0x28f */

/* What linux_inspect_image found; all of it checked, the header's bytes copied once. */
struct linux_image {
	size_t file_bytes;
	size_t setup_bytes; /* real-mode part: the 64-bit part starts here in the file */
	size_t kernel_bytes; /* the 64-bit part */
	uint16_t protocol; /* 0x020c is 2.12 */
	bool relocatable;
	bool above_4g; /* initrd and others may lie above 4 GiB */
	uint64_t alignment; /* of the load address: a power of two, 4 KiB to 1 GiB */
	uint64_t preferred; /* load address, a multiple of alignment */
	uint64_t needed_bytes; /* free memory from the load address on */
	uint64_t initrd_last; /* highest address of an initrd's byte */
	uint32_t command_line_max; /* bytes without the closing NUL */
	uint32_t header_bytes;
	uint8_t header[LINUX_HEADER_MAX];
};

struct linux_request {
	const struct memory_map *map; /* as the guest is to see it; sanitised */
	const struct memory_span *avoid; /* RAM in the map that is to be kept clear none the less */
	size_t avoid_count;
	struct load_source kernel;
	struct load_source initrd; /* data NULL: none */
	const char *command_line; /* need not be NUL-terminated */
	size_t command_line_bytes; /* without a NUL */
	gpa_t acpi_rsdp; /* 0: the kernel looks for it itself */
};

/* Where everything goes. All of it RAM in the request's map, apart from each other. */
struct linux_plan {
	struct memory_span kernel; /* image and the memory that it unpacks itself into */
	struct memory_span initrd; /* length 0: none */
	struct memory_span boot_data; /* the following, in one piece, below 4 GiB */
	gpa_t page_tables; /* six pages: the first 4 GiB one to one, in pages of 2 MiB */
	gpa_t gdt; /* a page */
	gpa_t boot_params; /* a page */
	gpa_t command_line; /* NUL-terminated */
};

/*
 * The state of the boot processor at the kernel's first instruction: 64-bit mode, four-level paging
 * (CR0.PE, CR0.PG, CR4.PAE, EFER.LME and LMA), interrupts off, flat segments with the selectors
 * below.
 */
struct linux_entry {
	uint64_t rip;
	gpa_t rsi; /* boot_params */
	gpa_t cr3;
	gpa_t gdt_base;
	uint16_t gdt_limit;
	uint16_t cs; /* 0x10, 64-bit code */
	uint16_t ds; /* 0x18, also ES, SS */
};

/*
 * Checks that [file, file + bytes) is a bzImage that the 64-bit protocol can start and fills
 * *image. LINUX_TOO_SHORT, _NO_BOOT_FLAG, _NO_MAGIC, _TOO_OLD, _ZIMAGE, _32BIT, _HEADER,
 * _TRUNCATED, _SIZE, _ALIGNMENT, _PAYLOAD. Nothing is kept of `file`.
 */
enum load_error linux_inspect_image(const void *file, size_t bytes, struct linux_image *image);

/*
 * Chooses places: the kernel at its preferred address if that is free, else at the next possible
 * one above it (it moves itself up if loaded lower); its boot data from 64 KiB upwards; the initrd
 * as high as possible below 4 GiB, and above only if it has to and may. LINUX_COMMAND_LINE,
 * _INITRD_EMPTY, _NOT_RELOCATABLE, _NO_ROOM_INITRD, NO_ROOM_KERNEL, NO_ROOM_BOOT_DATA, MANY_SPANS,
 * SOURCE_CHANGED.
 */
enum load_error linux_plan_boot(const struct linux_image *image,
	const struct linux_request *request, struct linux_plan *plan);

/*
 * Copies everything into place and fills boot_params, page tables and GDT; the request must be the
 * one that was planned. MEMORY_ACCESS if a planned range cannot be mapped (nothing has been written
 * then), SOURCE_CHANGED.
 */
enum load_error linux_commit_boot(const struct linux_image *image,
	const struct linux_request *request, const struct linux_plan *plan,
	const struct guest_memory *memory, struct linux_entry *entry);

#endif
