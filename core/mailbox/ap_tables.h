/*
 * What a guest's processor runs on until the guest gives it something better: identity-mapping page
 * tables, built once, before the guest, and never written again (accessed and dirty are preset).
 * And the few bytes at the reset vector. Only contents: whose memory it is and how it is protected,
 * is the platform's.
 *
 * The first 4 GiB are mapped, read and execute; writable is only what is asked for. With CR0.WP set
 * the guest cannot write elsewhere through them; EFER.NXE must be set too, though no entry here
 * says no-execute: Linux goes from these tables straight to its own, which do.
 */
#ifndef PARAPET_CORE_AP_TABLES_H
#define PARAPET_CORE_AP_TABLES_H

#include <parapet/types.h>

#define AP_TABLES_END		(4 * SIZE_1G) /* first address not mapped */
#define AP_TABLES_FINE_END	SIZE_2M /* up to here in 4 KiB pages, from here on in 2 MiB pages */
#define AP_TABLES_PAGES(levels) ((levels) == 5 ? 8u : 7u)

struct ap_tables_range {
	uint64_t base;
	uint64_t bytes;
};

struct ap_tables_config {
	unsigned int levels; /* 4 or 5, as CR4.LA57 will be */
	void *pages; /* AP_TABLES_PAGES(levels) pages, on a page boundary, overwritten */
	gpa_t gpa; /* of the first of them; the others follow */
	/*
	 * Writable: multiples of 4 KiB below AP_TABLES_FINE_END, of 2 MiB above it. None may hold
	 * a table page.
	 */
	const struct ap_tables_range *writable;
	uint32_t writable_count;
};

/* Builds the tables and puts what CR3 must be into *root. False, with nothing promised about the
 * pages, if the configuration is not as described.
 */
bool ap_tables_build(const struct ap_tables_config *config, gpa_t *root);

/*
 * Fills the page at the reset vector. A processor's arrival there is meant to be noticed by its
 * first instruction fetch; should the platform let it through, this holds it: interrupts off,
 * halted, whatever wakes it. The rest of the page is INT3. No stack, no data, any alignment.
 */
void ap_reset_page_fill(void *page);

#endif
