/*
 * The ACPI multiprocessor wakeup mailbox (ACPI 6.6, 5.2.12.19, mailbox version 1): how a guest
 * starts its processors, takes them offline and back, without a single INIT or SIPI. A state
 * machine per processor, changed by atomic transitions only; nothing waits in here, nothing is
 * locked, nothing is allocated. How a write to the page is noticed, how a processor sleeps and how
 * it is woken is the platform's; ACPI tables and page tables are built elsewhere.
 *
 *	              command WAKEUP            park_check            running
 *	PARKED, OFFLINE ---------> REQUESTED ------------> STARTING ----------> RUNNING
 *	   ^                                                  | failed            | going_offline
 *	   |                                                  v                   v
 *	   |                                                FAILED          GOING_OFFLINE
 *	   +--------------------------------------------------------------------- + parked
 *
 * Whatever else starts a waiting processor takes it to RUNNING at once (started_otherwise).
 *
 * The guest's side of a transition (the first arrow) may be taken by any VP; all others only by the
 * VP whose state it is. docs/mailbox.md says what kernels do with it and which orderings matter.
 */
#ifndef PARAPET_CORE_MAILBOX_H
#define PARAPET_CORE_MAILBOX_H

#include <parapet/block.h>
#include <parapet/types.h>

#include "core/atomic.h"
#include "core/trace/trace.h"

/* ACPI 6.6, table 5.46. All other commands are reserved. */
#define MAILBOX_COMMAND_NONE   0u
#define MAILBOX_COMMAND_WAKEUP 1u
#define MAILBOX_COMMAND_TEST   2u

#define MAILBOX_OFFSET_OS	16u /* the operating system's own, up to */
#define MAILBOX_OFFSET_FIRMWARE 2048u /* the firmware's own, up to the page's end */

/*
 * The page that a guest sees. The head is read and, to acknowledge, compared and exchanged as one
 * word, so that a command that changed meanwhile is never acknowledged in place of the one handled.
 */
struct mailbox_page {
	struct atomic_u64 head; /* bits 0-15 command, 16-31 reserved, 32-63 local APIC id */
	struct atomic_u64 vector; /* guest-physical; the new processor's first instruction */
	uint8_t os[MAILBOX_OFFSET_FIRMWARE - MAILBOX_OFFSET_OS]; /* neither written nor relied on */
	uint8_t firmware[PAGE_SIZE - MAILBOX_OFFSET_FIRMWARE];
};

#ifndef PARAPET_EXPLORE
_Static_assert(sizeof(struct mailbox_page) == PAGE_SIZE, "ACPI 6.6, table 5.46");
_Static_assert(offsetof(struct mailbox_page, vector) == 8, "ACPI 6.6, table 5.46");
_Static_assert(offsetof(struct mailbox_page, os) == MAILBOX_OFFSET_OS, "ACPI 6.6, table 5.46");
_Static_assert(
	offsetof(struct mailbox_page, firmware) == MAILBOX_OFFSET_FIRMWARE, "ACPI 6.6, table 5.46");
#endif

enum mailbox_state {
	MAILBOX_PARKED, /* never started, waits for its first wakeup */
	MAILBOX_REQUESTED, /* wakeup accepted, the processor has not seen it yet */
	MAILBOX_STARTING, /* it has; its guest state is being set up */
	MAILBOX_RUNNING, /* the guest's, and deaf to the mailbox */
	MAILBOX_GOING_OFFLINE, /* has jumped to the reset vector */
	MAILBOX_OFFLINE, /* parked again after having run */
	MAILBOX_FAILED, /* could not be started; stays so */
	MAILBOX_STATE_COUNT
};

/* What became of a command. From MAILBOX_REFUSED_FIRST on it is a refusal, counted by reason. */
enum mailbox_outcome {
	MAILBOX_NOTHING, /* no command there, or changed before it could be acknowledged */
	MAILBOX_WOKEN, /* accepted */
	MAILBOX_READY, /* test: offline and ready */
	MAILBOX_PENDING, /* will be taken up when the processor has parked */
	MAILBOX_BAD_COMMAND, /* reserved command */
	MAILBOX_BAD_ID, /* no processor has this local APIC id */
	MAILBOX_BAD_SENDER, /* the writing VP may not command */
	MAILBOX_BAD_VECTOR, /* not where a guest may execute, or beyond the initial page tables */
	MAILBOX_BAD_RUNNING, /* wakeup of a processor that runs already */
	MAILBOX_BAD_BUSY, /* wakeup of one that has been woken and not come up yet */
	MAILBOX_BAD_FAILED, /* the processor is beyond help */
	MAILBOX_OUTCOME_COUNT
};
#define MAILBOX_REFUSED_FIRST MAILBOX_BAD_COMMAND

/* What the mailbox needs from the platform. */
struct mailbox_ops {
	/*
	 * Ends `target`'s sleep, the one it is in or the one it is about to begin: a wake that
	 * comes after mailbox_park_check() said to sleep must not be lost on the way there. Never
	 * blocks.
	 */
	void (*wake)(void *context, vp_id_t target);

