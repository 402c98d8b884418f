/*
 * What a hostile guest tries with the machine's devices: every way round a thin hypervisor that
 * leads through a port, a PCI register or an interrupt controller. Only a paravisor can pass; on
 * the bare machine, where the attempts would succeed, all but the closing checks are skipped unless
 * the word "paravisor" is on the command line. A PCI device "edu" (-device edu) lets it try
 * interrupt messages for real, an e1000e (-device e1000e) those of MSI-X.
 */
#include "acpi.h"
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "machine.h"
#include "pci.h"
#include "print.h"
#include "tap.h"
#include "trap.h"
#include "vitals.h"

#define HOST_BRIDGE PCI_ADDRESS(0, 0)
#define LPC_BRIDGE  PCI_ADDRESS(31, 0)
#define AHCI	    PCI_ADDRESS(31, 2)

/* --- fw_cfg ----------------------------------------------------------------------------------- */

#define FW_CFG_SELECTOR	 0x510
#define FW_CFG_DATA	 0x511
#define FW_CFG_DMA_HIGH	 0x514
#define FW_CFG_DMA_LOW	 0x518
#define FW_CFG_SIGNATURE 0
#define FW_CFG_ID	 1
#define FW_CFG_HAS_DMA	 2

/* Big-endian; QEMU's docs/specs/fw_cfg. */
struct fw_cfg_dma {
	uint32_t control;
	uint32_t length;
	uint64_t address;
};

static void dma_run(void *argument)
{
	io_write32(FW_CFG_DMA_HIGH, 0);
	io_write32(FW_CFG_DMA_LOW, __builtin_bswap32((uint32_t)(uint64_t)argument));
}

static void dma_string_run(void *argument)
{
	uint32_t words[2] = {0, __builtin_bswap32((uint32_t)(uint64_t)argument)};
	const void *from = words;
	uint64_t count = 1;

	__asm__ volatile("rep outsl" : "+S"(from), "+c"(count) : "d"(FW_CFG_DMA_HIGH) : "memory");
	count = 1;
	__asm__ volatile("rep outsl" : "+S"(from), "+c"(count) : "d"(FW_CFG_DMA_LOW) : "memory");
}

static void fw_cfg_test(void)
{
	static void (*const ways[])(void *) = {dma_run, dma_string_run};
	static const char *const names[] = {"OUT", "OUTS"};
	static _Alignas(16) volatile struct fw_cfg_dma request;
	static volatile uint8_t target[64];
	uint8_t id;

	for (uint32_t i = 0; i < 2; i++) {
		bool same = true;

		memset((void *)target, 0x5a, sizeof(target));
		/* Select the signature and read it into our own memory: control bits 3 and 1. */
		request.control = __builtin_bswap32(FW_CFG_SIGNATURE << 16 | 0xa);
		request.length = __builtin_bswap32(4);
		request.address = __builtin_bswap64((uint64_t)target);
		trap_catch(ways[i], (void *)&request);
		clock_delay(10000);
		for (uint32_t n = 0; n < sizeof(target); n++)
			same &= target[n] == 0x5a;
		tap_check(
			same && request.control == __builtin_bswap32(FW_CFG_SIGNATURE << 16 | 0xa),
			"fw_cfg: DMA by %s writes nothing", names[i]);
	}
	io_write16(FW_CFG_SELECTOR, FW_CFG_ID);
	id = io_read8(FW_CFG_DATA);
	tap_check(id == 0xff || !(id & FW_CFG_HAS_DMA), "fw_cfg: no DMA is offered");
	tap_check(io_read32(FW_CFG_DMA_HIGH) != 0x554d4551, "fw_cfg: no DMA signature");
}

/* --- interrupt messages and the I/O APIC ------------------------------------------------------ */

#define PIT_CHANNEL0 0x40
#define PIT_COMMAND  0x43

static const struct {
	uint32_t mode;
	const char *name;
} modes[] = {
	{ICR_SMI, "SMI"},
	{ICR_NMI, "NMI"},
	{ICR_INIT, "INIT"},
};

static void pit_start(void)
{
	io_write8(PIT_COMMAND, 0x34);
	io_write8(PIT_CHANNEL0, 0x9c); /* about 1 ms */
	io_write8(PIT_CHANNEL0, 0x04);
}

/*
 * The last processor: an INIT that comes through stops it, and vitals finds out. An SMI goes to the
 * first, the only one whose SMM the firmware has prepared.
 */
