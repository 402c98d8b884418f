/* The log's serial port: a 16550 driven by polling, with every wait bounded. */
#include "arch/x86/asm.h"
#include "arch/x86/log.h"
#include "core/atomic.h"

#define COM1 0x3f8
#define COM2 0x2f8

#define UART_DATA      0
#define UART_IER       1
#define UART_FCR       2
#define UART_LCR       3
#define UART_MCR       4
#define UART_LSR       5
#define UART_SCRATCH   7
#define UART_LSR_DATA  0x01
#define UART_LSR_EMPTY 0x20
#define UART_LCR_DLAB  0x80

#define SEND_TRIES 100000 /* far more than one character takes at 115,200 baud */
#define LINE_BYTES 256

static uint16_t port;
static bool somebody_listens;
static bool verbose_lines;
static bool taken_over;
static struct atomic_u32 line_lock;

static bool uart_exists(uint16_t base)
{
	asm_out8(base + UART_SCRATCH, 0x5a);
	if (asm_in8(base + UART_SCRATCH) != 0x5a) {
		return false;
	}
	asm_out8(base + UART_SCRATCH, 0xa5);
	return asm_in8(base + UART_SCRATCH) == 0xa5;
}

void log_init(void)
{
	somebody_listens = uart_exists(COM2);
	port = somebody_listens ? COM2 : uart_exists(COM1) ? COM1 : 0;
	if (!port) {
		return;
	}
	asm_out8(port + UART_IER, 0);
	asm_out8(port + UART_LCR, UART_LCR_DLAB);
	asm_out8(port + UART_DATA, 1); /* divisor 1: 115,200 baud */
	asm_out8(port + UART_IER, 0);
	asm_out8(port + UART_LCR, 0x03); /* 8N1 */
	asm_out8(port + UART_FCR, 0x07); /* FIFOs on and empty */
	asm_out8(port + UART_MCR, 0x03);
}

void log_set_verbose(bool verbose)
{
	verbose_lines = verbose;
}

void log_take_over(void)
{
	taken_over = true;
}

static void send(char character)
{
	for (int i = 0; i < SEND_TRIES; i++) {
		if (asm_in8(port + UART_LSR) & UART_LSR_EMPTY) {
			break;
		}
	}
	asm_out8(port + UART_DATA, (uint8_t)character);
}

static void log_list(const char *format, va_list arguments)
{
	char text[LINE_BYTES];

	/* Without the second port this is the guest's console: only errors may appear there. */
	if (!port || (!somebody_listens && format[0] != 'E' && !taken_over)) {
		return;
	}

	size_t length = print_format_list(text, sizeof(text), format, arguments);

	/* Acquire pairs with the release below: lines come out whole. Never on the flush path. */
	while (!taken_over && atomic_u32_exchange(&line_lock, 1, memory_order_acquire)) {
		atomic_relax();
	}
	for (size_t i = 0; i < length; i++) {
		send(text[i]);
	}
	send('\r');
	send('\n');
	/* Release pairs with the exchange above. */
	atomic_u32_store(&line_lock, 0, memory_order_release);
}

void log_line(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	log_list(format, arguments);
	va_end(arguments);
}

void log_info(const char *format, ...)
{
	va_list arguments;

	if (!verbose_lines) {
		return;
	}
	va_start(arguments, format);
	log_list(format, arguments);
	va_end(arguments);
}

bool log_wait_byte(uint8_t byte, uint64_t microseconds, uint64_t tsc_hz)
{
	if (!somebody_listens) {
		return false;
	}

	uint64_t deadline = asm_rdtsc() + tsc_hz / 1000000 * microseconds;

	while (asm_rdtsc() < deadline) {
		if ((asm_in8(port + UART_LSR) & UART_LSR_DATA) &&
			asm_in8(port + UART_DATA) == byte) {
			return true;
		}
		asm_pause();
	}
	return false;
}
