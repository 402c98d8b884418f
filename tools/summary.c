/* The few lines about a run that a person reads at its end. */
#include "tools/summary.h"

#include <inttypes.h>
#include <stdlib.h>

#define LABEL "  %-16s"

static const struct {
	const char *label;
	enum block_counter counter;
} exit_rows[] = {
	{"hypercall", COUNTER_EXIT_HYPERCALL},
	{"CPUID", COUNTER_EXIT_CPUID},
	{"MSR", COUNTER_EXIT_MSR},
	{"I/O", COUNTER_EXIT_IO},
	{"memory fault", COUNTER_EXIT_MEMORY_FAULT},
	{"halt", COUNTER_EXIT_HALT},
	{"interrupt", COUNTER_EXIT_INTERRUPT},
	{"NMI", COUNTER_EXIT_NMI},
	{"debug", COUNTER_EXIT_DEBUG},
	{"INIT/SIPI", COUNTER_EXIT_INIT_SIPI},
	{"shutdown", COUNTER_EXIT_SHUTDOWN},
	{"other", COUNTER_EXIT_OTHER},
};

static const struct {
	const char *label;
	enum block_counter counter;
} denied_rows[] = {
	{"I/O", COUNTER_DENIED_IO},
	{"MSR", COUNTER_DENIED_MSR},
	{"memory", COUNTER_DENIED_MEMORY},
	{"PCI", COUNTER_DENIED_PCI},
	{"interrupt", COUNTER_DENIED_INTERRUPT},
	{"instruction", COUNTER_DENIED_INSTRUCTION},
};

/* A time in the unit that suits it. */
static void print_time(FILE *out, double us)
{
	if (us < 1000)
		fprintf(out, "%.1f us", us);
	else if (us < 1e6)
		fprintf(out, "%.1f ms", us / 1e3);
	else
		fprintf(out, "%.2f s", us / 1e6);
}

static void print_machine(FILE *out, const struct run_result *result)
{
	static const char *const cpus[] = {
		[RUN_ACCEL_TCG] = "software CPU",
		[RUN_ACCEL_TCG_SINGLE] = "software CPU in one thread",
		[RUN_ACCEL_KVM] = "KVM",
	};

	fprintf(out, LABEL "%u VP%s, %" PRIu64 " MiB, QEMU%s%s, %s\n", "machine", result->cpus,
		result->cpus == 1 ? "" : "s", result->memory_bytes >> 20,
		result->qemu_version[0] ? " " : "", result->qemu_version, cpus[result->accel]);
}

static int compare_times(const void *a, const void *b)
{
	double first = *(const double *)a;
	double second = *(const double *)b;

	return (first > second) - (first < second);
}

static void print_ap_start(FILE *out, const struct block_view *block)
{
	const struct block_header *header = &block->header;
	double times[VP_COUNT_MAX];
	size_t count = 0;

	for (uint32_t vp = 0; vp < header->vps; vp++)
		count += block_read_ap_start_us(block, vp, &times[count]);
	if (count == 0)
		return;
	qsort(times, count, sizeof(times[0]), compare_times);
	fprintf(out, LABEL "%zu by %s, request to first instruction ", "started", count,
		header->ap_start_method[0] ? header->ap_start_method : "an unnamed method");
	print_time(out, times[count / 2]);
	if (count > 1) {
		fputs(" (median; slowest ", out);
		print_time(out, times[count - 1]);
		fputc(')', out);
	}
	if (header->ap_last_online_tsc > header->ap_first_request_tsc &&
		header->ap_first_request_tsc) {
		fputs(", all in ", out);
		print_time(out,
			block_read_us(
				block, header->ap_last_online_tsc - header->ap_first_request_tsc));
	}
	fputc('\n', out);
}

static void print_times(FILE *out, const struct run_result *result)
{
	const struct block_view *block = result->block;

	if (block && block->header.boot_tsc && block->header.tsc_hz) {
		fprintf(out, LABEL, "boot");
		print_time(out, block_read_us(block, block->header.boot_tsc));
		fputs(" from power-on to the guest kernel's first instruction\n", out);
		print_ap_start(out, block);
	}
	fprintf(out, LABEL, "ran for");
	print_time(out, (double)result->wall_us);
	fputc('\n', out);
}

