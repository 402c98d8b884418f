/*
 * Intercepts: what VTL0 may not do becomes a message in VTL1's message page, slot of SINT0, with the
 * interrupt that SINT0 asks for, and the VP goes to VTL1 (TLFS, "Secure Intercepts"). VTL0 stays in front
 * of the instruction. A message that finds its slot taken waits here; while one waits, no further one is
 * made: VTL0's instruction is not done, so it says the same again when it is next tried.
 */
#include "arch/x86/registers.h"
#include "partition/guest_access.h"
#include "partition/policy.h"
#include "partition/vtl.h"
#include "partition/vtl_apic.h"
#include "partition/vtl_context.h"
#include "partition/vtl_message.h"

#define MESSAGE_PENDING 1u /* of the flags: another waits for this slot */

#define STATE_CR0_PE	  (1u << 2)
#define STATE_CR0_AM	  (1u << 3)
#define STATE_EFER_LMA	  (1u << 4)
#define STATE_INTERRUPTED (1u << 6)
#define STATE_SHADOW	  (1u << 12)

#define ACCESS_GVA_VALID 1u

#define CACHE_WRITE_BACK 6

/* HV_MESSAGE: 16 bytes of header and a payload of 240. */
struct message {
	uint32_t type;
	uint8_t bytes;
	uint8_t flags;
	uint16_t reserved;
	uint64_t sender;
	uint8_t payload[240];
};

/* HV_X64_MEMORY_INTERCEPT_MESSAGE. */
struct memory_intercept {
	struct intercept_header header;
	uint32_t cache_type;
	uint8_t byte_count;
	uint8_t access_info;
	uint8_t tpr_priority;
	uint8_t reserved;
	uint64_t gva;
	uint64_t gpa;
	uint8_t bytes[16];
};

_Static_assert(sizeof(struct message) == 256, "TLFS, HV_MESSAGE");
_Static_assert(sizeof(struct message) == sizeof(((struct vtl_synic *)0)->message), "a slot");
_Static_assert(sizeof(struct memory_intercept) == 80, "TLFS, memory intercept message");

/* --- the slot --------------------------------------------------------------------------------------- */

/* VTL1 active: the slot of SINT0 in its message page; NULL while the controller or the page is off. */
static volatile struct message *slot(struct vp *vp)
{
	const struct vtl_synic *synic = &vp->vtl1.synic;

	if (!(synic->scontrol & VTL_SCONTROL_ENABLE) || !(synic->simp & VTL_SIMP_ENABLE)) {
		return NULL;
	}
	return guest_ram(vp, GPA(synic->simp & PAGE_MASK), sizeof(struct message),
		ACCESS_READ | ACCESS_WRITE);
}

/* VTL1 active: puts the waiting message into its slot if that is free, and raises the interrupt of SINT0. */
void vtl_synic_retry(struct vp *vp)
{
	struct vtl_synic *synic = &vp->vtl1.synic;
	const struct message *message = (const struct message *)synic->message;
	volatile struct message *to = slot(vp);

	if (!synic->waiting || !to) {
		return;
	}
	if (to->type) {
		to->flags |= MESSAGE_PENDING;
		/* It may have been freed before it could see the flag: then there is no EOM to come. */
		if (to->type) {
			return;
		}
	}
	for (uint32_t i = 0; i < sizeof(message->payload); i++) {
		to->payload[i] = message->payload[i];
	}
	to->sender = message->sender;
	to->bytes = message->bytes;
	to->flags = 0;
	/* Last: with it the slot is taken. */
	to->type = message->type;
	synic->waiting = false;
	if (!(synic->sint[0] & (VTL_SINT_MASKED | VTL_SINT_POLLING))) {
		vtl_apic_raise(vp, (uint8_t)(synic->sint[0] & VTL_SINT_VECTOR));
	}
}

void vtl_message_post(struct vp *vp, uint32_t type, const void *payload, uint32_t bytes)
{
	struct vtl_synic *synic = &vp->vtl1.synic;

	if (!synic->waiting) {
		struct message *message = (struct message *)synic->message;

		*message = (struct message){.type = type, .bytes = (uint8_t)bytes};
		__builtin_memcpy(message->payload, payload, bytes);
		synic->waiting = true;
		vp_count_event(vp, COUNTER_VTL1_INTERCEPTS);
	}
	vtl_enter_for_intercept(vp);
	vtl_synic_retry(vp);
}

/* --- what the messages say --------------------------------------------------------------------------- */

uint8_t vtl_message_fetch(struct vp *vp, uint8_t bytes[16], uint8_t *length)
{
	uint8_t fetched[INSN_BYTES_MAX];
	enum insn_mode mode;
	size_t count = guest_fetch(vp, fetched, &mode);

	__builtin_memcpy(bytes, fetched, count);
	*length = (uint8_t)insn_length(fetched, count, mode);
	return (uint8_t)count;
}

void vtl_message_header(
	struct vp *vp, struct intercept_header *header, uint8_t access, uint8_t length)
{
	const struct platform_ops *ops = vp->partition->ops;
	struct vp_system_state state;

	ops->system_read(vp->platform, &state);
	*header = (struct intercept_header){
		.vp_index = vp->id * vp->partition->vp_stride,
		.length_and_cr8 = (uint8_t)(length | (lapic_read(vp, APIC_TPR) >> 4) << 4),
		.access = access,
		.state = (uint16_t)(state.cpl | (state.cr0 & CR0_PE ? STATE_CR0_PE : 0) |
			(state.cr0 & CR0_AM ? STATE_CR0_AM : 0) |
			(state.efer & EFER_LMA ? STATE_EFER_LMA : 0) |
			(vp->exit.delivering ? STATE_INTERRUPTED : 0) |
			(ops->interrupt_shadow(vp->platform) ? STATE_SHADOW : 0)),
		.cs = vtl_segment_out(&state.cs),
		.rip = vp->platform->registers.rip,
		.rflags = vp->platform->registers.rflags,
	};
}

void vtl_intercept_memory(struct vp *vp, gpa_t gpa, uint32_t access, bool has_gva, gva_t gva)
{
	struct memory_intercept message = {
		.cache_type = CACHE_WRITE_BACK,
		.access_info = has_gva ? ACCESS_GVA_VALID : 0,
		.tpr_priority = (uint8_t)(lapic_read(vp, APIC_TPR) >> 4),
		.gva = has_gva ? gva.value : 0,
		.gpa = gpa.value,
	};
	uint8_t length = 0;

	/* The instruction cannot be had where it is the fetch that is forbidden. */
	if (!(access & ACCESS_EXECUTE)) {
		message.byte_count = vtl_message_fetch(vp, message.bytes, &length);
	}
	vtl_message_header(vp, &message.header,
		access & ACCESS_EXECUTE		? INTERCEPT_EXECUTE
			: access & ACCESS_WRITE ? INTERCEPT_WRITE
						: INTERCEPT_READ,
		length);
	vtl_message_post(vp, MESSAGE_GPA, &message, sizeof(message));
}
