/* Adds the multiprocessor wakeup structure to a MADT: ACPI 6.6, 5.2.12 and 5.2.12.19. */
#include "core/mailbox/madt.h"

#define MADT_LENGTH	 4u /* offsets in the header that all tables have */
#define MADT_CHECKSUM	 9u
#define MADT_ENTRIES	 44u /* after the header, the local APIC address and the flags */
#define MADT_TYPE_WAKEUP 0x10u

static uint32_t bytes_u32(const uint8_t *bytes)
{
	return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
		(uint32_t)bytes[3] << 24;
}

static void bytes_put(uint8_t *bytes, uint64_t value, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
}

static uint8_t bytes_sum(const uint8_t *bytes, size_t count)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return sum;
}

static enum madt_error madt_check(const uint8_t *madt, size_t bytes, uint32_t *length)
{
	static const uint8_t signature[4] = {'A', 'P', 'I', 'C'};

	if (bytes < MADT_ENTRIES)
		return MADT_NOT_MADT;
	for (unsigned int i = 0; i < sizeof(signature); i++) {
		if (madt[i] != signature[i])
			return MADT_NOT_MADT;
	}
	*length = bytes_u32(madt + MADT_LENGTH);
	if (*length < MADT_ENTRIES || *length > bytes || *length > UINT32_MAX - MADT_WAKEUP_BYTES)
		return MADT_BAD_LENGTH;
	if (bytes_sum(madt, *length) != 0)
		return MADT_BAD_CHECKSUM;
	for (uint32_t at = MADT_ENTRIES; at < *length; at += madt[at + 1]) {
		if (*length - at < 2 || madt[at + 1] < 2 || madt[at + 1] > *length - at)
			return MADT_BAD_LENGTH;
		if (madt[at] == MADT_TYPE_WAKEUP)
			return MADT_HAS_WAKEUP;
	}
	return MADT_OK;
}

enum madt_error madt_add_wakeup(const void *madt, size_t bytes, gpa_t mailbox, gpa_t reset_vector,
	void *out, size_t size, size_t *out_bytes)
{
	const uint8_t *from = madt;
	uint8_t *to = out;
	uint8_t *entry;
	uint32_t length;
	enum madt_error error = madt_check(from, bytes, &length);

	*out_bytes = 0;
	if (error != MADT_OK)
		return error;
	if (mailbox.value == 0 || (mailbox.value & (PAGE_SIZE - 1)) != 0 || reset_vector.value == 0)
		return MADT_BAD_ADDRESS;
	if (size < (size_t)length + MADT_WAKEUP_BYTES)
		return MADT_NO_ROOM;

	for (uint32_t i = 0; i < length; i++)
		to[i] = from[i];
	entry = to + length;
	entry[0] = MADT_TYPE_WAKEUP;
	entry[1] = MADT_WAKEUP_BYTES;
	bytes_put(entry + 2, 1, 2); /* mailbox version */
	bytes_put(entry + 4, 0, 4);
	bytes_put(entry + 8, mailbox.value, 8);
	bytes_put(entry + 16, reset_vector.value, 8);

	length += MADT_WAKEUP_BYTES;
	bytes_put(to + MADT_LENGTH, length, 4);
	to[MADT_CHECKSUM] = 0;
	to[MADT_CHECKSUM] = (uint8_t)-bytes_sum(to, length);
	*out_bytes = length;
	return MADT_OK;
}

const char *madt_error_text(enum madt_error error)
{
	switch (error) {
	case MADT_OK:
		return "nothing is wrong";
	case MADT_NOT_MADT:
		return "not a MADT";
	case MADT_BAD_LENGTH:
		return "a length in the MADT is wrong";
	case MADT_BAD_CHECKSUM:
		return "the MADT's checksum is wrong";
	case MADT_HAS_WAKEUP:
		return "the MADT has a wakeup mailbox already";
	case MADT_BAD_ADDRESS:
		return "the mailbox or the reset vector is in an impossible place";
	case MADT_NO_ROOM:
		return "no room for the longer MADT";
	}
	return "unknown error";
}
