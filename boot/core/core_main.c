/*
 * The core's start: from the hand-over to every processor in its run loop and the guest's first
 * instruction. Everything that is ever taken from Parapet's memory is taken here.
 */
#include "arch/x86/ap_start.h"
#include "arch/x86/apic.h"
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/log.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "arch/x86/string.h"
#include "boot/core/calibrate.h"
#include "boot/core/guest.h"
#include "boot/core/options.h"
#include "boot/handover/handover.h"
#include "boot/load/acpi.h"
#include "partition/end.h"
#include "partition/policy.h"
#include "partition/seal.h"
#include "partition/vtl.h"
#include "partition/wakeup.h"
#include "platform/svm/svm.h"

#define TRACE_ENTRIES	2048
#define FLUSH_PAGES_MAX 32 /* beyond: everything; Linux does the same at 33 of its own */
#define AP_PAGE		0x8000
#define LOW_RAM_END	0xa0000
#define VIDEO_END	0xc0000
#define ROM_END		0x100000
#define TREE_SIZE_MAX	65536

extern const uint8_t image_text_start[], image_text_end[];
void core_main(const void *tree) __attribute__((noreturn));
void __stack_chk_fail(void);

static struct partition partition;
static struct handover_info handover;
static struct memory_map guest_map;
static struct acpi acpi;
static bool has_acpi;

/* libfdt.a of the distribution keeps its stack canary at FS:0x28; Parapet has no other use for FS. */
static uint64_t canary_area[8];

void __stack_chk_fail(void)
{
	fault_stop("stack overrun in libfdt");
}

static void *firmware_pointer(void *context, gpa_t gpa, size_t bytes)
{
	(void)context;
	return gpa.value >= 0x100000000ull || bytes > 0x100000000ull - gpa.value ||
			memory_is_parapet(gpa.value, bytes)
		? NULL
		: memory_pointer(HPA(gpa.value));
}

static const struct guest_memory firmware_memory = {.map = firmware_pointer};

static void refuse(const char *text)
{
	log_line("E %s", text);
	end_refuse(&partition);
}

static void read_handover(const void *tree)
{
	asm_wrmsr(MSR_FS_BASE, (uint64_t)canary_area);

	enum handover_error error = handover_read(tree, TREE_SIZE_MAX, &handover);

	if (error != HANDOVER_OK) {
		log_line("E hand-over: %s", handover_error_text(error));
		asm_halt_forever();
	}

	const struct handover_region *image =
		handover_find_region(&handover, HANDOVER_REGION_IMAGE);
	const struct handover_region *memory =
		handover_find_region(&handover, HANDOVER_REGION_MEMORY);

	if (!memory || memory->range.base != image->range.base + image->range.bytes) {
		log_line("E hand-over: no memory right after Parapet's image");
		asm_halt_forever();
	}
	memory_init(HPA(image->range.base), image->range.bytes + memory->range.bytes,
		image->range.bytes);
	/* What the shim needed to get here: nothing executable remains below. */
	*(uint64_t *)memory_pointer(HPA(asm_read_cr3() & PTE_ADDRESS)) = 0;
	asm_write_cr3(asm_read_cr3());
}

static void create_processors(void)
{
	uint32_t next = 1;

	interrupt_init();
	cpu_activate(cpu_create(0, handover.boot_apic_id));
	for (uint32_t i = 0; i < handover.cpu_count; i++) {
		if (handover.apic_id[i] > 254) {
			refuse("an APIC id is above 254: this processor needs x2APIC, which Parapet "
			       "does not drive yet");
		}
		if (handover.apic_id[i] != handover.boot_apic_id) {
			cpu_create(next++, handover.apic_id[i]);
		}
	}
}

/* The processor says so; QEMU's own does not, but its counter is one clock for all processors. */
static bool tsc_is_invariant(void)
{
	struct cpuid_result hypervisor = asm_cpuid(0x40000000, 0);
	bool tcg = (asm_cpuid(1, 0).ecx & (1u << 31)) && hypervisor.ebx == 0x54474354 &&
		hypervisor.ecx == 0x43544743 && hypervisor.edx == 0x47435447;

	return tcg || (asm_cpuid(0x80000007, 0).edx & (1u << 8));
}

static uint16_t pm_timer_port(void)
{
	struct acpi_table table;
	struct acpi_fadt fadt;

	if (!has_acpi || acpi_find_table(&acpi, "FACP", &table) != LOAD_OK ||
		acpi_read_fadt(&table, &fadt) != LOAD_OK || fadt.pm_timer.space != ACPI_SPACE_IO) {
		return 0;
	}
	return (uint16_t)fadt.pm_timer.address;
}

