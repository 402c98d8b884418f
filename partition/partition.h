/*
 * The partition: the guest's machine as Parapet grants it. Default deny: what is not opened by a table
 * with a reason is closed, reads as if nothing were there, and is counted. Independent of the platform:
 * everything that runs or isolates a VP goes through struct platform_ops.
 */
#ifndef PARAPET_PARTITION_H
#define PARAPET_PARTITION_H

#include <parapet/block.h>
#include <parapet/platform.h>
#include "core/flush/flush.h"
#include "core/protect/protect.h"
#include "core/run/run.h"
#include "core/tlblock/tlblock.h"
#include "core/trace/trace.h"
#include "partition/vtl_state.h"

/* Work for a VP (core/run's requests). */
#define REQUEST_START (1ull << 0) /* its start word has changed: INIT or SIPI */
#define REQUEST_NMI                                                                                \
	(1ull << 1) /* one NMI for the guest; a second one before it is taken is the same */
#define REQUEST_STOP (1ull << 2) /* the guest has come to its end */
#define REQUEST_VTL1 (1ull << 3) /* an interrupt for VTL1 has come */

/* Where INIT and SIPI have brought a VP: the low byte of struct vp's start word. */
enum vp_start {
	VP_START_RUNNING,
	VP_START_INIT, /* INIT accepted, not yet carried out */
	VP_START_WAIT, /* waits for a SIPI */
	VP_START_SIPI, /* SIPI accepted: its page number is in the next byte */
	VP_START_CLAIMED, /* somebody writes start_context; only for a moment */
	VP_START_CONTEXT, /* to be started in start_vtl with start_context */
};

#define VP_START_INIT_DONE (1u << 16) /* with VP_START_SIPI: the INIT before it is carried out */
#define VP_START_VTL1_RUNS (1u << 17) /* with VP_START_WAIT: it is VTL0 alone that waits */

#define VP_START_STATE(word) ((enum vp_start)((word)&0xff))
#define VP_START_PAGE(word)  ((word) >> 8 & 0xff)

#define VTL_COUNT 2 /* that a guest can have */

struct hv_initial_context;
struct memory_map;
struct partition;

/* What each VTL of a VP has of its own. */
struct vp_vtl {
	struct platform_vp *platform; /* NULL: there is no such VTL */
	uint64_t assist_page; /* HV_X64_MSR_VP_ASSIST_PAGE */
	uint64_t tsc_adjust;
	bool stays_awake; /* its next HLT exits, and does not sleep (halt.c) */
};

struct vp {
	struct partition *partition;
	struct platform_vp *platform; /* of the active VTL: what exits are about */
	enum vtl active_vtl;
	struct block_vp *block; /* written by this VP only */
	struct trace_ring trace;
	vp_id_t id;
	uint32_t apic_id;
	struct vp_exit exit; /* the one being handled, also for fault reports */

	/* Written by others. */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u32 start;
	struct atomic_u64 start_tsc; /* when the latest SIPI for this VP was accepted */
	/* Written by whoever has claimed the start word. */
	enum vtl start_vtl;
	struct hv_initial_context *start_context; /* NULL without VSM */

	/* Written by this VP, read by others: how its APIC matches logical destinations. */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u32 apic_ldr;
	struct atomic_u32 apic_dfr;
	struct atomic_u32 stopped;

	/* This VP's own. */
	_Alignas(CACHE_LINE_BYTES) uint32_t apic_icr_high;
	bool entered; /* the first entry after a start has been counted */
	bool nmi_pending;
	bool nmi_masked; /* until the guest's IRET */
	bool nmi_stepping; /* that IRET is being stepped over */
	bool halted; /* waits in VTL2 for what ends the guest's HLT (halt.c) */
	bool halt_exits; /* the guest's HLT exits now */
	uint64_t kicked_rip; /* where the latest kick met the guest */
	uint64_t mtrr_def_type;
	uint64_t mtrr_variable[16];
	uint64_t mtrr_fixed[11];
	struct vp_vtl vtl[VTL_COUNT];
	struct vtl1 vtl1;
	struct vtl_synic vtl0_synic; /* registers alone: no message ever waits */
	struct protect_transaction protect; /* the one that it puts together */
	bool protect_suspended; /* its VTL1's latest one waits for TLB locks, or has */
	uint64_t hypercall_input[PAGE_SIZE / sizeof(uint64_t)]; /* the guest's, copied once */
};

