/* Nested page tables. See npt.h. AMD64 APM volume 2, 15.25. */
#include "arch/x86/registers.h"
#include "platform/svm/npt.h"

#define LEVELS	    4
#define ENTRIES	    (1u << NPT_LEVEL_BITS)
#define ADDRESS_END (1ull << (PAGE_BITS + LEVELS * NPT_LEVEL_BITS))
#define SPARE_PAGES 256 /* for devices, each of which may need two pages of its own */
/* A nested walk is a user access; tables are limited by their leaves alone. */
#define TABLE_BITS (PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED)

_Static_assert(ENTRIES * sizeof(struct atomic_u64) <= PAGE_SIZE, "a table is a page of the pool");

/* One range on its way into the tables. */
struct npt_write {
	struct npt *npt;
	struct protect_batch *batch;
	struct protect_range *range;
	bool seen; /* something of this range has been looked at: */
	uint32_t first; /* what could be done there */
};

/*
 * Tables that a batch adds, to the page: ranges do not meet, and come in order of address, so that
 * remembering the entry of each level that was split last counts none twice.
 */
struct npt_need {
	const struct npt *npt;
	uint32_t access;
	uint32_t pages;
	uint64_t split[LEVELS + 1]; /* number of the entry, plus 1 */
};

static uint64_t level_bytes(int level)
{
	return 1ull << (PAGE_BITS + NPT_LEVEL_BITS * (level - 1));
}

/* Can one entry of this level say that `access` goes for all that it covers? */
static bool level_has_leaf(const struct npt *npt, int level, uint32_t access)
{
	return level < 3 || (level == 3 && (npt->huge || access == ACCESS_NONE));
}

static uint64_t leaf(uint64_t address, uint32_t access, int level)
{
	if (access == ACCESS_NONE) {
		return 0;
	}
	return address | PTE_PRESENT | PTE_USER | PTE_ACCESSED | PTE_DIRTY |
		(access & ACCESS_WRITE ? PTE_WRITE : 0) | (access & ACCESS_EXECUTE ? 0 : PTE_NX) |
		(level > 1 ? PTE_LARGE : 0);
}

static uint32_t leaf_access(uint64_t entry)
{
	if (!(entry & PTE_PRESENT)) {
		return ACCESS_NONE;
	}
	return ACCESS_READ | (entry & PTE_WRITE ? ACCESS_WRITE : 0) |
		(entry & PTE_NX ? 0 : ACCESS_EXECUTE);
}

static bool is_table(uint64_t entry, int level)
{
	return level > 1 && (entry & (PTE_PRESENT | PTE_LARGE)) == PTE_PRESENT;
}

/* For those who hold the page-table shard: entries change under nobody else's hands. */
static uint64_t entry_load(const struct atomic_u64 *entry)
{
	/* Relaxed: the shard's lock orders it. */
	return atomic_u64_load(entry, memory_order_relaxed);
}

static struct atomic_u64 *entry_table(const struct npt *npt, uint64_t entry)
{
	return npt_pool_table(npt->pool, entry & PTE_ADDRESS);
}

static uint64_t entry_index(uint64_t address, int level)
{
	return address / level_bytes(level) % ENTRIES;
}

static void entry_store(struct npt_write *write, struct atomic_u64 *entry, uint64_t value)
{
	/*
	 * N3, pairs with N4: a new table is filled before it can be found. Without it a walk finds
	 * what was in the page before. (Processors walk in program order of this store.)
	 */
	atomic_u64_store(entry, value, memory_order_release);
	write->batch->entries++;
}

/* --- what a batch needs ------------------------------------------------------------------------ */

/* `table` NULL: one that is not there yet; everything below it may be accessed as `uniform` says. */
static void need_level(struct npt_need *need, const struct atomic_u64 *table, uint32_t uniform,
	int level, uint64_t base, uint64_t end)
{
	uint64_t size = level_bytes(level);

	while (base < end) {
		uint64_t next = (base / size + 1) * size;
		uint64_t stop = next < end ? next : end;
		bool whole = base % size == 0 && stop == next;
		uint64_t entry = table ? entry_load(&table[entry_index(base, level)]) : 0;
		bool has_table = table && is_table(entry, level);
		uint32_t has = table ? leaf_access(entry) : uniform;

		if ((!whole || !level_has_leaf(need->npt, level, need->access)) &&
			(has_table || has != need->access)) {
			if (!has_table && need->split[level] != base / size + 1) {
				need->split[level] = base / size + 1;
				need->pages++;
			}
			need_level(need, has_table ? entry_table(need->npt, entry) : NULL, has,
				level - 1, base, stop);
		}
		base = stop;
	}
}

