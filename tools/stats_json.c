/* The statistics of a run as JSON. Makes text; no files. */
#include "tools/stats_json.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <parapet/types.h>

#include "core/protect/protect.h"
#include "tools/channel_line.h"

struct counter_name {
	const char *key;
	enum block_counter counter;
};

static const struct counter_name exit_names[] = {
	{"hypercall", COUNTER_EXIT_HYPERCALL},
	{"cpuid", COUNTER_EXIT_CPUID},
	{"msr", COUNTER_EXIT_MSR},
	{"io", COUNTER_EXIT_IO},
	{"memory_fault", COUNTER_EXIT_MEMORY_FAULT},
	{"halt", COUNTER_EXIT_HALT},
	{"interrupt", COUNTER_EXIT_INTERRUPT},
	{"nmi", COUNTER_EXIT_NMI},
	{"debug", COUNTER_EXIT_DEBUG},
	{"init_sipi", COUNTER_EXIT_INIT_SIPI},
	{"shutdown", COUNTER_EXIT_SHUTDOWN},
	{"other", COUNTER_EXIT_OTHER},
};

static const struct counter_name apic_names[] = {
	{"eoi", COUNTER_APIC_EOI},
	{"timer", COUNTER_APIC_TIMER},
	{"icr", COUNTER_APIC_ICR},
	{"other", COUNTER_APIC_OTHER},
};

static const struct counter_name denied_names[] = {
	{"io", COUNTER_DENIED_IO},
	{"msr", COUNTER_DENIED_MSR},
	{"memory", COUNTER_DENIED_MEMORY},
	{"pci", COUNTER_DENIED_PCI},
	{"interrupt", COUNTER_DENIED_INTERRUPT},
	{"instruction", COUNTER_DENIED_INSTRUCTION},
};

static const struct counter_name event_names[] = {
	{"pci_config", COUNTER_PCI_CONFIG},
	{"init_received", COUNTER_INIT_RECEIVED},
	{"sipi_received", COUNTER_SIPI_RECEIVED},
	{"nmi_injected", COUNTER_NMI_INJECTED},
	{"kick_received", COUNTER_KICK_RECEIVED},
};

static const struct counter_name flush_names[] = {
	{"requests", COUNTER_FLUSH_REQUESTS},
	{"ranges", COUNTER_FLUSH_RANGES},
	{"full", COUNTER_FLUSH_FULL},
	{"kicks_sent", COUNTER_FLUSH_KICKS_SENT},
	{"kicks_skipped", COUNTER_FLUSH_KICKS_SKIPPED},
};

static const struct counter_name protect_names[] = {
	{"transactions", COUNTER_PROTECT_TRANSACTIONS},
	{"ranges", COUNTER_PROTECT_RANGES},
	{"entries_written", COUNTER_PROTECT_ENTRIES_WRITTEN},
	{"shootdowns", COUNTER_PROTECT_SHOOTDOWNS},
	{"deferred", COUNTER_PROTECT_DEFERRED},
	{"denied", COUNTER_PROTECT_DENIED},
};

static const struct counter_name debug_names[] = {
	{"register_accesses", COUNTER_DEBUG_ACCESSES},
	{"interrupt_exit_accesses", COUNTER_DEBUG_INTERRUPT_EXIT_ACCESSES},
	{"hypervisor_queries", COUNTER_DEBUG_HYPERVISOR_QUERIES},
};

static const struct counter_name mailbox_names[] = {
	{"wakeups", COUNTER_MAILBOX_WAKEUPS},
	{"tests", COUNTER_MAILBOX_TESTS},
	{"refused", COUNTER_MAILBOX_REFUSED},
	{"offlines", COUNTER_MAILBOX_OFFLINES},
};

static const struct counter_name vtl1_names[] = {
	{"entries", COUNTER_VTL1_ENTRIES},
	{"intercepts", COUNTER_VTL1_INTERCEPTS},
};

/* A time in microseconds, to a thousandth. */
static json_t *make_us(double us)
{
	return json_real(round(us * 1000) / 1000);
}

