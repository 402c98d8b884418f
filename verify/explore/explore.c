/*
 * The scheduler and the search. An execution is a list of choices: which thread makes its next
 * access, and how that turns out. The search goes through all lists depth first, running the
 * program anew for each, and turns back where it has been before: two points are the same if every
 * thread has had the same answers so far and the memory looks the same to those who still run.
 * (States are told apart by 64-bit hashes.)
 *
 * Words that only one thread uses, and loads of words that only the loading thread writes, commute
 * with everything others do and are no scheduling points. Who uses what is found out on the way;
 * when that changes, the search starts over.
 */
#include "explore.h"
#include "parapet/types.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STACK_BYTES    (64 * 1024)
#define STEPS_MAX      2000
#define WORDS_MAX      512
#define NAME_MAX_BYTES 40
#define WATCHED_MAX    16
#define LOCKS_MAX      4

enum thread_status {
	READY,
	ENDED,
};

struct thread {
	void *stack_pointer;
	enum thread_status status;
	uint64_t history; /* hash of every answer it has had */
	struct memory_operation operation;
	const void *address;
	bool forever; /* it may wait for ever */
	/* Its last load was of a word that nobody else writes: spinning on it is vain. */
	bool alone;
	void (*step)(void *argument);
	void *argument;
	const char *step_name;
	uint32_t choices;
	uint64_t answer;
};

/* What is known about a word, through all executions. */
struct word {
	const void *address;
	uint32_t bytes;
	uint32_t users; /* a bit for each thread */
	uint32_t writers;
	uint8_t location;
	uint32_t location_execution;
	char name[NAME_MAX_BYTES];
};

uint64_t explore_ghost[EXPLORE_GHOSTS];

static const struct explore_scenario *scenario;
static struct thread threads[MEMORY_THREADS];
static _Alignas(16) unsigned char stacks[MEMORY_THREADS][STACK_BYTES];
static void *scheduler_stack;
static int current = -1; /* the thread that runs; -1: the scheduler or setup */
static bool in_step; /* it runs a step: what it does takes no further choice */
static const char *failure;
static bool tracing;

static struct word words[WORDS_MAX];
static uint16_t word_index[WORDS_MAX * 4]; /* by address: number of the word plus one */
static uint32_t word_count;
static uint32_t execution;
static bool start_over;

/* Plain memory under locks. */
static struct {
	const void *memory;
	size_t bytes;
} watched[WATCHED_MAX];
static uint32_t watched_count;
static struct {
	const char *memory;
	size_t bytes;
} watched_locks[LOCKS_MAX];
static uint32_t watched_locks_count;

/* What nobody may find. */
static struct {
	uint64_t value;
	const char *why; /* NULL: there is no such value */
} poison;

static uint32_t choice[STEPS_MAX];
static uint32_t choice_limit[STEPS_MAX];
static uint32_t depth;

static uint64_t *visited;
static uint64_t visited_mask;
static uint64_t visited_count;

/* --- threads ------------------------------------------------------------------------------------
 */

void explore_switch(void **from, void *to);

/* Saves what the calling convention says a callee must keep, changes stacks, and returns there. */
__asm__(".text\n"
	".globl explore_switch\n"
	".type explore_switch, @function\n"
	"explore_switch:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n"
	".size explore_switch, . - explore_switch\n");

static void yield_to_scheduler(void)
{
	int self = current;

	explore_switch(&threads[self].stack_pointer, scheduler_stack);
}

static void thread_main(void)
{
	scenario->thread((uint32_t)current);
	threads[current].status = ENDED;
	yield_to_scheduler();
	abort();
}

static void resume(uint32_t thread)
{
	current = (int)thread;
	explore_switch(&scheduler_stack, threads[thread].stack_pointer);
	current = -1;
}

static void start_thread(uint32_t thread)
{
	void **stack = (void **)(stacks[thread] + STACK_BYTES);

	memset(&threads[thread], 0, sizeof(threads[thread]));
	*--stack = NULL; /* keeps the stack aligned as after a call */
	*--stack = (void *)thread_main;
	for (int i = 0; i < 6; i++)
		*--stack = NULL;
	threads[thread].stack_pointer = stack;
}

/* --- words --------------------------------------------------------------------------------------
 */

static struct word *word_at(const void *address)
{
	uint32_t slot =
		(uint32_t)(memory_mix(0, (uintptr_t)address) >> 40) % ARRAY_SIZE(word_index);

