/*
 * The hand-over: all that the core learns about the machine it starts on, as a flattened device
 * tree in version 17 of the format (Devicetree Specification 0.4, chapter 5). The boot shim writes
 * one; any other loader that does may start the core too. Nothing about how the shim found these
 * things out, and no hardware access, enters here.
 *
 *	/		compatible "parapet,handover-1"; #address-cells and #size-cells 2
 *	/memory@BASE	device_type "memory", reg: RAM, including what Parapet and images occupy
 *	/cpus/cpu@ID	device_type "cpu", reg: local APIC id; the tree's boot_cpuid_phys names
 *			the boot processor
 *	/reserved-memory/NAME@BASE
 *			reg and compatible: "parapet,image", "parapet,memory", "parapet,block",
 *			"parapet,ap-pages", "intel,wakeup-mailbox" (Linux's binding), or any other:
 *			RAM that a guest must leave alone
 *	/chosen		bootargs: Parapet's options
 *	/chosen/module@BASE
 *			reg; compatible "multiboot,module" and, before it, "multiboot,kernel" (with
 *			bootargs) or "multiboot,ramdisk", as Xen's binding has it
 *	/firmware/parapet
 *			acpi-rsdp: its address; memory-map: what is not RAM, a 64-bit base, 64-bit
 *			bytes and a 32-bit E820 type each
 */
#ifndef PARAPET_BOOT_HANDOVER_H
#define PARAPET_BOOT_HANDOVER_H

#include <parapet/types.h>

#define HANDOVER_MEMORY_MAX   64
#define HANDOVER_FIRMWARE_MAX 64
#define HANDOVER_REGION_MAX   32

/* Physical addresses have at most 52 bits. */
#define HANDOVER_ADDRESS_END (1ull << 52)

/* Pages that a guest sees: page tables and reset vector (8), then a MADT and root tables (8). */
#define WAKEUP_AP_BYTES	   (8 * PAGE_SIZE)
#define WAKEUP_TABLE_BYTES (8 * PAGE_SIZE)
#define WAKEUP_PAGES_BYTES (WAKEUP_AP_BYTES + WAKEUP_TABLE_BYTES)

/* Bytes that are enough for any tree without its two strings. */
#define HANDOVER_TREE_BYTES 32768

enum handover_error {
	HANDOVER_OK,
	HANDOVER_BAD_BUFFER, /* NULL, or not on an 8-byte boundary */
	HANDOVER_NO_ROOM, /* the tree does not fit into the buffer */
	HANDOVER_BAD_TREE, /* not a complete flattened device tree */
	HANDOVER_NOT_PARAPET, /* a device tree, but not for Parapet */
	HANDOVER_MISSING, /* a node or property that must be there is not */
	HANDOVER_BAD_PROPERTY, /* length or content that the property may not have */
	HANDOVER_TOO_MANY, /* more memory, processors or regions than Parapet keeps */
	HANDOVER_BAD_RANGE, /* empty, beyond the physical address space, or not on a page */
	HANDOVER_OVERLAP, /* two things in the same place */
	HANDOVER_NOT_MEMORY, /* a region or an image outside RAM */
	HANDOVER_BAD_PROCESSORS, /* none, one twice, or the boot processor not among them */
	HANDOVER_ERROR_COUNT
};

struct handover_range {
	uint64_t base; /* physical; on all platforms guest- and host-physical are the same */
	uint64_t bytes;
};

/* What the firmware keeps for itself or has put there; not RAM for anyone. */
struct handover_firmware {
	struct handover_range range;
	uint32_t type; /* as E820 has it: 2 reserved, 3 ACPI, 4 NVS, 5 unusable, others: reserved */
};

enum handover_kind {
	HANDOVER_REGION_IMAGE, /* Parapet's program; exactly one */
	HANDOVER_REGION_MEMORY, /* what it may use besides */
	HANDOVER_REGION_BLOCK, /* struct block_header and what follows it; at most one */
	HANDOVER_REGION_AP_PAGES, /* page tables and reset vector of the guest's APs; at most one */
	HANDOVER_REGION_MAILBOX, /* the wakeup mailbox, one page; at most one */
	HANDOVER_REGION_OTHER, /* reserved for a reason that is not Parapet's */
	HANDOVER_KIND_COUNT
};

struct handover_region {
	struct handover_range range; /* whole pages, except for HANDOVER_REGION_OTHER */
	enum handover_kind kind;
};

/* The two strings belong to whoever made the struct; handover_read() points into the tree. */
struct handover_info {
	uint32_t memory_count;
	uint32_t firmware_count;
	uint32_t region_count;
	uint32_t cpu_count;
	struct handover_range memory[HANDOVER_MEMORY_MAX]; /* ascending, disjoint */
	struct handover_firmware firmware[HANDOVER_FIRMWARE_MAX];
	struct handover_region region[HANDOVER_REGION_MAX];
	uint32_t apic_id[VP_COUNT_MAX];
	uint32_t boot_apic_id; /* one of them */
	uint64_t acpi_rsdp; /* 0: none known */
	struct handover_range kernel; /* the guest's image as loaded; bytes 0: none */
	struct handover_range initrd; /* bytes 0: none */
	const char *
		kernel_command_line; /* Linux: arguments alone; Multiboot: name first; "" if none */
	const char *options; /* Parapet's, separated by spaces; "" if none */
};

/*
 * Checks everything that handover_read() promises about *info; the first thing found wrong, or
 * HANDOVER_OK. Memory is in ascending order without overlap; regions and images lie in RAM, on
 * pages, and nothing overlaps (an image may lie in a HANDOVER_REGION_OTHER).
 */
enum handover_error handover_check(const struct handover_info *info);

/*
 * Writes the tree for *info into `buffer`, at most `size` bytes on an 8-byte boundary, and its
 * length to *bytes. Checks *info first. On an error the buffer's content is not a tree.
 */
enum handover_error handover_write(
	void *buffer, size_t size, const struct handover_info *info, size_t *bytes);

/*
 * Reads the tree at `buffer`, of which `size` bytes may be touched, into *info. Nothing is
 * believed: structure, lengths, ranges and counts are checked, and handover_check() holds for the
 * result. Unknown nodes and properties are passed over. On an error *info is all zero.
 */
enum handover_error handover_read(const void *buffer, size_t size, struct handover_info *info);

/* The first region of that kind, or NULL. */
const struct handover_region *handover_find_region(
	const struct handover_info *info, enum handover_kind kind);

/* The `compatible` of a kind of region; NULL for HANDOVER_REGION_OTHER. */
const char *handover_kind_compatible(enum handover_kind kind);

/* What is wrong, in a few words without a full stop. */
const char *handover_error_text(enum handover_error error);

#endif
