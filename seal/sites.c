/* The records of a kernel's patch sites, found by their content. See sites.h. */
#include "seal/code.h"
#include "seal/sites.h"

/* Tables are looked for in steps of this many bytes: every one that counts is longer. */
#define PROBE_STEP    512u
#define PROBE_ENTRIES 8u
#define ENTRY_ALIGN   8u

#define TRACER_REACH 1024u /* behind what function entries call */
#define TRACER_CALL  32u /* between the tracer's last argument and its call */

static const uint8_t tracer_argument[4] = {0x48, 0x8d, 0x0c, 0x24}; /* LEA RCX, [RSP] */
/* As far as is read: a call as far behind an argument as it may be, as far away as that may be. */
#define TRACER_SPAN (TRACER_REACH - 1 + sizeof(tracer_argument) + TRACER_CALL - 1 + 5)

uint32_t seal_kind_bytes(enum seal_kind kind)
{
	static const uint8_t bytes[SEAL_KINDS] = {
		[SEAL_JUMP2] = 2,
		[SEAL_JUMP5] = 5,
		[SEAL_ENTRY] = 5,
		[SEAL_CALL] = 5,
		[SEAL_TAIL] = 5,
		[SEAL_JCC] = 6,
		[SEAL_TRACER] = 5,
	};

	return bytes[kind];
}

/* --- one record of each table ----------------------------------------------------------------- */

static int64_t relative(const struct seal_image *image, uint32_t at)
{
	return (int64_t)at + (int32_t)seal_image_u32(image, at);
}

/* Records' last two bits say something else. */
static bool is_key(const struct seal_image *image, int64_t key)
{
	return key >= 0 && (key & ~3ll) < image->size;
}

static bool read_jump(const struct seal_image *image, uint32_t at, struct seal_site *site)
{
	int64_t code = relative(image, at);
	int64_t target = relative(image, at + 4);
	int64_t key =
		(int64_t)((uint64_t)at + 8 + seal_image_u64(image, at + 8)); /* wraps as it likes */
	uint8_t bytes[5];

	if (!seal_image_is_text(image, code, sizeof(bytes)) ||
		!seal_image_is_text(image, target, 1) || !is_key(image, key)) {
		return false;
	}
	seal_image_copy(image, (uint32_t)code, bytes, sizeof(bytes));
	if (code_is(bytes, code_nop5, 5) ||
		(bytes[0] == CODE_JMP && code_target(bytes, code, 5) == target)) {
		site->kind = SEAL_JUMP5;
	} else if (code_is(bytes, code_nop2, 2) ||
		(bytes[0] == CODE_JMP8 && code + 2 + (int8_t)bytes[1] == target)) {
		site->kind = SEAL_JUMP2;
	} else {
		return false;
	}
	site->code = (uint32_t)code;
	site->target = (uint32_t)target & (SEAL_IMAGE_BYTES_MAX - 1);
	return true;
}

static bool read_entry(const struct seal_image *image, uint32_t at, struct seal_site *site)
{
	uint64_t code = seal_image_u64(image, at) - image->base;
	uint8_t bytes[5];

	if (code >= image->size || !seal_image_is_text(image, (int64_t)code, sizeof(bytes))) {
		return false;
	}
	seal_image_copy(image, (uint32_t)code, bytes, sizeof(bytes));
	*site = (struct seal_site){.code = (uint32_t)code, .kind = SEAL_ENTRY};
	return code_is(bytes, code_nop5, 5) ||
		(bytes[0] == CODE_CALL &&
			seal_image_is_text(image, code_target(bytes, (int64_t)code, 5), 1));
}

static bool leads_to_trampoline(const struct seal_image *image, int64_t target)
{
	uint8_t bytes[8];

	if (!seal_image_is_text(image, target, sizeof(bytes))) {
		return false;
	}
	seal_image_copy(image, (uint32_t)target, bytes, sizeof(bytes));
	return code_is(bytes + 5, code_trampoline_mark, sizeof(code_trampoline_mark));
}

static bool read_static_call(const struct seal_image *image, uint32_t at, struct seal_site *site)
{
	int64_t code = relative(image, at);
	uint8_t bytes[6];
	enum seal_kind kind;

	if (!seal_image_is_text(image, code, sizeof(bytes)) ||
		!is_key(image, relative(image, at + 4))) {
		return false;
	}
	seal_image_copy(image, (uint32_t)code, bytes, sizeof(bytes));
	if (bytes[0] == CODE_CALL) {
		kind = SEAL_CALL;
	} else if (bytes[0] == CODE_JMP) {
		kind = SEAL_TAIL;
	} else if (code_is_jcc(bytes)) {
		kind = SEAL_JCC;
	} else {
		return false;
	}

	int64_t target = code_target(bytes, code, seal_kind_bytes(kind));

	if (!leads_to_trampoline(image, target)) {
		return false;
	}
	*site = (struct seal_site){.code = (uint32_t)code, .kind = kind};
	site->target = (uint32_t)target & (SEAL_IMAGE_BYTES_MAX - 1);
	return true;
}

