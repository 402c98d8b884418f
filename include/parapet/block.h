/*
 * What Parapet leaves in memory for whoever started it: one block with the counters of every VP and
 * the trace rings. Written by Parapet only, read from outside (`parapet run` reads it through QEMU's
 * monitor while the machine is stopped), so it works even when Parapet itself hangs.
 *
 * Layout: struct block_header at the block's base, then `vps` structs block_vp at vp_offset,
 * block_vp_bytes apart, then `vps` trace rings at trace_offset, trace_ring_bytes apart, then
 * `regions` structs block_region at region_offset.
 * All fields are little-endian; offsets count from the block's base.
 */
#ifndef PARAPET_BLOCK_H
#define PARAPET_BLOCK_H

#include <stdint.h>

#define BLOCK_MAGIC   0x3154455041524150ull /* "PARAPET1" */
#define BLOCK_VERSION 2

enum block_counter {
	COUNTER_EXIT_HYPERCALL,
	COUNTER_EXIT_CPUID,
	COUNTER_EXIT_MSR,
	COUNTER_EXIT_IO,
	COUNTER_EXIT_MEMORY_FAULT,
	COUNTER_EXIT_HALT,
	COUNTER_EXIT_INTERRUPT,
	COUNTER_EXIT_NMI,
	COUNTER_EXIT_DEBUG,
	COUNTER_EXIT_INIT_SIPI,
	COUNTER_EXIT_SHUTDOWN,
	COUNTER_EXIT_OTHER,

	COUNTER_APIC_EOI, /* of the exits above: writes to the local APIC, by register */
	COUNTER_APIC_TIMER,
	COUNTER_APIC_ICR,
	COUNTER_APIC_OTHER,
	COUNTER_PCI_CONFIG,

	COUNTER_DENIED_IO, /* closed port, and other accesses that the guest may not make */
	COUNTER_DENIED_MSR,
	COUNTER_DENIED_MEMORY, /* Parapet's own memory, or nothing there */
	COUNTER_DENIED_PCI,
	COUNTER_DENIED_INTERRUPT, /* IOAPIC, MSI or ICR delivery that would bypass Parapet */
	COUNTER_DENIED_INSTRUCTION, /* SVM instructions */

	COUNTER_INIT_RECEIVED, /* INIT and SIPI that the guest sent to this VP */
	COUNTER_SIPI_RECEIVED,
	COUNTER_NMI_INJECTED,
	COUNTER_KICK_RECEIVED,

	COUNTER_FLUSH_REQUESTS,
	COUNTER_FLUSH_RANGES,
	COUNTER_FLUSH_FULL, /* of everything; also in place of ranges: too many, or no room */
	COUNTER_FLUSH_KICKS_SENT,
	COUNTER_FLUSH_KICKS_SKIPPED,

	COUNTER_PROTECT_TRANSACTIONS,
	COUNTER_PROTECT_RANGES,
	COUNTER_PROTECT_ENTRIES_WRITTEN,
	COUNTER_PROTECT_SHOOTDOWNS,
	COUNTER_PROTECT_DEFERRED,
	COUNTER_PROTECT_DENIED,

	COUNTER_DEBUG_ACCESSES,
	COUNTER_DEBUG_INTERRUPT_EXIT_ACCESSES,
	COUNTER_DEBUG_HYPERVISOR_QUERIES,

	COUNTER_MAILBOX_WAKEUPS,
	COUNTER_MAILBOX_TESTS,
	COUNTER_MAILBOX_REFUSED,
	COUNTER_MAILBOX_OFFLINES,

	COUNTER_VTL1_ENTRIES, /* of the VP, for whatever reason */
	COUNTER_VTL1_INTERCEPTS, /* of memory and registers: messages to VTL1 */

	COUNTER_COUNT,
	COUNTER_ROOM = 96 /* so that a new counter does not move the fields after it */
};

_Static_assert(COUNTER_COUNT <= COUNTER_ROOM, "make more room for counters");

