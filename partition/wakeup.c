/* The wakeup mailbox in the guest's memory. See wakeup.h and docs/mailbox.md. */
#include "arch/x86/asm.h"
#include "arch/x86/fault.h"
#include "arch/x86/log.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "boot/load/acpi.h"
#include "boot/load/memory_map.h"
#include "core/mailbox/ap_tables.h"
#include "core/mailbox/madt.h"
#include "core/mailbox/mailbox.h"
#include "partition/guest_access.h"
#include "partition/policy.h"
#include "partition/wakeup.h"

#define LEVELS		4
#define RANGES_MAX	16
#define SELECTOR_CODE64 0x10
#define SELECTOR_FLAT	0x18

static struct {
	bool on;
	gpa_t page;
	gpa_t reset_vector;
	gpa_t cr3;
	struct mailbox *mailbox;
} wakeup;

static void wake(void *context, vp_id_t target)
{
	struct partition *partition = context;

	run_request_post(&partition->run, target, REQUEST_START);
}

static bool vector_allowed(void *context, gpa_t vector)
{
	const struct partition *partition = context;

	return memory_map_is_ram(partition->guest_map, vector.value, 1);
}

static const struct mailbox_ops ops = {.wake = wake, .vector_allowed = vector_allowed};

/* The kernel's trampoline may be anywhere in usable memory below 1 MiB, and writes to itself there. */
static uint32_t find_writable(
	const struct memory_map *map, struct ap_tables_range ranges[RANGES_MAX])
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < map->count && count < RANGES_MAX; i++) {
		uint64_t first = ALIGN_UP(map->ranges[i].base, PAGE_SIZE);
		uint64_t last = ALIGN_DOWN(map->ranges[i].base + map->ranges[i].length, PAGE_SIZE);

		if (map->ranges[i].type != MEMORY_RAM || first >= 0x100000) {
			continue;
		}
		if (last > 0x100000) {
			last = 0x100000;
		}
		if (first < last) {
			ranges[count].base = first;
			ranges[count++].bytes = last - first;
		}
	}
	return count;
}

static bool build_ap_pages(const struct wakeup_pages *pages, const struct memory_map *map)
{
	struct ap_tables_range writable[RANGES_MAX];
	struct ap_tables_config config = {
		.levels = LEVELS,
		.pages = memory_pointer(HPA(pages->ap_pages.value)),
		.gpa = pages->ap_pages,
		.writable = writable,
		.writable_count = find_writable(map, writable),
	};
	uint64_t table_bytes = AP_TABLES_PAGES(LEVELS) * PAGE_SIZE;

	if (pages->ap_bytes < table_bytes + PAGE_SIZE || !ap_tables_build(&config, &wakeup.cr3)) {
		return false;
	}
	wakeup.reset_vector = GPA(pages->ap_pages.value + table_bytes);
	ap_reset_page_fill(memory_pointer(HPA(wakeup.reset_vector.value)));
	return true;
}

/* The MADT grows in the first half of the room, new root tables go into the second. */
static gpa_t build_acpi(const struct wakeup_pages *pages, const struct acpi *acpi)
{
	uint64_t half = pages->table_bytes / 2;
	struct acpi_table madt;
	gpa_t rsdp = {0};
	size_t bytes;

	if (acpi_find_table(acpi, "APIC", &madt) != LOAD_OK) {
		log_line("W the firmware has no MADT: no wakeup mailbox");
		return rsdp;
	}

	enum madt_error error = madt_add_wakeup(madt.data, madt.bytes, pages->mailbox,
		wakeup.reset_vector, memory_pointer(HPA(pages->tables.value)), half, &bytes);

	if (error != MADT_OK) {
		log_line("W no wakeup mailbox: %s", madt_error_text(error));
		return rsdp;
	}

	enum load_error load_error = acpi_replace_table(
		acpi, "APIC", pages->tables, GPA(pages->tables.value + half), half, &rsdp, &bytes);

	if (load_error != LOAD_OK) {
		log_line("W no wakeup mailbox: %s", load_error_text(load_error));
		rsdp = GPA(0);
	}
	return rsdp;
}

