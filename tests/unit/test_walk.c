/*
 * The page-table walker against a second opinion written differently (one plain function per
 * paging mode) over random tables, registers and accesses; and hand-made cases for what randomness
 * meets too rarely. WALK_ROUNDS=n in the environment sets how many walks are compared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/insn/walk.h"

#define ROUNDS_DEFAULT 3000000

#define PG   (1ull << 31)
#define WP   (1ull << 16)
#define PSE  (1ull << 4)
#define PAE  (1ull << 5)
#define LA57 (1ull << 12)
#define SMEP (1ull << 20)
#define SMAP (1ull << 21)
#define PKE  (1ull << 22)
#define LMA  (1ull << 10)
#define NXE  (1ull << 11)
#define AC   (1ull << 18)

#define P  1ull
#define W  2ull
#define U  4ull
#define A  0x20ull
#define D  0x40ull
#define PS 0x80ull
#define NX (1ull << 63)

static uint64_t random_state = 0x853C49E6748FEA9Bull;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545F4914F6CDD1Dull >> 7 ^ random_state;
}

static bool one_in(unsigned int n)
{
	return random_next() % n == 0;
}

/* --- guest memory ------------------------------------------------------------------------- */

#define PAGES 16
#define BYTES (PAGES * PAGE_SIZE)

struct machine {
	uint8_t memory[BYTES];
	enum walk_exchange exchange; /* how each ends */
};

static bool machine_read(void *arg, gpa_t gpa, void *data, size_t size)
{
	struct machine *m = arg;

	assert_true(size == 4 || size == 8);
	assert_int_equal(gpa.value % size, 0);
	if (gpa.value >= BYTES)
		return false;
	memcpy(data, m->memory + gpa.value, size);
	return true;
}

static enum walk_exchange machine_exchange(
	void *arg, gpa_t gpa, uint64_t expected, uint64_t desired, size_t size)
{
	struct machine *m = arg;
	uint64_t found = 0;

	assert_true(size == 4 || size == 8);
	assert_true(gpa.value < BYTES);
	memcpy(&found, m->memory + gpa.value, size);
	assert_int_equal(found, expected);
	assert_int_not_equal(desired, expected);
	if (m->exchange == WALK_EXCHANGED)
		memcpy(m->memory + gpa.value, &desired, size);
	return m->exchange;
}

static void put_64(struct machine *m, uint64_t gpa, uint64_t value)
{
	memcpy(m->memory + gpa, &value, 8);
}

static uint64_t get_64(const struct machine *m, uint64_t gpa)
{
	uint64_t value;

	memcpy(&value, m->memory + gpa, 8);
	return value;
}

static void put_32(struct machine *m, uint64_t gpa, uint32_t value)
{
	memcpy(m->memory + gpa, &value, 4);
}

static uint32_t get_32(const struct machine *m, uint64_t gpa)
{
	uint32_t value;

	memcpy(&value, m->memory + gpa, 4);
	return value;
}

/* --- the second opinion ------------------------------------------------------------------- */

struct opinion {
	struct machine *m;
	const struct walk_registers *r;
	uint32_t access;
	enum walk_status status;
	struct walk_result result;
	bool writable, user, executable;
	unsigned int key;
	unsigned int marks; /* entries to mark as accessed; the last one is the leaf */
	uint64_t mark[5];
};

static void page_fault(struct opinion *o, uint32_t code)
{
	bool fetch_bit = (o->r->efer & NXE && o->r->cr4 & PAE) || o->r->cr4 & SMEP;

	if (o->access & WALK_WRITE)
		code |= 2;
	if (o->access & WALK_USER)
		code |= 4;
	if (o->access & WALK_EXECUTE && fetch_bit)
		code |= 16;
	o->status = WALK_PAGE_FAULT;
	o->result.error_code = code;
}

static void bad_memory(struct opinion *o, uint64_t where)
{
	o->status = WALK_BAD_MEMORY;
	o->result.gpa = GPA(where);
}