static void print_exit_row(FILE *out, const char *label, uint64_t count, double seconds)
{
	char number[TEXT_NUMBER_BYTES];
	char rate[TEXT_NUMBER_BYTES] = "-";

	if (seconds > 0)
		text_group_digits((uint64_t)((double)count / seconds + 0.5), rate);
	fprintf(out, "    %-14s%14s%14s\n", label, text_group_digits(count, number), rate);
}

static void print_exits(FILE *out, const struct block_view *block)
{
	double seconds = block_read_guest_us(block) / 1e6;

	fprintf(out, "  %-16s%14s%14s\n", "exits", "count", "per second");
	for (size_t i = 0; i < ARRAY_SIZE(exit_rows); i++) {
		uint64_t count = block_read_total(block, exit_rows[i].counter);

		if (count > 0)
			print_exit_row(out, exit_rows[i].label, count, seconds);
	}
	print_exit_row(out, "total", block_read_exits(block), seconds);
}

static void print_flushes(FILE *out, const struct block_view *block)
{
	uint64_t requests = block_read_total(block, COUNTER_FLUSH_REQUESTS);
	char number[3][TEXT_NUMBER_BYTES];

	if (requests == 0)
		return;
	fprintf(out, LABEL "%s requests, %s kicks sent, %s not needed\n", "TLB flushes",
		text_group_digits(requests, number[0]),
		text_group_digits(block_read_total(block, COUNTER_FLUSH_KICKS_SENT), number[1]),
		text_group_digits(block_read_total(block, COUNTER_FLUSH_KICKS_SKIPPED), number[2]));
}

static void print_permissions(FILE *out, const struct block_view *block)
{
	uint64_t changes = block_read_total(block, COUNTER_PROTECT_TRANSACTIONS);
	char number[4][TEXT_NUMBER_BYTES];

	if (changes == 0)
		return;
	fprintf(out, LABEL "%s changes of %s ranges, %s shootdowns, %s accesses stopped\n",
		"permissions", text_group_digits(changes, number[0]),
		text_group_digits(block_read_total(block, COUNTER_PROTECT_RANGES), number[1]),
		text_group_digits(block_read_total(block, COUNTER_PROTECT_SHOOTDOWNS), number[2]),
		text_group_digits(block_read_total(block, COUNTER_PROTECT_DENIED), number[3]));
}

static void print_denied(FILE *out, const struct block_view *block)
{
	char number[TEXT_NUMBER_BYTES];
	bool any = false;

	fprintf(out, LABEL, "denied");
	for (size_t i = 0; i < ARRAY_SIZE(denied_rows); i++) {
		uint64_t count = block_read_total(block, denied_rows[i].counter);

		if (count == 0)
			continue;
		fprintf(out, "%s%s %s", any ? ", " : "", text_group_digits(count, number),
			denied_rows[i].label);
		any = true;
	}
	fputs(any ? "\n" : "nothing\n", out);
}

void summary_print(
	FILE *out, bool colour, const struct run_result *result, const struct verdict *verdict)
{
	const char *start = !colour ? "" : verdict->status == 0 ? "\033[1;32m" : "\033[1;31m";

	fprintf(out, "\nparapet: summary%s\n",
		result->paravisor ? "" : " (no paravisor: the guest on the bare machine)");
	print_machine(out, result);
	print_times(out, result);
	if (result->block) {
		print_exits(out, result->block);
		print_flushes(out, result->block);
		print_permissions(out, result->block);
		print_denied(out, result->block);
	} else if (result->paravisor) {
		fprintf(out, LABEL "none: Parapet's block could not be read\n", "statistics");
	}
	if (result->paravisor)
		fprintf(out, LABEL "DMA is not covered: a device can still write anywhere\n",
			"DMA");
	fprintf(out, LABEL "%s%s%s\n", "verdict", start, verdict->text, colour ? "\033[0m" : "");
}