static bool npt_prepare(void *platform, struct protect_batch *batch)
{
	struct npt_space *space = platform;
	struct npt_need need = {.npt = &space->tree[batch->target]};

	for (uint32_t i = 0; i < batch->count; i++) {
		const struct protect_range *range = &batch->ranges[i];

		need.access = range->access;
		need_level(&need, need.npt->root, ACCESS_NONE, LEVELS, range->base,
			range->base + range->bytes);
	}
	batch->reserved = need.pages;
	return npt_pool_reserve(&space->pool, need.pages);
}

/* --- writing ----------------------------------------------------------------------------------- */

/* Some page of the range could be accessed as `old` says. */
static void note_old(struct npt_write *write, uint32_t old)
{
	write->range->mixed |= write->seen && old != write->first;
	write->first = write->seen ? write->first : old;
	write->seen = true;
	write->range->old |= (uint8_t)old;
	write->batch->lost |= (old & ~(uint32_t)write->range->access) != 0;
}

static void free_table(struct npt_write *write, const struct atomic_u64 *table)
{
	write->batch->freed = npt_pool_join(
		write->npt->pool, write->batch->freed, npt_pool_list(write->npt->pool, table));
}

/* A table that a leaf takes the place of, with all tables below it. */
static void retire(struct npt_write *write, const struct atomic_u64 *table, int level)
{
	for (uint64_t i = 0; i < ENTRIES; i++) {
		uint64_t entry = entry_load(&table[i]);

		if (is_table(entry, level)) {
			retire(write, entry_table(write->npt, entry), level - 1);
		} else {
			note_old(write, leaf_access(entry));
		}
	}
	free_table(write, table);
}

/* Replaces a leaf of a level above 1 by a table of the next that says the same. */
static struct atomic_u64 *split(struct npt_write *write, struct atomic_u64 *entry, int level)
{
	struct atomic_u64 *table = npt_pool_take(write->npt->pool);
	uint64_t old = entry_load(entry);
	uint32_t access = leaf_access(old);

	for (uint64_t i = 0; i < ENTRIES; i++) {
		uint64_t address = (old & PTE_ADDRESS) + i * level_bytes(level - 1);

		/* Relaxed: N3 follows. */
		atomic_u64_store(&table[i], leaf(address, access, level - 1), memory_order_relaxed);
	}
	entry_store(write, entry, npt_pool_hpa(write->npt->pool, table) | TABLE_BITS);
	return table;
}

static void set_leaf(struct npt_write *write, struct atomic_u64 *entry, int level, uint64_t address)
{
	uint64_t old = entry_load(entry);
	uint64_t value = leaf(address, write->range->access, level);

	if (old != value) {
		entry_store(write, entry, value);
	}
	if (is_table(old, level)) {
		retire(write, entry_table(write->npt, old), level - 1);
	} else {
		note_old(write, leaf_access(old));
	}
}

static void set_level(
	struct npt_write *write, struct atomic_u64 *table, int level, uint64_t base, uint64_t end)
{
	uint32_t access = write->range->access;
	uint64_t size = level_bytes(level);

	while (base < end) {
		struct atomic_u64 *entry = &table[entry_index(base, level)];
		uint64_t next = (base / size + 1) * size;
		uint64_t stop = next < end ? next : end;
		uint64_t old = entry_load(entry);
		bool has_table = is_table(old, level);

		if (base % size == 0 && stop == next && level_has_leaf(write->npt, level, access)) {
			set_leaf(write, entry, level, base);
		} else if (!has_table && leaf_access(old) == access) {
			note_old(write, access);
		} else {
			set_level(write,
				has_table ? entry_table(write->npt, old)
					  : split(write, entry, level),
				level - 1, base, stop);
		}
		base = stop;
	}
}

/* --- merging ----------------------------------------------------------------------------------- */

/* The entry of that level for the address; NULL: a larger one covers it. */
static struct atomic_u64 *find_entry(const struct npt *npt, uint64_t address, int level)
{
	struct atomic_u64 *table = npt->root;

	for (int at = LEVELS; at > level; at--) {
		uint64_t entry = entry_load(&table[entry_index(address, at)]);

		if (!is_table(entry, at)) {
			return NULL;
		}
		table = entry_table(npt, entry);
	}
	return &table[entry_index(address, level)];
}

