/*
 * The mailbox's state machine: see mailbox.h for the states, docs/mailbox.md for the whole
 * story.
 */
#include "core/mailbox/mailbox.h"

/*
 * A state and the vector that belongs to it are one word, so that no order of events can pair a
 * state with somebody else's vector. Physical addresses have 52 bits.
 */
#define STATE_BITS 8
#define VECTOR_MAX ((1ull << 52) - 1)

static uint64_t state_word(enum mailbox_state state, uint64_t vector)
{
	return (uint64_t)state | vector << STATE_BITS;
}

static enum mailbox_state word_state(uint64_t word)
{
	return (enum mailbox_state)(word & ((1u << STATE_BITS) - 1));
}

static uint64_t word_vector(uint64_t word)
{
	return word >> STATE_BITS;
}

static uint16_t head_command(uint64_t head)
{
	return (uint16_t)head;
}

static uint32_t head_apic_id(uint64_t head)
{
	return (uint32_t)(head >> 32);
}

bool mailbox_init(struct mailbox *mailbox, const struct mailbox_config *config)
{
	if (!config->page || !config->vp || !config->ops || !config->ops->wake ||
		!config->ops->vector_allowed)
		return false;
	if (config->vps == 0 || config->vps > VP_COUNT_MAX || config->boot_vp >= config->vps)
		return false;
	for (uint32_t i = 0; i < config->vps; i++) {
		if (!config->vp[i].trace || !config->vp[i].block)
			return false;
		for (uint32_t j = 0; j < i; j++) {
			if (config->vp[i].apic_id == config->vp[j].apic_id)
				return false;
		}
	}

	mailbox->page = config->page;
	mailbox->ops = *config->ops;
	mailbox->context = config->context;
	mailbox->vector_end = config->vector_end;
	mailbox->vps = config->vps;
	/* Relaxed: whoever starts the other VPs publishes all of this to them. */
	atomic_u64_store(&mailbox->pending, 0, memory_order_relaxed);
	for (uint32_t i = 0; i < config->vps; i++) {
		struct mailbox_vp *vp = &mailbox->vp[i];
		enum mailbox_state state = i == config->boot_vp ? MAILBOX_RUNNING : MAILBOX_PARKED;

		atomic_u64_store(&vp->state, state_word(state, 0), memory_order_relaxed);
		atomic_u64_store(&vp->request_tsc, 0, memory_order_relaxed);
		atomic_u32_store(&vp->asleep, 0, memory_order_relaxed);
		for (uint32_t j = 0; j < MAILBOX_OUTCOME_COUNT; j++)
			vp->outcome[j] = 0;
		vp->started_request_tsc = 0;
		vp->apic_id = config->vp[i].apic_id;
		vp->trace = config->vp[i].trace;
		vp->block = config->vp[i].block;
	}
	return true;
}

bool mailbox_write_is_command(uint32_t offset, uint32_t bytes)
{
	return bytes != 0 && offset < sizeof(uint16_t);
}

static bool find_apic_id(const struct mailbox *mailbox, uint32_t apic_id, vp_id_t *found)
{
	for (uint32_t i = 0; i < mailbox->vps; i++) {
		if (mailbox->vp[i].apic_id == apic_id) {
			*found = i;
			return true;
		}
	}
	return false;
}

/*
 * Clears the command if the head is still the one that was handled; a head that changed holds a
 * newer command, whose own write is handled by itself. Writes no other bit. Release: whoever sees
 * the command cleared, also sees what was done about it.
 */
static bool acknowledge(struct mailbox *mailbox, uint64_t head)
{
	uint64_t expected = head;

	return atomic_u64_compare_exchange(&mailbox->page->head, &expected,
		head & ~(uint64_t)UINT16_MAX, memory_order_acq_rel);
}

/* PARKED or OFFLINE to REQUESTED; anything else says why not. */
static enum mailbox_outcome request(struct mailbox_vp *target, uint64_t vector, uint64_t tsc)
{
	/* Relaxed: only the exchange below decides, and nothing is read on the strength of this. */
	uint64_t word = atomic_u64_load(&target->state, memory_order_relaxed);