/* The guest's wakeup mailbox, if it is to have one. False: it starts its processors by INIT/SIPI. */
static bool give_mailbox(struct wakeup_pages *pages)
{
	const struct handover_region *mailbox =
		handover_find_region(&handover, HANDOVER_REGION_MAILBOX);
	const struct handover_region *ap_pages =
		handover_find_region(&handover, HANDOVER_REGION_AP_PAGES);

	if (!partition.options.mailbox || !has_acpi || cpu_count() == 1 || !mailbox || !ap_pages ||
		ap_pages->range.bytes < WAKEUP_PAGES_BYTES) {
		return false;
	}
	*pages = (struct wakeup_pages){
		.mailbox = GPA(mailbox->range.base),
		.ap_pages = GPA(ap_pages->range.base),
		.ap_bytes = WAKEUP_AP_BYTES,
		.tables = GPA(ap_pages->range.base + WAKEUP_AP_BYTES),
		.table_bytes = WAKEUP_TABLE_BYTES,
	};

	gpa_t rsdp = wakeup_init(&partition, pages, &acpi, &guest_map);

	if (!rsdp.value) {
		return false;
	}
	handover.acpi_rsdp = rsdp.value;
	__builtin_memcpy(partition.block->ap_start_method, "mailbox", sizeof("mailbox"));
	return true;
}

/* --- the guest's memory ------------------------------------------------------------------------ */

static void build_guest_map(void)
{
	memory_map_init(&guest_map);
	for (uint32_t i = 0; i < handover.memory_count; i++) {
		memory_map_add(
			&guest_map, handover.memory[i].base, handover.memory[i].bytes, MEMORY_RAM);
	}
	for (uint32_t i = 0; i < handover.firmware_count; i++) {
		memory_map_add(&guest_map, handover.firmware[i].range.base,
			handover.firmware[i].range.bytes, handover.firmware[i].type);
	}
	if (memory_map_sanitise(&guest_map) != LOAD_OK ||
		memory_map_reserve(&guest_map, memory_region_base().value, memory_region_bytes(),
			MEMORY_RESERVED) != LOAD_OK) {
		refuse("the memory map has too many pieces");
	}
	partition.guest_map = &guest_map;
}

static bool holds_acpi_table(const struct handover_range *range)
{
	for (uint32_t i = 0; i < acpi_count_tables(&acpi); i++) {
		if (acpi_get_table_address(&acpi, i).value - range->base < range->bytes) {
			return true;
		}
	}
	return false;
}

/* What may be done at first with each span of the guest's RAM. */
static uint32_t ram_access[ARRAY_SIZE(partition.ram.span)];

static void add_ram(uint64_t base, uint64_t bytes, uint32_t access)
{
	struct memory_span_list *ram = &partition.ram;
	uint64_t first = ALIGN_DOWN(base, PAGE_SIZE);
	uint64_t last = ALIGN_UP(base + bytes, PAGE_SIZE);

	if (last <= ROM_END || memory_is_parapet(first, last - first)) {
		return;
	}
	if (ram->count == ARRAY_SIZE(ram->span)) {
		refuse("the memory map has too many pieces");
	}
	ram_access[ram->count] = access;
	ram->span[ram->count].base = first;
	ram->span[ram->count++].bytes = last - first;
}

