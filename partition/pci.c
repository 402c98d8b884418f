/*
 * PCI: devices stay where the firmware put them. The guest reads all of configuration space and may
 * write what a driver needs of an ordinary device; bridges, the host bridge and the ISA bridge, where
 * memory maps and interrupt routes are made, are read-only. Base addresses can be sized, not moved.
 * MSI and MSI-X may carry vectors, nothing else. DMA is not covered: that needs an IOMMU.
 */
#include "arch/x86/asm.h"
#include "arch/x86/log.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "boot/load/acpi.h"
#include "core/atomic.h"
#include "partition/policy.h"

#define PORT_ADDRESS 0xcf8
#define PORT_DATA    0xcfc
#define PORT_RESET   0xcf9

#define CONFIG_ENABLE 0x80000000u

#define PCI_COMMAND	 0x04
#define PCI_CLASS	 0x08
#define PCI_CACHE_LINE	 0x0c
#define PCI_HEADER	 0x0e
#define PCI_BAR_FIRST	 0x10
#define PCI_BAR_LAST	 0x24
#define PCI_ROM		 0x30
#define PCI_CAPABILITIES 0x34
#define PCI_INTERRUPT	 0x3c

#define PCI_COMMAND_ALLOWED	0x0547u /* I/O, memory, bus master, parity, SERR, INTx disable */
#define PCI_COMMAND_DECODE	0x0003u
#define PCI_STATUS_CAPABILITIES (1u << 20) /* in the dword at PCI_COMMAND */

#define CLASS_BRIDGE  0x06
#define CLASS_DISPLAY 0x03

#define CAPABILITY_PM	 0x01
#define CAPABILITY_MSI	 0x05
#define CAPABILITY_PCIE	 0x10
#define CAPABILITY_MSIX	 0x11
#define CAPABILITIES_MAX 48

#define PM_STATE   3u /* D0 to D3, in the power management control register */
#define PCIE_RESET (1u << 15) /* function-level reset, in device control */

#define BARS	    7 /* six and the ROM */
#define DEVICES_MAX 64

struct device {
	uint16_t bdf;
	bool bridge;
	uint32_t bar[BARS]; /* as the firmware left them */
	uint32_t mask[BARS]; /* the bits that can be written */
	uint32_t shown[BARS]; /* what the guest reads: the same, or the mask while it sizes */
	uint8_t msi; /* offset of the capability; 0: none */
	bool msi_wide; /* 64-bit address */
	uint8_t msix;
	uint8_t pm;
	uint8_t pcie;
	uint64_t msix_table; /* physical; 0: none */
	uint64_t msix_bytes;
};

static struct {
	struct device device[DEVICES_MAX];
	uint32_t count;
	uint64_t ecam;
	uint64_t ecam_bytes;
	uint8_t ecam_first_bus;
	struct atomic_u32 lock; /* of the address/data port pair, where there is no ECAM */
	struct atomic_u32 address; /* the guest's address register */
} pci;

/* --- raw access -------------------------------------------------------------------------------- */