/* Rights once every entry has been found good. */
static void decide(struct opinion *o, uint64_t gpa, uint64_t size)
{
	bool write = o->access & WALK_WRITE;
	bool fetch = o->access & WALK_EXECUTE;
	bool user = o->access & WALK_USER;
	bool denied = false;
	uint32_t key_bit = 0;

	if (user && !o->user)
		denied = true;
	if (write && !o->writable && (user || o->r->cr0 & WP))
		denied = true;
	if (fetch && !o->executable)
		denied = true;
	if (fetch && !user && o->user && o->r->cr4 & SMEP)
		denied = true;
	if (!fetch && !user && o->user && o->r->cr4 & SMAP &&
		(o->access & WALK_IMPLICIT || !(o->r->rflags & AC)))
		denied = true;
	if (o->r->efer & LMA && o->r->cr4 & PKE && o->user && !fetch) {
		if (o->r->pkru & 1u << (2 * o->key))
			key_bit = 32;
		if (o->r->pkru & 2u << (2 * o->key) && write && (user || o->r->cr0 & WP))
			key_bit = 32;
	}
	if (denied || key_bit) {
		page_fault(o, 1 | key_bit);
		return;
	}
	o->status = WALK_OK;
	o->result.gpa = GPA(gpa);
	o->result.page_size = size;
	o->result.permissions = (o->writable ? WALK_MAY_WRITE : 0) |
		(o->executable ? WALK_MAY_EXECUTE : 0) | (o->user ? WALK_MAY_USER : 0);
}

static void gather(struct opinion *o, uint64_t entry, uint64_t where)
{
	o->writable = o->writable && entry & W;
	o->user = o->user && entry & U;
	o->executable = o->executable && !(entry >> 63);
	o->key = entry >> 59 & 15;
	o->mark[o->marks++] = where;
}

static void opinion_32(struct opinion *o, uint32_t va)
{
	uint64_t where = (o->r->cr3 & 0xFFFFF000) + (va >> 22) * 4;
	uint32_t entry;

	if (where >= BYTES) {
		bad_memory(o, where);
		return;
	}
	entry = get_32(o->m, where);
	if (!(entry & P)) {
		page_fault(o, 0);
		return;
	}
	if (entry & PS && o->r->cr4 & PSE) {
		uint64_t high = entry >> 13 & 0xFF;
		unsigned int bits = o->r->physical_bits;

		if (entry & 1u << 21 || (bits < 40 && high >> (bits - 32) != 0)) {
			page_fault(o, 9);
			return;
		}
		gather(o, entry, where);
		decide(o, high << 32 | (entry & 0xFFC00000) | (va & 0x3FFFFF), 4 << 20);
		return;
	}
	gather(o, entry, where);
	where = (entry & 0xFFFFF000) + (va >> 12 & 0x3FF) * 4;
	if (where >= BYTES) {
		bad_memory(o, where);
		return;
	}
	entry = get_32(o->m, where);
	if (!(entry & P)) {
		page_fault(o, 0);
		return;
	}
	gather(o, entry, where);
	decide(o, (entry & 0xFFFFF000) | (va & 0xFFF), 4096);
}

/* Entries of eight bytes; true to go on. */
static bool fetch_64(struct opinion *o, uint64_t where, uint64_t *entry)
{
	if (where >= BYTES) {
		bad_memory(o, where);
		return false;
	}
	*entry = get_64(o->m, where);
	if (!(*entry & P)) {
		page_fault(o, 0);
		return false;
	}
	return true;
}

static uint64_t too_high(const struct opinion *o)
{
	uint64_t bad = 0;
	unsigned int top = o->r->efer & LMA ? 52 : 63;

	for (unsigned int bit = o->r->physical_bits; bit < top; bit++)
		bad |= 1ull << bit;
	if (!(o->r->efer & NXE))
		bad |= NX;
	return bad;
}

#define ADDRESS 0x000FFFFFFFFFF000ull

