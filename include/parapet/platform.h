/*
 * The one interface between Parapet and what isolates its guest: SVM nested paging today, TDX and SNP
 * later. A platform turns its own exits into struct vp_exit and its own tables into the calls below;
 * it never calls up. What the paravisor does about an exit is the same on every platform.
 */
#ifndef PARAPET_PLATFORM_H
#define PARAPET_PLATFORM_H

#include <parapet/types.h>
#include "arch/x86/insn/emulate.h"
#include "core/regs/regs.h"
#include "core/flush/flush.h"
#include "core/protect/protect_ops.h"

/* Why a lower VTL was left. The order follows the exit counters of block.h. */
enum vp_exit_kind {
	VP_EXIT_HYPERCALL,
	VP_EXIT_CPUID,
	VP_EXIT_MSR,
	VP_EXIT_IO,
	VP_EXIT_MEMORY_FAULT,
	VP_EXIT_HALT,
	VP_EXIT_INTERRUPT,
	VP_EXIT_NMI, /* a kick, or an NMI from outside: the NMI itself is still to be taken */
	VP_EXIT_DEBUG,
	VP_EXIT_INIT_SIPI,
	VP_EXIT_SHUTDOWN, /* triple fault */
	VP_EXIT_OTHER,
	VP_EXIT_KINDS,
};

/* What VP_EXIT_OTHER was. */
enum vp_exit_other {
	VP_OTHER_NOT_OFFERED, /* an instruction that the guest's processor does not have: #UD */
	VP_OTHER_CACHE, /* INVD: must not lose what others have written */
	VP_OTHER_REFUSED, /* the processor refuses to run the state the guest has got itself into */
	VP_OTHER_IRET, /* asked for by platform_ops.watch_iret */
	VP_OTHER_DEBUG_MOVE, /* a MOV to or from a debug register that the platform has to look at */
	VP_OTHER_REGISTER, /* asked for by platform_ops.watch_registers; `watched` says which */
	VP_OTHER_NOTHING, /* dealt with by the platform: enter again */
};

/* What platform_ops.watch_registers can watch the writing of; bits of a set. */
enum vp_watch {
	VP_WATCH_CR0 = 1u << 0, /* CLTS and LMSW too */
	VP_WATCH_CR4 = 1u << 1,
	VP_WATCH_XCR0 = 1u << 2,
	VP_WATCH_GDTR = 1u << 3,
	VP_WATCH_IDTR = 1u << 4,
	VP_WATCH_LDTR = 1u << 5,
	VP_WATCH_TR = 1u << 6,
	/* All MSRs exit that msr_read and msr_write know, for reading too, as VP_EXIT_MSR. */
	VP_WATCH_MSRS = 1u << 7,
	VP_WATCH_ALL = 0xff,
	/* VTL1 writes CR8, on a processor that cannot be trusted with it: cr8_write is to do it. */
	VP_WATCH_CR8 = 1u << 8,
};

struct vp_exit {
	enum vp_exit_kind kind;
	/* Of the next instruction if the platform knows it, else 0: decode. */
	uint64_t next_rip;
	/* An exception, interrupt or NMI was being delivered when the exit came. It is kept by the
	 * platform and delivered at the next entry unless the run loop drops it. */
	bool delivering;
	union {
		struct {
			uint32_t index;
			bool write;
		} msr;
		struct {
			uint16_t port;
			uint8_t size; /* bytes: 1, 2, 4 */
			bool in;
			bool string;
			bool rep;
		} io;
		struct {
			gpa_t gpa;
			bool write;
			bool execute;
			bool walk; /* the processor was reading or marking the guest's page tables */
		} memory;
		struct {
			bool hidden;
		} debug;
		struct {
			enum vp_exit_other other;
			enum vp_watch watched;
		};
	};
};

struct vp_segment {
	uint16_t selector;
	uint16_t attributes; /* as a descriptor's bits 40-47 and 52-55, packed to 12 bits */
	uint32_t limit;
	uint64_t base;
};

/* The state beyond general registers that starting, decoding and walking need. */
struct vp_system_state {
	uint64_t cr0, cr2, cr3, cr4, efer;
	struct vp_segment es, cs, ss, ds, fs, gs, gdtr, idtr, ldtr, tr;
	uint8_t cpl;
};