	/* Is this address guest memory that a guest may execute from, and not Parapet's? */
	bool (*vector_allowed)(void *context, gpa_t vector);

	/* May this VP, as it stands, give commands? NULL: any that runs. */
	bool (*sender_allowed)(void *context, vp_id_t from);
};

struct mailbox_vp_config {
	uint32_t apic_id;
	struct trace_ring *trace; /* this VP's; not NULL */
	struct block_vp *block; /* this VP's; not NULL */
};

struct mailbox_config {
	struct mailbox_page *page; /* all zero */
	uint64_t vector_end; /* first address that the APs' initial page tables do not map */
	uint32_t vps; /* 1 to VP_COUNT_MAX */
	vp_id_t boot_vp; /* runs from the beginning */
	const struct mailbox_vp_config *vp; /* `vps` of them, copied; distinct APIC ids */
	const struct mailbox_ops *ops;
	void *context; /* for the ops */
};

/* One processor. What other VPs write and what it writes alone are in different lines. */
struct mailbox_vp {
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 state; /* enum mailbox_state, vector << 8 */
	struct atomic_u64 request_tsc;
	struct atomic_u32 asleep; /* 1 from announcing the sleep to the wake that is owed */

	_Alignas(CACHE_LINE_BYTES) uint64_t outcome[MAILBOX_OUTCOME_COUNT]; /* as the sender */
	uint64_t started_request_tsc;
	uint32_t apic_id;
	struct trace_ring *trace;
	struct block_vp *block;
};

/* The instance. Its memory is the caller's; the members are this room's. */
struct mailbox {
	struct mailbox_page *page;
	struct mailbox_ops ops;
	void *context;
	uint64_t vector_end;
	uint32_t vps;
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 pending; /* head of the command left waiting */
	struct mailbox_vp vp[VP_COUNT_MAX];
};

struct mailbox_result {
	enum mailbox_outcome outcome;
	vp_id_t target; /* set from WOKEN to PENDING and from BAD_VECTOR on */
};

/*
 * Prepares `mailbox`: boot_vp running, all others parked. False if the configuration contradicts
 * itself (count, boot VP, a missing pointer, an APIC id twice). Before any other VP uses it.
 */
bool mailbox_init(struct mailbox *mailbox, const struct mailbox_config *config);

/* Does a write of `bytes` bytes at this offset of the page touch the command? */
bool mailbox_write_is_command(uint32_t offset, uint32_t bytes);

/*
 * VP `from` has written the command: takes one look at the page, decides, acknowledges and wakes.
 * Call it on `from`, in VTL2, after the write has taken effect; `tsc` is the time of the write.
 *
 * Acknowledged, by clearing the command and nothing else: WAKEUP addressed to any processor there
 * is, as soon as it is accepted or refused; TEST once that processor is offline and ready. Left as
 * it is, because the specification has no one who would clear it: a reserved command, an APIC id
 * that does not exist, a VP that may not command, TEST of a processor that failed.
 */
struct mailbox_result mailbox_handle_write(struct mailbox *mailbox, vp_id_t from, uint64_t tsc);

/*
 * VP `vp`, parked or offline, is about to sleep: announces that, then looks. True: it has been
 * woken, must not sleep, is STARTING, and its first instruction is *vector. False: sleep until the
 * platform's wake (or anything else), then call again.
 */
bool mailbox_park_check(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc, gpa_t *vector);

/*
 * STARTING to RUNNING: `vp`'s first guest instruction comes next. Notes the times of the request
 * and of the start in its struct block_vp. False, and nothing changed, in any other state.
 */
bool mailbox_running(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc);

/*
 * To RUNNING from any state in which `vp` waits: it has been started by other means (SIPI), and is
 * from here on a processor that runs like any other. A wakeup that was accepted and not taken up
 * yet lapses: the processor runs, as was asked. Only by `vp` itself.
 */
void mailbox_started_otherwise(struct mailbox *mailbox, vp_id_t vp);

/* STARTING to FAILED: the platform cannot enter the guest, for a reason of its own. Else false. */
bool mailbox_failed(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc, uint64_t reason);

/* RUNNING to GOING_OFFLINE: `vp` has come to the reset vector. False in any other state. */
bool mailbox_going_offline(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc);

/*
 * GOING_OFFLINE to OFFLINE: nothing of the guest's is used on `vp` any more (its page tables may
 * go). Takes up a command that has been waiting for this. False in any other state. The VP goes on
 * with mailbox_park_check().
 */
bool mailbox_parked(struct mailbox *mailbox, vp_id_t vp, uint64_t tsc);

/* A processor's state at this moment; for reports and tests. */
enum mailbox_state mailbox_vp_state(const struct mailbox *mailbox, vp_id_t vp);

/* A short name for a report. */
const char *mailbox_state_name(enum mailbox_state state);
const char *mailbox_outcome_name(enum mailbox_outcome outcome);

#endif