/* From a page directory down, for PAE and long mode. */
static void opinion_directory(struct opinion *o, uint64_t directory, uint64_t va)
{
	uint64_t where = directory + (va >> 21 & 511) * 8;
	uint64_t entry;

	if (!fetch_64(o, where, &entry))
		return;
	if (entry & too_high(o) || (entry & PS && entry & 0x1FE000)) {
		page_fault(o, 9);
		return;
	}
	gather(o, entry, where);
	if (entry & PS) {
		decide(o, (entry & ADDRESS & ~0x1FFFFFull) | (va & 0x1FFFFF), 2 << 20);
		return;
	}
	where = (entry & ADDRESS) + (va >> 12 & 511) * 8;
	if (!fetch_64(o, where, &entry))
		return;
	if (entry & too_high(o)) {
		page_fault(o, 9);
		return;
	}
	gather(o, entry, where);
	decide(o, (entry & ADDRESS) | (va & 0xFFF), 4096);
}

static void opinion_pae(struct opinion *o, uint32_t va)
{
	uint64_t where = (o->r->cr3 & 0xFFFFFFE0) + (va >> 30) * 8;
	uint64_t entry;

	if (!fetch_64(o, where, &entry))
		return;
	if (entry & (too_high(o) | NX | 0x1E6)) {
		page_fault(o, 9);
		return;
	}
	opinion_directory(o, entry & ADDRESS, va);
}

static void opinion_long(struct opinion *o, uint64_t va)
{
	unsigned int top = o->r->cr4 & LA57 ? 48 : 39;
	uint64_t table = o->r->cr3 & ADDRESS;
	uint64_t upper = va >> (top + 8);
	uint64_t entry;

	if (upper != 0 && upper != ~0ull >> (top + 8)) {
		o->status = WALK_NOT_CANONICAL;
		return;
	}
	for (unsigned int shift = top; shift >= 30; shift -= 9) {
		uint64_t where = table + (va >> shift & 511) * 8;
		bool huge = shift == 30 && o->r->huge_pages;

		if (!fetch_64(o, where, &entry))
			return;
		if (entry & too_high(o) || (entry & PS && (!huge || entry & 0x3FFFE000))) {
			page_fault(o, 9);
			return;
		}
		gather(o, entry, where);
		if (entry & PS) {
			decide(o, (entry & ADDRESS & ~0x3FFFFFFFull) | (va & 0x3FFFFFFF), 1 << 30);
			return;
		}
		table = entry & ADDRESS;
	}
	opinion_directory(o, table, va);
}

static void opinion_form(struct opinion *o, uint64_t va)
{
	o->writable = o->user = o->executable = true;
	if (o->access & WALK_IMPLICIT)
		o->access &= ~WALK_USER;
	if (!(o->r->cr0 & PG)) {
		o->status = WALK_OK;
		o->result = (struct walk_result){GPA((uint32_t)va), 4096,
			WALK_MAY_WRITE | WALK_MAY_EXECUTE | WALK_MAY_USER, 0, false};
	} else if (o->r->efer & LMA) {
		opinion_long(o, va);
	} else if (o->r->cr4 & PAE) {
		opinion_pae(o, (uint32_t)va);
	} else {
		opinion_32(o, (uint32_t)va);
	}
	if (o->status != WALK_OK)
		return;
	for (unsigned int i = 0; i < o->marks; i++)
		o->m->memory[o->mark[i]] |=
			A | (i == o->marks - 1 && o->access & WALK_WRITE ? D : 0);
}

/* --- random tables ------------------------------------------------------------------------ */

static uint64_t random_entry(bool rare_bits, bool long_mode)
{
	uint64_t entry = random_next() & 0xE78; /* ignored, cache, accessed and dirty bits */

	if (!one_in(24))
		entry |= P;
	if (!one_in(6))
		entry |= W;
	if (!one_in(4))
		entry |= U;
	if (one_in(6))
		entry |= PS;
	if (one_in(2) && entry & PS)
		entry |= (random_next() & 0x3FF) << 30;
	else if (one_in(2) && entry & PS)
		entry |= (random_next() & 0x3FFFF) << 21;
	else
		entry |= (random_next() % (PAGES + one_in(16))) << 12;
	if (one_in(12) && rare_bits)
		entry |= NX;
	if (long_mode)
		entry |= (random_next() & 0x7FF) << 52;
	if (rare_bits && one_in(40))
		entry |= 1ull << (12 + random_next() % 51);
	return entry;
}

