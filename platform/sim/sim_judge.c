/* The judge of permissions; see the header. */
#include "platform/sim/sim_judge.h"

#define BITS	      15ull
#define SETTLED_SHIFT 4
#define MIXED	      (1ull << 8)
#define COUNT_ONE     (1ull << 9)
#define COUNT_MASK    (127ull << 9)
#define VERSION_ONE   (1ull << 16)
#define LATE_SHIFT    4

static uint64_t judge_word(uint64_t old, uint64_t may, uint64_t settled)
{
	return ((old + VERSION_ONE) & ~(BITS | BITS << SETTLED_SHIFT)) | may |
		settled << SETTLED_SHIFT;
}

void sim_judge_start(struct sim_judged *page, uint32_t access)
{
	atomic_u64_store(&page->word, judge_word(0, access, access), memory_order_relaxed);
	atomic_u64_store(&page->late, 0, memory_order_relaxed);
}

void sim_judge_begin(struct sim_judged *page, uint32_t access)
{
	uint64_t old = atomic_u64_load(&page->word, memory_order_relaxed);
	uint64_t new;

	/* Sequentially consistent, here and in the looks: the judge must not be what is weak. */
	do {
		new = judge_word(old, (old & BITS) | access, old >> SETTLED_SHIFT & BITS);
		new += COUNT_ONE;
		if (old & COUNT_MASK)
			new |= MIXED;
	} while (!atomic_u64_compare_exchange(&page->word, &old, new, memory_order_seq_cst));
}

/* What may be used from now on although it has been taken away. */
static void judge_defer(struct sim_judge *judge, struct sim_judged *page, uint64_t taken)
{
	uint64_t old = atomic_u64_load(&page->late, memory_order_relaxed);
	uint64_t time = atomic_u64_fetch_add(&judge->clock, 1, memory_order_seq_cst) + 1;

	while (!atomic_u64_compare_exchange(
		&page->late, &old, time << LATE_SHIFT | (old & BITS) | taken, memory_order_seq_cst))
		;
}

bool sim_judge_end(struct sim_judge *judge, struct sim_judged *page, enum sim_change how,
	uint32_t access, uint32_t (*truth)(void *argument), void *argument, bool *flipped)
{
	uint64_t old = atomic_u64_load(&page->word, memory_order_seq_cst);
	uint64_t settled;
	uint64_t may;

	if (how == SIM_CHANGE_DEFERRED)
		judge_defer(judge, page, old & BITS);
	for (;;) {
		bool last = (old & COUNT_MASK) == COUNT_ONE;
		uint64_t now;

		settled = how == SIM_CHANGE_REFUSED ? old >> SETTLED_SHIFT & BITS : access;
		may = old & BITS;
		if (last && old & MIXED)
			settled = truth(argument);
		if (settled & ~may) {
			/*
			 * None of them asked for it, nor was it there before; or one that began since. In
			 * one order with its sim_judge_begin, like all of the judge's accesses.
			 */
			now = atomic_u64_load(&page->word, memory_order_seq_cst);
			if (now == old)
				return false;
			old = now;
			continue;
		}
		/* The only change of the page at this time, and not deferred: now it is final. */
		if (last && !(old & MIXED) && how == SIM_CHANGE_DONE)
			atomic_u64_store(&page->late, 0, memory_order_seq_cst);
		if (last)
			may = settled;
		*flipped = settled != (old >> SETTLED_SHIFT & BITS);
		if (atomic_u64_compare_exchange(&page->word, &old,
			    (judge_word(old, may, settled) - COUNT_ONE) &
				    ~((old & COUNT_MASK) == COUNT_ONE ? MIXED : 0),
			    memory_order_seq_cst))
			return true;
	}
}

uint64_t sim_judge_now(const struct sim_judge *judge)
{
	return atomic_u64_load(&judge->clock, memory_order_seq_cst);
}

void sim_judge_synced(struct sim_judge *judge, uint64_t time)
{
	uint64_t old = atomic_u64_load(&judge->synced, memory_order_relaxed);

	while (old < time &&
		!atomic_u64_compare_exchange(&judge->synced, &old, time, memory_order_seq_cst))
		;
}

struct sim_look sim_judge_look(const struct sim_judge *judge, const struct sim_judged *page)
{
	struct sim_look look;

	look.synced = atomic_u64_load(&judge->synced, memory_order_seq_cst);
	look.word = atomic_u64_load(&page->word, memory_order_seq_cst);
	look.late = atomic_u64_load(&page->late, memory_order_seq_cst);
	return look;
}

bool sim_judge_allows(const struct sim_judged *page, const struct sim_look *look, uint32_t access,
	uint64_t entered)
{
	uint64_t time = look->late >> LATE_SHIFT;

	if (look->word & access)
		return true;
	if (look->late & access && entered < time && look->synced < time)
		return true;
	return atomic_u64_load(&page->late, memory_order_seq_cst) != look->late ||
		atomic_u64_load(&page->word, memory_order_seq_cst) != look->word;
}

bool sim_judge_must(const struct sim_judged *page, const struct sim_look *look, uint32_t access)
{
	return !(look->word & COUNT_MASK) && look->word >> SETTLED_SHIFT & access &&
		atomic_u64_load(&page->word, memory_order_seq_cst) == look->word;
}
