#include "tap.h"

#include "acpi.h"
#include "boot.h"
#include "machine.h"
#include "print.h"
#include "trap.h"

#define DEBUG_EXIT 0xf4

static uint32_t tests, failures;

bool tap_check(bool passed, const char *format, ...)
{
	va_list list;

	tests++;
	failures += !passed;
	va_start(list, format);
	print("%s %u - ", passed ? "ok" : "not ok", tests);
	print_list(format, list);
	print("\n");
	va_end(list);
	return passed;
}

bool tap_equal(uint64_t found, uint64_t wanted, const char *name)
{
	if (!tap_check(found == wanted, "%s", name))
		print("# found 0x%lx, wanted 0x%lx\n", found, wanted);
	return found == wanted;
}

void tap_skip(const char *name, const char *reason)
{
	tests++;
	print("ok %u - %s # SKIP %s\n", tests, name, reason);
}

bool tap_wants_paravisor(const char *name)
{
	if (boot_has_paravisor())
		return true;
	tap_skip(name, "not under a paravisor");
	return false;
}

void tap_note(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	print("# ");
	print_list(format, list);
	print("\n");
	va_end(list);
}

void tap_finish(void)
{
	print("1..%u\n", tests);
	machine_exit(failures ? 1 : 0);
}

void tap_bail(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	print("Bail out! ");
	print_list(format, list);
	print("\n");
	va_end(list);
	machine_exit(1);
}

void machine_exit(uint8_t status)
{
	interrupts_disable();
	io_write8(DEBUG_EXIT, status);
	if (!status)
		acpi_power_off();
	trap_triple_fault();
}
