/*
 * A stand-in for Parapet's image in a real QEMU: a Multiboot kernel that plays Parapet's side of
 * the channel, shows what it was given, and powers the machine off once it is answered. 32-bit, no
 * libc.
 */
#include <stddef.h>

#include <parapet/block.h>

#define COM1 0x3f8
#define COM2 0x2f8

void probe_main(uint32_t magic, const uint32_t *info);

struct {
	struct block_header header;
	uint8_t padding[24];
	struct block_vp vp;
} probe_block __attribute__((aligned(64))) = {
	.header =
		{
			.magic = BLOCK_MAGIC,
			.version = BLOCK_VERSION,
			.header_bytes = sizeof(struct block_header),
			.bytes = sizeof(probe_block),
			.platform = "svm",
			.ap_start_method = "sipi",
			.vps = 1,
			.counters = COUNTER_COUNT,
			.vp_offset = offsetof(__typeof__(probe_block), vp),
			.vp_bytes = sizeof(struct block_vp),
			.tsc_hz = 1000000000,
		},
	.vp.counter[COUNTER_EXIT_CPUID] = 4711,
};

__asm__(".section .multiboot, \"a\"\n"
	".balign 4\n"
	".long 0x1badb002, 3, -(0x1badb002 + 3)\n"
	".text\n"
	".globl _start\n"
	"_start: mov $stack_end, %esp\n"
	"push %ebx\n"
	"push %eax\n"
	"call probe_main\n"
	".bss\n"
	".balign 16\n"
	".skip 4096\n"
	"stack_end:\n"
	".text\n");

static void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void print(uint16_t port, const char *text)
{
	for (; *text; text++) {
		while (!(in8(port + 5) & 0x20))
			;
		out8(port, (uint8_t)*text);
	}
}

static void print_hex(uint16_t port, uint32_t value)
{
	char text[12] = "0x";

	for (int i = 0; i < 8; i++)
		text[2 + i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
	text[10] = '\0';
	print(port, text);
}

void probe_main(uint32_t magic, const uint32_t *info)
{
	const uint32_t *modules = (const uint32_t *)info[6];

	print(COM1, magic == 0x2badb002 ? "options: " : "magic?\n");
	print(COM1, (const char *)info[4]);
	for (uint32_t i = 0; i < info[5]; i++) {
		print(COM1, "\nmodule: ");
		print(COM1, (const char *)modules[4 * i + 2]);
	}
	print(COM1, "\n");
	print(COM2, "@block ");
	print_hex(COM2, (uint32_t)&probe_block);
	print(COM2, " ");
	print_hex(COM2, sizeof(probe_block));
	print(COM2, "\nI hello from the probe\n@guest\n@end power-off 0\n");
	while (!(in8(COM2 + 5) & 1) || in8(COM2) != 'k')
		;
	print(COM1, "answered\n");
	/* q35 with SeaBIOS: PM1a_CNT at 0x604, SLP_TYP 0, SLP_EN. */
	__asm__ volatile("outw %0, %1" : : "a"((uint16_t)0x2000), "Nd"((uint16_t)0x604));
	for (;;)
		__asm__ volatile("hlt");
}