	/* Bounded: the state can leave PARKED or OFFLINE only to another VP's request. */
	while (word_state(word) == MAILBOX_PARKED || word_state(word) == MAILBOX_OFFLINE) {
		/* Relaxed: published by the exchange. If two VPs race, either's time is right. */
		atomic_u64_store(&target->request_tsc, tsc, memory_order_relaxed);
		/*
		 * Release pairs with the acquire load in mailbox_park_check(): the processor that
		 * sees REQUESTED sees the time, and all that the requester wrote before.
		 */
		if (atomic_u64_compare_exchange(&target->state, &word,
			    state_word(MAILBOX_REQUESTED, vector), memory_order_acq_rel))
			return MAILBOX_WOKEN;
	}

	switch (word_state(word)) {
	case MAILBOX_REQUESTED:
	case MAILBOX_STARTING:
		return MAILBOX_BAD_BUSY;
	case MAILBOX_GOING_OFFLINE:
		return MAILBOX_PENDING;
	case MAILBOX_FAILED:
		return MAILBOX_BAD_FAILED;
	default:
		return MAILBOX_BAD_RUNNING;
	}
}

static bool vector_is_good(struct mailbox *mailbox, uint64_t vector)
{
	return vector <= VECTOR_MAX && vector < mailbox->vector_end &&
		mailbox->ops.vector_allowed(mailbox->context, GPA(vector));
}

/* Decides about one command, and changes the target's state if it is a wakeup. */
static struct mailbox_result decide(
	struct mailbox *mailbox, uint64_t head, uint64_t vector, uint64_t tsc)
{
	struct mailbox_result result = {.outcome = MAILBOX_BAD_COMMAND};
	struct mailbox_vp *target;
	enum mailbox_state state;

	if (head_command(head) != MAILBOX_COMMAND_WAKEUP &&
		head_command(head) != MAILBOX_COMMAND_TEST)
		return result;
	result.outcome = MAILBOX_BAD_ID;
	if (!find_apic_id(mailbox, head_apic_id(head), &result.target))
		return result;
	target = &mailbox->vp[result.target];

	if (head_command(head) == MAILBOX_COMMAND_WAKEUP) {
		if (vector_is_good(mailbox, vector))
			result.outcome = request(target, vector, tsc);
		else
			result.outcome = MAILBOX_BAD_VECTOR;
		return result;
	}

	/*
	 * Acquire pairs with the release in mailbox_parked(): ready means it has let go of the
	 * guest.
	 */
	state = word_state(atomic_u64_load(&target->state, memory_order_acquire));
	if (state == MAILBOX_PARKED || state == MAILBOX_OFFLINE)
		result.outcome = MAILBOX_READY;
	else if (state == MAILBOX_FAILED)
		result.outcome = MAILBOX_BAD_FAILED;
	else
		result.outcome = MAILBOX_PENDING;
	return result;
}

static bool is_acknowledged(uint64_t head, enum mailbox_outcome outcome)
{
	switch (outcome) {
	case MAILBOX_WOKEN:
	case MAILBOX_READY:
	case MAILBOX_BAD_VECTOR:
	case MAILBOX_BAD_RUNNING:
	case MAILBOX_BAD_BUSY:
		return true;
	case MAILBOX_BAD_FAILED:
		return head_command(head) == MAILBOX_COMMAND_WAKEUP;
	default:
		return false;
	}
}

/*
 * The state has been set; now whoever sleeps must hear of it. With the announcement and the look in
 * mailbox_park_check() this is the store-then-load pattern on both sides, with a sequentially
 * consistent fence between: at least one of the two sees the other's store. Either the sleeper
 * finds REQUESTED and does not sleep, or the announcement is seen here and the sleeper is woken.
 */