static void random_tables(struct machine *m, const struct walk_registers *r)
{
	bool rare_bits = !one_in(4);

	for (unsigned int i = 0; i < BYTES; i += 8)
		put_64(m, i, random_entry(rare_bits, r->efer & LMA));
	if (r->cr4 & PAE || r->efer & LMA) {
		/* Directory pointers of PAE are all but zero: most of them should be good. */
		for (unsigned int i = 0; i < 4 && !(r->efer & LMA); i++)
			if (!one_in(8))
				put_64(m, (r->cr3 & 0xFFFFFFE0) + i * 8,
					P | (random_next() % PAGES) << 12);
		return;
	}
	for (unsigned int i = 0; i < BYTES; i += 4) {
		uint32_t entry = (uint32_t)random_entry(false, false);

		if (entry & PS)
			entry = (entry & 0xFFC00FFF) |
				(one_in(2) ? random_next() & 0x3FF000 : random_next() & 0x1E000);
		put_32(m, i, entry);
	}
}

static void random_registers(struct walk_registers *r)
{
	static const uint8_t widths[] = {32, 36, 39, 40, 48, 52};

	*r = (struct walk_registers){
		.cr0 = (one_in(40) ? 0 : PG) | (random_next() & WP),
		.cr3 = (random_next() % PAGES) << 12 | (random_next() & 0x18),
		.cr4 = random_next() & (PSE | PAE | LA57 | SMEP | SMAP | PKE),
		.efer = random_next() & NXE,
		.rflags = random_next() & AC,
		.pkru = (uint32_t)(random_next() & random_next()),
		.physical_bits = widths[random_next() % sizeof(widths)],
		.huge_pages = !one_in(3),
	};
	if (one_in(2)) {
		r->efer |= LMA;
		r->cr4 |= PAE;
	} else if (r->cr4 & PAE) {
		r->cr3 |= random_next() & 0xFE0;
	}
	if (!one_in(3))
		r->efer |= NXE;
}

static void same_opinion(const struct walk_registers *r, struct machine *m, struct machine *other,
	uint64_t va, uint32_t access, unsigned long *counts)
{
	const struct walk_memory memory = {m, machine_read, machine_exchange};
	const struct walk_memory silent = {m, machine_read, NULL};
	struct opinion o = {.m = other, .r = r, .access = access};
	struct walk_result result, quiet;
	enum walk_status status;

	status = walk_guest_tables(r, &silent, GVA(va), access, &quiet);
	assert_memory_equal(m->memory, other->memory, 64);
	assert_int_equal(walk_guest_tables(r, &memory, GVA(va), access, &result), status);
	assert_memory_equal(&result, &quiet, sizeof(result));
	opinion_form(&o, va);
	if (status != o.status || result.gpa.value != o.result.gpa.value ||
		result.page_size != o.result.page_size ||
		result.permissions != o.result.permissions ||
		result.error_code != o.result.error_code)
		fail_msg("cr0 %llx cr3 %llx cr4 %llx efer %llx va %llx access %x: "
			 "status %d gpa %llx size %llx error %x, expected %d %llx %llx %x",
			(unsigned long long)r->cr0, (unsigned long long)r->cr3,
			(unsigned long long)r->cr4, (unsigned long long)r->efer,
			(unsigned long long)va, access, status,
			(unsigned long long)result.gpa.value, (unsigned long long)result.page_size,
			result.error_code, o.status, (unsigned long long)o.result.gpa.value,
			(unsigned long long)o.result.page_size, o.result.error_code);
	counts[status]++;
}

