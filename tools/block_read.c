/* Parapet's block as it was copied out of the machine, checked once. No files, no output. */
#include "tools/block_read.h"

#include <parapet/types.h>

#include <string.h>

#define BLOCK_ALIGNMENT 64
#define TRACE_HEADER	64

/* Whether `count` pieces of `each` bytes from `offset` on lie in a block of `bytes`. */
static bool pieces_fit(uint64_t offset, uint64_t count, uint64_t each, uint64_t bytes)
{
	uint64_t total;

	if (__builtin_mul_overflow(count, each, &total))
		return false;
	return offset <= bytes && total <= bytes - offset;
}

static bool check_vps(const struct block_header *header, struct tool_error *error)
{
	if (header->vps == 0 || header->vps > VP_COUNT_MAX)
		return tool_error_set(error, "it says that there are %u VPs", header->vps);
	if (header->counters == 0 || header->counters > COUNTER_ROOM)
		return tool_error_set(
			error, "it says that there are %u counters", header->counters);
	if (header->vp_bytes < sizeof(struct block_vp) || header->vp_bytes % 8 != 0 ||
		header->vp_offset < sizeof(struct block_header) || header->vp_offset % 8 != 0 ||
		!pieces_fit(header->vp_offset, header->vps, header->vp_bytes, header->bytes))
		return tool_error_set(error, "its VPs do not lie inside it");
	return true;
}

static bool check_rings(const struct block_header *header, struct tool_error *error)
{
	uint64_t entries = header->trace_entries;
	uint64_t records;

	if (entries == 0)
		return true;
	if (entries < 2 || (entries & (entries - 1)) != 0 ||
		__builtin_mul_overflow(entries, sizeof(struct trace_record), &records) ||
		records > UINT64_MAX - TRACE_HEADER ||
		header->trace_ring_bytes < TRACE_HEADER + records ||
		header->trace_ring_bytes % 8 != 0 ||
		header->trace_offset < sizeof(struct block_header) ||
		header->trace_offset % 8 != 0 ||
		!pieces_fit(
			header->trace_offset, header->vps, header->trace_ring_bytes, header->bytes))
		return tool_error_set(error, "its trace rings do not lie inside it");
	return true;
}

static bool check_regions(const struct block_header *header, struct tool_error *error)
{
	if (header->regions == 0)
		return true;
	if (header->region_offset < sizeof(struct block_header) || header->region_offset % 8 != 0 ||
		!pieces_fit(header->region_offset, header->regions, sizeof(struct block_region),
			header->bytes))
		return tool_error_set(error, "its regions do not lie inside it");
	return true;
}

bool block_read(
	const uint8_t *bytes, size_t size, struct block_view *view, struct tool_error *error)
{
	struct block_header *header = &view->header;

	view->bytes = bytes;
	if (size < sizeof(*header))
		return tool_error_set(error, "it has %zu bytes only", size);
	if ((uintptr_t)bytes % BLOCK_ALIGNMENT != 0)
		return tool_error_set(error, "its copy is not aligned");
	memcpy(header, bytes, sizeof(*header));
	if (header->magic != BLOCK_MAGIC)
		return tool_error_set(error, "it does not start with Parapet's mark");
	if (header->version != BLOCK_VERSION)
		return tool_error_set(error,
			"it has version %u, this command reads version %u; build both together",
			header->version, BLOCK_VERSION);
	if (header->header_bytes < sizeof(*header) || header->bytes < header->header_bytes ||
		header->bytes > size)
		return tool_error_set(error, "it says that it has %llu bytes, %zu were read",
			(unsigned long long)header->bytes, size);
	if (!check_vps(header, error) || !check_rings(header, error) ||
		!check_regions(header, error))
		return false;
	header->platform[sizeof(header->platform) - 1] = '\0';
	header->ap_start_method[sizeof(header->ap_start_method) - 1] = '\0';
	for (char *c = header->platform; *c; c++)
		*c = *c < ' ' || *c > '~' ? '?' : *c;
	for (char *c = header->ap_start_method; *c; c++)
		*c = *c < ' ' || *c > '~' ? '?' : *c;
	return true;
}

const struct block_vp *block_read_vp(const struct block_view *view, uint32_t vp)
{
	return (const struct block_vp *)(view->bytes + view->header.vp_offset +
		vp * view->header.vp_bytes);
}

const void *block_read_ring(const struct block_view *view, uint32_t vp)
{
	if (view->header.trace_entries == 0)
		return NULL;
	return view->bytes + view->header.trace_offset + vp * view->header.trace_ring_bytes;
}

const struct block_region *block_read_region(const struct block_view *view, uint64_t index)
{
	return (const struct block_region *)(view->bytes + view->header.region_offset) + index;
}

uint64_t block_read_counter(const struct block_view *view, uint32_t vp, enum block_counter counter)
{
	if ((uint32_t)counter >= view->header.counters)
		return 0;
	return block_read_vp(view, vp)->counter[counter];
}

uint64_t block_read_total(const struct block_view *view, enum block_counter counter)
{
	uint64_t total = 0;

	for (uint32_t vp = 0; vp < view->header.vps; vp++)
		total += block_read_counter(view, vp, counter);
	return total;
}

uint64_t block_read_exits(const struct block_view *view)
{
	uint64_t total = 0;

	for (unsigned counter = COUNTER_EXIT_HYPERCALL; counter <= COUNTER_EXIT_OTHER; counter++)
		total += block_read_total(view, (enum block_counter)counter);
	return total;
}

double block_read_us(const struct block_view *view, uint64_t tsc)
{
	if (view->header.tsc_hz == 0)
		return 0;
	return (double)tsc * 1e6 / (double)view->header.tsc_hz;
}

double block_read_guest_us(const struct block_view *view)
{
	if (view->header.boot_tsc == 0 || view->header.end_tsc < view->header.boot_tsc)
		return 0;
	return block_read_us(view, view->header.end_tsc - view->header.boot_tsc);
}

bool block_read_ap_start_us(const struct block_view *view, uint32_t vp, double *us)
{
	const struct block_vp *block_vp = block_read_vp(view, vp);

	if (block_vp->ap_request_tsc == 0 || block_vp->ap_start_tsc < block_vp->ap_request_tsc ||
		view->header.tsc_hz == 0)
		return false;
	*us = block_read_us(view, block_vp->ap_start_tsc - block_vp->ap_request_tsc);
	return true;
}