static void wake(struct mailbox *mailbox, vp_id_t target)
{
	atomic_fence(memory_order_seq_cst);
	/* Exchange, so that one sleep is ended by one wake, however many send. */
	if (atomic_u32_exchange(&mailbox->vp[target].asleep, 0, memory_order_relaxed) != 0)
		mailbox->ops.wake(mailbox->context, target);
}

/* Counters and trace of `by`, the VP that this runs on. */
static void account(struct mailbox *mailbox, vp_id_t by, uint64_t head, uint64_t vector,
	struct mailbox_result result, uint64_t tsc)
{
	struct mailbox_vp *vp = &mailbox->vp[by];

	vp->outcome[result.outcome]++;
	if (result.outcome >= MAILBOX_REFUSED_FIRST) {
		vp->block->counter[COUNTER_MAILBOX_REFUSED]++;
		trace_write(vp->trace, tsc, TRACE_AP_REFUSED, result.outcome, head_apic_id(head));
		return;
	}
	if (result.outcome == MAILBOX_WOKEN) {
		trace_write(vp->trace, tsc, TRACE_AP_REQUEST, result.target, vector);
		vp->block->counter[COUNTER_MAILBOX_WAKEUPS]++;
		trace_write(vp->trace, tsc, TRACE_AP_ACCEPTED, result.target, vector);
	} else if (head_command(head) == MAILBOX_COMMAND_TEST &&
		result.outcome != MAILBOX_NOTHING) {
		bool ready = result.outcome == MAILBOX_READY;

		vp->block->counter[COUNTER_MAILBOX_TESTS] += ready;
		trace_write(vp->trace, tsc, TRACE_AP_TEST, result.target, ready);
	}
}

/* The command that was left waiting has been answered, or has given way to another. */
static void pending_clear(struct mailbox *mailbox, uint64_t head)
{
	/*
	 * Relaxed: a processor that still finds it compares it with the page before it does
	 * anything.
	 */
	atomic_u64_compare_exchange(&mailbox->pending, &head, 0, memory_order_relaxed);
}

/* Answers one command, read once, about which `result` has been decided, on VP `by`. */
static struct mailbox_result answer(struct mailbox *mailbox, vp_id_t by, uint64_t head,
	uint64_t vector, struct mailbox_result result, uint64_t tsc)
{
	if (is_acknowledged(head, result.outcome) && !acknowledge(mailbox, head) &&
		result.outcome == MAILBOX_READY)
		result.outcome = MAILBOX_NOTHING; /* somebody else has answered this test */
	account(mailbox, by, head, vector, result, tsc);
	if (result.outcome == MAILBOX_WOKEN)
		wake(mailbox, result.target);
	return result;
}

/*
 * Decides about a command that both its sender and the processor that parks may take up. Whoever
 * comes second finds the processor requested or beyond: that is no refusal, the command was heard.
 */
static struct mailbox_result decide_again(
	struct mailbox *mailbox, uint64_t head, uint64_t vector, uint64_t tsc)
{
	struct mailbox_result result = decide(mailbox, head, vector, tsc);

	if (result.outcome == MAILBOX_BAD_BUSY || result.outcome == MAILBOX_BAD_RUNNING)
		result.outcome = MAILBOX_NOTHING;
	return result;
}

struct mailbox_result mailbox_handle_write(struct mailbox *mailbox, vp_id_t from, uint64_t tsc)
{
	struct mailbox_result result = {.outcome = MAILBOX_NOTHING};
	/*
	 * Acquire pairs with the store of the command, which the guest puts last: the vector is at
	 * least as new. Each is read once; what the guest writes from here on is another command.
	 */
	uint64_t head = atomic_u64_load(&mailbox->page->head, memory_order_acquire);
	uint64_t vector = atomic_u64_load(&mailbox->page->vector, memory_order_relaxed);

