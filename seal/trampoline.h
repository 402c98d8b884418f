/*
 * The function tracer's trampolines. For each user of the tracer, the kernel makes a copy of its
 * entry code outside the image, with that user's function and data put in, and lets function
 * entries call the copy. A true copy does nothing that sealed code does not do: this file tells
 * one.
 */
#ifndef PARAPET_SEAL_TRAMPOLINE_H
#define PARAPET_SEAL_TRAMPOLINE_H

#include "seal/sites.h"

/*
 * Is what begins at copy[0] (guest-virtual address `address`, `room` bytes that cannot change) a
 * copy of one of the tracer's entries? It must equal the sealed code, but for: the CALL, which
 * leads to sealed code; the address of its data, which lies in the same page behind it; a
 * conditional jump that is a NOP there; and its end, RET or a JMP to sealed code. If so, *call is
 * the offset of its CALL.
 */
bool seal_trampoline_check(const struct seal_image *image, const struct seal_sites *sites,
	const uint8_t *copy, uint64_t address, uint32_t room, uint32_t *call);

#endif
