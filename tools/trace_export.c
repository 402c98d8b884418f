/* The trace rings of a block as trace-event JSON. Makes text; no files. */
#include "tools/trace_export.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/trace/trace.h"

#define TRACE_PROCESS 1 /* the viewer's process number for all VPs */

/* A number as JSON can carry it: above 2^53 a viewer would round it, so that it becomes text. */
static void write_argument(FILE *out, const char *name, uint64_t value, bool *first)
{
	if (!name)
		return;
	fprintf(out, "%s\"%s\": ", *first ? "" : ", ", name);
	if (value > 1ull << 53)
		fprintf(out, "\"0x%" PRIx64 "\"", value);
	else
		fprintf(out, "%" PRIu64, value);
	*first = false;
}

static const char *phase_letter(enum trace_phase phase)
{
	switch (phase) {
	case TRACE_PHASE_BEGIN:
		return "B";
	case TRACE_PHASE_END:
		return "E";
	case TRACE_PHASE_ASYNC_BEGIN:
		return "b";
	case TRACE_PHASE_ASYNC_STEP:
		return "n";
	case TRACE_PHASE_ASYNC_END:
		return "e";
	case TRACE_PHASE_INSTANT:
		break;
	}
	return "i";
}

/* The names in trace_event_describe() are plain text: nothing in them needs escaping. */
static void write_record(
	FILE *out, const struct block_view *block, uint32_t vp, const struct trace_record *record)
{
	const struct trace_event_info *info = trace_event_describe(record->event);
	const char *name =
		info->span && info->phase != TRACE_PHASE_ASYNC_STEP ? info->span : info->name;
	bool first = true;

	fprintf(out,
		",\n{\"name\": \"%s\", \"cat\": \"%s\", \"ph\": \"%s\", \"ts\": %.3f, "
		"\"pid\": %d, \"tid\": %" PRIu32,
		name, info->category, phase_letter(info->phase), block_read_us(block, record->tsc),
		TRACE_PROCESS, vp);
	switch (info->phase) {
	case TRACE_PHASE_INSTANT:
		fputs(", \"s\": \"t\"", out);
		break;
	case TRACE_PHASE_ASYNC_BEGIN:
	case TRACE_PHASE_ASYNC_STEP:
	case TRACE_PHASE_ASYNC_END:
		fprintf(out, ", \"id\": \"0x%" PRIx64 "\"", record->a);
		break;
	case TRACE_PHASE_BEGIN:
	case TRACE_PHASE_END:
		break;
	}
	fputs(", \"args\": {", out);
	if (info->span) {
		fprintf(out, "\"event\": \"%s\"", info->name);
		first = false;
	}
	write_argument(out, info->arg_a, record->a, &first);
	write_argument(out, info->arg_b, record->b, &first);
	fputs("}}", out);
}

/* One VP's ring. Returns false if there is no memory. */
static bool write_ring(
	FILE *out, const struct block_view *block, uint32_t vp, struct trace_export *export)
{
	uint64_t entries = block->header.trace_entries;
	struct trace_record *records = malloc(entries * sizeof(*records));
	uint64_t next = 0;

	if (!records)
		return false;

	uint64_t count =
		trace_ring_read(block_read_ring(block, vp), entries, &next, records, entries);

	for (uint64_t i = 0; i < count; i++) {
		if (records[i].event == TRACE_NONE)
			continue;
		write_record(out, block, vp, &records[i]);
		export->records++;
	}
	export->lost += next - count;
	free(records);
	return true;
}

static void write_names(FILE *out, const struct block_view *block)
{
	fprintf(out,
		"{\"name\": \"process_name\", \"ph\": \"M\", \"pid\": %d, \"tid\": 0, "
		"\"args\": {\"name\": \"Parapet\"}}",
		TRACE_PROCESS);
	for (uint32_t vp = 0; block && vp < block->header.vps; vp++)
		fprintf(out,
			",\n{\"name\": \"thread_name\", \"ph\": \"M\", \"pid\": %d, \"tid\": "
			"%" PRIu32 ", \"args\": {\"name\": \"VP %" PRIu32 " (APIC %" PRIu32 ")\"}}"
			",\n{\"name\": \"thread_sort_index\", \"ph\": \"M\", \"pid\": %d, \"tid\": "
			"%" PRIu32 ", \"args\": {\"sort_index\": %" PRIu32 "}}",
			TRACE_PROCESS, vp, vp, block_read_vp(block, vp)->apic_id, TRACE_PROCESS, vp,
			vp);
}

struct trace_export trace_export_make(const struct block_view *block)
{
	struct trace_export export = {.text = NULL};
	size_t bytes = 0;
	FILE *out = open_memstream(&export.text, &bytes);
	bool whole = true;

	if (!out)
		return export;
	fputs("{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n", out);
	write_names(out, block);
	if (block && block->header.trace_entries) {
		for (uint32_t vp = 0; vp < block->header.vps; vp++)
			whole = whole && write_ring(out, block, vp, &export);
	}
	fprintf(out, "\n], \"otherData\": {\"records\": %" PRIu64 ", \"lost\": %" PRIu64 "}}\n",
		export.records, export.lost);
	whole = whole && !ferror(out);
	if (fclose(out) != 0 || !whole) {
		free(export.text);
		export.text = NULL;
	}
	return export;
}