static uint32_t config_raw(uint16_t bdf, uint32_t offset, uint8_t size, bool write, uint32_t value)
{
	uint64_t in_ecam = ((uint64_t)bdf << 12 | offset) - ((uint64_t)pci.ecam_first_bus << 20);

	if (pci.ecam && in_ecam + size <= pci.ecam_bytes) {
		volatile void *address = memory_pointer(HPA(pci.ecam + in_ecam));

		if (size == 1) {
			return write ? (*(volatile uint8_t *)address = (uint8_t)value)
				     : *(volatile uint8_t *)address;
		}
		if (size == 2) {
			return write ? (*(volatile uint16_t *)address = (uint16_t)value)
				     : *(volatile uint16_t *)address;
		}
		return write ? (*(volatile uint32_t *)address = value)
			     : *(volatile uint32_t *)address;
	}
	if (offset > 0xff || pci.ecam) {
		return ~0u; /* one way for each machine: window_follow relies on it */
	}
	/* Acquire pairs with the release below: address and data belong together. */
	while (atomic_u32_exchange(&pci.lock, 1, memory_order_acquire)) {
		atomic_relax();
	}

	uint16_t data = PORT_DATA + (offset & 3);

	asm_out32(PORT_ADDRESS, CONFIG_ENABLE | (uint32_t)bdf << 8 | (offset & 0xfc));
	if (write) {
		if (size == 1) {
			asm_out8(data, (uint8_t)value);
		} else if (size == 2) {
			asm_out16(data, (uint16_t)value);
		} else {
			asm_out32(data, value);
		}
	} else {
		value = size == 1 ? asm_in8(data) : size == 2 ? asm_in16(data) : asm_in32(data);
	}
	/* Release pairs with the exchange above. */
	atomic_u32_store(&pci.lock, 0, memory_order_release);
	return value;
}

static uint32_t config_read(uint16_t bdf, uint32_t offset, uint8_t size)
{
	return config_raw(bdf, offset, size, false, 0);
}

static void config_write(uint16_t bdf, uint32_t offset, uint8_t size, uint32_t value)
{
	config_raw(bdf, offset, size, true, value);
}

/* --- what is there, once ----------------------------------------------------------------------- */

static uint32_t bar_offset(int bar)
{
	return bar == 6 ? PCI_ROM : PCI_BAR_FIRST + 4 * (uint32_t)bar;
}

static void find_bars(struct device *device, int bars)
{
	uint32_t command = config_read(device->bdf, PCI_COMMAND, 2);

	/* Decoding off meanwhile: the device must not answer where the mask would put it. */
	config_write(device->bdf, PCI_COMMAND, 2, command & ~PCI_COMMAND_DECODE);
	for (int i = 0; i < BARS; i++) {
		uint32_t offset = bar_offset(i);

		if (i >= bars && i < 6) {
			continue;
		}
		device->bar[i] = config_read(device->bdf, offset, 4);
		config_write(device->bdf, offset, 4, ~0u);
		device->mask[i] = config_read(device->bdf, offset, 4);
		config_write(device->bdf, offset, 4, device->bar[i]);
		device->shown[i] = device->bar[i];
		/* The low bits describe; in a ROM's, bit 0 switches it on. */
		device->mask[i] &= i == 6 ? ~0x7feu : device->bar[i] & 1 ? ~3u : ~15u;
	}
	config_write(device->bdf, PCI_COMMAND, 2, command);
}

/* The address of memory BAR i, 0 if it is not one, and its size. */
static uint64_t bar_memory(const struct device *device, int i, uint64_t *bytes)
{
	uint64_t address = device->bar[i] & ~15ull;
	uint64_t mask = device->mask[i] | ~0xffffffffull;

	if (i >= 6 || (device->bar[i] & 1) || !device->mask[i]) {
		return 0;
	}
	if (i < 5 && (device->bar[i] & 6) == 4) {
		address |= (uint64_t)device->bar[i + 1] << 32;
		mask = (uint64_t)device->mask[i + 1] << 32 | device->mask[i];
	}
	*bytes = (~mask | 15) + 1;
	return address;
}

static void find_capabilities(struct device *device)
{
	if (!(config_read(device->bdf, PCI_COMMAND, 4) & PCI_STATUS_CAPABILITIES)) {
		return;
	}

	uint8_t at = config_read(device->bdf, PCI_CAPABILITIES, 1) & 0xfc;

	for (int i = 0; i < CAPABILITIES_MAX && at >= 0x40; i++) {
		uint32_t header = config_read(device->bdf, at, 4);

		switch (header & 0xff) {
		case CAPABILITY_MSI:
			device->msi = at;
			device->msi_wide = header & (1u << 23);
			break;
		case CAPABILITY_MSIX: {
			uint32_t table = config_read(device->bdf, at + 4, 4);
			uint64_t bar_bytes = 0;
			uint64_t bar = (table & 7) < 6
				? bar_memory(device, (int)(table & 7), &bar_bytes)
				: 0;

			device->msix = at;
			if (bar) {
				device->msix_table = bar + (table & ~7u);
				device->msix_bytes = ((header >> 16 & 0x7ff) + 1) * 16;
			}
			break;
		}
		case CAPABILITY_PM:
			device->pm = at;
			break;
		case CAPABILITY_PCIE:
			device->pcie = at;
			break;
		default:
			break;
		}
		at = header >> 8 & 0xfc;
	}
}