static void random_walks_agree(void **state)
{
	static struct machine m, other;
	const char *text = getenv("WALK_ROUNDS");
	unsigned long rounds = text != NULL ? strtoul(text, NULL, 0) : ROUNDS_DEFAULT;
	unsigned long counts[WALK_CHANGED + 1] = {0};
	struct walk_registers r;

	(void)state;
	for (unsigned long i = 0; i < rounds; i++) {
		uint64_t va = random_next();

		if (i % 1000 == 0) {
			/* All that was marked in the round before. */
			assert_memory_equal(m.memory, other.memory, BYTES);
			random_registers(&r);
			random_tables(&m, &r);
			other = m;
		}
		if (!one_in(16))
			va = (uint64_t)((int64_t)(va << 16) >> 16);
		same_opinion(&r, &m, &other, va, random_next() & 15, counts);
	}
	assert_memory_equal(m.memory, other.memory, BYTES);
	for (unsigned int status = WALK_OK; status <= WALK_BAD_MEMORY; status++)
		assert_true(counts[status] > rounds / 1000);
	assert_int_equal(counts[WALK_CHANGED], 0);
}

/* --- hand-made cases ---------------------------------------------------------------------- */

static struct machine machine;
static const struct walk_memory machine_memory = {&machine, machine_read, machine_exchange};
static struct walk_result result;

/* Four levels at 0x1000 to 0x4000 mapping address 0 to 0x5000 with these rights. */
static struct walk_registers four_levels(uint64_t rights)
{
	memset(&machine, 0, sizeof(machine));
	put_64(&machine, 0x1000, 0x2000 | P | W | U);
	put_64(&machine, 0x2000, 0x3000 | P | W | U);
	put_64(&machine, 0x3000, 0x4000 | P | W | U);
	put_64(&machine, 0x4000, 0x5000 | rights);
	return (struct walk_registers){.cr0 = PG | WP,
		.cr3 = 0x1000,
		.cr4 = PAE,
		.efer = LMA | NXE,
		.physical_bits = 40,
		.huge_pages = true};
}

static enum walk_status walk(const struct walk_registers *r, uint64_t va, uint32_t access)
{
	return walk_guest_tables(r, &machine_memory, GVA(va), access, &result);
}

static void marks_what_the_access_needs(void **state)
{
	struct walk_registers r = four_levels(P | W);

	(void)state;
	assert_int_equal(walk(&r, 0x123, 0), WALK_OK);
	assert_int_equal(result.gpa.value, 0x5123);
	assert_int_equal(result.page_size, 4096);
	assert_int_equal(result.permissions, WALK_MAY_WRITE | WALK_MAY_EXECUTE);
	for (unsigned int table = 0x1000; table < 0x4000; table += 0x1000)
		assert_int_equal(get_64(&machine, table) & (A | D), A);
	assert_int_equal(get_64(&machine, 0x4000), 0x5000 | P | W | A);
	assert_int_equal(walk(&r, 0x123, WALK_WRITE), WALK_OK);
	assert_int_equal(get_64(&machine, 0x4000), 0x5000 | P | W | A | D);
	assert_int_equal(get_64(&machine, 0x3000) & (A | D), A);
}

static void marks_nothing_on_a_fault(void **state)
{
	struct walk_registers r = four_levels(P);
	struct machine before = machine;

	(void)state;
	assert_int_equal(walk(&r, 0, WALK_WRITE), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT | WALK_ERROR_WRITE);
	assert_int_equal(walk(&r, 0x1000, 0), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, 0);
	assert_memory_equal(&machine, &before, sizeof(machine));
}

static void reports_an_entry_that_changed(void **state)
{
	struct walk_registers r = four_levels(P | W | U);

	(void)state;
	machine.exchange = WALK_DIFFERS;
	assert_int_equal(walk(&r, 0, 0), WALK_CHANGED);
	machine.exchange = WALK_EXCHANGED;
	assert_int_equal(walk(&r, 0, WALK_WRITE), WALK_OK);
	machine.exchange = WALK_DIFFERS; /* nothing is left to mark */
	assert_int_equal(walk(&r, 0, WALK_WRITE), WALK_OK);
}

