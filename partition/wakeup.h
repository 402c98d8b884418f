/*
 * The wakeup mailbox in the guest's memory: pages, tables and traps around core/mailbox. Off unless
 * the guest is to start its processors that way.
 */
#ifndef PARAPET_PARTITION_WAKEUP_H
#define PARAPET_PARTITION_WAKEUP_H

#include "partition/partition.h"

struct acpi;
struct memory_map;

/* Guest-physical pages that the boot shim set aside, whole pages each. */
struct wakeup_pages {
	gpa_t mailbox; /* one page; ACPI NVS for the guest */
	gpa_t ap_pages; /* page tables, then the reset vector's page; reserved for the guest */
	uint64_t ap_bytes;
	gpa_t tables; /* room for a MADT, an RSDT and an RSDP; ACPI memory for the guest */
	uint64_t table_bytes;
};

/*
 * Reserves the pages in the guest's map, builds the initial page tables (writable: RAM of `map` below 1 MiB), and the guest's MADT and root tables.
 * Returns the RSDP that the guest is to get, or 0 after logging why there is no mailbox.
 */
gpa_t wakeup_init(struct partition *partition, const struct wakeup_pages *pages,
	const struct acpi *acpi, struct memory_map *map);

/*
 * Takes from the guest what it may not touch of the pages, and pins them; after its RAM has been
 * opened.
 */
void wakeup_protect(struct partition *partition, const struct wakeup_pages *pages);

/* The mailbox page: reads need no exit, writes come here. */
bool wakeup_owns_memory(gpa_t gpa);
/* Does the range touch the mailbox or the reset vector's page? */
bool wakeup_overlaps(gpa_t gpa, uint64_t bytes);
uint64_t wakeup_read(gpa_t gpa, uint32_t size);
void wakeup_write(struct vp *vp, gpa_t gpa, uint32_t size, uint64_t value);

/*
 * The write of an instruction that has read the same bytes before, in one step: if they are still
 * `expected`. False, and nothing written, if another VP was faster: the instruction is to be done
 * again. A kernel may keep a lock in its half of the page.
 */
bool wakeup_exchange(struct vp *vp, gpa_t gpa, uint32_t size, uint64_t expected, uint64_t value);

/* A fetch from the page at the reset vector: the guest takes the processor offline. */
bool wakeup_owns_fetch(gpa_t gpa);
void wakeup_offline(struct vp *vp);

/* Own VP, waiting: true if it has been woken, and is now in the state that a kernel expects. */
bool wakeup_check(struct vp *vp);

/* Own VP: a SIPI has started it. For the mailbox it is a processor that runs from here on. */
void wakeup_by_sipi(struct vp *vp);

/* Own VP: its first entry after wakeup_check comes next. False if it was not started that way. */
bool wakeup_entered(struct vp *vp, uint64_t tsc);

#endif