static uint32_t victim(uint32_t mode)
{
	return cpus[mode == ICR_SMI ? 0 : cpu_count() - 1].apic_id;
}

static bool mode_is_harmless(uint32_t entry)
{
	uint32_t mode = entry & 0x700;

	return (entry & LVT_MASKED) || mode == ICR_FIXED || mode == ICR_LOWEST;
}

static void ioapic_test(void)
{
	uint32_t gsi = acpi_machine_get()->timer_gsi, count = ioapic_entry_count(), before;
	bool works;

	pit_start();
	for (uint32_t m = 0; m < 3; m++) {
		uint32_t nmis = vitals_nmis();
		bool harmless = true;

		/* An INIT to the only processor would end the test without a result. */
		if (modes[m].mode == ICR_INIT && cpu_count() == 1)
			continue;
		for (uint32_t i = 0; i < count; i++) {
			ioapic_entry_write(i,
				(uint64_t)victim(modes[m].mode) << 56 | modes[m].mode | 0x40 |
					(i == gsi ? 0 : IOAPIC_LEVEL));
			harmless &= mode_is_harmless((uint32_t)ioapic_entry_read(i));
		}
		clock_delay(20000);
		for (uint32_t i = 0; i < count; i++)
			ioapic_entry_write(i, IOAPIC_MASKED);
		tap_check(harmless, "I/O APIC: an entry cannot ask for %s", modes[m].name);
		tap_check(vitals_untouched(nmis), "I/O APIC: no %s arrives", modes[m].name);
	}
	before = vitals_interrupts();
	ioapic_entry_write(gsi, (uint64_t)cpus[0].apic_id << 56 | VITALS_VECTOR);
	works = clock_wait_for(vitals_interrupts() - before > 3, 2000000);
	ioapic_entry_write(gsi, IOAPIC_MASKED);
	clock_delay(5000);
	tap_check(works, "I/O APIC: ordinary interrupts arrive");
}

/* Configuration space by either way: ports, or memory where the firmware put it. */
struct config {
	const char *name;
	uint32_t (*read)(uint32_t address, uint32_t offset);
	void (*write)(uint32_t address, uint32_t offset, uint32_t value);
	void (*write_byte)(uint32_t address, uint32_t offset, uint8_t value);
};

static uint64_t ecam_address(uint32_t address, uint32_t offset)
{
	return acpi_machine_get()->ecam + ((uint64_t)address << 12) + offset;
}

static uint32_t ecam_read(uint32_t address, uint32_t offset)
{
	return mmio_read32(ecam_address(address, offset));
}

static void ecam_write(uint32_t address, uint32_t offset, uint32_t value)
{
	mmio_write32(ecam_address(address, offset), value);
}

static void ecam_write_byte(uint32_t address, uint32_t offset, uint8_t value)
{
	*(volatile uint8_t *)ecam_address(address, offset) = value;
}

static const struct config by_ports = {"ports", pci_read32, pci_write32, pci_write8};
static const struct config by_memory = {"memory", ecam_read, ecam_write, ecam_write_byte};

/* What came of a write, by ports whatever way it went: both ways show the same registers. */
static void msi_set(const struct config *config, uint32_t device, uint32_t capability, uint64_t to,
	uint32_t data)
{
	uint32_t control = pci_read32(device, capability);
	uint32_t data_at = capability + (control >> 16 & 0x80 ? 12 : 8);

	config->write(device, capability + 4, (uint32_t)to);
	if (control >> 16 & 0x80)
		config->write(device, capability + 8, 0);
	config->write(device, data_at, data);
	config->write(device, capability, control | 1u << 16);
}

static void msi_clear(uint32_t device, uint32_t capability)
{
	pci_write32(device, capability, pci_read32(device, capability) & ~(1u << 16));
}

static uint32_t msi_data_get(uint32_t device, uint32_t capability)
{
	bool wide = pci_read32(device, capability) >> 16 & 0x80;

	return pci_read32(device, capability + (wide ? 12 : 8)) & 0xffff;
}

static bool msi_is_enabled(uint32_t device, uint32_t capability)
{
	return pci_read32(device, capability) >> 16 & 1;
}

#define EDU_ID	      0x11e81234
#define EDU_RAISE     0x60
#define EDU_ACK	      0x64
#define COMMAND_READY 0x6 /* memory decoding and bus mastering: a message is a memory write */

static uint32_t device_find(uint32_t id)
{
	uint32_t device = pci_device_next(0);

	while (device != PCI_NONE && pci_read32(device, 0) != id)
		device = pci_device_next(device + 1);
	return device;
}

