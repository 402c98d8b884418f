/*
 * Messages to VTL1 about what VTL0 was about to do, as the TLFS lays them out: what all of them begin
 * with, and the way into the slot of SINT0. Own VP, VTL0 active, throughout.
 */
#ifndef PARAPET_PARTITION_VTL_MESSAGE_H
#define PARAPET_PARTITION_VTL_MESSAGE_H

#include "partition/vtl.h"

/* HV_MESSAGE_TYPE. */
#define MESSAGE_GPA	 0x80000001u
#define MESSAGE_MSR	 0x80010001u
#define MESSAGE_REGISTER 0x80010006u

/* HV_INTERCEPT_ACCESS_TYPE. */
#define INTERCEPT_READ	  0
#define INTERCEPT_WRITE	  1
#define INTERCEPT_EXECUTE 2

/* HV_X64_INTERCEPT_MESSAGE_HEADER. */
struct intercept_header {
	uint32_t vp_index;
	uint8_t length_and_cr8;
	uint8_t access;
	uint16_t state;
	struct hv_segment cs;
	uint64_t rip;
	uint64_t rflags;
};

_Static_assert(sizeof(struct intercept_header) == 40, "TLFS, intercept message header");

/*
 * The instruction at RIP, as many bytes as can be had of it: returns how many. *length is 0 if it is not one
 * that Parapet knows.
 */
uint8_t vtl_message_fetch(struct vp *vp, uint8_t bytes[16], uint8_t *length);

/* Fills the header for an access of that kind by an instruction of that length. */
void vtl_message_header(
	struct vp *vp, struct intercept_header *header, uint8_t access, uint8_t length);

/* Gives the message to VTL1, or keeps it until there is room, and goes to VTL1. */
void vtl_message_post(struct vp *vp, uint32_t type, const void *payload, uint32_t bytes);

#endif