	if (head_command(head) == MAILBOX_COMMAND_NONE)
		return result;
	/* A state of RUNNING was stored by this very VP: relaxed. */
	if (word_state(atomic_u64_load(&mailbox->vp[from].state, memory_order_relaxed)) !=
			MAILBOX_RUNNING ||
		(mailbox->ops.sender_allowed &&
			!mailbox->ops.sender_allowed(mailbox->context, from))) {
		result.outcome = MAILBOX_BAD_SENDER;
		account(mailbox, from, head, vector, result, tsc);
		return result;
	}

	result = decide(mailbox, head, vector, tsc);
	if (result.outcome == MAILBOX_PENDING) {
		/*
		 * Leave it for the processor to find, then look again: either it finds it, or it
		 * is found parked here. The other half of the pattern is in mailbox_parked().
		 */
		atomic_u64_store(&mailbox->pending, head, memory_order_relaxed);
		atomic_fence(memory_order_seq_cst);
		result = decide_again(mailbox, head, vector, tsc);
		if (result.outcome != MAILBOX_PENDING)
			pending_clear(mailbox, head);
	}
	return answer(mailbox, from, head, vector, result, tsc);
}

bool mailbox_park_check(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc, gpa_t *vector)
{
	struct mailbox_vp *self = &mailbox->vp[vp];
	uint64_t word;

	/* The announcement, then the look: the other half is in wake(). */
	atomic_u32_store(&self->asleep, 1, memory_order_relaxed);
	atomic_fence(memory_order_seq_cst);
	/* Acquire pairs with the release in request(). */
	word = atomic_u64_load(&self->state, memory_order_acquire);
	if (word_state(word) != MAILBOX_REQUESTED)
		return false;

	/*
	 * Relaxed: a waker that still finds 1 sends a wake that ends no sleep, which the platform
	 * takes for a spurious one. REQUESTED is left only here, so a plain store is enough.
	 */
	atomic_u32_store(&self->asleep, 0, memory_order_relaxed);
	self->started_request_tsc = atomic_u64_load(&self->request_tsc, memory_order_relaxed);
	atomic_u64_store(&self->state, state_word(MAILBOX_STARTING, word_vector(word)),
		memory_order_relaxed);
	*vector = GPA(word_vector(word));
	trace_write(self->trace, tsc, TRACE_AP_STARTED, vp, vector->value);
	return true;
}

/*
 * A transition that only the VP itself takes: nobody else writes the word in these states, so a
 * load and a store are one transition. Release pairs with the acquire in decide().
 */
static bool move(struct mailbox_vp *self, enum mailbox_state from, enum mailbox_state to)
{
	uint64_t word = atomic_u64_load(&self->state, memory_order_relaxed);

	if (word_state(word) != from)
		return false;
	atomic_u64_store(&self->state, state_word(to, word_vector(word)), memory_order_release);
	return true;
}

bool mailbox_running(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc)
{
	struct mailbox_vp *self = &mailbox->vp[vp];
	uint64_t vector = word_vector(atomic_u64_load(&self->state, memory_order_relaxed));

	if (!move(self, MAILBOX_STARTING, MAILBOX_RUNNING))
		return false;
	self->block->ap_request_tsc = self->started_request_tsc;
	self->block->ap_start_tsc = tsc;
	trace_write(self->trace, tsc, TRACE_AP_RUNNING, vp, vector);
	return true;
}

void mailbox_started_otherwise(struct mailbox *mailbox, vp_id_t vp)
{
	struct mailbox_vp *self = &mailbox->vp[vp];
	/* Relaxed: the exchange decides. */
	uint64_t word = atomic_u64_load(&self->state, memory_order_relaxed);

	/* Bounded: others can take the word from PARKED or OFFLINE to REQUESTED, and no further. */
	while (word_state(word) == MAILBOX_PARKED || word_state(word) == MAILBOX_OFFLINE ||
		word_state(word) == MAILBOX_REQUESTED) {
		/* Acquire pairs with request()'s release, as the look in park_check would. */
		if (atomic_u64_compare_exchange(&self->state, &word, state_word(MAILBOX_RUNNING, 0),
			    memory_order_acq_rel))
			break;
	}
	/* Relaxed: as in mailbox_park_check(). */
	atomic_u32_store(&self->asleep, 0, memory_order_relaxed);
}