static void edu_raise(uint32_t device)
{
	uint64_t base = pci_read32(device, PCI_BAR0) & ~0xfu;

	mmio_write32(base + EDU_RAISE, 1);
	clock_delay(10000);
	mmio_write32(base + EDU_ACK, 1);
}

static void msi_test(const struct config *config)
{
	uint32_t edu = device_find(EDU_ID), device = edu == PCI_NONE ? AHCI : edu;
	uint32_t capability = pci_capability_find(device, PCI_CAP_MSI), before;
	uint64_t to = APIC_BASE_ADDRESS | victim(ICR_FIXED) << 12;

	if (!capability) {
		tap_skip("interrupt messages", "no device that sends any");
		return;
	}
	if (edu != PCI_NONE)
		config->write(device, PCI_COMMAND, pci_read32(device, PCI_COMMAND) | COMMAND_READY);
	for (uint32_t m = 0; m < 3; m++) {
		uint32_t nmis = vitals_nmis();

		if (modes[m].mode == ICR_INIT && cpu_count() == 1)
			continue;
		to = APIC_BASE_ADDRESS | victim(modes[m].mode) << 12;
		msi_set(config, device, capability, to, modes[m].mode | VITALS_VECTOR);
		tap_check(!msi_is_enabled(device, capability) ||
				mode_is_harmless(msi_data_get(device, capability)),
			"MSI by %s: a device cannot be told to send %s", config->name,
			modes[m].name);
		if (edu != PCI_NONE)
			edu_raise(device);
		/* Once enabled with good data, the data alone may turn bad. */
		msi_set(config, device, capability, to, VITALS_VECTOR);
		config->write_byte(device,
			capability + (pci_read32(device, capability) >> 16 & 0x80 ? 13 : 9),
			(uint8_t)(modes[m].mode >> 8));
		tap_check(!msi_is_enabled(device, capability) ||
				mode_is_harmless(msi_data_get(device, capability)),
			"MSI by %s: nor afterwards, a byte at a time (%s)", config->name,
			modes[m].name);
		if (edu != PCI_NONE)
			edu_raise(device);
		msi_clear(device, capability);
		tap_check(vitals_untouched(nmis), "MSI by %s: no %s arrives", config->name,
			modes[m].name);
	}
	if (edu == PCI_NONE)
		return;
	before = vitals_interrupts();
	msi_set(config, device, capability, to, VITALS_VECTOR);
	edu_raise(device);
	tap_check(vitals_interrupts() == before + 1, "MSI by %s: an ordinary one arrives",
		config->name);
	msi_clear(device, capability);
}

/*
 * MSI-X keeps its messages in the device's own memory. An e1000e (-device e1000e) can be told to
 * send one: Intel 82574 datasheet, sections 10.2.4 and 10.2.9.
 */
#define E1000E_ID	0x10d38086
#define E1000E_ICS	0x0c8
#define E1000E_IMS	0x0d0
#define E1000E_IMC	0x0d8
#define E1000E_IVAR	0x0e4
#define CAUSE_OTHER	(1u << 24)
#define CAUSE_LINK	(1u << 2)
#define IVAR_OTHER_TO_0 (0x8u << 16)
#define MSIX_ENABLE	(1u << 31)

struct msix_entry {
	uint32_t address, address_high;
	uint32_t data;
	uint32_t control; /* bit 0: masked */
};

static uint64_t bar_get(uint32_t device, uint32_t bar)
{
	return pci_read32(device, PCI_BAR0 + bar * 4) & ~0xfu;
}

static void msix_write_run(void *argument)
{
	const struct msix_entry *wanted = argument;
	volatile struct msix_entry *entry = (volatile struct msix_entry *)(uint64_t)wanted->control;

	entry->control = 1;
	entry->address = wanted->address;
	entry->address_high = 0;
	entry->data = wanted->data;
	entry->control = 0;
}

static void e1000e_raise(uint64_t registers)
{
	mmio_write32(registers + E1000E_IVAR, IVAR_OTHER_TO_0);
	mmio_write32(registers + E1000E_IMS, CAUSE_OTHER | CAUSE_LINK);
	mmio_write32(registers + E1000E_ICS, CAUSE_OTHER | CAUSE_LINK);
	clock_delay(10000);
	mmio_write32(registers + E1000E_IMC, 0xffffffff);
}

