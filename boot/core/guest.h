/* Puts the guest's kernel into its memory and its boot VP into the state the kernel expects. */
#ifndef PARAPET_BOOT_CORE_GUEST_H
#define PARAPET_BOOT_CORE_GUEST_H

#include "boot/handover/handover.h"
#include "boot/load/memory_map.h"
#include "partition/partition.h"

/*
 * Loads what the hand-over names, a Linux bzImage or a Multiboot v1 ELF, into RAM of `map` (as the
 * guest sees it). False after saying why on the log.
 */
bool guest_load(struct partition *partition, const struct handover_info *handover,
	const struct memory_map *map);

#endif