	for (; word_index[slot] != 0; slot = (slot + 1) % ARRAY_SIZE(word_index)) {
		if (words[word_index[slot] - 1].address == address)
			return &words[word_index[slot] - 1];
	}
	if (word_count == WORDS_MAX) {
		fprintf(stderr, "explore: more than %d words\n", WORDS_MAX);
		exit(2);
	}
	words[word_count] = (struct word){.address = address, .location = MEMORY_NO_LOCATION};
	snprintf(words[word_count].name, NAME_MAX_BYTES, "word %u", word_count);
	word_index[slot] = (uint16_t)++word_count;
	return &words[word_count - 1];
}

bool explore_in_setup(void)
{
	return current < 0;
}

bool explore_names_wanted(void)
{
	return tracing;
}

void explore_name(const void *address, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(word_at(address)->name, NAME_MAX_BYTES, format, arguments);
	va_end(arguments);
}

static uint64_t raw_value(const void *address, uint32_t bytes)
{
	return bytes == 4 ? *(const uint32_t *)address : *(const uint64_t *)address;
}

static bool word_is_shared(const struct word *word)
{
	return (word->users & (word->users - 1)) != 0;
}

/* Words that several threads use are locations of the model from the start, always in this order.
 */
static void make_locations(void)
{
	for (uint32_t i = 0; i < word_count; i++) {
		if (word_is_shared(&words[i])) {
			words[i].location = memory_add(
				words[i].address, raw_value(words[i].address, words[i].bytes));
			words[i].location_execution = execution;
		}
	}
}

static bool kind_writes(enum explore_kind kind)
{
	return kind >= EXPLORE_STORE && kind <= EXPLORE_COMPARE_EXCHANGE;
}

/* Notes who uses the word; if that is news, what was explored on the old belief does not count. */
static void note_use(struct word *word, enum explore_kind kind)
{
	uint32_t bit = 1u << current;

	if (!(word->users & bit)) {
		if (word->users != 0)
			start_over = true;
		word->users |= bit;
	}
	if (kind_writes(kind) && !(word->writers & bit)) {
		if (word_is_shared(word))
			start_over = true;
		word->writers |= bit;
	}
}

/* --- accesses, as the core makes them
 * -------------------------------------------------------------- */

static uint64_t apply(enum explore_kind kind, uint64_t found, uint64_t value, uint64_t expected)
{
	switch (kind) {
	case EXPLORE_STORE:
	case EXPLORE_EXCHANGE:
		return value;
	case EXPLORE_ADD:
		return found + value;
	case EXPLORE_OR:
		return found | value;
	case EXPLORE_AND:
		return found & value;
	case EXPLORE_COMPARE_EXCHANGE:
		return found == expected ? value : found;
	default:
		return found;
	}
}

/* Setup and the end: one thread, plain memory or the model's last value. */
static uint64_t access_alone(enum explore_kind kind, const void *address, uint32_t bytes,
	uint64_t value, uint64_t expected)
{
	uint64_t found;

	if (kind == EXPLORE_FENCE || kind == EXPLORE_RELAX)
		return 0;
	found = raw_value(address, bytes);
	if (kind == EXPLORE_LOAD) {
		struct word *word = word_at(address);

		if (word->location_execution == execution && execution != 0 &&
			word->location != MEMORY_NO_LOCATION)
			return memory_latest(word->location);
		return found;
	}
	value = apply(kind, found, value, expected);
	if (bytes == 4)
		*(uint32_t *)(uintptr_t)address = (uint32_t)value;
	else
		*(uint64_t *)(uintptr_t)address = value;
	return found;
}

/* A word that nobody else uses: plain memory, at once. */
static uint64_t access_private(enum explore_kind kind, const void *address, uint32_t bytes,
	uint64_t value, uint64_t expected)
{
	uint64_t found = raw_value(address, bytes);

	value = apply(kind, found, value, expected);
	if (kind_writes(kind)) {
		if (bytes == 4)
			*(uint32_t *)(uintptr_t)address = (uint32_t)value;
		else
			*(uint64_t *)(uintptr_t)address = value;
	}
	return found;
}

void explore_watch(const void *memory, size_t bytes)
{
	if (watched_count == WATCHED_MAX || bytes % sizeof(uint64_t) != 0) {
		fprintf(stderr, "explore: too much to watch\n");
		exit(2);
	}
	watched[watched_count].memory = memory;
	watched[watched_count++].bytes = bytes;
}

