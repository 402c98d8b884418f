/* Parapet's own memory and address space. See memory.h. */
#include "arch/x86/asm.h"
#include "arch/x86/fault.h"
#include "arch/x86/layout.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "arch/x86/string.h"

static struct {
	uint64_t base;
	uint64_t bytes;
	uint64_t used;
	bool closed;
} region;

void memory_init(hpa_t base, uint64_t region_bytes, uint64_t used_bytes)
{
	region.base = base.value;
	region.bytes = region_bytes;
	region.used = used_bytes;
}

void *memory_take(uint64_t bytes, uint64_t align)
{
	uint64_t start = ALIGN_UP(region.used, align);

	if (region.closed || bytes > region.bytes || start > region.bytes - bytes) {
		fault_stop("out of memory at start: wanted %lu bytes, %lu are left", bytes,
			region.bytes - region.used);
	}
	region.used = start + bytes;

	void *pointer = (void *)(IMAGE_BASE + start);

	memset(pointer, 0, bytes);
	return pointer;
}

/* The entry of the table at level `level` (4 is the top) that translates `address`. */
static uint64_t *table_entry(uint64_t cr3, uint64_t address, int level)
{
	uint64_t *entry = NULL;
	uint64_t table = cr3;

	for (int at = 4; at >= level; at--) {
		uint64_t *entries = memory_pointer(HPA(table & PTE_ADDRESS));

		entry = &entries[address >> (PAGE_BITS + 9 * (at - 1)) & 511];
		table = *entry;
	}
	return entry;
}

void *memory_take_stack(uint64_t bytes)
{
	uint8_t *guard = memory_take(PAGE_SIZE + bytes, PAGE_SIZE);

	*table_entry(asm_read_cr3(), (uint64_t)guard, 1) = 0;
	asm_write_cr3(asm_read_cr3());
	return guard + PAGE_SIZE + bytes;
}

extern const uint8_t image_text_start[], image_text_end[];

/* `writable`, `executable`: what the levels above allow. */
static void check_table(uint64_t table, int level, uint64_t base, bool writable, bool executable)
{
	const uint64_t *entries = memory_pointer(HPA(table & PTE_ADDRESS));

	for (uint64_t i = 0; i < 512; i++) {
		uint64_t entry = entries[i];
		uint64_t address = base + (i << (PAGE_BITS + 9 * (level - 1)));
		bool may_write = writable && (entry & PTE_WRITE);
		bool may_execute = executable && !(entry & PTE_NX);

		if (level == 4 && i >= 256) {
			address |= 0xffff000000000000; /* canonical */
		}
		if (!(entry & PTE_PRESENT)) {
			continue;
		}
		if (level > 1 && !(entry & PTE_LARGE)) {
			check_table(entry, level - 1, address, may_write, may_execute);
		} else if (may_execute &&
			(may_write || address < (uint64_t)image_text_start ||
				address >= (uint64_t)image_text_end)) {
			fault_stop("page 0x%lx may be executed%s", address,
				may_write ? " and written" : ", but is not text");
		}
	}
}

void memory_check_permissions(void)
{
	check_table(asm_read_cr3(), 4, 0, true, true);
}

void memory_close(void)
{
	region.closed = true;
}

uint64_t memory_left(void)
{
	return region.bytes - region.used;
}

hpa_t memory_region_base(void)
{
	return HPA(region.base);
}

uint64_t memory_region_bytes(void)
{
	return region.bytes;
}

hpa_t memory_hpa(const void *pointer)
{
	uint64_t address = (uint64_t)pointer;

	return HPA(
		address >= IMAGE_BASE ? address - IMAGE_BASE + region.base : address - DIRECT_BASE);
}

void *memory_pointer(hpa_t address)
{
	if (address.value - region.base < region.bytes) {
		return (void *)(address.value - region.base + IMAGE_BASE);
	}
	return (void *)(address.value + DIRECT_BASE);
}

bool memory_is_parapet(uint64_t base, uint64_t bytes)
{
	uint64_t end;

	if (__builtin_add_overflow(base, bytes, &end)) {
		return true;
	}
	return base < region.base + region.bytes && end > region.base;
}

uint64_t memory_build_ap_tables(hpa_t trampoline)
{
	uint64_t *tables[4];

	for (int i = 0; i < 4; i++) {
		tables[i] = memory_take(PAGE_SIZE, PAGE_SIZE);
	}
	memcpy(tables[0], memory_pointer(HPA(asm_read_cr3() & PTE_ADDRESS)), PAGE_SIZE);
	/* Present in the upper levels, read-only and executable in the last: W^X here too. */
	for (int level = 4; level > 1; level--) {
		uint64_t index = trampoline.value >> (PAGE_BITS + 9 * (level - 1)) & 511;

		tables[4 - level][index] =
			memory_hpa(tables[5 - level]).value | PTE_PRESENT | PTE_ACCESSED;
	}
	tables[3][trampoline.value >> PAGE_BITS & 511] =
		trampoline.value | PTE_PRESENT | PTE_ACCESSED;
	return memory_hpa(tables[0]).value;
}

void *memory_map_device(hpa_t base, uint64_t bytes)
{
	uint64_t first = base.value & PAGE_MASK;
	uint64_t last = ALIGN_UP(base.value + bytes, PAGE_SIZE);
	uint64_t root = asm_read_cr3();

	for (uint64_t page = first; page < last; page += PAGE_SIZE) {
		uint64_t address = DIRECT_BASE + page;

		for (int level = 4; level > 1; level--) {
			uint64_t *entry = table_entry(root, address, level);

			if (!(*entry & PTE_PRESENT)) {
				*entry = memory_hpa(memory_take(PAGE_SIZE, PAGE_SIZE)).value |
					PTE_PRESENT | PTE_WRITE | PTE_ACCESSED;
			} else if (*entry & PTE_LARGE) {
				return (void *)(DIRECT_BASE + base.value); /* mapped already */
			}
		}
		*table_entry(root, address, 1) = page | PTE_PRESENT | PTE_WRITE | PTE_ACCESSED |
			PTE_DIRTY | PTE_PWT | PTE_PCD | PTE_NX;
	}
	asm_write_cr3(root);
	return (void *)(DIRECT_BASE + base.value);
}