static bool memory_may_be_device(struct partition *partition, uint64_t base, uint64_t bytes)
{
	uint64_t end;

	if (__builtin_add_overflow(base, bytes, &end) || end > 1ull << partition->physical_bits ||
		memory_is_parapet(base, bytes) || base < 0x100000) {
		return false;
	}
	for (uint32_t i = 0; i < partition->ram.count; i++) {
		if (base < partition->ram.span[i].base + partition->ram.span[i].bytes &&
			end > partition->ram.span[i].base) {
			return false;
		}
	}
	/* APICs, HPET and what else a chipset keeps at the top are not for base addresses. */
	return end <= 0xfec00000 || base >= 0x100000000ull;
}

static void open_bars(struct partition *partition, struct device *device)
{
	for (int i = 0; i < 6; i++) {
		uint64_t bytes = 0;
		uint64_t base = bar_memory(device, i, &bytes);

		if (device->bar[i] & 1) {
			uint32_t port = device->bar[i] & ~3u;
			uint32_t ports = (~(device->mask[i] | 0xffff0000u) | 3) + 1;

			if (port >= 0x1000 && port + ports <= 0x10000) {
				io_open_range(
					partition, (uint16_t)port, (uint16_t)(port + ports - 1));
			}
		} else if (base && memory_may_be_device(partition, base, bytes)) {
			uint64_t first = ALIGN_DOWN(base, PAGE_SIZE);
			uint64_t last = ALIGN_UP(base + bytes, PAGE_SIZE);

			partition_map(
				partition, GPA(first), last - first, ACCESS_READ | ACCESS_WRITE);
		}
	}
}

/* The table decides where messages go: every write to its pages is looked at. */
static void close_msix_table(struct partition *partition, struct device *device)
{
	if (!device->msix_table) {
		return;
	}

	uint64_t first = ALIGN_DOWN(device->msix_table, PAGE_SIZE);
	uint64_t last = ALIGN_UP(device->msix_table + device->msix_bytes, PAGE_SIZE);

	if (!memory_may_be_device(partition, first, last - first)) {
		device->msix_table = 0;
		return;
	}
	memory_map_device(HPA(first), last - first);
	partition_map(partition, GPA(first), last - first, ACCESS_READ);
}

static void open_display(struct partition *partition)
{
	io_open_range(partition, 0x3b0, 0x3df);
	io_open_range(partition, 0x1ce, 0x1d0);
}

static void find_function(struct partition *partition, uint16_t bdf, uint8_t *last_bus)
{
	uint32_t id = config_read(bdf, 0, 4);

	if (id == ~0u || id == 0) {
		return;
	}
	if (pci.count == DEVICES_MAX) {
		log_line("W more than %u PCI functions: the guest can only read %x", DEVICES_MAX,
			bdf);
		return;
	}

	struct device *device = &pci.device[pci.count++];
	uint8_t class = (uint8_t)(config_read(bdf, PCI_CLASS, 4) >> 24);
	uint8_t header = config_read(bdf, PCI_HEADER, 1) & 0x7f;

	device->bdf = bdf;
	device->bridge = class == CLASS_BRIDGE;
	if (header == 1) {
		uint8_t subordinate = (uint8_t)config_read(bdf, 0x1a, 1);

		if (subordinate > *last_bus) {
			*last_bus = subordinate;
		}
	}
	if (!device->bridge) {
		find_bars(device, header == 0 ? 6 : 2);
		find_capabilities(device);
		open_bars(partition, device);
		if (class == CLASS_DISPLAY) {
			open_display(partition);
		}
	}
}