static void reports_an_entry_that_may_not_be_marked(void **state)
{
	struct walk_registers r = four_levels(P | W | U);

	(void)state;
	machine.exchange = WALK_REFUSED;
	assert_int_equal(walk(&r, 0, 0), WALK_BAD_MEMORY);
	assert_int_equal(result.gpa.value, 0x1000);
	assert_true(result.marking);
	machine.exchange = WALK_EXCHANGED;
	assert_int_equal(walk(&r, 0, 0), WALK_OK);
	machine.exchange = WALK_REFUSED; /* the dirty bit is left */
	assert_int_equal(walk(&r, 0, 0), WALK_OK);
	assert_int_equal(walk(&r, 0, WALK_WRITE), WALK_BAD_MEMORY);
	assert_int_equal(result.gpa.value, 0x4000);
	/* A table that is not there is something else. */
	put_64(&machine, 0x3000, 0x7000000 | P);
	assert_int_equal(walk(&r, 0x3000, 0), WALK_BAD_MEMORY);
	assert_false(result.marking);
}

static void write_protect_is_the_supervisors_choice(void **state)
{
	struct walk_registers r = four_levels(P | U);

	(void)state;
	r.cr0 = PG;
	assert_int_equal(walk(&r, 0, WALK_WRITE), WALK_OK);
	assert_int_equal(walk(&r, 0, WALK_WRITE | WALK_USER), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, 7);
}

static void supervisor_stays_out_of_user_pages(void **state)
{
	struct walk_registers r = four_levels(P | W | U);

	(void)state;
	r.cr4 |= SMEP | SMAP;
	assert_int_equal(walk(&r, 0, WALK_EXECUTE), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT | WALK_ERROR_FETCH);
	assert_int_equal(walk(&r, 0, 0), WALK_PAGE_FAULT);
	assert_int_equal(walk(&r, 0, WALK_USER), WALK_OK);
	r.rflags = AC;
	assert_int_equal(walk(&r, 0, 0), WALK_OK);
	assert_int_equal(walk(&r, 0, WALK_IMPLICIT), WALK_PAGE_FAULT);
	assert_int_equal(walk(&r, 0, WALK_IMPLICIT | WALK_USER), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT);
}

static void protection_keys(void **state)
{
	struct walk_registers r = four_levels(P | W | U | 5ull << 59);

	(void)state;
	r.pkru = 2u << 10; /* key 5: no writes */
	assert_int_equal(walk(&r, 0, WALK_USER | WALK_WRITE), WALK_OK); /* CR4.PKE is clear */
	r.cr4 |= PKE;
	assert_int_equal(walk(&r, 0, WALK_USER), WALK_OK);
	assert_int_equal(walk(&r, 0, WALK_USER | WALK_WRITE), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code,
		WALK_ERROR_PRESENT | WALK_ERROR_WRITE | WALK_ERROR_USER | WALK_ERROR_KEY);
	r.pkru = 1u << 10;
	assert_int_equal(walk(&r, 0, WALK_USER), WALK_PAGE_FAULT);
	assert_int_equal(walk(&r, 0, WALK_USER | WALK_EXECUTE), WALK_OK);
}

static void reserved_bits_fault(void **state)
{
	struct walk_registers r = four_levels(P | W | U | 1ull << 40);

	(void)state;
	assert_int_equal(walk(&r, 0, 0), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT | WALK_ERROR_RESERVED);
	r.physical_bits = 41;
	assert_int_equal(walk(&r, 0, 0), WALK_OK);
	assert_int_equal(result.gpa.value, 1ull << 40 | 0x5000);
	put_64(&machine, 0x4000, 0x5000 | P | NX);
	assert_int_equal(walk(&r, 0, WALK_EXECUTE), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT | WALK_ERROR_FETCH);
	r.efer = LMA;
	assert_int_equal(walk(&r, 0, WALK_EXECUTE), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT | WALK_ERROR_RESERVED);
	put_64(&machine, 0x1000, 0x2000 | P | PS);
	assert_int_equal(walk(&r, 0, 0), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT | WALK_ERROR_RESERVED);
}