static void msix_test(void)
{
	uint32_t device = device_find(E1000E_ID), capability, place;
	volatile struct msix_entry *entry;
	struct msix_entry message;

	if (device == PCI_NONE || !(capability = pci_capability_find(device, PCI_CAP_MSIX))) {
		tap_skip("MSI-X", "no device that has it");
		return;
	}
	pci_write32(device, PCI_COMMAND, pci_read32(device, PCI_COMMAND) | COMMAND_READY);
	place = pci_read32(device, capability + 4);
	entry = (volatile struct msix_entry *)(bar_get(device, place & 7) + (place & ~7u));
	/* The table is below 4 GiB: its address fits where msix_write_run looks for it. */
	message.control = (uint32_t)(uint64_t)entry;
	for (uint32_t m = 0; m < 3; m++) {
		uint32_t nmis = vitals_nmis();

		if (modes[m].mode == ICR_INIT && cpu_count() == 1)
			continue;
		message.address = APIC_BASE_ADDRESS | victim(modes[m].mode) << 12;
		message.data = modes[m].mode | VITALS_VECTOR;
		trap_catch(msix_write_run, &message);
		pci_write32(device, capability, pci_read32(device, capability) | MSIX_ENABLE);
		tap_check(!(pci_read32(device, capability) & MSIX_ENABLE) || (entry->control & 1) ||
				mode_is_harmless(entry->data & 0xffff),
			"MSI-X: a device cannot be told to send %s", modes[m].name);
		e1000e_raise(bar_get(device, 0));
		pci_write32(device, capability, pci_read32(device, capability) & ~MSIX_ENABLE);
		tap_check(vitals_untouched(nmis), "MSI-X: no %s arrives", modes[m].name);
	}
}

/* --- registers of the chipset ----------------------------------------------------------------- */

struct closed_register {
	uint32_t device;
	uint32_t offset;
	uint8_t flip; /* bits that the register can hold */
	const char *name;
};

/* Byte by byte: Intel's datasheets of the Q35 and ICH9. */
static const struct closed_register closed[] = {
	{HOST_BRIDGE, 0x9d, 0x40, "SMRAM"},
	{HOST_BRIDGE, 0x9e, 0x83, "ESMRAMC (TSEG)"},
	{HOST_BRIDGE, 0x90, 0x30, "PAM0"},
	{HOST_BRIDGE, 0x91, 0x33, "PAM1"},
	{HOST_BRIDGE, 0x92, 0x33, "PAM2"},
	{HOST_BRIDGE, 0x93, 0x33, "PAM3"},
	{HOST_BRIDGE, 0x94, 0x33, "PAM4"},
	{HOST_BRIDGE, 0x95, 0x33, "PAM5"},
	{HOST_BRIDGE, 0x96, 0x33, "PAM6"},
	{HOST_BRIDGE, 0x60, 0x01, "PCIEXBAR, low"},
	{HOST_BRIDGE, 0x63, 0x10, "PCIEXBAR, middle"},
	{LPC_BRIDGE, 0x41, 0x10, "PMBASE"},
	{LPC_BRIDGE, 0x44, 0x80, "ACPI_CNTL"},
	{LPC_BRIDGE, 0xa0, 0x10, "GEN_PMCON_1"},
	{LPC_BRIDGE, 0xf0, 0x01, "RCBA, low"},
	{LPC_BRIDGE, 0xf3, 0x10, "RCBA, high"},
};

static void chipset_test(const struct config *config)
{
	for (uint32_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++) {
		uint8_t before = pci_read8(closed[i].device, closed[i].offset), now;

		config->write_byte(closed[i].device, closed[i].offset, before ^ closed[i].flip);
		now = pci_read8(closed[i].device, closed[i].offset);
		if (now != before)
			pci_write8(closed[i].device, closed[i].offset, before);
		tap_check(
			now == before, "chipset by %s: %s is closed", config->name, closed[i].name);
	}
}

/* The same registers through wider accesses that only touch them at the edge. */
static void chipset_edge_test(void)
{
	uint32_t before = pci_read32(HOST_BRIDGE, 0x9c);

	pci_write32(HOST_BRIDGE, 0x9c, before ^ 0x4000);
	tap_equal(pci_read32(HOST_BRIDGE, 0x9c), before, "chipset: SMRAM by a 32-bit write");
	io_write32(0xcf8, 0x80000000 | 0x9c);
	io_write16(0xcfd, (uint16_t)(before >> 8) ^ 0x40);
	tap_equal(pci_read32(HOST_BRIDGE, 0x9c), before, "chipset: SMRAM by a shifted write");
	if (!acpi_machine_get()->ecam)
		return;
	*(volatile uint64_t *)ecam_address(HOST_BRIDGE, 0x98) =
		(uint64_t)(before ^ 0x4000) << 32 | pci_read32(HOST_BRIDGE, 0x98);
	tap_equal(pci_read32(HOST_BRIDGE, 0x9c), before, "chipset: SMRAM by a 64-bit write");
}