enum vp_event {
	VP_EVENT_EXCEPTION,
	VP_EVENT_NMI,
	VP_EVENT_INTERRUPT, /* an external one that has been acknowledged: the guest must get it */
};

/* One VP as a platform keeps it; a platform's own struct begins with this. */
struct platform_vp {
	struct insn_registers registers; /* valid between exits; written back at entry */
};

struct platform_ops {
	const char *name;

	/*
	 * The context of a VP for one VTL, in INIT state (AMD64 APM volume 2, 14.1.3); VTL0's first.
	 * Taken from Parapet's memory, at start only. VTL1's differs: interrupts of the machine are held
	 * while it runs, and its CR8 is its own.
	 */
	struct platform_vp *(*vp_create)(vp_id_t id, enum vtl vtl);
	/* Where to count accesses to debug registers (block_vp.counter); once, before the first entry. */
	void (*vp_set_counters)(struct platform_vp *vp, uint64_t *counter);
	/* Exit with VP_EXIT_INTERRUPT before the guest takes an external interrupt; once, at start. */
	void (*exit_on_interrupts)(struct platform_vp *vp);
	/* Back to INIT state; on the VP's own processor. */
	void (*vp_init)(struct platform_vp *vp);

	/* Makes the calling processor able to run VPs. */
	void (*processor_enable)(void);

	/* Between the two, an incoming kick stays pending and makes the next entry exit at once. */
	void (*kicks_hold)(void);
	void (*kicks_open)(void);
	/* Called with kicks held: opens them and sleeps until one comes, pending ones included. */
	void (*idle)(void);
	/*
	 * The same for a VP whose guest halts with interrupts enabled: an external interrupt ends it too,
	 * is taken, and is the guest's: true, and its vector.
	 */
	bool (*idle_interrupts)(uint8_t *vector);
	/* Exit with VP_EXIT_HALT when the guest halts. Not at first. */
	void (*exit_on_halt)(struct platform_vp *vp, bool on);
	/*
	 * Invalidates one range of guest-virtual addresses in the VTL's translations, now; false: cannot,
	 * or costs more than flushing everything at the next entry.
	 */
	bool (*invalidate)(struct platform_vp *vp, const struct flush_entry *entry);
	/* Asks for FLUSH_FULL_ bits at the next entry; kept until the VP was really entered. */
	void (*flush_at_entry)(struct platform_vp *vp, uint32_t full);
	/*
	 * Runs the VTL until it exits. Called with kicks held; returns with kicks held, at once: others
	 * may wait for the exit, so what needs no hurry is read_exit's.
	 */
	void (*enter)(struct platform_vp *vp);
	/* After enter and the publication of the exit, kicks held: registers, and what the exit was. */
	void (*read_exit)(struct platform_vp *vp, struct vp_exit *exit);
	/* Makes the processor of the VP leave its guest, or its idle wait in VTL2. */
	void (*kick)(vp_id_t target);
	/* NMIs from outside, not kicks, that the calling processor took since the last call. */
	uint64_t (*take_nmis)(void);

	/*
	 * The VP goes over from one of its contexts to another: what the levels share (core/regs) goes
	 * along. On the VP's own processor.
	 */
	void (*switch_vtl)(struct platform_vp *from, struct platform_vp *to);

	void (*system_read)(struct platform_vp *vp, struct vp_system_state *state);
	void (*system_write)(struct platform_vp *vp, const struct vp_system_state *state);