void pci_init(struct partition *partition, const struct acpi *acpi)
{
	struct acpi_table table;
	struct acpi_ecam ecam;
	uint8_t last_bus = 0;

	if (acpi && acpi_find_table(acpi, "MCFG", &table) == LOAD_OK &&
		acpi_read_mcfg(&table, 0, &ecam) == LOAD_OK && ecam.segment == 0 &&
		ecam.base < 0x100000000ull) {
		pci.ecam_first_bus = ecam.first_bus;
		pci.ecam = ecam.base + ((uint64_t)ecam.first_bus << 20);
		pci.ecam_bytes = ((uint64_t)ecam.last_bus - ecam.first_bus + 1) << 20;
		/* Reading it needs no exit. */
		partition_map(partition, GPA(pci.ecam), pci.ecam_bytes, ACCESS_READ);
	}
	for (uint32_t bus = 0; bus <= last_bus; bus++) {
		for (uint32_t slot = 0; slot < 32; slot++) {
			uint16_t bdf = (uint16_t)(bus << 8 | slot << 3);

			if (config_read(bdf, 0, 4) == ~0u) {
				continue;
			}

			bool many = config_read(bdf, PCI_HEADER, 1) & 0x80;

			for (uint16_t function = 0; function < (many ? 8 : 1); function++) {
				find_function(partition, bdf | function, &last_bus);
			}
		}
	}
	for (uint32_t i = 0; i < pci.count; i++) {
		close_msix_table(partition, &pci.device[i]);
	}
}

/* --- the guest's configuration space ----------------------------------------------------------- */

static struct device *find_device(uint16_t bdf)
{
	for (uint32_t i = 0; i < pci.count; i++) {
		if (pci.device[i].bdf == bdf) {
			return &pci.device[i];
		}
	}
	return NULL;
}

static int bar_at(uint32_t offset)
{
	offset &= ~3u;
	if (offset >= PCI_BAR_FIRST && offset <= PCI_BAR_LAST) {
		return (int)(offset - PCI_BAR_FIRST) / 4;
	}
	return offset == PCI_ROM ? 6 : -1;
}

static uint32_t part(uint32_t dword, uint32_t offset, uint8_t size)
{
	dword >>= 8 * (offset & 3);
	return size == 4 ? dword : dword & ((1u << (8 * size)) - 1);
}

static uint32_t guest_config_read(uint16_t bdf, uint32_t offset, uint8_t size)
{
	const struct device *device = find_device(bdf);
	int bar = device && !device->bridge ? bar_at(offset) : -1;

	if (bar >= 0) {
		return part(device->shown[bar], offset, size);
	}
	return config_read(bdf, offset, size);
}

bool pci_msi_is_harmless(uint64_t address, uint32_t data)
{
	uint32_t mode = data >> APIC_MODE_SHIFT & APIC_MODE_MASK;

	return (address & ~0xfffffull) == 0xfee00000 &&
		(mode == APIC_MODE_FIXED || mode == APIC_MODE_LOWEST);
}

/* Any single register of a message, before the others are known: none may ever be harmful. */
static bool msi_register_is_harmless(struct device *device, uint32_t in_capability, uint32_t value)
{
	uint32_t data = device->msi_wide ? 12 : 8;

	if (in_capability == 4) {
		return value == 0 || pci_msi_is_harmless(value, 0);
	}
	if (in_capability == 8 && device->msi_wide) {
		return value == 0;
	}
	if (in_capability == data) {
		return pci_msi_is_harmless(0xfee00000, value);
	}
	return true; /* control, mask and pending bits */
}

static bool within(uint32_t offset, uint8_t at, uint32_t bytes)
{
	return at && offset >= at && offset < at + bytes;
}