/* A device's window laid over RAM, over the APICs, over the ports of the chipset. */
static void bars_test(const struct config *config)
{
	static _Alignas(4096) volatile uint64_t page[512];

	for (uint32_t device = pci_device_next(0); device != PCI_NONE;
		device = pci_device_next(device + 1)) {
		bool stayed = true, measured = true;
		uint32_t bars = 0;

		if (pci_read8(device, 0x0e) & 0x7f)
			continue;
		for (uint32_t bar = 0; bar < 6; bar++) {
			const uint32_t memory[] = {(uint32_t)(uint64_t)page, APIC_BASE_ADDRESS,
				0xfec00000, 0x200000, 0x100000};
			const uint32_t ports[] = {0x0c00, 0x0510, 0x0600, 0x0060};
			uint32_t offset = PCI_BAR0 + bar * 4, before = pci_read32(device, offset);
			bool is_port = before & 1;
			uint32_t size;

			if (!(before & ~0xfu))
				continue;
			bars++;
			/* How every operating system finds a window's size. */
			config->write(device, offset, 0xffffffff);
			size = ~(pci_read32(device, offset) & (is_port ? ~3u : ~0xfu)) + 1;
			config->write(device, offset, before);
			if (is_port)
				size &= 0xffff;
			measured &= size && !(size & (size - 1)) &&
				pci_read32(device, offset) == before;
			page[0] = 0x5a5a5a5a;
			for (uint32_t i = 0; i < (is_port ? 4 : 5); i++) {
				uint32_t wanted = is_port ? ports[i] : memory[i];

				uint32_t now;

				config->write(device, offset, wanted);
				now = pci_read32(device, offset);
				pci_write32(device, offset, before);
				if (now != before)
					tap_note("BAR %u went from 0x%x to 0x%x", bar, before, now);
				stayed &= now == before && page[0] == 0x5a5a5a5a;
			}
			if ((before & 6) == 4)
				bar++;
		}
		if (bars)
			tap_check(measured, "BARs by %s: those of 00:%02x.%u can be measured",
				config->name, device >> 3, device & 7);
		if (bars)
			tap_check(stayed, "BARs by %s: those of 00:%02x.%u stay", config->name,
				device >> 3, device & 7);
	}
}

/* A device's ROM, switched on over RAM. */
static void rom_test(const struct config *config)
{
	static _Alignas(4096) volatile uint64_t page[512];

	for (uint32_t device = pci_device_next(0); device != PCI_NONE;
		device = pci_device_next(device + 1)) {
		uint32_t before, size, now;

		if (pci_read8(device, 0x0e) & 0x7f)
			continue;
		before = pci_read32(device, PCI_ROM);
		config->write(device, PCI_ROM, 0xfffff800);
		size = pci_read32(device, PCI_ROM);
		config->write(device, PCI_ROM, before);
		if (!size)
			continue;
		page[0] = 0x5a5a5a5a;
		config->write(device, PCI_ROM, (uint32_t)(uint64_t)page | 1);
		now = pci_read32(device, PCI_ROM);
		pci_write32(device, PCI_ROM, before);
		tap_check(now == before && page[0] == 0x5a5a5a5a,
			"BARs by %s: the ROM of 00:%02x.%u stays", config->name, device >> 3,
			device & 7);
	}
}

/* --- ports ------------------------------------------------------------------------------------ */

static void smi_test(void)
{
	uint32_t base = acpi_machine_get()->pm1a_event, before;
	uint32_t nmis = vitals_nmis();

	io_write8(0xb3, 0x5a);
	tap_check(io_read8(0xb3) != 0x5a, "SMI: the status port keeps nothing");
	io_write8(0xb2, 0x5a);
	tap_check(io_read8(0xb2) != 0x5a, "SMI: the command port keeps nothing");
	tap_check(vitals_untouched(nmis), "SMI: nothing came of it");
	if (!base) {
		tap_skip("SMI_EN and TCO", "no ACPI registers");
		return;
	}
	before = io_read32((uint16_t)(base + 0x30));
	io_write32((uint16_t)(base + 0x30), before ^ 0x21);
	tap_equal(io_read32((uint16_t)(base + 0x30)), before, "SMI_EN is closed");
	io_write32((uint16_t)(base + 0x30), before);
	before = io_read16((uint16_t)(base + 0x72));
	io_write16((uint16_t)(base + 0x72), (uint16_t)(before ^ 0x15));
	tap_equal(io_read16((uint16_t)(base + 0x72)), before, "the TCO watchdog is closed");
	io_write16((uint16_t)(base + 0x72), (uint16_t)before);
}