/* RAM is the guest's, and so is what the firmware left in RAM for it; everything else stays closed. */
static void map_guest_memory(const struct wakeup_pages *wakeup)
{
	struct memory_span_list *ram = &partition.ram;

	for (uint32_t i = 0; i < guest_map.count; i++) {
		const struct memory_range *range = &guest_map.ranges[i];

		/* What Parapet made ACPI or NVS memory of was RAM before. */
		if (range->type == MEMORY_RAM || range->type == MEMORY_ACPI ||
			range->type == MEMORY_NVS) {
			add_ram(range->base, range->length,
				range->type == MEMORY_RAM ? ACCESS_ALL
							  : ACCESS_READ | ACCESS_WRITE);
		}
	}
	/* As the firmware gave them: in the guest's map they may have grown together with others. */
	for (uint32_t i = 0; has_acpi && i < handover.firmware_count; i++) {
		const struct handover_firmware *firmware = &handover.firmware[i];

		if (firmware->type == MEMORY_RESERVED && holds_acpi_table(&firmware->range)) {
			add_ram(firmware->range.base, firmware->range.bytes,
				ACCESS_READ | ACCESS_WRITE);
		}
	}
	/* Below 1 MiB a PC has RAM with the firmware's data in it, video memory, and ROM. */
	if (ram->count + 3 > ARRAY_SIZE(ram->span)) {
		refuse("the memory map has too many pieces");
	}
	ram_access[ram->count] = ACCESS_ALL;
	ram->span[ram->count].base = 0;
	ram->span[ram->count++].bytes = LOW_RAM_END;
	if (wakeup) {
		/* The processor's walk of a guest's tables counts as a write. */
		ram_access[ram->count] = ACCESS_READ | ACCESS_WRITE;
		ram->span[ram->count].base = wakeup->ap_pages.value;
		ram->span[ram->count++].bytes = wakeup->ap_bytes;
	}
	protect_set_ram(&partition.protect, ram->span, ram->count);
	for (uint32_t i = 0; i < ram->count; i++) {
		partition_map(
			&partition, GPA(ram->span[i].base), ram->span[i].bytes, ram_access[i]);
	}
	partition_map(
		&partition, GPA(LOW_RAM_END), VIDEO_END - LOW_RAM_END, ACCESS_READ | ACCESS_WRITE);
	partition_map(
		&partition, GPA(VIDEO_END), ROM_END - VIDEO_END, ACCESS_READ | ACCESS_EXECUTE);
}

/* The HPET is a clock; only if it could send messages of its own is it not to be written. */
static void map_hpet(void)
{
	struct acpi_table table;
	struct acpi_hpet hpet;
	bool messages = false;

	if (!has_acpi || acpi_find_table(&acpi, "HPET", &table) != LOAD_OK ||
		acpi_read_hpet(&table, &hpet) != LOAD_OK ||
		hpet.address.space != ACPI_SPACE_MEMORY || hpet.address.address >= 0x100000000ull ||
		hpet.address.address % PAGE_SIZE) {
		return;
	}

	uint64_t base = (uint64_t)memory_pointer(HPA(hpet.address.address));
	uint32_t timers = (mmio_read32(base) >> 8 & 31) + 1;

	for (uint32_t i = 0; i < timers; i++) {
		messages = messages || (mmio_read32(base + 0x100 + 0x20 * i) & (1u << 15));
	}
	partition_map(&partition, GPA(hpet.address.address), PAGE_SIZE,
		messages ? ACCESS_READ : ACCESS_READ | ACCESS_WRITE);
}

/* --- VPs --------------------------------------------------------------------------------------- */

static void kick(void *platform, vp_id_t target)
{
	(void)platform;
	partition.ops->kick(target);
}

static void create_block(void)
{
	uint32_t vps = cpu_count();
	uint64_t vp_offset = ALIGN_UP(sizeof(struct block_header), CACHE_LINE_BYTES);
	uint64_t trace_offset =
		ALIGN_UP(vp_offset + vps * sizeof(struct block_vp), CACHE_LINE_BYTES);
	uint64_t ring_bytes = trace_ring_bytes(TRACE_ENTRIES);
	uint64_t region_offset = trace_offset + vps * ring_bytes;
	uint64_t bytes = region_offset + PROTECT_REGIONS(vps) * sizeof(struct block_region);
	struct block_header *block = memory_take(bytes, PAGE_SIZE);

	*block = (struct block_header){
		.magic = BLOCK_MAGIC,
		.version = BLOCK_VERSION,
		.header_bytes = sizeof(*block),
		.bytes = bytes,
		.platform = "svm",
		.ap_start_method = "sipi",
		.vps = vps,
		.counters = COUNTER_COUNT,
		.vp_offset = vp_offset,
		.vp_bytes = sizeof(struct block_vp),
		.trace_offset = trace_offset,
		.trace_ring_bytes = ring_bytes,
		.trace_entries = TRACE_ENTRIES,
		.tsc_hz = partition.tsc_hz,
		.text_bytes = (uint64_t)(image_text_end - image_text_start),
		.memory_bytes = memory_region_bytes(),
		.region_offset = region_offset,
		.regions = PROTECT_REGIONS(vps),
	};
	partition.block = block;
	log_line("@block 0x%lx 0x%lx", memory_hpa(block).value, bytes);
}

/* The guest's VP indexes: the VPs' own numbers, spread out if asked for. */
static void number_vps(uint32_t vps)
{
	for (uint32_t i = 0; i < VPSET_INDEX_COUNT; i++) {
		partition.vp_of_index[i] = VPSET_NO_VP;
	}
	for (uint32_t i = 0; i < vps; i++) {
		partition.vp_of_index[i * partition.vp_stride] = (uint16_t)i;
	}
	partition.vp_indexes = (struct vpset_map){
		.vp_of_index = partition.vp_of_index,
		.index_count = VPSET_INDEX_COUNT,
		.vp_count = vps,
	};
}

