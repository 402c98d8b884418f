/* Initial page tables and reset vector page: see ap_tables.h. AMD64 manual volume 2, 5.3. */
#include "core/mailbox/ap_tables.h"

#define ENTRY_PRESENT  0x001ull
#define ENTRY_WRITE    0x002ull
#define ENTRY_ACCESSED 0x020ull
#define ENTRY_DIRTY    0x040ull
#define ENTRY_LARGE    0x080ull

#define ENTRIES	    512u
#define DIRECTORIES 4u /* of 1 GiB each */

/*
 * Write permission is decided at the last level alone, so that one entry tells all. No entry is for
 * user mode: nothing runs there on these tables.
 */
#define TABLE_FLAGS (ENTRY_PRESENT | ENTRY_WRITE | ENTRY_ACCESSED)
#define LEAF_FLAGS  (ENTRY_PRESENT | ENTRY_ACCESSED | ENTRY_DIRTY)

_Static_assert(DIRECTORIES *SIZE_1G == AP_TABLES_END, "one page directory maps 1 GiB");
_Static_assert(AP_TABLES_FINE_END == SIZE_2M, "one page table maps 2 MiB");

static bool range_is_good(
	const struct ap_tables_config *config, const struct ap_tables_range *range)
{
	uint64_t table_end = config->gpa.value + AP_TABLES_PAGES(config->levels) * PAGE_SIZE;
	uint64_t unit = range->base < AP_TABLES_FINE_END ? PAGE_SIZE : SIZE_2M;

	if (range->bytes == 0 || range->base >= AP_TABLES_END ||
		range->bytes > AP_TABLES_END - range->base)
		return false;
	if (((range->base | range->bytes) & (unit - 1)) != 0)
		return false;
	if (range->base < AP_TABLES_FINE_END && range->bytes > AP_TABLES_FINE_END - range->base)
		return false;
	return range->base >= table_end || config->gpa.value >= range->base + range->bytes;
}

static uint64_t write_flag(const struct ap_tables_config *config, uint64_t address)
{
	for (uint32_t i = 0; i < config->writable_count; i++) {
		const struct ap_tables_range *range = &config->writable[i];

		if (address >= range->base && address - range->base < range->bytes)
			return ENTRY_WRITE;
	}
	return 0;
}

bool ap_tables_build(const struct ap_tables_config *config, gpa_t *root)
{
	uint64_t(*page)[ENTRIES] = config->pages;
	uint64_t gpa = config->gpa.value;
	unsigned int top = config->levels - 3; /* pages of 5th and 4th level before the third */
	unsigned int directory = top + 1;
	unsigned int table = directory + DIRECTORIES;

	if (config->levels != 4 && config->levels != 5)
		return false;
	if (!page || ((uintptr_t)page & (PAGE_SIZE - 1)) != 0)
		return false;
	if ((gpa & (PAGE_SIZE - 1)) != 0 || gpa >= 1ull << 51)
		return false;
	for (uint32_t i = 0; i < config->writable_count; i++) {
		if (!range_is_good(config, &config->writable[i]))
			return false;
	}

	for (unsigned int i = 0; i <= top; i++) {
		for (unsigned int j = 0; j < ENTRIES; j++)
			page[i][j] = 0;
		if (i < top)
			page[i][0] = (gpa + (i + 1) * PAGE_SIZE) | TABLE_FLAGS;
	}
	for (unsigned int i = 0; i < DIRECTORIES; i++) {
		page[top][i] = (gpa + (directory + i) * PAGE_SIZE) | TABLE_FLAGS;
		for (unsigned int j = 0; j < ENTRIES; j++) {
			uint64_t address = i * SIZE_1G + j * SIZE_2M;

			page[directory + i][j] =
				address | LEAF_FLAGS | ENTRY_LARGE | write_flag(config, address);
		}
	}
	page[directory][0] = (gpa + table * PAGE_SIZE) | TABLE_FLAGS;
	for (unsigned int j = 0; j < ENTRIES; j++)
		page[table][j] = j * PAGE_SIZE | LEAF_FLAGS | write_flag(config, j * PAGE_SIZE);
	*root = config->gpa;
	return true;
}

void ap_reset_page_fill(void *page)
{
	static const uint8_t code[] = {
		0xfa, /* again: cli */
		0xf4, /* hlt */
		0xeb, 0xfc, /* jmp again */
	};
	uint8_t *byte = page;

	for (size_t i = 0; i < PAGE_SIZE; i++)
		byte[i] = i < sizeof(code) ? code[i] : 0xcc;
}