/*
 * Static calls' trampolines, one after the other: all that there are is known now, because a mark
 * may be written later (behind an INT3, for one).
 */
static void find_trampolines(struct seal_sites *sites, const struct seal_image *image, uint32_t one)
{
	uint32_t from = one, to = one + SEAL_TRAMPOLINE_BYTES;

	while (leads_to_trampoline(image, (int64_t)from - SEAL_TRAMPOLINE_BYTES)) {
		from -= SEAL_TRAMPOLINE_BYTES;
	}
	while (leads_to_trampoline(image, to)) {
		to += SEAL_TRAMPOLINE_BYTES;
	}
	sites->trampolines = from;
	sites->trampolines_end = to;
}

/* --- tables ----------------------------------------------------------------------------------- */

struct table_form {
	uint32_t bytes; /* of a record */
	bool ascending;
	bool (*read)(const struct seal_image *image, uint32_t at, struct seal_site *site);
};

static const struct table_form jump_table = {16, false, read_jump};
static const struct table_form entry_table = {8, true, read_entry};
static const struct table_form static_call_table = {8, false, read_static_call};

struct table {
	uint32_t at;
	uint32_t count;
};

/* How many records follow one another from `at` on, `most` at most. */
static uint32_t count_records(
	const struct seal_image *image, const struct table_form *form, uint32_t at, uint32_t most)
{
	struct seal_site site, previous = {.code = 0};
	uint32_t count = 0;

	while (count < most && at <= image->size - form->bytes && form->read(image, at, &site) &&
		(!form->ascending || count == 0 || site.code > previous.code)) {
		previous = site;
		at += form->bytes;
		count++;
	}
	return count;
}

/*
 * The table that reaches over `at`, where a record begins, back to its first one. That lies behind
 * the place that was probed before this one: there, it would have been found.
 */
static struct table whole_table(
	const struct seal_image *image, const struct table_form *form, uint32_t at)
{
	struct seal_site site, next;
	struct table table = {.at = at};
	uint32_t floor = at > PROBE_STEP ? at - PROBE_STEP : 0;

	form->read(image, at, &next);
	while (table.at >= floor + form->bytes &&
		form->read(image, table.at - form->bytes, &site) &&
		(!form->ascending || site.code < next.code)) {
		next = site;
		table.at -= form->bytes;
	}
	table.count = count_records(image, form, table.at, image->size / form->bytes);
	return table;
}

/* The longest table of the form; count 0: there is none. */
static struct table find_table(const struct seal_image *image, const struct table_form *form)
{
	struct table best = {.count = 0};
	uint32_t at = 0;

	while (at <= image->size - PROBE_STEP) {
		uint32_t next = at + PROBE_STEP;

		for (uint32_t phase = 0; phase < form->bytes; phase += ENTRY_ALIGN) {
			if (count_records(image, form, at + phase, PROBE_ENTRIES) < PROBE_ENTRIES) {
				continue;
			}

			struct table table = whole_table(image, form, at + phase);
			uint32_t end = table.at + table.count * form->bytes;

			if (table.count > best.count) {
				best = table;
			}
			/* Behind it; the guest may have changed it meanwhile: never back. */
			if (end > next) {
				next = ALIGN_UP(end, PROBE_STEP);
			}
			break;
		}
		at = next;
	}
	return best;
}

/* Appends a table's records; false: no room. Read once more: only what is a record now counts. */
static bool take_table(struct seal_sites *sites, const struct seal_image *image,
	const struct table_form *form, struct table table)
{
	for (uint32_t i = 0; i < table.count; i++) {
		struct seal_site site;

		if (!form->read(image, table.at + i * form->bytes, &site)) {
			continue;
		}
		if (sites->count == sites->room) {
			return false;
		}
		sites->site[sites->count++] = site;
	}
	return true;
}

/* --- order ------------------------------------------------------------------------------------ */

static void sift_down(struct seal_site *site, uint32_t root, uint32_t count)
{
	for (;;) {
		uint32_t child = 2 * root + 1;

		if (child >= count) {
			return;
		}
		if (child + 1 < count && site[child].code < site[child + 1].code) {
			child++;
		}
		if (site[root].code >= site[child].code) {
			return;
		}

		struct seal_site swap = site[root];

		site[root] = site[child];
		site[child] = swap;
		root = child;
	}
}

