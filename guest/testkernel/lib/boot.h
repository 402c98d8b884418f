/*
 * What the loader said: command line and memory map, copied before anything can overwrite them.
 * Multiboot v1, section 3.3. Nothing that looks at the machine itself may enter.
 */
#ifndef TK_BOOT_H
#define TK_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#define MEMORY_RAM	1
#define MEMORY_RESERVED 2
#define MEMORY_ACPI	3
#define MEMORY_NVS	4

struct memory_range {
	uint64_t start;
	uint64_t end; /* first byte behind it */
	uint32_t type;
};

extern const char image_start[], image_end[];

/* A test kernel starts here: first processor, 64 bit, interrupts disabled, print and trap work. */
void kernel_main(void);

const char *boot_cmdline_get(void);

/* Is there a word of exactly this text on the command line? */
bool boot_word_find(const char *word);

/* Reads NAME=NUMBER (decimal or 0x) from the command line; says whether it was there. */
bool boot_number_get(const char *name, uint64_t *value);

/* The ranges of the memory map in the loader's order. */
uint32_t boot_memory_count(void);
const struct memory_range *boot_memory_get(uint32_t index);

/* Does the memory map call all of [start, end) usable RAM? */
bool boot_memory_is_ram(uint64_t start, uint64_t end);

/* A page of RAM below 640 KiB that holds nothing, another one each time; 0 when none is left. */
uint64_t boot_low_page_take(void);

/* Is a paravisor underneath: the Hyper-V signature in CPUID, or the word "paravisor"? */
bool boot_has_paravisor(void);

#endif