static bool guest_config_allowed(
	struct device *device, uint32_t offset, uint8_t size, uint32_t *value)
{
	if (device->bridge) {
		return false;
	}
	if (offset == PCI_COMMAND && size >= 2) {
		uint32_t status = size == 4 ? *value & 0xffff0000 : 0;

		*value = (*value & PCI_COMMAND_ALLOWED) | status;
		return true;
	}
	if (offset == PCI_COMMAND + 2 || offset == PCI_CACHE_LINE || offset == PCI_CACHE_LINE + 1 ||
		(offset == PCI_INTERRUPT && size == 1)) {
		return size <= 2;
	}
	if (within(offset, device->msi, device->msi_wide ? 24 : 20)) {
		uint32_t in_capability = offset - device->msi;

		if (size == 2 && in_capability % 4 == 0) {
			return msi_register_is_harmless(device, in_capability, *value);
		}
		return (size == 4 && in_capability % 4 == 0 &&
			       msi_register_is_harmless(device, in_capability, *value)) ||
			(in_capability == 2 && size == 2);
	}
	if (within(offset, device->msix, 4)) { /* its control word */
		return device->msix_table && offset == device->msix + 2u && size == 2;
	}
	/* No reset by either way: the device would forget its addresses, which only firmware sets. */
	if (within(offset, device->pm, 8)) {
		*value &= ~PM_STATE;
		return offset == device->pm + 4u && size <= 2;
	}
	if (within(offset, device->pcie, 0x3c)) {
		if (offset == device->pcie + 8u) {
			*value &= ~PCIE_RESET;
			return true;
		}
		return offset == device->pcie + 0x28u;
	}
	return false;
}

static void guest_config_write(
	struct vp *vp, uint16_t bdf, uint32_t offset, uint8_t size, uint32_t value)
{
	struct device *device = find_device(bdf);
	int bar = device && !device->bridge ? bar_at(offset) : -1;

	if (bar >= 0 && size == 4) {
		/* The device does not move. Sizing works: all ones read back as the mask. */
		device->shown[bar] = (value & device->mask[bar]) == device->mask[bar]
			? device->mask[bar] | device->bar[bar]
			: device->bar[bar];
		return;
	}
	if (!device || !guest_config_allowed(device, offset, size, &value)) {
		vp_deny(vp, COUNTER_DENIED_PCI, (uint64_t)bdf << 12 | offset);
		return;
	}
	config_write(bdf, offset, size, value);
}

/*
 * Kernels scan all buses, and nearly all of what they address does not exist. While the guest's address
 * names such a function, the data ports are open: the machine itself then says that nothing is there,
 * without an exit. The machine's own address register never holds anything but such an address, whoever
 * of the VPs got there first, so an open data port is harmless at any time. (Parapet reaches
 * configuration space through memory; without that, this is off.)
 */
static void window_follow(struct vp *vp, uint32_t address)
{
	const struct platform_ops *ops = vp->partition->ops;

	if (!pci.ecam) {
		return;
	}
	if ((address & CONFIG_ENABLE) && config_read((uint16_t)(address >> 8), 0, 4) == ~0u) {
		asm_out32(PORT_ADDRESS, address);
		ops->open_ports(PORT_DATA, PORT_DATA + 3);
	} else {
		ops->close_ports(PORT_DATA, PORT_DATA + 3);
	}
}

bool pci_owns_port(uint16_t port)
{
	return port >= PORT_ADDRESS && port < PORT_DATA + 4 && port != PORT_RESET;
}

uint32_t pci_port_read(struct vp *vp, uint16_t port, uint8_t size)
{
	/* Relaxed: a guest that races on its own address register gets one of the two. */
	uint32_t address = atomic_u32_load(&pci.address, memory_order_relaxed);

	vp_count_event(vp, COUNTER_PCI_CONFIG);
	if (port < PORT_DATA) {
		return port == PORT_ADDRESS && size == 4 ? address : part(~0u, 0, size);
	}
	if (!(address & CONFIG_ENABLE) || (port & 3) + size > 4) {
		return part(~0u, 0, size);
	}
	return guest_config_read((uint16_t)(address >> 8), (address & 0xfc) + (port & 3), size);
}