void explore_watch_locks(const void *locks, size_t bytes)
{
	if (watched_locks_count == LOCKS_MAX) {
		fprintf(stderr, "explore: too many locks to watch\n");
		exit(2);
	}
	watched_locks[watched_locks_count].memory = locks;
	watched_locks[watched_locks_count++].bytes = bytes;
}

static uint64_t hash_watched(uint64_t hash)
{
	for (uint32_t i = 0; i < watched_count; i++) {
		for (size_t at = 0; at < watched[i].bytes; at += sizeof(uint64_t)) {
			uint64_t word;

			memcpy(&word, (const char *)watched[i].memory + at, sizeof(word));
			hash = memory_mix(hash, word);
		}
	}
	return hash;
}

static bool is_lock(const char *address)
{
	for (uint32_t i = 0; i < watched_locks_count; i++) {
		if ((size_t)(address - watched_locks[i].memory) < watched_locks[i].bytes)
			return true;
	}
	return false;
}

static uint64_t wait_for_turn(struct thread *self)
{
	yield_to_scheduler();
	self->history = memory_mix(self->history, self->answer + 1);
	if (is_lock(self->address))
		self->history = hash_watched(self->history);
	return self->answer;
}

static uint64_t access_any(enum explore_kind kind, const void *address, uint32_t bytes,
	uint64_t value, uint64_t expected, memory_order order)
{
	struct memory_operation operation;
	struct thread *self;
	struct word *word;

	if (current < 0)
		return access_alone(kind, address, bytes, value, expected);

	self = &threads[current];
	if (!in_step) {
		self->choices = 0;
		self->forever = false;
		self->address = address;
	}
	operation = (struct memory_operation){
		.kind = kind,
		.location = MEMORY_NO_LOCATION,
		.order = order,
		.value = value,
		.expected = expected,
	};
	if (!in_step)
		self->operation = operation;
	if (kind == EXPLORE_FENCE || kind == EXPLORE_RELAX)
		return wait_for_turn(self);

	word = word_at(address);
	word->bytes = bytes;
	note_use(word, kind);
	if (kind == EXPLORE_LOAD)
		self->alone = (word->writers & ~(1u << current)) == 0 || !word_is_shared(word);
	if (!word_is_shared(word))
		return access_private(kind, address, bytes, value, expected);
	if (word->location_execution != execution) {
		/* Found to be shared in this execution, which is not going to count. */
		word->location = memory_add(address, raw_value(address, bytes));
		word->location_execution = execution;
	}
	if (kind == EXPLORE_LOAD && (word->writers & ~(1u << current)) == 0)
		return memory_latest(word->location);
	operation.location = word->location;
	if (in_step)
		return memory_perform((uint32_t)current, &operation, 0);
	self->operation = operation;
	return wait_for_turn(self);
}

uint64_t explore_access(enum explore_kind kind, const void *address, uint32_t bytes, uint64_t value,
	uint64_t expected, memory_order order)
{
	uint64_t found = access_any(kind, address, bytes, value, expected, order);

	if (kind == EXPLORE_LOAD && poison.why && found == poison.value)
		explore_fail(poison.why);
	return found;
}

void explore_poison(uint64_t value, const char *why)
{
	poison.value = value;
	poison.why = why;
}

uint32_t explore_choose(uint32_t n)
{
	struct thread *self = &threads[current];

	self->choices = n;
	return (uint32_t)wait_for_turn(self);
}

void explore_step(void (*fn)(void *argument), void *argument, const char *name)
{
	struct thread *self = &threads[current];

	self->choices = 0;
	self->operation.kind = EXPLORE_STEP;
	self->step = fn;
	self->argument = argument;
	self->step_name = name;
	wait_for_turn(self);
}

void explore_relax_forever(void)
{
	struct thread *self = &threads[current];

	self->choices = 0;
	self->forever = true;
	self->operation = (struct memory_operation){.kind = EXPLORE_RELAX};
	wait_for_turn(self);
}

void explore_fail(const char *why)
{
	if (!failure)
		failure = why;
}

uint64_t explore_latest_u64(const struct atomic_u64 *atomic)
{
	struct word *word = word_at(atomic);

	return word->location_execution == execution ? memory_latest(word->location)
						     : atomic->value;
}

