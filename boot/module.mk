# The image: build/parapet.elf, the shim with the core inside.

CORE_SRCS := $(filter core/%,$(PORTABLE_SRCS)) \
	$(wildcard arch/x86/*.c boot/core/*.c hv/*.c partition/*.c platform/svm/*.c) \
	$(wildcard boot/handover/*.c boot/load/*.c arch/x86/insn/*.c seal/*.c)
CORE_ASM  := $(wildcard arch/x86/*.S boot/core/*.S platform/svm/*.S)
CORE_OBJS := $(sort $(CORE_SRCS:%.c=$(B)/core/%.o) $(CORE_ASM:%.S=$(B)/core/%.S.o))

# The image has less than 128 KiB of text. What runs at every exit, entry and flush is compiled for
# speed, all else for size, and everything together at link time: where a function lies in which file
# costs neither a call nor a byte.
CORE_FAST := $(wildcard core/flush/*.c core/regs/*.c core/run/*.c core/tlblock/*.c core/vpset/*.c) \
	platform/svm/svm.c platform/svm/debug.c platform/svm/npt.c arch/x86/insn/walk.c arch/x86/insn/decode.c \
	partition/run.c partition/halt.c partition/cpuid.c partition/guest_access.c \
	partition/io.c partition/lapic.c partition/memory.c partition/msr.c partition/permissions.c \
	hv/hv_call.c hv/hv_flush.c hv/hv_ipi.c hv/hv_msr.c
$(CORE_FAST:%.c=$(B)/core/%.o): CORE_OPTIMISE := -O2 -falign-jumps=1 -falign-loops=1 -falign-labels=1
CORE_OPTIMISE := -Os
CORE_FLTO := -flto -ffat-lto-objects -flto-partition=one
# What is in .text.guarded calls nothing outside of it, and stays as it is written.
$(B)/core/arch/x86/interrupt.o: CORE_FLTO :=

# The shim runs below 2 GiB, in an identity map: the same sources, another code model.
SHIM_CFLAGS := $(filter-out -mcmodel=kernel,$(MACHINE_CFLAGS)) -mcmodel=small
SHIM_SRCS := $(wildcard boot/shim/*.c boot/handover/*.c boot/load/*.c) \
	arch/x86/log.c arch/x86/print.c arch/x86/string.c
SHIM_OBJS := $(sort $(SHIM_SRCS:%.c=$(B)/shim/%.o))

LIBFDT := -Wl,--start-group -lfdt -Wl,--end-group
LINK   := $(CC) -nostdlib -static -no-pie -Wl,--gc-sections -Wl,-z,noexecstack \
	-Wl,-z,max-page-size=4096 -Wl,--build-id=none -Wl,--no-warn-rwx-segments

all: $(B)/parapet.elf

$(B)/core/%.o: %.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(MACHINE_CFLAGS) $(CORE_OPTIMISE) $(CORE_FLTO) -c $< -o $@

$(B)/core/%.S.o: %.S $(RULES)
	@mkdir -p $(@D)
	$(call say,AS,$@)
	$(Q)$(CC) $(MACHINE_CFLAGS) -c $< -o $@

$(B)/shim/%.o: %.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(SHIM_CFLAGS) -c $< -o $@

# Twice: the second pass knows where every function is. The table lies behind the text.
$(B)/core.elf: $(CORE_OBJS) boot/core/core.lds boot/core/hot.list scripts/make-symbols scripts/make-hot $(LISTS)
	$(call say,LD,$@)
	$(Q)scripts/make-hot boot/core/hot.list $(B) $(sort $(CORE_SRCS) $(CORE_ASM))
	$(Q)scripts/make-symbols - $(B)/symbols0.S
	$(Q)$(CC) $(MACHINE_CFLAGS) -c $(B)/symbols0.S -o $(B)/symbols0.o
	$(Q)$(LINK) $(MACHINE_CFLAGS) $(CORE_FLTO) -L$(B) -T boot/core/core.lds $(CORE_OBJS) $(B)/symbols0.o $(LIBFDT) -o $(B)/core0.elf
	$(Q)scripts/make-symbols $(B)/core0.elf $(B)/symbols1.S
	$(Q)$(CC) $(MACHINE_CFLAGS) -c $(B)/symbols1.S -o $(B)/symbols1.o
	$(Q)$(LINK) $(MACHINE_CFLAGS) $(CORE_FLTO) -L$(B) -T boot/core/core.lds $(CORE_OBJS) $(B)/symbols1.o $(LIBFDT) -o $@

$(B)/core.bin: $(B)/core.elf
	$(call say,OBJCOPY,$@)
	$(Q)objcopy -O binary $< $@

$(B)/shim/entry.o: boot/shim/entry.S $(B)/core.bin $(RULES)
	@mkdir -p $(@D)
	$(call say,AS,$@)
	$(Q)$(CC) $(SHIM_CFLAGS) -DSHIM_CORE_IMAGE='"$(B)/core.bin"' -c $< -o $@

# Multiboot v1 wants a 32-bit ELF, whatever is in it.
$(B)/parapet.elf: $(SHIM_OBJS) $(B)/shim/entry.o boot/shim/shim.lds $(LISTS)
	$(call say,LD,$@)
	$(Q)$(LINK) -T boot/shim/shim.lds $(B)/shim/entry.o $(SHIM_OBJS) $(LIBFDT) -o $(B)/shim.elf
	$(Q)objcopy -O elf32-i386 $(B)/shim.elf $@

-include $(CORE_OBJS:.o=.d) $(SHIM_OBJS:.o=.d) $(B)/shim/entry.d
