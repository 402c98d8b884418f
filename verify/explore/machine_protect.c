/* Permissions on the scenarios' machine; see the header. */
#include "machine_protect.h"

#include <string.h>

#include "machine_nested.h"

#define REGIONS	     16
#define REGIONS_SEEN 6 /* records that a scenario uses */
#define PINS	     4
#define TABLES_MAX   (MACHINE_TABLES_FIXED + 6)
#define ENTRIES	     (1u << NPT_LEVEL_BITS)
#define POOL_HPA     0x7f000000ull /* what the tables call the memory */
#define POISON	     0xdeaddeaddeaddeaeull /* not present, whoever should take it for an entry */

_Static_assert(MACHINE_PAGES *MACHINE_PAGE_BYTES == PAGE_SIZE << 3 * NPT_LEVEL_BITS,
	"one entry of the root for all pages");
_Static_assert(!(POISON & 1), "not present");

struct protect machine_protect;
struct npt_space machine_npt;

static _Alignas(PAGE_SIZE) struct atomic_u64 tables[TABLES_MAX][PAGE_SIZE / 8];
static struct atomic_u64 tables_free[NPT_POOL_WORDS(TABLES_MAX)];
static uint32_t tables_next[TABLES_MAX];
static struct protect_vp protect_vps[MACHINE_VPS];
static struct block_region regions[REGIONS];
static struct protect_pinned pins[PINS];
static struct protect_transaction transactions[MACHINE_VPS];
static struct machine_nested nested[MACHINE_VPS];
static bool emulates[MACHINE_VPS]; /* VTL2 may write for the guest, until it releases its lock */
/* Written with the tables: whoever does not see the other's is not alone under the lock. */
static struct atomic_u64 writers[PROTECT_TABLE_SHARDS];

static bool can(void *platform, enum vtl target, uint32_t access)
{
	return npt_protect_ops.can(platform, target, access);
}

static bool prepare(void *platform, struct protect_batch *batch)
{
	return npt_protect_ops.prepare(platform, batch);
}

static void alone_step(void *argument)
{
	struct atomic_u64 *writer = argument;

	if (!explore_view_is_latest(writer))
		explore_fail(
			"two write the same tables, and one does not see what the other wrote");
	atomic_u64_store(writer, 1, memory_order_relaxed);
}

static void write(void *platform, struct protect_batch *batch)
{
	if (!explore_in_setup())
		explore_step(alone_step,
			&writers[batch->ranges[0].base / PROTECT_TABLE_SHARD_BYTES],
			"writes tables");
	npt_protect_ops.write(platform, batch);
}

static uint32_t access_now(void *platform, enum vtl target, gpa_t gpa)
{
	return npt_protect_ops.access(platform, target, gpa);
}

static struct protect_pages join(
	void *platform, struct protect_pages first, struct protect_pages second)
{
	return npt_protect_ops.join(platform, first, second);
}

void machine_protect_release(struct protect_pages pages)
{
	/* Relaxed: N2 follows. */
	for (uint32_t page = pages.first; page; page = tables_next[page - 1])
		for (uint32_t i = 0; i < ENTRIES; i++)
			atomic_u64_store(&tables[page - 1][i], POISON, memory_order_relaxed);
	npt_protect_ops.release(&machine_npt, pages);
}

static void release(void *platform, struct protect_pages pages)
{
	(void)platform;
	machine_protect_release(pages);
}

static void broken(const char *what)
{
	explore_fail(what);
}

static const struct protect_ops ops = {
	.can = can,
	.prepare = prepare,
	.write = write,
	.access = access_now,
	.join = join,
	.release = release,
};

static void name_words(void)
{
	for (uint32_t i = 0; i < PROTECT_REGION_SHARDS; i++)
		explore_name(&machine_protect.region_lock[i].taken, "region_lock[%u]", i);
	for (uint32_t i = 0; i < PROTECT_TABLE_SHARDS; i++)
		explore_name(&machine_protect.table_lock[i].taken, "table_lock[%u]", i);
	explore_name(&machine_protect.record_lock.taken, "record_lock");
	for (uint32_t i = 0; i < PROTECT_TABLE_SHARDS; i++)
		explore_name(&writers[i], "writers[%u]", i);
	for (uint32_t i = 0; i < TABLES_MAX; i++)
		for (uint32_t j = 0; j < ENTRIES; j++)
			explore_name(&tables[i][j], "table[%u].entry[%u]", i, j);
	explore_name(tables_free, "pool.free");
	explore_name(&machine_npt.pool.left, "pool.left");
}

/* What is plain and under locks. */
static void watch(void)
{
	const char *from = (const char *)&machine_protect.region;
	const char *to = (const char *)(&machine_protect + 1);

	explore_watch_locks(machine_protect.region_lock,
		(size_t)(from - (const char *)machine_protect.region_lock));
	explore_watch(from, (size_t)(to - from));
	explore_watch(regions, REGIONS_SEEN * sizeof(*regions));
	explore_watch(pins, sizeof(*pins));
	explore_watch(tables_next, sizeof(tables_next));
	for (vp_id_t vp = 0; vp < MACHINE_VPS; vp++)
		explore_watch(protect_vps[vp].pending, sizeof(protect_vps[vp].pending));
}