static void build_mailbox(struct partition *partition)
{
	struct mailbox_vp_config vps[VP_COUNT_MAX];
	struct mailbox_config config = {
		.page = memory_pointer(HPA(wakeup.page.value)),
		.vector_end = AP_TABLES_END,
		.vps = partition->vp_count,
		.boot_vp = 0,
		.vp = vps,
		.ops = &ops,
		.context = partition,
	};

	for (uint32_t i = 0; i < partition->vp_count; i++) {
		vps[i] = (struct mailbox_vp_config){
			.apic_id = partition->vp[i]->apic_id,
			.trace = &partition->vp[i]->trace,
			.block = partition->vp[i]->block,
		};
	}
	__builtin_memset(config.page, 0, PAGE_SIZE);
	wakeup.mailbox = memory_take(sizeof(*wakeup.mailbox), CACHE_LINE_BYTES);
	wakeup.on = mailbox_init(wakeup.mailbox, &config);
}

gpa_t wakeup_init(struct partition *partition, const struct wakeup_pages *pages,
	const struct acpi *acpi, struct memory_map *map)
{
	wakeup.page = pages->mailbox;
	if (!build_ap_pages(pages, map)) {
		log_line("W no wakeup mailbox: its page tables do not fit");
		return GPA(0);
	}

	gpa_t rsdp = build_acpi(pages, acpi);

	if (!rsdp.value ||
		memory_map_reserve(map, pages->mailbox.value, PAGE_SIZE, MEMORY_NVS) != LOAD_OK ||
		memory_map_reserve(map, pages->ap_pages.value, pages->ap_bytes, MEMORY_RESERVED) !=
			LOAD_OK ||
		memory_map_reserve(map, pages->tables.value, pages->table_bytes, MEMORY_ACPI) !=
			LOAD_OK) {
		return GPA(0);
	}
	build_mailbox(partition);
	return wakeup.on ? rsdp : GPA(0);
}

/* What the guest may do with pages of its that are Parapet's to write, for good. */
static void pin(struct partition *partition, gpa_t base, uint64_t bytes, enum protect_pin kind,
	uint32_t access)
{
	partition_map(partition, base, bytes, access);
	if (protect_pin(&partition->protect, 0, base, bytes, kind, VTL2) != PROTECT_DONE) {
		fault_stop("no room to pin the mailbox");
	}
}

void wakeup_protect(struct partition *partition, const struct wakeup_pages *pages)
{
	if (!wakeup.on) {
		return;
	}
	/* Writes exit, but those to the tables; nothing is ever executed there. */
	pin(partition, pages->mailbox, PAGE_SIZE, PROTECT_PIN_OVERLAY, ACCESS_READ);
	pin(partition, wakeup.reset_vector, PAGE_SIZE, PROTECT_PIN_OVERLAY, ACCESS_READ);
	pin(partition, pages->ap_pages, wakeup.reset_vector.value - pages->ap_pages.value,
		PROTECT_PIN_OVERLAY_DATA, ACCESS_READ | ACCESS_WRITE);
}

bool wakeup_overlaps(gpa_t gpa, uint64_t bytes)
{
	uint64_t last = gpa.value + bytes - 1;

	return wakeup.on &&
		((gpa.value < wakeup.page.value + PAGE_SIZE && last >= wakeup.page.value) ||
			(gpa.value < wakeup.reset_vector.value + PAGE_SIZE &&
				last >= wakeup.reset_vector.value));
}

bool wakeup_owns_memory(gpa_t gpa)
{
	return wakeup_overlaps(gpa, 1);
}

uint64_t wakeup_read(gpa_t gpa, uint32_t size)
{
	uint64_t value = 0;

	__builtin_memcpy(&value, memory_pointer(HPA(gpa.value)), size);
	return value;
}

/* The reset vector's code is not the guest's to change. */
static bool write_is_denied(struct vp *vp, gpa_t gpa)
{
	if (!wakeup_owns_fetch(gpa)) {
		return false;
	}
	vp_deny(vp, COUNTER_DENIED_MEMORY, gpa.value);
	return true;
}

/* After a write that may have been a command. */
static void handle_command(struct vp *vp, gpa_t gpa, uint32_t size, uint64_t now)
{
	if (!mailbox_write_is_command((uint32_t)(gpa.value & ~PAGE_MASK), size)) {
		return;
	}
	if (start_is_denied(vp)) {
		vp_deny(vp, COUNTER_DENIED_MEMORY, gpa.value);
		return; /* the command stays there, and nobody takes it */
	}
	if (mailbox_handle_write(wakeup.mailbox, vp->id, now).outcome == MAILBOX_WOKEN &&
		!vp->partition->block->ap_first_request_tsc) {
		vp->partition->block->ap_first_request_tsc = now;
	}
}

