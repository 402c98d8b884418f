#include "pci.h"

#include "machine.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define CONFIG_ENABLE  (1u << 31)

static uint16_t select(uint32_t address, uint32_t offset)
{
	io_write32(CONFIG_ADDRESS, CONFIG_ENABLE | address << 8 | (offset & 0xfc));
	return (uint16_t)(CONFIG_DATA + (offset & 3));
}

uint32_t pci_read32(uint32_t address, uint32_t offset)
{
	return io_read32(select(address, offset));
}

uint8_t pci_read8(uint32_t address, uint32_t offset)
{
	return io_read8(select(address, offset));
}

void pci_write32(uint32_t address, uint32_t offset, uint32_t value)
{
	io_write32(select(address, offset), value);
}

void pci_write8(uint32_t address, uint32_t offset, uint8_t value)
{
	io_write8(select(address, offset), value);
}

uint32_t pci_capability_find(uint32_t address, uint8_t id)
{
	uint8_t at = pci_read8(address, PCI_CAPABILITIES) & 0xfc;

	if (!(pci_read32(address, PCI_COMMAND) >> 16 & 0x10))
		return 0;
	/* A list cannot have more entries than there is room for. */
	for (uint32_t i = 0; at && i < 48; i++) {
		if (pci_read8(address, at) == id)
			return at;
		at = pci_read8(address, at + 1u) & 0xfc;
	}
	return 0;
}

uint32_t pci_device_next(uint32_t address)
{
	for (; address < 256; address++)
		if ((pci_read32(address, 0) & 0xffff) != 0xffff)
			return address;
	return PCI_NONE;
}