bool explore_view_is_latest(const struct atomic_u64 *atomic)
{
	struct word *word = word_at(atomic);

	if (current >= 0 && !(word->users & 1u << current)) {
		/* Asking is a use: the word must not be private to its writer. */
		if (word->users != 0)
			start_over = true;
		word->users |= 1u << current;
	}
	return word->location_execution != execution ||
		memory_view_is_latest((uint32_t)current, word->location);
}

/* --- the schedule
 * ---------------------------------------------------------------------------------- */

/* In how many ways thread t can go on now. */
static uint32_t ways(uint32_t t)
{
	const struct thread *thread = &threads[t];

	if (thread->status == ENDED)
		return 0;
	if (thread->choices)
		return thread->choices;
	if (thread->operation.kind == EXPLORE_STEP)
		return 1;
	if (thread->operation.kind == EXPLORE_RELAX)
		return !thread->alone && memory_has_news(t);
	return memory_alternatives(t, &thread->operation);
}

static const char *const kind_names[] = {"load", "store", "exchange", "add", "or", "and",
	"compare-exchange", "fence", "relax", "step"};
static const char *const order_names[] = {
	"relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst"};

static void trace(uint32_t t)
{
	const struct thread *thread = &threads[t];
	const struct memory_operation *operation = &thread->operation;

	if (!tracing)
		return;
	printf("# %*s[%u] ", (int)t * 4, "", t);
	if (thread->choices)
		printf("chooses %llu of %u\n", (unsigned long long)thread->answer, thread->choices);
	else if (operation->kind == EXPLORE_STEP)
		printf("%s\n", thread->step_name);
	else if (operation->kind == EXPLORE_RELAX)
		printf("spins on\n");
	else if (operation->kind == EXPLORE_FENCE)
		printf("fence %s\n", order_names[operation->order]);
	else
		printf("%s %s %s: %s%#llx, found %#llx%s\n", kind_names[operation->kind],
			word_at(thread->address)->name, order_names[operation->order],
			operation->kind == EXPLORE_LOAD ? "" : "with ",
			(unsigned long long)operation->value, (unsigned long long)thread->answer,
			memory_last_staleness() ? " (not the newest)" : "");
}

static void carry_out(uint32_t t, uint32_t way)
{
	struct thread *thread = &threads[t];

	if (thread->choices) {
		thread->answer = way;
	} else if (thread->operation.kind == EXPLORE_STEP) {
		current = (int)t;
		in_step = true;
		thread->step(thread->argument);
		in_step = false;
		current = -1;
		thread->answer = 0;
	} else if (thread->operation.kind == EXPLORE_RELAX) {
		memory_expect_news(t);
		thread->answer = 0;
	} else {
		thread->answer = memory_perform(t, &thread->operation, way);
	}
	trace(t);
	resume(t);
}

static uint64_t state_hash(void)
{
	uint64_t hash = 1;
	uint32_t live = 0;

	for (uint32_t t = 0; t < scenario->threads; t++) {
		hash = memory_mix(hash, threads[t].history * 2 + threads[t].status);
		if (threads[t].status != ENDED)
			live |= 1u << t;
	}
	for (uint32_t i = 0; i < EXPLORE_GHOSTS; i++)
		hash = memory_mix(hash, explore_ghost[i]);
	hash = hash_watched(memory_hash(hash, live));
	return hash ? hash : 1;
}

static void visited_insert(uint64_t hash)
{
	uint64_t i = hash & visited_mask;

	while (visited[i] != 0)
		i = (i + 1) & visited_mask;
	visited[i] = hash;
}

static bool visited_before(uint64_t hash)
{
	uint64_t i = hash & visited_mask;

	for (; visited[i] != 0; i = (i + 1) & visited_mask) {
		if (visited[i] == hash)
			return true;
	}
	visited[i] = hash;
	visited_count++;
	if (visited_count * 2 > visited_mask) {
		uint64_t *old = visited;
		uint64_t old_size = visited_mask + 1;

		visited_mask = old_size * 4 - 1;
		visited = calloc(visited_mask + 1, sizeof(*visited));
		if (!visited) {
			fprintf(stderr, "explore: out of memory\n");
			exit(2);
		}
		for (i = 0; i < old_size; i++) {
			if (old[i])
				visited_insert(old[i]);
		}
		free(old);
	}
	return false;
}