void wakeup_write(struct vp *vp, gpa_t gpa, uint32_t size, uint64_t value)
{
	uint64_t now = asm_rdtsc();
	uint8_t *byte = memory_pointer(HPA(gpa.value));

	if (write_is_denied(vp, gpa)) {
		return;
	}
	/* As one store where the guest made one: others may read the page at any time. */
	if (size == 8 && gpa.value % 8 == 0) {
		*(volatile uint64_t *)byte = value;
	} else if (size == 4 && gpa.value % 4 == 0) {
		*(volatile uint32_t *)byte = (uint32_t)value;
	} else if (size == 2 && gpa.value % 2 == 0) {
		*(volatile uint16_t *)byte = (uint16_t)value;
	} else {
		for (uint32_t i = 0; i < size; i++) {
			((volatile uint8_t *)byte)[i] = (uint8_t)(value >> (8 * i));
		}
	}
	handle_command(vp, gpa, size, now);
}

/* The processor's locked instruction takes any alignment, as the guest's own would. */
static bool exchange(void *bytes, uint32_t size, uint64_t expected, uint64_t value)
{
	switch (size) {
	case 1:
		return __sync_bool_compare_and_swap(
			(uint8_t *)bytes, (uint8_t)expected, (uint8_t)value);
	case 2:
		return __sync_bool_compare_and_swap(
			(uint16_t *)bytes, (uint16_t)expected, (uint16_t)value);
	case 4:
		return __sync_bool_compare_and_swap(
			(uint32_t *)bytes, (uint32_t)expected, (uint32_t)value);
	default:
		return __sync_bool_compare_and_swap((uint64_t *)bytes, expected, value);
	}
}

bool wakeup_exchange(struct vp *vp, gpa_t gpa, uint32_t size, uint64_t expected, uint64_t value)
{
	uint64_t now = asm_rdtsc();

	if (write_is_denied(vp, gpa)) {
		return true;
	}
	if (!exchange(memory_pointer(HPA(gpa.value)), size, expected, value)) {
		return false;
	}
	handle_command(vp, gpa, size, now);
	return true;
}

bool wakeup_owns_fetch(gpa_t gpa)
{
	return wakeup.on && (gpa.value & PAGE_MASK) == wakeup.reset_vector.value;
}

void wakeup_offline(struct vp *vp)
{
	if (!mailbox_going_offline(wakeup.mailbox, vp->id, asm_rdtsc())) {
		/* It runs, but not for the mailbox: to it the page is one that is closed. */
		vp_deny(vp, COUNTER_DENIED_MEMORY, wakeup.reset_vector.value);
		vp_inject_exception(vp, VECTOR_UD, false, 0);
		return;
	}
	start_park(vp);
	mailbox_parked(wakeup.mailbox, vp->id, asm_rdtsc());
}

static struct vp_segment flat(uint16_t selector, uint16_t attributes)
{
	return (struct vp_segment){
		.selector = selector, .attributes = attributes, .limit = 0xffffffff};
}

bool wakeup_check(struct vp *vp)
{
	const struct platform_ops *platform = vp->partition->ops;
	struct vp_system_state state;
	gpa_t vector;

	if (!wakeup.on || !mailbox_park_check(wakeup.mailbox, vp->id, asm_rdtsc(), &vector)) {
		return false;
	}
	platform->system_read(vp->platform, &state);
	state.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	state.cr3 = wakeup.cr3.value;
	state.cr4 = CR4_PAE;
	state.efer = EFER_LME | EFER_LMA | EFER_NXE;
	state.cs = flat(SELECTOR_CODE64, 0xa9b);
	state.ds = state.es = state.ss = state.fs = state.gs = flat(SELECTOR_FLAT, 0xc93);
	platform->system_write(vp->platform, &state);
	vp->platform->registers.rip = vector.value;
	return true;
}

void wakeup_by_sipi(struct vp *vp)
{
	if (wakeup.on) {
		mailbox_started_otherwise(wakeup.mailbox, vp->id);
	}
}

bool wakeup_entered(struct vp *vp, uint64_t tsc)
{
	return wakeup.on && mailbox_running(wakeup.mailbox, vp->id, tsc);
}