/*
 * Whether flush hypercalls are recommended. `auto` takes what measures better (docs/benchmarks.md): with
 * one VP there is no other TLB to flush. With more, hypercalls are ahead while the others work, which is
 * when flushes are waited for, and the more so the more VPs share the machine's processors.
 */
static bool recommend_flush_hypercalls(enum tlb_flush tlb_flush, uint32_t vps)
{
	switch (tlb_flush) {
	case TLB_FLUSH_HYPERCALL:
		return true;
	case TLB_FLUSH_IPI:
		return false;
	case TLB_FLUSH_AUTO:
		break;
	}
	return vps > 1;
}

static uint64_t now(void)
{
	return asm_rdtsc();
}

static void broken(const char *what)
{
	fault_stop("%s", what);
}

static void create_permissions(uint32_t vps)
{
	uint64_t ram_bytes = 0;

	for (uint32_t i = 0; i < handover.memory_count; i++) {
		ram_bytes += handover.memory[i].bytes;
	}
	partition.vtls = partition.options.vsm ? VTL_COUNT : 1;

	const struct protect_config config = {
		.vps = memory_take(vps * sizeof(struct protect_vp), CACHE_LINE_BYTES),
		.flush = &partition.flush,
		.ops = partition.ops->memory,
		.platform = partition.ops->memory_create(partition.vtls, ram_bytes),
		.now = now,
		.broken = broken,
		.targets = partition.vtls,
		.region = (struct block_region *)((uint8_t *)partition.block +
			partition.block->region_offset),
		.region_count = PROTECT_REGIONS(vps),
		.pin = memory_take(
			PROTECT_PINS(vps) * sizeof(struct protect_pinned), CACHE_LINE_BYTES),
		.pin_room = PROTECT_PINS(vps),
	};

	protect_init(&partition.protect, &config);
}

static void create_vps(void)
{
	static const struct run_ops run_ops = {.kick = kick};
	uint32_t vps = cpu_count();
	uint8_t *block = (uint8_t *)partition.block;

	partition.vp_count = vps;
	partition.vp_stride = partition.options.vp_stride ? partition.options.vp_stride : 1;
	partition.flush_hypercalls = recommend_flush_hypercalls(partition.options.tlb_flush, vps);
	log_info("I flush hypercalls are %srecommended", partition.flush_hypercalls ? "" : "not ");
	run_init(&partition.run, memory_take(vps * sizeof(struct run_vp), CACHE_LINE_BYTES), vps,
		&run_ops, &partition);
	/* A PAUSE of QEMU's goes through its main loop and its big lock, which the VP that is waited
	 * for needs to leave its guest: measured, it doubles the time of a flush. */
	run_set_pauses(&partition.run, !cpu_is_tcg());
	tlblock_init(&partition.tlblock,
		memory_take(vps * sizeof(struct tlblock_vp), CACHE_LINE_BYTES),
		memory_take(
			TLBLOCK_WAITERS_NEEDED(vps) * sizeof(struct atomic_u64), CACHE_LINE_BYTES),
		&partition.run);
	flush_init(&partition.flush, memory_take(vps * sizeof(struct flush_vp), CACHE_LINE_BYTES),
		&partition.run, &partition.tlblock, FLUSH_PAGES_MAX);
	create_permissions(vps);
	number_vps(vps);
	for (uint32_t i = 0; i < vps; i++) {
		/* Both are used at every exit, and lie together. */
		struct platform_vp *platform = partition.ops->vp_create(i, VTL0);
		struct vp *vp = memory_take(sizeof(*vp), CACHE_LINE_BYTES);

		vp->partition = &partition;
		vp->id = i;
		vp->apic_id = cpu_by_id(i)->apic_id;
		vp->vtl[VTL0].platform = platform;
		vp->platform = vp->vtl[VTL0].platform;
		if (partition.options.vsm) {
			vtl_init_vp(vp);
		}
		vp->block = (struct block_vp *)(block + partition.block->vp_offset +
			i * sizeof(struct block_vp));
		vp->block->apic_id = vp->apic_id;
		flush_set_counters(&partition.flush, i, vp->block->counter);
		for (uint32_t vtl = 0; vtl < VTL_COUNT; vtl++) {
			if (vp->vtl[vtl].platform) {
				partition.ops->vp_set_counters(
					vp->vtl[vtl].platform, vp->block->counter);
			}
		}
		if (partition.options.interrupt_exits) {
			partition.ops->exit_on_interrupts(vp->platform);
		}
		trace_ring_init(&vp->trace, i,
			block + partition.block->trace_offset +
				i * partition.block->trace_ring_bytes,
			TRACE_ENTRIES);
		protect_set_observers(&partition.protect, i, vp->block->counter, &vp->trace);
		/* Relaxed: nobody else runs yet. */
		atomic_u32_store(&vp->start, i == 0 ? VP_START_RUNNING : VP_START_WAIT,
			memory_order_relaxed);
		atomic_u32_store(&vp->apic_dfr, ~0u, memory_order_relaxed);
		partition.vp[i] = vp;
	}
}