/* Nobody can go on: fine if everybody has ended or may wait for ever. */
static void check_end(void)
{
	for (uint32_t t = 0; t < scenario->threads; t++) {
		if (threads[t].status != ENDED && !threads[t].forever) {
			explore_fail("a processor waits for ever");
			return;
		}
	}
	if (scenario->at_end)
		scenario->at_end();
}

static void begin_execution(void)
{
	execution++;
	failure = NULL;
	memset(explore_ghost, 0, sizeof(explore_ghost));
	watched_count = 0;
	watched_locks_count = 0;
	poison.why = NULL;
	memory_reset();
	scenario->setup();
	make_locations();
	for (uint32_t t = 0; t < scenario->threads; t++)
		start_thread(t);
	for (uint32_t t = 0; t < scenario->threads; t++)
		resume(t);
}

/* One execution along choice[], as far as `fixed`, then the first way each time. */
static void execute(uint32_t fixed, bool search)
{
	begin_execution();
	for (depth = 0; !failure && !start_over; depth++) {
		uint32_t total = 0;
		uint32_t way;
		uint32_t t;

		for (t = 0; t < scenario->threads; t++)
			total += ways(t);
		if (total == 0) {
			check_end();
			return;
		}
		if (depth == STEPS_MAX || memory_is_full()) {
			explore_fail("goes on without end, or further than the explorer follows");
			return;
		}
		if (depth >= fixed) {
			if (search && visited_before(state_hash()))
				return;
			choice[depth] = 0;
		}
		choice_limit[depth] = total;
		way = choice[depth];
		if (way >= total) {
			explore_fail("not a schedule of this program");
			return;
		}
		for (t = 0; way >= ways(t); t++)
			way -= ways(t);
		carry_out(t, way);
	}
}

static void write_schedule(char *text, size_t bytes)
{
	size_t used = 0;

	text[0] = 0;
	for (uint32_t i = 0; i < depth && used < bytes - 8; i++)
		used += (size_t)snprintf(text + used, bytes - used, i ? ".%u" : "%u", choice[i]);
}

static void search_reset(void)
{
	free(visited);
	visited_mask = (1u << 16) - 1;
	visited = calloc(visited_mask + 1, sizeof(*visited));
	visited_count = 0;
	if (!visited) {
		fprintf(stderr, "explore: out of memory\n");
		exit(2);
	}
}

/* The last choice that has another way left becomes that; false: there is none. */
static bool next_list(uint32_t *fixed)
{
	while (depth > 0) {
		depth--;
		if (choice[depth] + 1 < choice_limit[depth]) {
			choice[depth]++;
			*fixed = depth + 1;
			return true;
		}
	}
	return false;
}

static void forget_words(void)
{
	memset(words, 0, sizeof(words));
	memset(word_index, 0, sizeof(word_index));
	word_count = 0;
}

void explore_run(
	const struct explore_scenario *what, uint64_t states_max, struct explore_result *result)
{
	uint32_t fixed = 0;
	bool more = true;

	scenario = what;
	memset(result, 0, sizeof(*result));
	forget_words();
	execution = 0;
	start_over = false;
	search_reset();
	while (more) {
		execute(fixed, true);
		result->executions++;
		if (start_over) {
			start_over = false;
			search_reset();
			fixed = 0;
			result->longest = 0;
			continue;
		}
		if (depth > result->longest)
			result->longest = depth;
		if (!failure && visited_count > states_max) {
			failure = "more states than allowed";
			result->gave_up = true;
		}
		if (failure) {
			result->failure = failure;
			write_schedule(result->schedule, sizeof(result->schedule));
			break;
		}
		more = next_list(&fixed);
	}
	result->states = visited_count;
}

const char *explore_replay(const struct explore_scenario *what, const char *schedule)
{
	struct explore_result found;
	uint32_t fixed = 0;

	/* A schedule counts the ways there are, and they depend on what is known about the words:
	 * find that out again. */
	explore_run(what, UINT64_MAX, &found);
	for (const char *at = schedule; *at && fixed < STEPS_MAX; fixed++) {
		char *end;

		choice[fixed] = (uint32_t)strtoul(at, &end, 10);
		if (end == at)
			return "not a schedule";
		at = *end == '.' ? end + 1 : end;
	}
	tracing = true;
	execute(fixed, false);
	tracing = false;
	return failure;
}
