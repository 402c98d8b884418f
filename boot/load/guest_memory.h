/*
 * How the loaders reach guest and firmware memory. They never turn an address into a pointer
 * themselves: the machine, a host test and a fuzzer each supply their own way.
 */
#ifndef PARAPET_BOOT_GUEST_MEMORY_H
#define PARAPET_BOOT_GUEST_MEMORY_H

#include "parapet/types.h"

struct guest_memory {
	/*
	 * A pointer to `bytes` (above 0) contiguous, readable and writable bytes of memory at
	 * `gpa`, or NULL if any of them cannot be reached. The range does not wrap. The pointer
	 * stays valid until the caller of the loader takes the memory away. A loader maps an object
	 * whole, in one call, however large.
	 */
	void *(*map)(void *context, gpa_t gpa, size_t bytes);
	void *context;
};

/*
 * Something to load: a file that a boot loader has put into memory. `data` is where Parapet reads
 * it, NULL if there is no such file; `gpa` is where that is in guest memory, so that nothing that
 * is loaded lands on top of it. The caller owns it and leaves it as it is until the loader has
 * committed.
 */
struct load_source {
	const void *data;
	size_t bytes;
	gpa_t gpa;
};

/* guest_memory's callback, asked once: NULL if there is nothing to map or it cannot be reached. */
static inline void *guest_memory_map(const struct guest_memory *memory, gpa_t gpa, size_t bytes)
{
	if (bytes == 0 || bytes - 1 > UINT64_MAX - gpa.value)
		return NULL;
	return memory->map(memory->context, gpa, bytes);
}

#endif