/* If the table below the entry of that level says the same everywhere, the entry can say it. */
static void merge(struct npt_write *write, uint64_t address, int level)
{
	struct atomic_u64 *entry = find_entry(write->npt, address, level);
	uint64_t base = ALIGN_DOWN(address, level_bytes(level));
	uint64_t old = entry ? entry_load(entry) : 0;

	if (!is_table(old, level)) {
		return;
	}

	const struct atomic_u64 *table = entry_table(write->npt, old);
	uint64_t first = entry_load(&table[0]);
	uint32_t access = leaf_access(first);

	if (is_table(first, level - 1) || !level_has_leaf(write->npt, level, access)) {
		return;
	}
	for (uint64_t i = 0; i < ENTRIES; i++) {
		uint64_t part = base + i * level_bytes(level - 1);

		if (entry_load(&table[i]) != leaf(part, access, level - 1)) {
			return;
		}
	}
	entry_store(write, entry, leaf(base, access, level));
	free_table(write, table);
}

/*
 * Only the tables at a range's ends can have become uniform: what lies between is covered by the
 * largest entries that there are. Once for each table, after all ranges have been written.
 */
static void merge_ends(struct npt_write *write, int level)
{
	const struct protect_batch *batch = write->batch;
	uint64_t size = level_bytes(level);
	uint64_t done = ~0ull;

	for (uint32_t i = 0; i < batch->count; i++) {
		uint64_t first = batch->ranges[i].base;
		uint64_t last = first + batch->ranges[i].bytes - PAGE_SIZE;

		if (first / size != done) {
			merge(write, first, level);
		}
		if (last / size != first / size) {
			merge(write, last, level);
		}
		done = last / size;
	}
}

static void npt_write(void *platform, struct protect_batch *batch)
{
	struct npt_space *space = platform;
	struct npt_write write = {.npt = &space->tree[batch->target], .batch = batch};

	for (uint32_t i = 0; i < batch->count; i++) {
		struct protect_range *range = &batch->ranges[i];

		write.range = range;
		write.seen = false;
		set_level(&write, write.npt->root, LEVELS, range->base, range->base + range->bytes);
	}
	for (int level = 2; level < LEVELS; level++) {
		merge_ends(&write, level);
	}
}

/* --- the rest ---------------------------------------------------------------------------------- */

/* Nested walks are user accesses and have one execute bit; nothing can be done without reading. */
static bool npt_can(void *platform, enum vtl target, uint32_t access)
{
	uint32_t execute = access & ACCESS_EXECUTE;

	(void)platform;
	(void)target;
	return access == ACCESS_NONE ||
		((access & ACCESS_READ) && (execute == 0 || execute == ACCESS_EXECUTE));
}

static uint32_t npt_access(void *platform, enum vtl target, gpa_t gpa)
{
	const struct npt_space *space = platform;
	const struct npt *npt = &space->tree[target];
	const struct atomic_u64 *table = npt->root;

	if (gpa.value >= ADDRESS_END) {
		return ACCESS_NONE;
	}
	for (int level = LEVELS;; level--) {
		/* N4, pairs with N3: see there. */
		uint64_t entry = atomic_u64_load(
			&table[entry_index(gpa.value, level)], memory_order_acquire);

		if (!is_table(entry, level)) {
			return leaf_access(entry);
		}
		table = entry_table(npt, entry);
	}
}

static struct protect_pages npt_join(
	void *platform, struct protect_pages first, struct protect_pages second)
{
	struct npt_space *space = platform;

	return npt_pool_join(&space->pool, first, second);
}

static void npt_release(void *platform, struct protect_pages pages)
{
	struct npt_space *space = platform;

	npt_pool_release(&space->pool, pages);
}

uint32_t npt_pages_needed(uint32_t trees, uint64_t ram_bytes)
{
	/* A last table for each 2 MiB, one above it for each GiB. */
	return trees * (uint32_t)(ram_bytes / SIZE_2M + ram_bytes / SIZE_1G + SPARE_PAGES);
}

bool npt_space_init(struct npt_space *space, uint32_t trees, bool huge)
{
	if (trees > NPT_TREES || !npt_pool_reserve(&space->pool, trees)) {
		return false;
	}
	space->trees = trees;
	for (uint32_t i = 0; i < trees; i++) {
		struct npt *npt = &space->tree[i];

		*npt = (struct npt){
			.pool = &space->pool, .root = npt_pool_take(&space->pool), .huge = huge};
		for (uint64_t entry = 0; entry < ENTRIES; entry++) {
			/* Relaxed: nobody else runs yet. */
			atomic_u64_store(&npt->root[entry], 0, memory_order_relaxed);
		}
	}
	return true;
}

uint64_t npt_root(const struct npt_space *space, enum vtl vtl)
{
	return npt_pool_hpa(&space->pool, space->tree[vtl].root);
}

const struct protect_ops npt_protect_ops = {
	.can = npt_can,
	.prepare = npt_prepare,
	.write = npt_write,
	.access = npt_access,
	.join = npt_join,
	.release = npt_release,
};
