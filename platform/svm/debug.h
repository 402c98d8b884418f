/*
 * The debug registers of a VP on SVM, and single steps of Parapet's own: everything that reads or
 * writes DR0 to DR7 or sets TF for itself. Each access passes the gate of core/regs.
 */
#ifndef PARAPET_SVM_DEBUG_H
#define PARAPET_SVM_DEBUG_H

#include <parapet/platform.h>
#include "core/regs/regs.h"
#include "platform/svm/vmcb.h"

enum svm_step {
	SVM_STEP_NONE,
	SVM_STEP_IRET, /* the end of the guest's NMI handler */
	SVM_STEP_MOVE, /* a MOV to DR0-DR3 that Parapet wanted to see first */
};

/* DR0-DR3 whose value the guest must not arm (svm_debug_init_platform). The levels share them. */
struct svm_parked {
	uint8_t set; /* a bit for each */
	uint64_t value[4];
};

struct svm_debug {
	struct vmcb *vmcb;
	struct insn_registers *registers;
	struct regs_gate gate;
	uint64_t hits; /* bits of DR6: what the instruction being carried out has run into */
	/*
	 * Bits of DR6: the trap behind the instruction that was carried out last. It becomes a #DB, and
	 * shows in DR6, at the next entry. By then another level may have run, and put an exception in its
	 * place. That is delivered alone then (Intel SDM volume 3, "Delivery of Pending Debug Exceptions
	 * after VM Entry"): #DB is benign, it never makes a #DF of the next one.
	 */
	uint64_t trap;

	/* While Parapet lets the guest take one step. */
	enum svm_step step;
	uint64_t guest_flags; /* what the guest had in TF and IF */
	uint64_t guest_status; /* what it had in DR6, if dr6_is_ours */
	bool dr6_is_ours;
	uint64_t stack; /* linear address of its top */
	uint8_t move_register; /* SVM_STEP_MOVE: a general register that holds something else */
	uint64_t move_value; /* what belongs there */

	struct svm_parked *parked;
	/* Exceptions that exit at all times: #DB, to see whether another level's breakpoint is behind it. */
	uint32_t exceptions;
};

/*
 * Once, at start: finds out whether this processor leaves breakpoints armed at an exit. QEMU 7.2's
 * does, against AMD64 APM volume 2, 15.6: then writes of DR0-DR3 are looked at, so that none names
 * an address between guarded_text_start and _end, where Parapet could not survive a #DB.
 */
void svm_debug_init_platform(void);

/* For a new context of a VP. Control block, registers and what the levels share stay where they are. */
void svm_debug_create(struct svm_debug *debug, struct vmcb *vmcb, struct insn_registers *registers,
	struct svm_parked *parked);

/*
 * The VP has another level, whose breakpoints must not fire in this one. They do not on a processor
 * that disarms them at an exit; elsewhere, #DB is looked at from now on.
 */
void svm_debug_guard(struct svm_debug *debug);

/* The VP goes over to this context: DR0-DR3 may have been parked by another. */
void svm_debug_switch(struct svm_debug *debug);

/* platform_ops.debug_read and .debug_write. */
uint64_t svm_debug_read(struct svm_debug *debug, enum regs_name name);
void svm_debug_write(struct svm_debug *debug, enum regs_name name, uint64_t value);

/* Back to INIT state, but for DR0-DR3 (svm_debug_clear_addresses) and the control block's fields. */
void svm_debug_reset(struct svm_debug *debug);

/* On the VP's own processor: DR0-DR3 as after INIT. */
void svm_debug_clear_addresses(struct svm_debug *debug);

/* platform_ops.step, .note_access, .finish_instruction and .move_debug_register. */
void svm_debug_step(struct svm_debug *debug, enum svm_step step);
void svm_debug_note_access(
	struct svm_debug *debug, enum regs_access access, uint64_t address, uint32_t size);
bool svm_debug_finish_instruction(struct svm_debug *debug);
bool svm_debug_move(struct svm_debug *debug, const struct insn *insn);

/* Is there a trap for the next entry? Interrupts and NMIs come after it. */
bool svm_debug_trap_waits(const struct svm_debug *debug);

/* Forgets it: nothing shows that it was there. */
void svm_debug_drop_trap(struct svm_debug *debug);

/*
 * Something else comes before the step, another exit or an event for the guest: as if it had never been
 * tried. It will be, again. Without effect if there is none.
 */
void svm_debug_cancel_step(struct svm_debug *debug);

/* Before an entry, with the event that is to be delivered there: if there is none, the trap is. */
void svm_debug_enter(struct svm_debug *debug);

/*
 * After an exit, before it is decoded: tells the gate, and calls off a step that another exit came
 * between. True if the exit has been dealt with or decoded here, into *exit.
 */
bool svm_debug_exit(struct svm_debug *debug, struct vp_exit *exit);

#endif
