/*
 * PCI configuration space through ports 0xcf8 and 0xcfc, and capabilities. Memory-mapped
 * configuration space is acpi_machine_get()->ecam.
 */
#ifndef TK_PCI_H
#define TK_PCI_H

#include <stdbool.h>
#include <stdint.h>

#define PCI_NONE 0xffffffffu

#define PCI_COMMAND	 0x04
#define PCI_BAR0	 0x10
#define PCI_ROM		 0x30
#define PCI_CAPABILITIES 0x34
#define PCI_CAP_MSI	 0x05
#define PCI_CAP_MSIX	 0x11

/* Bus 0 throughout; address = device << 3 | function. */
#define PCI_ADDRESS(device, function) ((uint32_t)(device) << 3 | (uint32_t)(function))

uint32_t pci_read32(uint32_t address, uint32_t offset);
uint8_t pci_read8(uint32_t address, uint32_t offset);
void pci_write32(uint32_t address, uint32_t offset, uint32_t value);
void pci_write8(uint32_t address, uint32_t offset, uint8_t value);

/* Offset of a capability; 0 when the device has none such. */
uint32_t pci_capability_find(uint32_t address, uint8_t id);

/* The first device on bus 0, from this address on, that exists; PCI_NONE at the end. */
uint32_t pci_device_next(uint32_t address);

#endif