struct memory_span_list {
	uint32_t count;
	struct protect_span span[32];
};

enum tlb_flush {
	TLB_FLUSH_AUTO,
	TLB_FLUSH_HYPERCALL,
	TLB_FLUSH_IPI,
};

/* Faults of Parapet's own that tests ask for, to see them reported. */
enum test_fault {
	TEST_FAULT_NONE,
	TEST_FAULT_PAGE, /* reads where nothing is */
	TEST_FAULT_TEXT, /* writes to its own text */
	TEST_FAULT_DATA, /* executes its own data */
	TEST_FAULT_STACK, /* recurses until the stack ends */
	TEST_FAULT_STOP, /* finds something that cannot be */
};

struct partition_options {
	enum tlb_flush tlb_flush;
	uint32_t vp_stride;
	bool verbose;
	bool interrupt_exits; /* external interrupts come to VTL2 first */
	bool vsm; /* the guest may bring a secure kernel */
	bool mailbox;
	bool protect_kernel; /* seal a Linux guest's code and read-only data: seal.h */
	enum test_fault test_fault;
	uint32_t exit_port; /* isa-debug-exit; 0: none */
	struct {
		uint16_t first;
		uint16_t last;
	} allow_io[64]; /* as many as the command takes */
	uint32_t allow_io_count;
};

struct partition {
	const struct platform_ops *ops;
	struct partition_options options;
	uint32_t vp_count;
	uint32_t vtls; /* lower ones that there are: 1, or 2 with VTL1 */
	struct vp *vp[VP_COUNT_MAX];
	struct run run;
	struct tlblock tlblock;
	struct flush flush;
	struct protect protect;
	struct vpset_map vp_indexes; /* from the guest's VP indexes */
	uint32_t vp_stride; /* a guest's VP index is its number times this */
	bool flush_hypercalls; /* recommended to the guest */
	struct atomic_u32 vtl1_enabled; /* for the partition; never taken back */
	struct block_header *block;
	uint64_t tsc_hz;
	bool tsc_is_invariant; /* constant, never stopping, the same on all processors */
	uint64_t apic_timer_hz;
	uint8_t physical_bits;
	bool huge_pages;
	const struct memory_map *guest_map; /* as the guest is told */
	struct memory_span_list ram; /* the guest's: what Parapet may touch on its behalf */
	/* The first VP that ends the guest writes it. */
	struct atomic_u32 end_claimed;
	uint16_t vp_of_index[VPSET_INDEX_COUNT];
};

/* Counts for this VP. */
static inline void vp_count_event(struct vp *vp, enum block_counter counter)
{
	vp->block->counter[counter]++;
}

/*
 * Opens [base, base + bytes), 4 KiB-aligned, to the guest: every lower VTL that there is may do with
 * it what `access` (ACCESS_ bits) says. At start only; what does not work stops Parapet.
 */
void partition_map(struct partition *partition, gpa_t base, uint64_t bytes, uint32_t access);

/* Runs the VP for ever on the calling processor. */
void vp_run(struct vp *vp) __attribute__((noreturn));

/* Something the guest may not do: counted, traced, the first of a kind said with --verbose. */
void vp_deny(struct vp *vp, enum block_counter counter, uint64_t what);

/* Delivers an exception to the guest, in place of the instruction that exited. */
void vp_inject_exception(struct vp *vp, uint8_t vector, bool has_error, uint32_t error);
void vp_inject_page_fault(struct vp *vp, gva_t address, uint32_t error);

/*
 * Steps over the instruction that exited; decodes it if the platform did not say how long it is. True
 * if the guest has asked for a trap after it, which is now on its way.
 */
bool vp_skip_instruction(struct vp *vp);

#endif
