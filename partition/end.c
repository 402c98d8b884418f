/*
 * The end: of the guest, by its own wish or mistake, and of Parapet, by its own. All VPs stop, the
 * block is completed, whoever started us is told and gets time to read it, and then the machine does
 * what the guest asked of it.
 */
#include "arch/x86/apic.h"
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/log.h"
#include "arch/x86/memory.h"
#include "arch/x86/string.h"
#include "hv/hv_vsm.h"
#include "partition/end.h"
#include "partition/policy.h"
#include "partition/seal.h"

#define STOP_WAIT_MS	 1000
#define LISTENER_WAIT_US 5000000
#define LISTENER_BYTE	 'k'

static struct partition *the_partition; /* for faults, which come without a VP */

static const char *const reason_names[] = {
	[BLOCK_END_NOT_YET] = "none",
	[BLOCK_END_POWER_OFF] = "power-off",
	[BLOCK_END_RESET] = "reset",
	[BLOCK_END_TRIPLE_FAULT] = "triple-fault",
	[BLOCK_END_EXIT_PORT] = "exit-port",
	[BLOCK_END_REFUSED] = "refused",
	[BLOCK_END_PARAPET_FAULT] = "parapet-fault",
};

void end_stop(struct vp *vp)
{
	/* Release pairs with the acquire in stop_others: this VP's counters are final. */
	atomic_u32_store(&vp->stopped, 1, memory_order_release);
	asm_halt_forever();
}

static void stop_others(struct partition *partition, const struct vp *except)
{
	uint64_t deadline = asm_rdtsc() + partition->tsc_hz / 1000 * STOP_WAIT_MS;

	for (uint32_t i = 0; i < partition->vp_count; i++) {
		if (partition->vp[i] && partition->vp[i] != except) {
			run_request_post(&partition->run, i, REQUEST_STOP);
		}
	}
	for (uint32_t i = 0; i < partition->vp_count; i++) {
		struct vp *vp = partition->vp[i];

		/* Acquire pairs with the release in end_stop. */
		while (vp && vp != except && !atomic_u32_load(&vp->stopped, memory_order_acquire) &&
			asm_rdtsc() < deadline) {
			atomic_relax();
		}
	}
}

/* TLFS, "Zero Memory on Reset": what VTL1 kept from VTL0 is not to be found by whoever runs next. */
static void zero_memory(const struct partition *partition)
{
	for (uint32_t i = 0; i < partition->ram.count; i++) {
		memset(memory_pointer(HPA(partition->ram.span[i].base)), 0,
			partition->ram.span[i].bytes);
	}
	log_info("I the guest's memory is zero");
}

static void __attribute__((noreturn))
finish_machine(struct partition *partition, enum block_end reason, uint32_t code)
{
	if (partition->block) {
		partition->block->end_tsc = asm_rdtsc();
		partition->block->end_code = code;
		partition->block->end_reason = reason;
	}
	if ((reason == BLOCK_END_RESET || reason == BLOCK_END_TRIPLE_FAULT) &&
		hv_memory_is_zeroed_on_reset(partition)) {
		zero_memory(partition);
	}
	log_line("@end %s %u", reason_names[reason], code);
	log_wait_byte(LISTENER_BYTE, LISTENER_WAIT_US,
		partition->tsc_hz ? partition->tsc_hz : 1000000000);
	if (reason == BLOCK_END_EXIT_PORT) {
		uint16_t port = (uint16_t)partition->options.exit_port;

		if (code < 0x100) {
			asm_out8(port, (uint8_t)code);
		} else {
			asm_out32(port, code);
		}
	}
	if (reason == BLOCK_END_RESET || reason == BLOCK_END_TRIPLE_FAULT) {
		fixed_reset();
	}
	fixed_power_off();
}

void end_guest(struct vp *vp, enum block_end reason, uint32_t code)
{
	struct partition *partition = vp->partition;

	/* Acquire-release: only to be read as a lock; the winner is whoever finds 0. */
	if (atomic_u32_exchange(&partition->end_claimed, 1, memory_order_acq_rel)) {
		end_stop(vp);
	}
	trace_write(&vp->trace, asm_rdtsc(), TRACE_GUEST_END, reason, code);
	stop_others(partition, vp);
	seal_report();
	finish_machine(partition, reason, code);
}

void end_refuse(struct partition *partition)
{
	finish_machine(partition, BLOCK_END_REFUSED, 0);
}

static void describe(void *context)
{
	static const char *const kinds[] = {"hypercall", "CPUID", "MSR", "I/O", "memory fault",
		"halt", "interrupt", "NMI", "debug", "INIT/SIPI", "shutdown", "other"};
	const struct vp *vp = context;

	if (!vp) {
		log_line("no guest was running on this processor");
		return;
	}
	log_line("handling exit: %s of VP %u at guest rip 0x%lx",
		vp->exit.kind < ARRAY_SIZE(kinds) ? kinds[vp->exit.kind] : "?", vp->id,
		vp->platform->registers.rip);
}

static void __attribute__((noreturn)) finish_fault(void)
{
	struct vp *vp = cpu_this()->context;

	/* Relaxed: nobody who finds it set does anything but stop. */
	atomic_u32_store(&the_partition->end_claimed, 1, memory_order_relaxed);
	stop_others(the_partition, vp);
	finish_machine(the_partition, BLOCK_END_PARAPET_FAULT, 0);
}

void end_init(struct partition *partition)
{
	static const struct fault_hooks hooks = {.describe = describe, .finish = finish_fault};

	the_partition = partition;
	fault_set_hooks(&hooks);
}
