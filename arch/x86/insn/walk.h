/*
 * Guest page-table walker: guest-virtual to guest-physical, as the processor would do it, with the
 * page fault it would raise. Guest memory is reached through callbacks only, an entry is read once
 * and nothing is cached. What the guest-physical address is worth is not this file's question.
 *
 * Specification: AMD64 APM volume 2, chapter 5; page-fault error code: 8.2.15.
 */
#ifndef PARAPET_INSN_WALK_H
#define PARAPET_INSN_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parapet/types.h"

/*
 * The registers that a walk depends on. The paging mode follows from them: none (CR0.PG clear),
 * 32-bit with PSE and PSE-36, PAE, four levels, five levels.
 */
struct walk_registers {
	uint64_t cr0;
	uint64_t cr3;
	uint64_t cr4;
	uint64_t efer;
	uint64_t rflags; /* AC, for SMAP */
	uint32_t pkru; /* used under CR4.PKE; 0 forbids nothing */
	uint8_t physical_bits; /* of a physical address (CPUID 0x80000008), 32 to 52 */
	bool huge_pages; /* CPUID 0x80000001 EDX bit 26: 1 GiB pages exist */
};

/* How replacing an entry ended. */
enum walk_exchange {
	WALK_EXCHANGED,
	WALK_DIFFERS, /* it is not what was expected */
	WALK_REFUSED, /* the guest may not write there */
};

/* How guest memory is reached; gpa is naturally aligned for the size, which is 4 or 8. */
struct walk_memory {
	void *arg;
	/* Copies size bytes; false if the guest may not have its tables there. */
	bool (*read)(void *arg, gpa_t gpa, void *data, size_t size);
	/*
	 * Atomically replaces the size bytes at gpa by desired if they equal expected. NULL: a
	 * read-only walk, accessed and dirty bits stay.
	 */
	enum walk_exchange (*compare_exchange)(
		void *arg, gpa_t gpa, uint64_t expected, uint64_t desired, size_t size);
};

/* What the walk is for, together: an access without WRITE and EXECUTE is a read. */
#define WALK_WRITE    (1u << 0)
#define WALK_EXECUTE  (1u << 1)
#define WALK_USER     (1u << 2) /* made at CPL 3; else a supervisor access */
#define WALK_IMPLICIT (1u << 3) /* of a descriptor table or TSS: SMAP ignores RFLAGS.AC */

enum walk_status {
	WALK_OK,
	WALK_PAGE_FAULT, /* inject #PF with the error code; CR2 is the address */
	WALK_NOT_CANONICAL, /* inject #GP(0), or #SS(0) for an access through SS */
	WALK_BAD_MEMORY, /* reading or marking an entry was refused: gpa says which */
	WALK_CHANGED, /* an entry changed meanwhile: let the guest retry */
};

/* Bits of struct walk_result's permissions: what the tables alone grant. */
#define WALK_MAY_WRITE	 (1u << 0)
#define WALK_MAY_EXECUTE (1u << 1)
#define WALK_MAY_USER	 (1u << 2)

/* Page-fault error code. */
#define WALK_ERROR_PRESENT  (1u << 0)
#define WALK_ERROR_WRITE    (1u << 1)
#define WALK_ERROR_USER	    (1u << 2)
#define WALK_ERROR_RESERVED (1u << 3)
#define WALK_ERROR_FETCH    (1u << 4)
#define WALK_ERROR_KEY	    (1u << 5)

struct walk_result {
	gpa_t gpa; /* WALK_OK: what the address means. WALK_BAD_MEMORY: the entry */
	uint64_t page_size; /* WALK_OK: 4 KiB to 1 GiB; 4 KiB without paging */
	uint32_t permissions; /* WALK_OK: WALK_MAY_WRITE, ... */
	uint32_t error_code; /* WALK_PAGE_FAULT: WALK_ERROR_PRESENT, ... */
	bool marking; /* WALK_BAD_MEMORY: the entry was to be written, not read */
};

/*
 * Translates the linear address for one access (WALK_WRITE, ...; bytes up to the end of its page).
 * Outside long mode the address counts modulo 4 GiB. With a compare-exchange callback, and only if
 * the access is allowed, sets the accessed bits on the way and, for a write, the dirty bit.
 *
 * Deliberately not checked: bit 8 of entries that lead to another table (AMD's processors reserve
 * it, QEMU's and Intel's do not); shadow stacks and supervisor protection keys, which Parapet's
 * guests are not offered. The four PAE directory pointers are read from memory at each walk, as
 * AMD's processors do under nested paging.
 */
enum walk_status walk_guest_tables(const struct walk_registers *registers,
	const struct walk_memory *memory, gva_t gva, uint32_t access, struct walk_result *result);

#endif
