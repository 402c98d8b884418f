/*
 * What a Multiboot v1 kernel file is (Multiboot 0.6.96, 3.1; System V ABI for ELF): header,
 * segments, entry point. Where things go is the business of multiboot_boot.c.
 */
#include "boot/load/multiboot.h"

#include <string.h>

#define HEADER_MAGIC	0x1badb002
#define HEADER_SEARCH	8192
#define HEADER_ALIGN	4
#define FLAG_ADDRESSES	(1u << 16)
#define FLAGS_MANDATORY 0xffffu
#define FLAGS_KNOWN	0x7u /* page-aligned modules, memory map; video mode, which QEMU ignores too */

#define ELF_CLASS_32	   1
#define ELF_LITTLE_ENDIAN  1
#define ELF_VERSION	   1
#define ELF_EXECUTABLE	   2
#define ELF_MACHINE_386	   3
#define ELF_MACHINE_486	   6
#define ELF_MACHINE_X86_64 62
#define ELF_MACHINE_OFFSET 18 /* in ELF32 and ELF64 */
#define ELF_LOAD	   1

struct header {
	uint32_t magic;
	uint32_t flags;
	uint32_t checksum;
};

struct header_addresses {
	uint32_t header;
	uint32_t load;
	uint32_t load_end;
	uint32_t bss_end;
	uint32_t entry;
};

struct elf32_header {
	uint8_t magic[4];
	uint8_t class;
	uint8_t data;
	uint8_t ident_version;
	uint8_t padding[9];
	uint16_t type;
	uint16_t machine;
	uint32_t version;
	uint32_t entry;
	uint32_t phoff;
	uint32_t shoff;
	uint32_t flags;
	uint16_t ehsize;
	uint16_t phentsize;
	uint16_t phnum;
	uint16_t shentsize;
	uint16_t shnum;
	uint16_t shstrndx;
};

struct elf32_program_header {
	uint32_t type;
	uint32_t offset;
	uint32_t vaddr;
	uint32_t paddr;
	uint32_t filesz;
	uint32_t memsz;
	uint32_t flags;
	uint32_t align;
};

_Static_assert(sizeof(struct header) == 12, "read from a file");
_Static_assert(sizeof(struct header_addresses) == 20, "read from a file");
_Static_assert(sizeof(struct elf32_header) == 52, "read from a file");
_Static_assert(offsetof(struct elf32_header, machine) == ELF_MACHINE_OFFSET, "read from a file");
_Static_assert(sizeof(struct elf32_program_header) == 32, "read from a file");

static const uint8_t elf_magic[4] = {0x7f, 'E', 'L', 'F'};

/* The header and where in the file it is; false if there is none. */
static bool find_header(const uint8_t *file, size_t bytes, struct header *header, uint32_t *offset)
{
	size_t limit = bytes < HEADER_SEARCH ? bytes : HEADER_SEARCH;

	for (size_t at = 0; at + sizeof(*header) <= limit; at += HEADER_ALIGN) {
		memcpy(header, file + at, sizeof(*header));
		if (header->magic == HEADER_MAGIC &&
			header->checksum == 0u - HEADER_MAGIC - header->flags) {
			*offset = (uint32_t)at;
			return true;
		}
	}
	return false;
}

bool multiboot_find_header(const void *file, size_t bytes)
{
	struct header header;
	uint32_t offset;

	return find_header(file, bytes, &header, &offset);
}

/* Adds a segment if it is sound in itself and apart from the others. */
static enum load_error add_segment(
	struct multiboot_image *image, const struct multiboot_segment *segment)
{
	struct memory_span span = {segment->base, segment->bytes};

	if (segment->file_bytes > segment->bytes)
		return LOAD_ERR_MULTIBOOT_SEGMENT_SIZE;
	if (segment->file_offset > image->file_bytes ||
		segment->file_bytes > image->file_bytes - segment->file_offset)
		return LOAD_ERR_MULTIBOOT_TRUNCATED;
	if (segment->bytes == 0)
		return LOAD_OK;
	/* The last byte of the address space counts as too far: ends are 32-bit numbers. */
	if (segment->bytes > UINT32_MAX - segment->base)
		return LOAD_ERR_MULTIBOOT_SEGMENT_WRAPS;
	for (uint32_t i = 0; i < image->segment_count; i++) {
		struct memory_span other = {image->segments[i].base, image->segments[i].bytes};

		if (memory_span_overlaps(span, other))
			return LOAD_ERR_MULTIBOOT_SEGMENT_OVERLAP;
	}
	if (image->segment_count == MULTIBOOT_SEGMENTS_MAX)
		return LOAD_ERR_MULTIBOOT_MANY_SEGMENTS;
	image->segments[image->segment_count++] = *segment;
	return LOAD_OK;
}

static enum load_error check_entry(const struct multiboot_image *image)
{
	for (uint32_t i = 0; i < image->segment_count; i++) {
		const struct multiboot_segment *segment = &image->segments[i];

		if (image->entry >= segment->base && image->entry - segment->base < segment->bytes)
			return LOAD_OK;
	}
	return image->segment_count ? LOAD_ERR_MULTIBOOT_ENTRY : LOAD_ERR_MULTIBOOT_NO_SEGMENT;
}