void pci_port_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value)
{
	vp_count_event(vp, COUNTER_PCI_CONFIG);
	if (port < PORT_DATA) {
		if (port == PORT_ADDRESS && size == 4) {
			/* Relaxed: see pci_port_read. */
			atomic_u32_store(&pci.address, value & 0x80fffffc, memory_order_relaxed);
			window_follow(vp, value & 0x80fffffc);
		}
		return;
	}

	uint32_t address = atomic_u32_load(&pci.address, memory_order_relaxed);

	if ((address & CONFIG_ENABLE) && (port & 3) + size <= 4) {
		guest_config_write(vp, (uint16_t)(address >> 8), (address & 0xfc) + (port & 3),
			size, part(value, 0, size));
	}
}

/* --- trapped memory ---------------------------------------------------------------------------- */

static const struct device *msix_owner(gpa_t gpa)
{
	for (uint32_t i = 0; i < pci.count; i++) {
		const struct device *device = &pci.device[i];

		if (device->msix_table && gpa.value >= ALIGN_DOWN(device->msix_table, PAGE_SIZE) &&
			gpa.value < ALIGN_UP(device->msix_table + device->msix_bytes, PAGE_SIZE)) {
			return device;
		}
	}
	return NULL;
}

static bool in_ecam(gpa_t gpa)
{
	return pci.ecam && gpa.value - pci.ecam < pci.ecam_bytes;
}

bool pci_owns_memory(gpa_t gpa)
{
	return in_ecam(gpa) || msix_owner(gpa);
}

static uint32_t device_access(gpa_t gpa, uint32_t size, bool write, uint32_t value)
{
	volatile void *address = memory_pointer(HPA(gpa.value));

	if (size == 1) {
		return write ? (*(volatile uint8_t *)address = (uint8_t)value)
			     : *(volatile uint8_t *)address;
	}
	if (size == 2) {
		return write ? (*(volatile uint16_t *)address = (uint16_t)value)
			     : *(volatile uint16_t *)address;
	}
	return write ? (*(volatile uint32_t *)address = value) : *(volatile uint32_t *)address;
}

uint32_t pci_memory_read(struct vp *vp, gpa_t gpa, uint32_t size)
{
	(void)vp;
	if (in_ecam(gpa)) {
		uint64_t at = gpa.value - pci.ecam + ((uint64_t)pci.ecam_first_bus << 20);

		return guest_config_read((uint16_t)(at >> 12), at & 0xfff, (uint8_t)size);
	}
	return device_access(gpa, size, false, 0);
}

void pci_memory_write(struct vp *vp, gpa_t gpa, uint32_t size, uint32_t value)
{
	if (in_ecam(gpa)) {
		uint64_t at = gpa.value - pci.ecam + ((uint64_t)pci.ecam_first_bus << 20);

		guest_config_write(vp, (uint16_t)(at >> 12), at & 0xfff, (uint8_t)size, value);
		return;
	}

	const struct device *device = msix_owner(gpa);
	uint64_t in_table = gpa.value - device->msix_table;
	bool allowed = true;

	if (in_table < device->msix_bytes) {
		switch (in_table % 16) {
		case 0:
			allowed = value == 0 || pci_msi_is_harmless(value, 0);
			break;
		case 4:
			allowed = value == 0;
			break;
		case 8:
			allowed = pci_msi_is_harmless(0xfee00000, value);
			break;
		default:
			break;
		}
		allowed = allowed && size == 4 && in_table % 4 == 0;
	}
	if (!allowed) {
		vp_deny(vp, COUNTER_DENIED_INTERRUPT, gpa.value);
		return;
	}
	device_access(gpa, size, true, value);
}