/* One number for each VP. */
static json_t *make_per_vp(const struct block_view *block, enum block_counter counter)
{
	json_t *array = json_array();

	for (uint32_t vp = 0; block && vp < block->header.vps; vp++)
		json_array_append_new(
			array, json_integer((json_int_t)block_read_counter(block, vp, counter)));
	return array;
}

/* The totals of some counters, and under "per_vp" each VP's. */
static json_t *make_counters(
	const struct block_view *block, const struct counter_name *names, size_t count)
{
	json_t *object = json_object();
	json_t *per_vp = json_object();

	for (size_t i = 0; i < count; i++) {
		uint64_t total = block ? block_read_total(block, names[i].counter) : 0;

		json_object_set_new(object, names[i].key, json_integer((json_int_t)total));
		json_object_set_new(per_vp, names[i].key, make_per_vp(block, names[i].counter));
	}
	json_object_set_new(object, "per_vp", per_vp);
	return object;
}

#define MAKE_COUNTERS(block, names) make_counters(block, names, ARRAY_SIZE(names))

/* "over", flushes at VPs that were not addressed, is 0: each VP has a queue, and takes from no other. */
static json_t *make_flush(const struct block_view *block)
{
	json_t *object = MAKE_COUNTERS(block, flush_names);

	json_object_set_new(object, "over", json_integer(0));
	return object;
}

static const char *name_of(const char *const *names, size_t count, uint32_t value)
{
	return value < count && names[value] ? names[value] : "unknown";
}

/* "rwx", with k or u for the x where only the kernel, or only user code, may execute. */
static json_t *make_access(uint32_t access)
{
	uint32_t execute = access & ACCESS_EXECUTE;
	char text[4] = {
		access & ACCESS_READ ? 'r' : '-',
		access & ACCESS_WRITE ? 'w' : '-',
		execute == ACCESS_EXECUTE		   ? 'x'
			: execute == ACCESS_EXECUTE_KERNEL ? 'k'
			: execute == ACCESS_EXECUTE_USER   ? 'u'
							   : '-',
	};

	return json_string(text);
}

static json_t *make_region(const struct block_region *region)
{
	static const char *const states[BLOCK_REGION_STATES] = {
		[BLOCK_REGION_STABLE] = "stable",
		[BLOCK_REGION_CHANGING] = "changing",
		[BLOCK_REGION_FLUSHING] = "flushing",
		[BLOCK_REGION_DEFERRED] = "deferred",
	};
	static const char *const reasons[PROTECT_REASONS] = {
		[PROTECT_VTL_MASK] = "vtl-mask",
		[PROTECT_KERNEL_SEAL] = "kernel-seal",
		[PROTECT_TEST] = "test",
	};

	return json_pack("{s:I, s:I, s:s, s:o, s:o, s:b, s:b, s:i, s:i, s:i, s:s, s:I}", "base",
		(json_int_t)region->base, "bytes", (json_int_t)region->bytes, "state",
		name_of(states, ARRAY_SIZE(states), region->state), "old",
		make_access(region->old_access), "new", make_access(region->new_access), "mixed",
		region->mixed != 0, "hull", region->hull != 0, "target_vtl", region->target,
		"by_vtl", region->by, "vp", (int)region->vp, "reason",
		name_of(reasons, ARRAY_SIZE(reasons), region->reason), "transaction",
		(json_int_t)region->transaction);
}

/* The counters of permission changes, and the changes that Parapet still has a record of. */
static json_t *make_protect(const struct block_view *block)
{
	json_t *protect = MAKE_COUNTERS(block, protect_names);
	json_t *regions = json_array();

	for (uint64_t i = 0; block && i < block->header.regions; i++) {
		const struct block_region *region = block_read_region(block, i);

		if (region->state != BLOCK_REGION_FREE)
			json_array_append_new(regions, make_region(region));
	}
	json_object_set_new(protect, "regions", regions);
	return protect;
}

static json_t *make_exits(const struct block_view *block)
{
	json_t *exits = MAKE_COUNTERS(block, exit_names);

	json_object_set_new(
		exits, "total", json_integer(block ? (json_int_t)block_read_exits(block) : 0));
	return exits;
}

