/* The first bytes of the core's image: how the shim is to lay it out. Virtual addresses,
 * counted from IMAGE_BASE. */
#ifndef PARAPET_BOOT_CORE_IMAGE_HEADER_H
#define PARAPET_BOOT_CORE_IMAGE_HEADER_H

#include <stdint.h>

#define IMAGE_MAGIC 0x45524f4354524150ull /* "PARTCORE", little-endian */

struct image_header {
	uint64_t magic;
	uint64_t entry;
	uint64_t text_end; /* read, execute up to here */
	uint64_t rodata_end; /* read up to here */
	uint64_t file_end; /* bytes in the file */
	uint64_t image_end; /* zeroes up to here */
};

#endif
