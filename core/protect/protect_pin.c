/*
 * Pins: what may not be changed. Their number is small (some pages for each VP, what a seal
 * covers), so they are a list.
 */
#include "core/protect/protect_internal.h"

static bool protect_pin_refuses(const struct protect_pinned *pin, enum vtl by, uint32_t access)
{
	switch (pin->kind) {
	case PROTECT_PIN_OVERLAY_DATA:
		return access != (ACCESS_READ | ACCESS_WRITE);
	case PROTECT_PIN_OVERLAY_CODE:
		return access != (ACCESS_READ | ACCESS_EXECUTE);
	case PROTECT_PIN_LOCK:
		return by < pin->by;
	case PROTECT_PIN_OVERLAY:
		break;
	}
	return true;
}

static bool protect_pin_meets(const struct protect_pinned *pin, uint64_t base, uint64_t bytes)
{
	return pin->base < base + bytes && base < pin->base + pin->bytes;
}

enum protect_status protect_pins_check(const struct protect *protect, enum vtl by,
	const struct protect_range *range, uint64_t *failed)
{
	for (uint32_t i = 0; i < protect->pin_count; i++) {
		const struct protect_pinned *pin = &protect->pin[i];

		if (!protect_pin_meets(pin, range->base, range->bytes) ||
			!protect_pin_refuses(pin, by, range->access))
			continue;
		*failed = pin->base > range->base ? pin->base : range->base;
		return pin->kind == PROTECT_PIN_LOCK ? PROTECT_LOCKED : PROTECT_OVERLAY_PAGE;
	}
	return PROTECT_DONE;
}

/* Does the page serve as something else already? There would be no permission that both can have. */
static bool protect_pin_clashes(const struct protect *protect, const struct protect_pinned *new)
{
	for (uint32_t i = 0; i < protect->pin_count; i++) {
		const struct protect_pinned *pin = &protect->pin[i];

		if (protect_pin_meets(pin, new->base, new->bytes) && pin->kind != new->kind &&
			pin->kind != PROTECT_PIN_LOCK &&new->kind != PROTECT_PIN_LOCK)
			return true;
	}
	return false;
}

void protect_pins_insert(struct protect *protect, const struct protect_pinned *pin)
{
	protect->pin[protect->pin_count++] = *pin;
	/* Relaxed, pairs with the look of protect_add: see there. */
	atomic_u64_fetch_or(&protect->pinned, protect_region_shards(pin->base, pin->bytes),
		memory_order_relaxed);
}

static bool protect_pin_is_good(gpa_t base, uint64_t bytes)
{
	uint64_t end;

	return bytes != 0 && (base.value | bytes) % PAGE_SIZE == 0 &&
		!__builtin_add_overflow(base.value, bytes, &end);
}

enum protect_status protect_pin(struct protect *protect, vp_id_t vp, gpa_t base, uint64_t bytes,
	enum protect_pin kind, enum vtl by)
{
	const struct protect_pinned pin = {base.value, bytes, kind, by};
	enum protect_status status = PROTECT_FULL;
	uint64_t shards;

	if (!protect_pin_is_good(base, bytes))
		return PROTECT_BAD_RANGE;
	/* A transaction on the range that has passed its look at the pins is waited for. */
	shards = protect_region_shards(base.value, bytes);
	protect_lock_set(protect, vp, PROTECT_LAYER_REGION, shards);
	protect_lock_records(protect, vp);
	if (protect_pin_clashes(protect, &pin)) {
		status = PROTECT_OVERLAY_PAGE;
	} else if (protect->pin_count + protect->pin_reserved < protect->pin_room) {
		protect_pins_insert(protect, &pin);
		status = PROTECT_DONE;
	}
	protect_unlock_records(protect, vp);
	protect_unlock_set(protect, vp, PROTECT_LAYER_REGION, shards);
	return status;
}

bool protect_unpin(struct protect *protect, vp_id_t vp, gpa_t base, uint64_t bytes,
	enum protect_pin kind, enum vtl by)
{
	bool found = false;

	protect_lock_records(protect, vp);
	for (uint32_t i = 0; i < protect->pin_count && !found; i++) {
		const struct protect_pinned *pin = &protect->pin[i];

		found = pin->base == base.value && pin->bytes == bytes && pin->kind == kind &&
			pin->by == by;
		if (found)
			protect->pin[i] = protect->pin[--protect->pin_count];
	}
	protect_unlock_records(protect, vp);
	return found;
}