/* How the guest came to its end, for block_header.end_reason. */
enum block_end {
	BLOCK_END_NOT_YET = 0,
	BLOCK_END_POWER_OFF, /* ACPI S5 */
	BLOCK_END_RESET, /* reset port, keyboard controller, ACPI reset register */
	BLOCK_END_TRIPLE_FAULT,
	BLOCK_END_EXIT_PORT, /* isa-debug-exit: end_code is what the guest wrote */
	BLOCK_END_REFUSED, /* the guest could not be started: the log says why */
	BLOCK_END_PARAPET_FAULT,
};

struct block_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_bytes;
	uint64_t bytes; /* the whole block */
	char platform[16]; /* "svm" */
	char ap_start_method[16]; /* "sipi" or "mailbox" */
	uint32_t vps; /* processors that the guest has */
	uint32_t counters; /* COUNTER_COUNT of the writer */
	uint64_t vp_offset;
	uint64_t vp_bytes;
	uint64_t trace_offset;
	uint64_t trace_ring_bytes;
	uint64_t trace_entries; /* per ring, a power of two */
	uint64_t tsc_hz;
	uint64_t boot_tsc; /* at the guest kernel's first instruction; power-on is 0 */
	uint32_t end_reason; /* enum block_end */
	uint32_t end_code;
	uint64_t end_tsc;
	uint64_t ap_first_request_tsc; /* 0: no AP was ever requested */
	uint64_t ap_last_online_tsc;
	uint64_t text_bytes; /* of Parapet's image */
	uint64_t memory_bytes; /* that Parapet keeps for itself */
	uint64_t region_offset;
	uint64_t regions; /* structs block_region there */
};

/* One VP's, written by that VP only (no locks, no shared lines). */
struct block_vp {
	uint64_t counter[COUNTER_ROOM];
	uint64_t ap_request_tsc; /* latest wakeup or SIPI accepted for this VP */
	uint64_t ap_start_tsc; /* its first guest instruction after it */
	uint32_t apic_id;
	uint32_t reserved;
	uint64_t padding[5];
};

_Static_assert(sizeof(struct block_header) == 184, "read by tools built apart from the image");
_Static_assert(sizeof(struct block_vp) % 64 == 0, "no VP shares a cache line with another");

/* How far a change of permissions has come, for block_region.state. */
enum block_region_state {
	BLOCK_REGION_FREE = 0, /* the record is not used */
	BLOCK_REGION_STABLE, /* nobody has more than new_access */
	BLOCK_REGION_CHANGING, /* being checked and written: old_access or new_access */
	BLOCK_REGION_FLUSHING, /* written: somebody may still have old_access, the shootdown runs */
	BLOCK_REGION_DEFERRED, /* written: old_access lingers until the next exit of each VP */
	BLOCK_REGION_STATES,
};

/*
 * A change of permissions. There are `regions` of them; those that are not stable are kept, of the
 * others the latest ones.
 */
struct block_region {
	uint64_t base; /* guest-physical */
	uint64_t bytes;
	uint64_t transaction; /* in the order of commits; 0: never used */
	uint64_t ticket; /* deferred: which of its target's deferred changes */
	uint32_t vp; /* who asked */
	uint8_t by; /* its VTL */
	uint8_t target; /* the VTL whose permissions these are */
	uint8_t reason; /* enum protect_reason, core/protect/protect.h */
	uint8_t state; /* enum block_region_state */
	uint8_t old_access; /* ACCESS_ bits, of types.h; every bit that a page of it had */
	uint8_t new_access;
	uint8_t mixed; /* the pages had different permissions before */
	uint8_t hull; /* several ranges of one transaction, and what lies between them */
	uint8_t padding[20];
};

_Static_assert(sizeof(struct block_region) == 64, "read by tools built apart from the image");

/*
 * One trace record. The ring's word 0 of its first 64 bytes is the count of records ever written
 * (the next one goes to count modulo trace_entries); the records follow those 64 bytes.
 */
struct trace_record {
	uint64_t tsc;
	uint32_t event; /* enum trace_event, core/trace/trace.h */
	uint32_t vp;
	uint64_t a;
	uint64_t b;
};

_Static_assert(sizeof(struct trace_record) == 32, "read by tools built apart from the image");

#endif
