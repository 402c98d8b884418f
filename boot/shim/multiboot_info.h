/* What a Multiboot v1 boot loader passes (Multiboot Specification 0.6.96, 3.3). Layout only. */
#ifndef PARAPET_BOOT_SHIM_MULTIBOOT_INFO_H
#define PARAPET_BOOT_SHIM_MULTIBOOT_INFO_H

#include <stdint.h>

#define MULTIBOOT_BOOTED 0x2badb002

#define MULTIBOOT_HAS_COMMAND_LINE (1u << 2)
#define MULTIBOOT_HAS_MODULES	   (1u << 3)
#define MULTIBOOT_HAS_MEMORY_MAP   (1u << 6)
#define MULTIBOOT_HAS_LOADER_NAME  (1u << 9)

struct multiboot_info {
	uint32_t flags;
	uint32_t mem_lower;
	uint32_t mem_upper;
	uint32_t boot_device;
	uint32_t command_line;
	uint32_t module_count;
	uint32_t modules;
	uint32_t symbols[4];
	uint32_t memory_map_bytes;
	uint32_t memory_map;
	uint32_t drives_bytes;
	uint32_t drives;
	uint32_t config_table;
	uint32_t loader_name;
};

struct multiboot_module_entry {
	uint32_t start;
	uint32_t end;
	uint32_t command_line;
	uint32_t reserved;
};

_Static_assert(sizeof(struct multiboot_info) == 68, "Multiboot 3.3");
_Static_assert(sizeof(struct multiboot_module_entry) == 16, "Multiboot 3.3");

#endif