#define SLEEP_ENABLE 0x2000

static void sleep_test(void)
{
	const struct acpi_machine *machine = acpi_machine_get();
	uint16_t port = machine->pm1a_control;
	uint32_t nmis = vitals_nmis();

	if (!port) {
		tap_skip("sleep states", "no ACPI registers");
		return;
	}
	/* Every sleep type but the one that powers off, which a guest may do. */
	for (uint32_t type = 0; type < 8; type++) {
		if (type == machine->sleep_type_off)
			continue;
		io_write16(port, (uint16_t)(SLEEP_ENABLE | type << 10));
		io_write8((uint16_t)(port + 1), (uint8_t)(SLEEP_ENABLE >> 8 | type << 2));
		clock_delay(10000);
	}
	tap_check(vitals_untouched(nmis), "sleep states other than power-off do nothing");
}

/* VMware's backdoor, which QEMU answers: it knows ways into the machine too. */
static void backdoor_test(void)
{
	uint32_t eax = 0x564d5868, ebx = 0, ecx = 10, edx = 0x5658;

	__asm__ volatile("inl %%dx, %%eax" : "+a"(eax), "+b"(ebx), "+c"(ecx), "+d"(edx));
	tap_check(ebx != 0x564d5868, "the VMware backdoor is closed");
}

/* With A20 off, an odd mebibyte is the even one below it. */
static bool a20_is_on(uint64_t low)
{
	volatile uint32_t *even = (volatile uint32_t *)low;
	volatile uint32_t *odd = (volatile uint32_t *)(low + 0x100000);
	uint32_t even_before = *even, odd_before = *odd;
	bool differ;

	*even = 0x11111111;
	*odd = 0x22222222;
	differ = *even == 0x11111111 && *odd == 0x22222222;
	*even = even_before;
	*odd = odd_before;
	return differ;
}

static void keyboard_wait(void)
{
	clock_wait_for(!(io_read8(0x64) & 2), 20000);
}

/*
 * Last of all: where it succeeds, this very program is somewhere else. The page is a low one, and
 * its counterpart above 1 MiB is in our own image or behind it.
 */
static void a20_test(void)
{
	static _Alignas(4096) volatile uint8_t above[8192];
	uint64_t odd = ((uint64_t)above + 0xfff) & ~0xfffull;
	uint64_t even = odd & ~0x100000ull;

	if (!(odd & 0x100000) || !boot_memory_is_ram(even, even + 4096)) {
		tap_skip("A20", "no pair of pages to look at");
		return;
	}
	io_write8(0x92, 0x00);
	tap_check(a20_is_on(even), "A20 stays on: port 0x92");
	keyboard_wait();
	io_write8(0x64, 0xd1);
	keyboard_wait();
	io_write8(0x60, 0xdd);
	keyboard_wait();
	tap_check(a20_is_on(even), "A20 stays on: the keyboard controller's output port");
	io_write8(0x64, 0xdd);
	keyboard_wait();
	tap_check(a20_is_on(even), "A20 stays on: the keyboard controller's command");
	io_write8(0x64, 0xdf);
	keyboard_wait();
}

void kernel_main(void)
{
	vitals_start();
	tap_note("%s, %u processors",
		boot_has_paravisor() ? "under a paravisor" : "on the bare machine", cpu_count());
	if (!boot_has_paravisor()) {
		tap_skip("ways round through devices", "not under a paravisor");
		vitals_check();
		return;
	}
	fw_cfg_test();
	ioapic_test();
	msi_test(&by_ports);
	msix_test();
	chipset_test(&by_ports);
	chipset_edge_test();
	bars_test(&by_ports);
	rom_test(&by_ports);
	if (acpi_machine_get()->ecam) {
		msi_test(&by_memory);
		chipset_test(&by_memory);
		bars_test(&by_memory);
		rom_test(&by_memory);
	}
	smi_test();
	sleep_test();
	backdoor_test();
	a20_test();
	vitals_check();
}