static json_t *make_ap_start(const struct block_view *block)
{
	json_t *ap_start = json_object();
	json_t *per_vp = json_array();
	json_t *method = json_null();
	json_t *total = json_null();

	if (block) {
		const struct block_header *header = &block->header;

		if (header->ap_start_method[0])
			method = json_string(header->ap_start_method);
		if (header->ap_first_request_tsc && header->tsc_hz &&
			header->ap_last_online_tsc >= header->ap_first_request_tsc)
			total = make_us(block_read_us(
				block, header->ap_last_online_tsc - header->ap_first_request_tsc));
		for (uint32_t vp = 0; vp < header->vps; vp++) {
			double us;

			if (block_read_ap_start_us(block, vp, &us))
				json_array_append_new(per_vp, make_us(us));
		}
	}
	json_object_set_new(ap_start, "method", method);
	json_object_set_new(ap_start, "total_us", total);
	json_object_set_new(ap_start, "per_vp_us", per_vp);
	return ap_start;
}

static json_t *make_end(const struct run_result *result, const struct verdict *verdict)
{
	return json_pack("{s:s, s:I, s:b, s:i, s:s}", "reason", verdict_end_name(result->end),
		"code", (json_int_t)result->code, "panic", (int)result->panic, "status",
		verdict->status, "text", verdict->text);
}

static json_t *make_boot_us(const struct block_view *block)
{
	if (!block || block->header.boot_tsc == 0 || block->header.tsc_hz == 0)
		return json_null();
	return make_us(block_read_us(block, block->header.boot_tsc));
}

/* What only a block can tell: null without one. */
static void add_image(json_t *root, const struct block_view *block)
{
	json_object_set_new(root, "guest_us",
		block && block_read_guest_us(block) > 0 ? make_us(block_read_guest_us(block))
							: json_null());
	json_object_set_new(root, "tsc_hz",
		block ? json_integer((json_int_t)block->header.tsc_hz) : json_null());
	json_object_set_new(root, "text_bytes",
		block ? json_integer((json_int_t)block->header.text_bytes) : json_null());
	json_object_set_new(root, "parapet_memory_bytes",
		block ? json_integer((json_int_t)block->header.memory_bytes) : json_null());
}

char *stats_json_make(const struct run_result *result, const struct verdict *verdict)
{
	const struct block_view *block = result->block;
	const char *platform = !result->paravisor ? "none" : block ? block->header.platform : "svm";
	json_t *root = json_object();

	json_object_set_new(root, "platform", json_string(platform));
	json_object_set_new(
		root, "vps", json_integer(block ? (json_int_t)block->header.vps : result->cpus));
	json_object_set_new(root, "boot_us", make_boot_us(block));
	json_object_set_new(root, "ap_start", make_ap_start(block));
	json_object_set_new(root, "exits", make_exits(block));
	json_object_set_new(root, "flush", make_flush(block));
	json_object_set_new(root, "protect", make_protect(block));
	json_object_set_new(root, "debug", MAKE_COUNTERS(block, debug_names));
	json_object_set_new(root, "apic", MAKE_COUNTERS(block, apic_names));
	json_object_set_new(root, "denied", MAKE_COUNTERS(block, denied_names));
	json_object_set_new(root, "events", MAKE_COUNTERS(block, event_names));
	json_object_set_new(root, "mailbox", MAKE_COUNTERS(block, mailbox_names));
	json_object_set_new(root, "vtl1", MAKE_COUNTERS(block, vtl1_names));
	json_object_set_new(root, "end", make_end(result, verdict));
	json_object_set_new(root, "wall_us", json_integer((json_int_t)result->wall_us));
	json_object_set_new(root, "memory_bytes", json_integer((json_int_t)result->memory_bytes));
	json_object_set_new(root, "accel", json_string(run_accel_name(result->accel)));
	json_object_set_new(root, "qemu",
		result->qemu_version[0] ? json_string(result->qemu_version) : json_null());
	json_object_set_new(root, "statistics", json_boolean(block != NULL));
	add_image(root, block);

	char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15));

	json_decref(root);
	if (!text)
		return NULL;

	size_t length = strlen(text);
	char *line = realloc(text, length + 2);

	if (!line) {
		free(text);
		return NULL;
	}
	memcpy(line + length, "\n", 2);
	return line;
}