/* The header's own address fields: one segment. */
static enum load_error inspect_addresses(
	const uint8_t *file, uint32_t offset, struct multiboot_image *image)
{
	struct header_addresses fields;
	struct multiboot_segment segment;
	uint64_t file_bytes;
	uint64_t bytes;
	enum load_error error;

	if (image->file_bytes - offset < sizeof(struct header) + sizeof(fields))
		return LOAD_ERR_MULTIBOOT_TRUNCATED;
	memcpy(&fields, file + offset + sizeof(struct header), sizeof(fields));
	if (fields.header < fields.load || fields.header - fields.load > offset)
		return LOAD_ERR_MULTIBOOT_ADDRESSES;
	segment.base = fields.load;
	segment.file_offset = offset - (fields.header - fields.load);
	if (fields.load_end && fields.load_end < fields.load)
		return LOAD_ERR_MULTIBOOT_ADDRESSES;
	file_bytes = fields.load_end ? fields.load_end - fields.load
				     : image->file_bytes - segment.file_offset;
	if (file_bytes > UINT32_MAX - fields.load)
		return LOAD_ERR_MULTIBOOT_SEGMENT_WRAPS;
	bytes = file_bytes;
	if (fields.bss_end) {
		if (fields.bss_end < fields.load + file_bytes)
			return LOAD_ERR_MULTIBOOT_ADDRESSES;
		bytes = fields.bss_end - fields.load;
	}
	segment.file_bytes = (uint32_t)file_bytes;
	segment.bytes = (uint32_t)bytes;
	error = add_segment(image, &segment);
	if (error)
		return error;
	image->entry = fields.entry;
	return check_entry(image);
}

static enum load_error check_elf_header(const uint8_t *file, size_t bytes, struct elf32_header *elf)
{
	if (bytes < sizeof(elf_magic) || memcmp(file, elf_magic, sizeof(elf_magic)) != 0)
		return LOAD_ERR_MULTIBOOT_NOT_ELF;
	if (bytes < sizeof(*elf))
		return LOAD_ERR_MULTIBOOT_TRUNCATED;
	memcpy(elf, file, sizeof(*elf));
	if (elf->machine == ELF_MACHINE_X86_64)
		return LOAD_ERR_MULTIBOOT_ELF64;
	if (elf->class != ELF_CLASS_32 || elf->data != ELF_LITTLE_ENDIAN ||
		(elf->machine != ELF_MACHINE_386 && elf->machine != ELF_MACHINE_486) ||
		elf->type != ELF_EXECUTABLE)
		return LOAD_ERR_MULTIBOOT_ELF_MACHINE;
	if (elf->version != ELF_VERSION || elf->ident_version != ELF_VERSION)
		return LOAD_ERR_MULTIBOOT_ELF_HEADER;
	if (elf->phnum == 0)
		return LOAD_ERR_MULTIBOOT_NO_SEGMENT;
	if (elf->phentsize != sizeof(struct elf32_program_header))
		return LOAD_ERR_MULTIBOOT_ELF_HEADER;
	if (elf->phoff > bytes ||
		elf->phnum > (bytes - elf->phoff) / sizeof(struct elf32_program_header))
		return LOAD_ERR_MULTIBOOT_TRUNCATED;
	return LOAD_OK;
}

/*
 * ELF's program headers, by physical address. An entry point that is a virtual address of a segment
 * is made physical, as QEMU and GRUB do.
 */
static enum load_error inspect_elf(const uint8_t *file, struct multiboot_image *image)
{
	struct elf32_header elf;
	enum load_error error = check_elf_header(file, image->file_bytes, &elf);
	bool translated = false;

	if (error)
		return error;
	image->entry = elf.entry;
	for (uint32_t i = 0; i < elf.phnum; i++) {
		struct elf32_program_header ph;
		struct multiboot_segment segment;

		memcpy(&ph, file + elf.phoff + i * sizeof(ph), sizeof(ph));
		if (ph.type != ELF_LOAD)
			continue;
		segment = (struct multiboot_segment){ph.paddr, ph.memsz, ph.offset, ph.filesz};
		error = add_segment(image, &segment);
		if (error)
			return error;
		if (!translated && elf.entry >= ph.vaddr && elf.entry - ph.vaddr < ph.memsz) {
			image->entry = ph.paddr + (elf.entry - ph.vaddr);
			translated = true;
		}
	}
	return check_entry(image);
}

enum load_error multiboot_inspect_image(
	const void *file, size_t bytes, struct multiboot_image *image)
{
	struct header header;
	uint32_t offset;

	memset(image, 0, sizeof(*image));
	image->file_bytes = bytes;
	if (!find_header(file, bytes, &header, &offset))
		return LOAD_ERR_MULTIBOOT_NO_HEADER;
	if (header.flags & FLAGS_MANDATORY & ~FLAGS_KNOWN)
		return LOAD_ERR_MULTIBOOT_FLAGS;
	if (header.flags & FLAG_ADDRESSES)
		return inspect_addresses(file, offset, image);
	return inspect_elf(file, image);
}
