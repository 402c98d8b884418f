/*
 * Parapet's own memory: a region that the boot shim chose, handed out from one end before any guest
 * runs and never taken back. After memory_close() nothing can be taken any more.
 */
#ifndef PARAPET_ARCH_X86_MEMORY_H
#define PARAPET_ARCH_X86_MEMORY_H

#include <parapet/types.h>

/* Where the region is, and what of it the shim has used already (image, page tables, hand-over). */
void memory_init(hpa_t region, uint64_t region_bytes, uint64_t used_bytes);

/* `bytes` of zeroed memory, aligned to `align` (a power of two). Running out stops Parapet. */
void *memory_take(uint64_t bytes, uint64_t align);

/* A stack of `bytes` with an unmapped page below it; returns its top, 16-aligned. */
void *memory_take_stack(uint64_t bytes);

/*
 * Checks the whole address space: no page both writable and executable, and none executable but the
 * image's text. Stops Parapet otherwise.
 */
void memory_check_permissions(void);

void memory_close(void);
uint64_t memory_left(void);

hpa_t memory_region_base(void);
uint64_t memory_region_bytes(void);

/* Valid for anything from memory_take and for the image; for RAM and low MMIO through the direct map. */
hpa_t memory_hpa(const void *pointer);
void *memory_pointer(hpa_t address);

/* True if [base, base + bytes) touches Parapet's region; also if it wraps. */
bool memory_is_parapet(uint64_t base, uint64_t bytes);

/* Makes one 4 KiB page of the machine's low memory executable at its own address, for AP start. */
uint64_t memory_build_ap_tables(hpa_t trampoline);

/* Maps [base, base + bytes) of device memory above 4 GiB, uncached; before memory_close only. */
void *memory_map_device(hpa_t base, uint64_t bytes);

#endif
