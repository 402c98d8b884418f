#include "boot.h"

#include "cpu.h"
#include "machine.h"
#include "print.h"
#include "tap.h"
#include "trap.h"

#define MULTIBOOT_LOADED 0x2badb002
#define INFO_HAS_CMDLINE (1u << 2)
#define INFO_HAS_MEMORY	 (1u << 6)

struct multiboot_info {
	uint32_t flags;
	uint32_t mem_lower, mem_upper;
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t mods_count, mods_addr;
	uint32_t syms[4];
	uint32_t mmap_length, mmap_addr;
};
_Static_assert(offsetof(struct multiboot_info, mmap_addr) == 48, "Multiboot v1, section 3.3");

struct multiboot_memory {
	uint32_t size; /* of what follows */
	uint64_t base;
	uint64_t length;
	uint32_t type;
} __attribute__((packed));
_Static_assert(sizeof(struct multiboot_memory) == 24, "Multiboot v1, section 3.3");

/* Written by start.S before there is a stack. */
uint32_t boot_magic, boot_info;
void boot_enter(void);

static char cmdline[2048];
static struct memory_range memory[64];
static uint32_t memory_count;

static void cmdline_copy(const char *from)
{
	uint32_t i;

	for (i = 0; from[i] && i + 1 < sizeof(cmdline); i++)
		cmdline[i] = from[i];
	cmdline[i] = 0;
}

static void memory_copy(uint64_t address, uint64_t end)
{
	while (address + sizeof(struct multiboot_memory) <= end && memory_count < 64) {
		const struct multiboot_memory *entry = (const void *)address;

		memory[memory_count++] = (struct memory_range){
			entry->base, entry->base + entry->length, entry->type};
		address += entry->size + sizeof(entry->size);
	}
}

void boot_enter(void)
{
	const struct multiboot_info *info = (const void *)(uint64_t)boot_info;

	print_start();
	if (boot_magic == MULTIBOOT_LOADED) {
		if (info->flags & INFO_HAS_CMDLINE)
			cmdline_copy((const char *)(uint64_t)info->cmdline);
		if (info->flags & INFO_HAS_MEMORY)
			memory_copy(info->mmap_addr, (uint64_t)info->mmap_addr + info->mmap_length);
	}
	cpu_first_start();
	if (boot_magic != MULTIBOOT_LOADED || !memory_count)
		tap_bail("not started by a Multiboot loader with a memory map");
	kernel_main();
	tap_finish();
}

const char *boot_cmdline_get(void)
{
	return cmdline;
}

/* The first argument may be the loader's name for the file; it does no harm. */
static const char *word_next(const char *position, uint32_t *length)
{
	while (*position == ' ')
		position++;
	for (*length = 0; position[*length] && position[*length] != ' ';)
		(*length)++;
	return position;
}

bool boot_word_find(const char *word)
{
	uint32_t length, wanted = (uint32_t)string_length(word);

	for (const char *at = word_next(cmdline, &length); length;
		at = word_next(at + length, &length))
		if (length == wanted && string_equal(at, word, length))
			return true;
	return false;
}

static bool number_parse(const char *text, uint32_t length, uint64_t *value)
{
	uint32_t base = 10, i = 0;

	if (length > 2 && text[0] == '0' && text[1] == 'x') {
		base = 16;
		i = 2;
	}
	*value = 0;
	if (i == length)
		return false;
	for (; i < length; i++) {
		char digit = text[i];
		uint32_t n;

		if (digit >= '0' && digit <= '9')
			n = (uint32_t)(digit - '0');
		else if (base == 16 && digit >= 'a' && digit <= 'f')
			n = (uint32_t)(digit - 'a' + 10);
		else
			return false;
		*value = *value * base + n;
	}
	return true;
}

bool boot_number_get(const char *name, uint64_t *value)
{
	uint32_t length, wanted = (uint32_t)string_length(name);

	for (const char *at = word_next(cmdline, &length); length;
		at = word_next(at + length, &length))
		if (length > wanted && at[wanted] == '=' && string_equal(at, name, wanted))
			return number_parse(at + wanted + 1, length - wanted - 1, value);
	return false;
}

uint32_t boot_memory_count(void)
{
	return memory_count;
}

const struct memory_range *boot_memory_get(uint32_t index)
{
	return &memory[index];
}

bool boot_memory_is_ram(uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < memory_count; i++)
		if (memory[i].type == MEMORY_RAM && memory[i].start <= start &&
			end <= memory[i].end)
			return true;
	return false;
}

uint64_t boot_low_page_take(void)
{
	/* Leave the interrupt table of real mode and the BIOS data area alone. */
	static uint64_t next = 0x8000;

	for (; next < 0x9f000; next += 4096) {
		if (boot_memory_is_ram(next, next + 4096)) {
			next += 4096;
			return next - 4096;
		}
	}
	return 0;
}

bool boot_has_paravisor(void)
{
	struct cpuid id = cpuid_get(0x40000000, 0);

	if (boot_word_find("paravisor"))
		return true;
	return (cpuid_get(1, 0).ecx & 1u << 31) && id.ebx == 0x7263694d && id.ecx == 0x666f736f &&
		id.edx == 0x76482074;
}