static gpa_t gpa_of(uint32_t page)
{
	return GPA(page * MACHINE_PAGE_BYTES);
}

static void setup_tables(uint32_t count)
{
	memset(tables_free, 0, sizeof(tables_free));
	memset(tables_next, 0, sizeof(tables_next));
	/* Relaxed: no thread runs yet. */
	for (uint32_t i = 0; i < TABLES_MAX; i++)
		for (uint32_t j = 0; j < ENTRIES; j++)
			atomic_u64_store(&tables[i][j], POISON, memory_order_relaxed);
	explore_poison(POISON, "a table page is walked that is free, or was never filled");
	npt_pool_init(&machine_npt.pool, tables, POOL_HPA, count, tables_free, tables_next);
	if (!npt_space_init(&machine_npt, 1, true))
		explore_fail("there is no room for the tables");
}

void machine_protect_setup(uint32_t table_count)
{
	static const struct protect_span ram = {0, MACHINE_PAGES * MACHINE_PAGE_BYTES};
	const struct protect_config config = {
		.vps = protect_vps,
		.flush = &machine_flush,
		.ops = &ops,
		.platform = &machine_npt,
		.broken = broken,
		.targets = 1,
		.region = regions,
		.region_count = REGIONS,
		.pin = pins,
		.pin_room = PINS,
	};

	machine_setup();
	memset(protect_vps, 0, sizeof(protect_vps));
	memset(regions, 0, sizeof(regions));
	memset(pins, 0, sizeof(pins));
	memset(nested, 0, sizeof(nested));
	memset(writers, 0, sizeof(writers));
	memset(&machine_protect, 0, sizeof(machine_protect));
	setup_tables(MACHINE_TABLES_FIXED + table_count);
	protect_init(&machine_protect, &config);
	/* Before there is RAM: what has not been given yet has not been withheld. */
	machine_protect_map(0, MACHINE_PAGES, ACCESS_ALL);
	protect_set_ram(&machine_protect, &ram, 1);
	watch();
	if (explore_names_wanted())
		name_words();
}

static uint32_t may(vp_id_t vp, uint32_t page)
{
	return machine_nested_access(&nested[vp], &machine_npt, VTL0, gpa_of(page));
}

void machine_protect_prime(vp_id_t vp, uint32_t page)
{
	may(vp, page);
}

void machine_protect_map(uint32_t page, uint32_t count, uint32_t access)
{
	protect_map(&machine_protect, VTL0, gpa_of(page), count * MACHINE_PAGE_BYTES, access);
}

void machine_protect_flush(vp_id_t vp)
{
	machine_nested_flush(&nested[vp]);
}

bool machine_can_write(vp_id_t vp, uint32_t page)
{
	return may(vp, page) & ACCESS_WRITE;
}

void machine_write(vp_id_t vp, uint32_t page)
{
	if (machine_can_write(vp, page))
		machine_use(vp, page, 0);
	else
		machine_nested_drop(&nested[vp], gpa_of(page));
}

void machine_write_stay(vp_id_t vp, uint32_t page)
{
	machine_enter(vp, VTL0);
	machine_write(vp, page);
	machine_run_on(vp);
	machine_exit(vp);
}

void machine_emulate_begin(vp_id_t vp, uint32_t page)
{
	tlblock_take(&machine_tlblock, vp, VTL0, VTL2);
	emulates[vp] = protect_may(&machine_protect, VTL0, gpa_of(page), ACCESS_WRITE);
}

void machine_emulate_end(vp_id_t vp, uint32_t page)
{
	if (emulates[vp]) {
		machine_use(vp, page, 0);
		machine_use(vp, page, 0);
	}
	tlblock_release_own(&machine_tlblock, vp);
}

void machine_emulate_write(vp_id_t vp, uint32_t page)
{
	machine_emulate_begin(vp, page);
	machine_emulate_end(vp, page);
}

void machine_commit_prepare(
	vp_id_t me, enum vtl by, uint32_t first, uint32_t count, uint32_t access, uint32_t flags)
{
	struct protect_transaction *transaction = &transactions[me];

	protect_begin(&machine_protect, transaction, me, by, VTL0, PROTECT_TEST, flags);
	protect_add(&machine_protect, transaction, gpa_of(first),
		count ? count * MACHINE_PAGE_BYTES : PAGE_SIZE, access);
}

enum protect_status machine_commit_prepared(vp_id_t me)
{
	return protect_commit(&machine_protect, &transactions[me]);
}

enum protect_status machine_commit_ask(
	vp_id_t me, enum vtl by, uint32_t first, uint32_t count, uint32_t access, uint32_t flags)
{
	machine_commit_prepare(me, by, first, count, access, flags);
	return machine_commit_prepared(me);
}

enum protect_status machine_commit(
	vp_id_t me, enum vtl by, uint32_t first, uint32_t count, uint32_t access, uint32_t flags)
{
	enum protect_status status = machine_commit_ask(me, by, first, count, access, flags);

	if (status == PROTECT_SUSPENDED)
		machine_wait_for_holders(me, by);
	return status;
}

uint32_t machine_protect_final(uint32_t page)
{
	return npt_protect_ops.access(&machine_npt, VTL0, gpa_of(page));
}
