/* Page tables of the simulated guest; see the header. Plain stores of a guest: relaxed. */
#include "platform/sim/sim_table.h"

#include <string.h>

#define ALL_PERMISSIONS (SIM_WRITE | SIM_EXECUTE)

static struct sim_gig *sim_table_gig(struct sim_table *table, struct sim_place place)
{
	return &table->gig[place.gig == SIM_GIG_GLOBAL ? 0 : place.space][place.gig];
}

static uint64_t sim_entry(struct sim_place place, uint64_t version, uint64_t permissions)
{
	return version << SIM_VERSION_SHIFT | SIM_PRESENT | SIM_LEAF | permissions |
		(place.gig == SIM_GIG_GLOBAL ? SIM_GLOBAL : 0);
}

void sim_table_init(struct sim_table *table)
{
	memset(table, 0, sizeof(*table));
	for (uint32_t space = 0; space < SIM_SPACES; space++) {
		for (uint32_t gig = 0; gig < SIM_GIGS; gig++) {
			struct sim_place place = {.space = space, .gig = gig};

			if (gig == SIM_GIG_LARGE) {
				sim_table_change_gig(table, place, ALL_PERMISSIONS);
				continue;
			}
			atomic_u64_store(&sim_table_gig(table, place)->entry, SIM_PRESENT,
				memory_order_relaxed);
			for (place.region = 0; place.region < SIM_REGIONS; place.region++)
				sim_table_change_region(table, place, ALL_PERMISSIONS);
		}
	}
}

gva_t sim_place_gva(struct sim_place place)
{
	return GVA(place.gig * SIZE_1G + place.region * SIZE_2M + place.page * PAGE_SIZE);
}

struct sim_translation sim_table_walk(struct sim_table *table, struct sim_place place)
{
	struct sim_gig *gig = sim_table_gig(table, place);
	uint64_t entry = atomic_u64_load(&gig->entry, memory_order_relaxed);

	if (entry & SIM_LEAF)
		return (struct sim_translation){entry, 30};
	entry = atomic_u64_load(&gig->region[place.region], memory_order_relaxed);
	if (entry & SIM_LEAF)
		return (struct sim_translation){entry, 21};
	entry = atomic_u64_load(&gig->page[place.region][place.page], memory_order_relaxed);
	return (struct sim_translation){entry, PAGE_BITS};
}

static uint64_t sim_table_new_version(struct sim_table *table)
{
	return atomic_u64_fetch_add(&table->version, 1, memory_order_relaxed) + 1;
}

uint64_t sim_table_change_page(
	struct sim_table *table, struct sim_place place, uint64_t permissions)
{
	struct sim_gig *gig = sim_table_gig(table, place);
	uint64_t region = atomic_u64_load(&gig->region[place.region], memory_order_relaxed);
	uint64_t version;

	if (region & SIM_LEAF) {
		/* Split: the same translations first, then the table that holds them. */
		for (uint32_t page = 0; page < SIM_PAGES; page++)
			atomic_u64_store(
				&gig->page[place.region][page], region, memory_order_relaxed);
		atomic_u64_store(&gig->region[place.region], SIM_PRESENT, memory_order_release);
	}
	version = sim_table_new_version(table);
	atomic_u64_store(&gig->page[place.region][place.page],
		sim_entry(place, version, permissions), memory_order_relaxed);
	return version;
}

uint64_t sim_table_change_region(
	struct sim_table *table, struct sim_place place, uint64_t permissions)
{
	uint64_t version = sim_table_new_version(table);

	atomic_u64_store(&sim_table_gig(table, place)->region[place.region],
		sim_entry(place, version, permissions), memory_order_relaxed);
	return version;
}

uint64_t sim_table_change_gig(struct sim_table *table, struct sim_place place, uint64_t permissions)
{
	uint64_t version = sim_table_new_version(table);

	atomic_u64_store(&sim_table_gig(table, place)->entry,
		sim_entry(place, version, permissions), memory_order_relaxed);
	return version;
}

void sim_table_retire(
	struct sim_table *table, struct sim_place place, uint32_t page_bits, uint64_t version)
{
	struct sim_gig *gig = sim_table_gig(table, place);

	for (uint32_t region = 0; region < SIM_REGIONS; region++) {
		for (uint32_t page = 0; page < SIM_PAGES; page++) {
			if (page_bits == PAGE_BITS && page != place.page)
				continue;
			if (page_bits <= 21 && region != place.region)
				continue;
			/* Only the owner writes, and its versions grow. Release: an access that
			 * sees it is one that began after the flush had returned. */
			atomic_u64_store(&gig->oldest[region][page], version, memory_order_release);
		}
	}
}

uint64_t sim_table_oldest(struct sim_table *table, struct sim_place place)
{
	return atomic_u64_load(&sim_table_gig(table, place)->oldest[place.region][place.page],
		memory_order_acquire);
}