	/*
	 * Delivers an event at the next entry. False if another is to be delivered there already; but an
	 * exception takes the place of a trap (finish_instruction).
	 */
	bool (*inject)(struct platform_vp *vp, enum vp_event event, uint8_t vector, bool has_error,
		uint32_t error);
	/* Forgets an event whose delivery the last exit cut short, and a trap. */
	void (*drop_event)(struct platform_vp *vp);
	/* Exit with VP_OTHER_IRET when the guest is about to end its NMI handler. */
	void (*watch_iret)(struct platform_vp *vp, bool on);
	/*
	 * Lets the guest run one instruction (the IRET of its NMI handler), then exits with
	 * VP_EXIT_DEBUG. `hidden` in that exit: the guest has not asked for a trap there itself.
	 */
	void (*step)(struct platform_vp *vp);
	/*
	 * An instruction that Parapet carries out for the guest touches `size` bytes (1 to 8) at a
	 * linear address, or a port: remembers it if a breakpoint of the guest's waits for that.
	 */
	void (*note_access)(
		struct platform_vp *vp, enum regs_access access, uint64_t address, uint32_t size);
	/*
	 * Parapet has carried out an instruction, or one iteration of it: delivers the trap that the
	 * guest has asked for after it, by TF or by a breakpoint, at the next entry. False: there was none.
	 */
	bool (*finish_instruction)(struct platform_vp *vp);
	/* For VP_OTHER_DEBUG_MOVE, a decoded MOV: true, done; false, the guest does it itself. */
	bool (*move_debug_register)(struct platform_vp *vp, const struct insn *insn);
	/* Is the guest in the shadow of STI or MOV SS? Clear it: the instruction is done. */
	bool (*interrupt_shadow)(const struct platform_vp *vp);
	void (*clear_interrupt_shadow)(struct platform_vp *vp);

	/*
	 * MSRs that are kept for each VTL: SYSENTER, STAR to SFMASK, KERNEL_GS_BASE, PAT, TSC_AUX. On the
	 * VP's own processor. False: not one of them; to write, also a value that it cannot have.
	 */
	bool (*msr_read)(struct platform_vp *vp, uint32_t index, uint64_t *value);
	bool (*msr_write)(struct platform_vp *vp, uint32_t index, uint64_t value);
	/* Would msr_write take that value? */
	bool (*msr_takes)(uint32_t index, uint64_t value);
	/* A debug register of a context, on the VP's own processor. */
	uint64_t (*debug_read)(struct platform_vp *vp, enum regs_name name);
	void (*debug_write)(struct platform_vp *vp, enum regs_name name, uint64_t value);

	/* Which of these registers (enum vp_watch) this processor can watch. */
	uint32_t (*watchable)(void);
	/* Exits before the guest writes one of these registers; 0: none. */
	void (*watch_registers)(struct platform_vp *vp, uint32_t set);

	/*
	 * VTL1's context: interrupt `vector` is to be taken as soon as IF and CR8 allow it (0: none). It is
	 * in place of what was offered before.
	 */
	void (*offer_interrupt)(struct platform_vp *vp, uint8_t vector);
	/* VTL1's context, after an exit: the offered interrupt if it has been taken, else 0. Once. */
	uint8_t (*interrupt_taken)(struct platform_vp *vp);
	/* VTL1's context: CR8. */
	uint8_t (*cr8_read)(const struct platform_vp *vp);
	void (*cr8_write)(struct platform_vp *vp, uint8_t value);
	/*
	 * VTL1's context: exit with VP_EXIT_INTERRUPT when an interrupt of the machine is waiting; it is
	 * not taken. Held without a word otherwise.
	 */
	void (*notify_interrupts)(struct platform_vp *vp, bool on);

	uint64_t (*tsc_offset)(const struct platform_vp *vp);
	void (*set_tsc_offset)(struct platform_vp *vp, uint64_t offset);

	/*
	 * Tables of permissions for VTLs 0 to vtls - 1, empty, over all memory that they will ever
	 * need for `ram_bytes` of RAM; taken from Parapet's memory, at start, before vp_create. Returns
	 * what the operations in `memory` get as their platform.
	 */
	void *(*memory_create)(uint32_t vtls, uint64_t ram_bytes);
	/* What lower VTLs may do with guest-physical memory; for core/protect alone. */
	const struct protect_ops *memory;
	/* Where VTL0's and VTL1's registers are kept. */
	const struct regs_capabilities *registers;
	/* Opens ports or MSRs to VTL0, without an exit. MSRs at start only. */
	void (*open_ports)(uint16_t first, uint16_t last);
	/* Takes ports back; also while VPs run: an access under way may still get through. */
	void (*close_ports)(uint16_t first, uint16_t last);
	void (*open_msr)(uint32_t index, bool read, bool write);
};

#endif
