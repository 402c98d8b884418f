/* Decoding of flush list elements; see the header. */
#include "core/flush/flush_range.h"

#define PLAIN_PAGES_MASK    0xfffull
#define EXTENDED_PAGES_MASK 0x7ffull
#define EXTENDED_LARGE	    (1ull << 11)
#define EXTENDED_1G	    (1ull << 12)
#define EXTENDED_RESERVED   (0xffull << 13)

#define PAGE_BITS_2M 21
#define PAGE_BITS_1G 30

bool flush_range_decode(uint64_t raw, bool extended, struct flush_range *range)
{
	range->page_bits = PAGE_BITS;
	range->base = GVA(raw & PAGE_MASK);
	range->pages = (uint32_t)(raw & PLAIN_PAGES_MASK) + 1;
	if (!extended)
		return true;

	range->pages = (uint32_t)(raw & EXTENDED_PAGES_MASK) + 1;
	if (!(raw & EXTENDED_LARGE))
		return true;

	range->page_bits = raw & EXTENDED_1G ? PAGE_BITS_1G : PAGE_BITS_2M;
	range->base = GVA(raw & ~(SIZE_2M - 1));
	if (raw & EXTENDED_RESERVED)
		return false;
	return (range->base.value & ((1ull << range->page_bits) - 1)) == 0;
}