static bool is_sorted(const struct seal_site *site, uint32_t count)
{
	for (uint32_t i = 1; i < count; i++) {
		if (site[i].code < site[i - 1].code) {
			return false;
		}
	}
	return true;
}

/* By address, in place: a heap. */
static void sort_sites(struct seal_site *site, uint32_t count)
{
	if (is_sorted(site, count)) {
		return;
	}
	for (uint32_t i = count / 2; i > 0; i--) {
		sift_down(site, i - 1, count);
	}
	for (uint32_t last = count; last > 1; last--) {
		struct seal_site swap = site[0];

		site[0] = site[last - 1];
		site[last - 1] = swap;
		sift_down(site, 0, last - 1);
	}
}

static const struct seal_site *search(const struct seal_site *site, uint32_t count, uint32_t offset)
{
	uint32_t low = 0, high = count;

	/* The first one behind `offset` is at `high`. */
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (site[middle].code <= offset) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	if (low == 0) {
		return NULL;
	}
	site += low - 1;
	return offset - site->code < seal_kind_bytes((enum seal_kind)site->kind) ? site : NULL;
}

const struct seal_site *seal_sites_at(const struct seal_sites *sites, uint32_t offset)
{
	const struct seal_site *site =
		search(sites->site + sites->entries, sites->count - sites->entries, offset);

	return site ? site : search(sites->site, sites->entries, offset);
}

/* --- the function tracer ---------------------------------------------------------------------- */

/* The CALL within reach of `at`, to something near; 0: none. */
static uint32_t find_near_call(const struct seal_image *image, uint32_t at)
{
	for (uint32_t i = at; i < at + TRACER_CALL; i++) {
		uint8_t bytes[5];

		seal_image_copy(image, i, bytes, sizeof(bytes));

		int64_t distance = code_target(bytes, i, 5) - i;

		if (bytes[0] == CODE_CALL && distance > -(int64_t)TRACER_REACH &&
			distance < (int64_t)TRACER_REACH) {
			return i;
		}
	}
	return 0;
}

/*
 * What function entries call (before the kernel has made NOPs of them) is followed by the tracer's
 * entries, each of which hands over the registers and calls whoever traces.
 */
static bool find_tracers(struct seal_sites *sites, const struct seal_image *image)
{
	uint8_t bytes[5];
	int64_t called = 0;

	for (uint32_t i = 0; i < sites->entries && !called; i++) {
		seal_image_copy(image, sites->site[i].code, bytes, sizeof(bytes));
		if (bytes[0] == CODE_CALL) {
			called = code_target(bytes, sites->site[i].code, 5);
		}
	}
	if (!called || !seal_image_is_text(image, called, TRACER_SPAN)) {
		return true;
	}

	uint32_t from = (uint32_t)called;

	for (uint32_t at = from; at < (uint32_t)called + TRACER_REACH; at++) {
		uint32_t call;

		seal_image_copy(image, at, bytes, sizeof(tracer_argument));
		if (!code_is(bytes, tracer_argument, sizeof(tracer_argument))) {
			continue;
		}
		call = find_near_call(image, at + (uint32_t)sizeof(tracer_argument));
		if (!call || sites->tracers == SEAL_TRACERS_MAX) {
			continue;
		}
		if (sites->count == sites->room) {
			return false;
		}
		sites->tracer[sites->tracers++] = (struct seal_tracer){from, call};
		sites->site[sites->count++] = (struct seal_site){.code = call, .kind = SEAL_TRACER};
		from = call;
	}
	return true;
}

enum seal_find seal_sites_find(struct seal_sites *sites, const struct seal_image *image)
{
	if (image->size < PROBE_STEP || image->size > SEAL_IMAGE_BYTES_MAX) {
		return SEAL_NO_JUMPS;
	}

	struct table jumps = find_table(image, &jump_table);

	if (jumps.count == 0) {
		return SEAL_NO_JUMPS;
	}
	if (!take_table(sites, image, &entry_table, find_table(image, &entry_table))) {
		return SEAL_TOO_MANY;
	}
	/*
	 * Ascending when they were counted; the guest may have changed them before they were
	 * taken.
	 */
	sort_sites(sites->site, sites->count);
	sites->entries = sites->count;
	if (!take_table(sites, image, &jump_table, jumps)) {
		return SEAL_TOO_MANY;
	}

	uint32_t calls = sites->count;

	if (!take_table(sites, image, &static_call_table, find_table(image, &static_call_table))) {
		return SEAL_TOO_MANY;
	}
	if (sites->count > calls) {
		find_trampolines(sites, image, sites->site[calls].target);
	}
	if (!find_tracers(sites, image)) {
		return SEAL_TOO_MANY;
	}
	sort_sites(sites->site + sites->entries, sites->count - sites->entries);
	return SEAL_FOUND;
}