static void canonical_addresses_only(void **state)
{
	struct walk_registers r = four_levels(P | W | U);

	(void)state;
	assert_int_equal(walk(&r, 0x800000000000, 0), WALK_NOT_CANONICAL);
	assert_int_equal(walk(&r, 0xFFFF7FFFFFFFFFFF, 0), WALK_NOT_CANONICAL);
	assert_int_equal(walk(&r, 0x7FFFFFFFFFFF, 0), WALK_PAGE_FAULT);
	assert_int_equal(walk(&r, 0xFFFF800000000000, 0), WALK_PAGE_FAULT);
	r.cr4 |= LA57;
	assert_int_equal(walk(&r, 0x800000000000, 0), WALK_PAGE_FAULT);
	assert_int_equal(walk(&r, 0x0100000000000000, 0), WALK_NOT_CANONICAL);
	assert_int_equal(walk(&r, 0xFF00000000000000, 0), WALK_PAGE_FAULT);
}

static void tables_in_bad_memory(void **state)
{
	struct walk_registers r = four_levels(P | W | U);

	(void)state;
	put_64(&machine, 0x3000, 0x7000000 | P);
	assert_int_equal(walk(&r, 0x3000, 0), WALK_BAD_MEMORY);
	assert_int_equal(result.gpa.value, 0x7000018);
}

static void large_pages(void **state)
{
	struct walk_registers r = four_levels(P | W | U);

	(void)state;
	put_64(&machine, 0x3000, 0x1234600000 | P | W | PS | 1 << 12); /* bit 12 is PAT */
	assert_int_equal(walk(&r, 0x12345, WALK_WRITE), WALK_OK);
	assert_int_equal(result.gpa.value, 0x1234612345);
	assert_int_equal(result.page_size, SIZE_2M);
	assert_int_equal(get_64(&machine, 0x3000) & (A | D), A | D);
	put_64(&machine, 0x2000, 0x40000000 | P | PS);
	assert_int_equal(walk(&r, 0x1234567, 0), WALK_OK);
	assert_int_equal(result.gpa.value, 0x41234567);
	assert_int_equal(result.page_size, SIZE_1G);
	r.huge_pages = false;
	assert_int_equal(walk(&r, 0x1234567, 0), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT | WALK_ERROR_RESERVED);
}

static void four_megabyte_pages(void **state)
{
	struct walk_registers r = {.cr0 = PG, .cr3 = 0x1018, .cr4 = PSE, .physical_bits = 40};

	(void)state;
	memset(&machine, 0, sizeof(machine));
	put_32(&machine, 0x1000 + 4, (uint32_t)(0x12800000 | 0xAB << 13 | P | W | PS));
	assert_int_equal(walk(&r, 0xFFFFFFFF00412345, WALK_WRITE), WALK_OK);
	assert_int_equal(result.gpa.value, 0xAB12812345);
	assert_int_equal(result.page_size, 4 << 20);
	assert_int_equal(result.permissions, WALK_MAY_WRITE | WALK_MAY_EXECUTE);
	r.physical_bits = 36;
	assert_int_equal(walk(&r, 0x412345, 0), WALK_PAGE_FAULT);
	assert_int_equal(result.error_code, WALK_ERROR_PRESENT | WALK_ERROR_RESERVED);
	r.cr4 = 0; /* the bit means nothing, and this is a table out of reach */
	assert_int_equal(walk(&r, 0x412345, 0), WALK_BAD_MEMORY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks_what_the_access_needs),
		cmocka_unit_test(marks_nothing_on_a_fault),
		cmocka_unit_test(reports_an_entry_that_changed),
		cmocka_unit_test(reports_an_entry_that_may_not_be_marked),
		cmocka_unit_test(write_protect_is_the_supervisors_choice),
		cmocka_unit_test(supervisor_stays_out_of_user_pages),
		cmocka_unit_test(protection_keys),
		cmocka_unit_test(reserved_bits_fault),
		cmocka_unit_test(canonical_addresses_only),
		cmocka_unit_test(tables_in_bad_memory),
		cmocka_unit_test(large_pages),
		cmocka_unit_test(four_megabyte_pages),
		cmocka_unit_test(random_walks_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
