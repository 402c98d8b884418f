/*
 * The guest's MADT: the firmware's, plus the structure that tells where the wakeup mailbox is.
 * Works on bytes; finding tables, memory for the copy and the new RSDT or XSDT are the loader's.
 */
#ifndef PARAPET_CORE_MADT_H
#define PARAPET_CORE_MADT_H

#include <parapet/types.h>

/* ACPI 6.6, table 5.45: what madt_add_wakeup() makes a table longer by. */
#define MADT_WAKEUP_BYTES 24u

enum madt_error {
	MADT_OK,
	MADT_NOT_MADT, /* signature, or shorter than a header */
	MADT_BAD_LENGTH, /* longer than the bytes given, or an entry reaches over the end */
	MADT_BAD_CHECKSUM,
	MADT_HAS_WAKEUP, /* there is one already: two firmwares cannot both hold the processors */
	MADT_BAD_ADDRESS, /* mailbox not on a page, or no reset vector */
	MADT_NO_ROOM,
};

/*
 * Copies the MADT at `madt`, of which `bytes` may be read, to `out`, of which `size` may be
 * written (they may not overlap), and adds a multiprocessor wakeup structure of version 1. Every
 * other byte but length and checksum stays as it was. Its length goes to *out_bytes.
 */
enum madt_error madt_add_wakeup(const void *madt, size_t bytes, gpa_t mailbox, gpa_t reset_vector,
	void *out, size_t size, size_t *out_bytes);

const char *madt_error_text(enum madt_error error);

#endif