/* Every processor but the first: straight into its run loop, where it waits to be started. */
static void run_processor(struct cpu *cpu)
{
	partition.ops->processor_enable();
	msr_init_vp(partition.vp[cpu->id]);
	vp_run(partition.vp[cpu->id]);
}

static void run_first(void *vp)
{
	vp_run(vp);
}

static void open_machine(const struct wakeup_pages *wakeup)
{
	const struct acpi *tables = has_acpi ? &acpi : NULL;

	msr_open(partition.ops);
	io_open(&partition);
	fixed_init(&partition, tables);
	hotplug_init();
	map_guest_memory(wakeup);
	map_hpet();
	pci_init(&partition, tables);
	ioapic_init(&partition, tables);
	lapic_init(&partition);
}

void core_main(const void *tree)
{
	const char *wrong = NULL;

	log_init();
	read_handover(tree);
	end_init(&partition);
	create_processors();
	if (!options_parse(handover.options, &partition.options, &wrong)) {
		log_line("E option not understood, from here on: %s", wrong);
		end_refuse(&partition);
	}
	if (partition.options.vsm && partition.options.protect_kernel) {
		refuse("protect=kernel cannot go with vsm=on: a kernel in VTL1 seals for itself");
	}
	log_set_verbose(partition.options.verbose);
	log_info("I Parapet %s, %u processors, %lu KiB of memory at 0x%lx", PARAPET_VERSION,
		cpu_count(), memory_region_bytes() / 1024, memory_region_base().value);

	if (!apic_init()) {
		refuse("the firmware left the APIC in x2APIC mode or off: Parapet drives xAPICs; "
		       "choose that in the firmware's setup");
	}
	has_acpi = handover.acpi_rsdp &&
		acpi_open(&firmware_memory, GPA(handover.acpi_rsdp), &acpi) == LOAD_OK;

	struct calibration clocks = calibrate_clocks(pm_timer_port());

	partition.tsc_hz = clocks.tsc_hz;
	partition.tsc_is_invariant = tsc_is_invariant();
	partition.apic_timer_hz = clocks.apic_timer_hz;
	partition.physical_bits = (uint8_t)asm_cpuid(0x80000008, 0).eax;
	partition.huge_pages = asm_cpuid(0x80000001, 0).edx & (1u << 26);

	const char *why = NULL;

	partition.ops = svm_platform(cpu_count(), partition.options.vsm ? VTL_COUNT : 1, &why);
	if (!partition.ops) {
		refuse(why);
	}
	create_block();
	create_vps();
	partition.ops->processor_enable();
	msr_init_vp(partition.vp[0]);
	build_guest_map();

	struct wakeup_pages wakeup_pages;
	bool mailbox = give_mailbox(&wakeup_pages);

	open_machine(mailbox ? &wakeup_pages : NULL);
	seal_init(&partition);
	if (mailbox) {
		wakeup_protect(&partition, &wakeup_pages);
	}
	if (!guest_load(&partition, &handover, &guest_map)) {
		end_refuse(&partition);
	}
	/* Only now: each goes straight into its run loop, where everything must be ready. */
	if (cpu_count() > 1) {
		if (!memory_map_is_ram(&guest_map, AP_PAGE, PAGE_SIZE)) {
			refuse("there is no RAM at 32 KiB, where other processors would start");
		}
		ap_start_all(HPA(AP_PAGE), partition.tsc_hz, run_processor);
	}
	log_info("I %lu KiB of Parapet's memory are left; TSC %lu kHz, APIC timer %lu kHz",
		memory_left() / 1024, partition.tsc_hz / 1000, partition.apic_timer_hz / 1000);
	memory_close();
	memory_check_permissions();
	/* The stack of the start has no guard page below it. */
	cpu_switch_stack(cpu_this()->stack_top, run_first, partition.vp[0]);
}