bool mailbox_failed(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc, uint64_t reason)
{
	struct mailbox_vp *self = &mailbox->vp[vp];

	if (!move(self, MAILBOX_STARTING, MAILBOX_FAILED))
		return false;
	trace_write(self->trace, tsc, TRACE_AP_FAILED, vp, reason);
	return true;
}

bool mailbox_going_offline(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc)
{
	struct mailbox_vp *self = &mailbox->vp[vp];

	if (!move(self, MAILBOX_RUNNING, MAILBOX_GOING_OFFLINE))
		return false;
	trace_write(self->trace, tsc, TRACE_AP_LEAVING, vp, 0);
	return true;
}

bool mailbox_parked(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc)
{
	struct mailbox_vp *self = &mailbox->vp[vp];
	uint64_t head, pending, vector;

	if (!move(self, MAILBOX_GOING_OFFLINE, MAILBOX_OFFLINE))
		return false;
	self->block->counter[COUNTER_MAILBOX_OFFLINES]++;
	trace_write(self->trace, tsc, TRACE_AP_OFFLINE, vp, 0);

	/*
	 * Parked first, then a look for a command that was left: the other half is in
	 * mailbox_handle_write(). If both sides find each other, the acknowledgement or the state
	 * lets only one through.
	 */
	atomic_fence(memory_order_seq_cst);
	pending = atomic_u64_load(&mailbox->pending, memory_order_relaxed);
	if (pending == 0 || head_apic_id(pending) != self->apic_id)
		return true;
	pending_clear(mailbox, pending);
	/* Acquire as in mailbox_handle_write(). A head that has changed is no longer waiting. */
	head = atomic_u64_load(&mailbox->page->head, memory_order_acquire);
	vector = atomic_u64_load(&mailbox->page->vector, memory_order_relaxed);
	if (head == pending)
		answer(mailbox, vp, head, vector, decide_again(mailbox, head, vector, tsc), tsc);
	return true;
}

enum mailbox_state mailbox_vp_state(const struct mailbox *mailbox, vp_id_t vp)
{
	/* Acquire, so that a test that saw OFFLINE may look at what the VP left behind. */
	return word_state(atomic_u64_load(&mailbox->vp[vp].state, memory_order_acquire));
}

const char *mailbox_state_name(enum mailbox_state state)
{
	static const char *const name[MAILBOX_STATE_COUNT] = {
		[MAILBOX_PARKED] = "parked",
		[MAILBOX_REQUESTED] = "wakeup requested",
		[MAILBOX_STARTING] = "starting",
		[MAILBOX_RUNNING] = "running",
		[MAILBOX_GOING_OFFLINE] = "going offline",
		[MAILBOX_OFFLINE] = "offline",
		[MAILBOX_FAILED] = "failed",
	};

	return state < MAILBOX_STATE_COUNT ? name[state] : "unknown";
}

const char *mailbox_outcome_name(enum mailbox_outcome outcome)
{
	static const char *const name[MAILBOX_OUTCOME_COUNT] = {
		[MAILBOX_NOTHING] = "no command",
		[MAILBOX_WOKEN] = "woken",
		[MAILBOX_READY] = "offline and ready",
		[MAILBOX_PENDING] = "waiting for the processor to park",
		[MAILBOX_BAD_COMMAND] = "reserved command",
		[MAILBOX_BAD_ID] = "no such processor",
		[MAILBOX_BAD_SENDER] = "sender may not command",
		[MAILBOX_BAD_VECTOR] = "vector outside executable guest memory",
		[MAILBOX_BAD_RUNNING] = "processor runs already",
		[MAILBOX_BAD_BUSY] = "processor is being started already",
		[MAILBOX_BAD_FAILED] = "processor has failed",
	};

	return outcome < MAILBOX_OUTCOME_COUNT ? name[outcome] : "unknown";
}
