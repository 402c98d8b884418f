/*
 * Ranges of guest-virtual addresses, as the flush hypercalls list them. What may not enter: queues,
 * processors.
 */
#ifndef PARAPET_CORE_FLUSH_RANGE_H
#define PARAPET_CORE_FLUSH_RANGE_H

#include "parapet/types.h"

/* `pages` pages of 1 << page_bits bytes each, from `base` on, which is aligned to that size. */
struct flush_range {
	gva_t base;
	uint32_t pages; /* 1 to 4096 */
	uint32_t page_bits; /* 12, 21 or 30 */
};

/*
 * Decodes one element of a flush list. Plain format: bits 63:12 page number, 11:0 further pages
 * (TLFS, HvCallFlushVirtualAddressList). Extended format: 10:0 further pages, bit 11 large pages;
 * then bit 12 says 1 GiB instead of 2 MiB, 20:13 are reserved and 63:21 are the number of the 2 MiB
 * page. False: a reserved bit is set, or a 1 GiB page is not aligned. Whether addresses are
 * canonical is for the caller to check.
 */
bool flush_range_decode(uint64_t raw, bool extended, struct flush_range *range);

#endif
