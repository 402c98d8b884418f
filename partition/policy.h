/*
 * What the guest may touch: each file below holds one table or one device, opened with reasons or
 * mediated. Set up once, before the guest's first instruction.
 */
#ifndef PARAPET_PARTITION_POLICY_H
#define PARAPET_PARTITION_POLICY_H

#include "partition/partition.h"

struct acpi;

/* msr.c */
void msr_open(const struct platform_ops *ops);
void msr_init_vp(struct vp *vp);
/* The bits of EFER that a guest may set. */
uint64_t msr_efer_known(void);

/* io.c: ports. allow-io of the options is opened here too. */
void io_open(struct partition *partition);
bool io_is_open(uint16_t port);
void io_open_range(struct partition *partition, uint16_t first, uint16_t last);

/* fixed.c: ACPI power management, SMI, reset. Also switches the machine to ACPI mode. */
void fixed_init(struct partition *partition, const struct acpi *acpi);
bool fixed_owns_port(uint16_t port);
uint32_t fixed_read(struct vp *vp, uint16_t port, uint8_t size);
void fixed_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value);
/* Ends the machine: power off, or reset if that does not work. */
void fixed_power_off(void) __attribute__((noreturn));
void fixed_reset(void) __attribute__((noreturn));

/* fw_cfg.c: QEMU's firmware configuration without its DMA. */
bool fw_cfg_owns_port(uint16_t port);
uint32_t fw_cfg_read(struct vp *vp, uint16_t port, uint8_t size);
void fw_cfg_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value);

/* hotplug.c: QEMU's processor hotplug registers, without ejection. */
void hotplug_init(void);
bool hotplug_owns_port(uint16_t port);
uint32_t hotplug_read(uint16_t port, uint8_t size);
void hotplug_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value);

/* pci.c: configuration space, memory and ports of devices, MSI. */
void pci_init(struct partition *partition, const struct acpi *acpi);
bool pci_owns_port(uint16_t port);
uint32_t pci_port_read(struct vp *vp, uint16_t port, uint8_t size);
void pci_port_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value);
/* Trapped pages of PCI: the memory-mapped configuration space and MSI-X tables. */
bool pci_owns_memory(gpa_t gpa);
uint32_t pci_memory_read(struct vp *vp, gpa_t gpa, uint32_t size);
void pci_memory_write(struct vp *vp, gpa_t gpa, uint32_t size, uint32_t value);
/* May an interrupt message with these data be sent to that address? */
bool pci_msi_is_harmless(uint64_t address, uint32_t data);

/* ioapic.c */
void ioapic_init(struct partition *partition, const struct acpi *acpi);
bool ioapic_owns_memory(gpa_t gpa);
uint32_t ioapic_read(struct vp *vp, gpa_t gpa);
void ioapic_write(struct vp *vp, gpa_t gpa, uint32_t value);

/* lapic.c */
void lapic_init(struct partition *partition);
bool lapic_owns_memory(gpa_t gpa);
uint32_t lapic_read(struct vp *vp, uint32_t offset);
void lapic_write(struct vp *vp, uint32_t offset, uint32_t value);
void lapic_reset(struct vp *vp);
/* The interrupt command register, both halves, from memory or from the Hyper-V MSR. */
void lapic_command(struct vp *vp, uint32_t high, uint32_t low);
/* Does an interrupt command of `from` mean `vp`, whose APIC matches these logical destinations? */
bool lapic_is_target(const struct vp *from, const struct vp *vp, uint32_t ldr, uint32_t dfr,
	uint32_t high, uint32_t low);

/* start.c: INIT, SIPI and NMI from one VP to another. */
void start_request_init(struct vp *from, struct vp *target);
void start_request_sipi(struct vp *from, struct vp *target, uint8_t page);
/* Has VTL1 forbidden what `from` runs now to start or reset VPs (DenyLowerVtlStartup)? */
bool start_is_denied(const struct vp *from);
void start_request_nmi(struct vp *from, struct vp *target);
/* Own VP: leaves the guest, and waits to be started again. */
void start_park(struct vp *vp);
/* Own VP: carries out what was asked; true if the VP may run. */
bool start_serve(struct vp *vp);

/* end.c: the guest's end, once, whoever causes it. Does not return to the guest. */
void end_guest(struct vp *vp, enum block_end reason, uint32_t code) __attribute__((noreturn));
/* Own VP: somebody else has ended the guest. */
void end_stop(struct vp *vp) __attribute__((noreturn));

#endif
