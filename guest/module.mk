# What runs inside the virtual machine: the demo guest and the test kernels.

GUEST := $(B)/guest

.PHONY: guest guest-kernels
guest: $(GUEST)/vmlinuz $(GUEST)/initrd.img
guest-kernels: $(GUEST)/vmlinuz $(GUEST)/vmlinuz-6.1
all: guest

# --- the demo guest: Debian's kernel and busybox, our init and workloads --------------------------
$(GUEST)/vmlinuz: scripts/fetch-kernel
	$(call say,FETCH,$@)
	$(Q)scripts/fetch-kernel 6.12 $@

$(GUEST)/vmlinuz-6.1: scripts/fetch-kernel
	$(call say,FETCH,$@)
	$(Q)scripts/fetch-kernel 6.1 $@

$(GUEST)/demo/busybox: scripts/fetch-busybox
	$(call say,FETCH,$@)
	$(Q)scripts/fetch-busybox $@

GUEST_DEMO_CFLAGS := -std=c11 -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -static -no-pie -pthread \
	-fno-ident

$(GUEST)/demo/storm $(GUEST)/demo/work $(GUEST)/demo/nothing $(GUEST)/demo/watch \
		$(GUEST)/demo/tlbstorm: $(GUEST)/demo/%: guest/demo/%.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(GUEST_DEMO_CFLAGS) -MMD -MP $(PROGRAM_DEPS) -s -Wl,--build-id=none $< -o $@

$(GUEST)/demo/mkcpio: guest/demo/mkcpio.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(HOST_CFLAGS) $(PROGRAM_DEPS) $< -o $@

$(GUEST)/initrd.img: guest/demo/initrd.list guest/demo/init $(GUEST)/demo/mkcpio \
		$(GUEST)/demo/busybox $(GUEST)/demo/storm $(GUEST)/demo/work $(GUEST)/demo/nothing \
		$(GUEST)/demo/watch $(GUEST)/demo/tlbstorm
	$(call say,CPIO,$@)
	$(Q)sed -e 's|@BUILD@|$(GUEST)/demo|' -e 's|@SOURCE@|guest/demo|' $< | \
		$(GUEST)/demo/mkcpio > $@.cpio
	$(Q)gzip -n -9 < $@.cpio > $@.tmp
	$(Q)rm $@.cpio
	$(Q)mv $@.tmp $@

# stress-ng and its libraries, to be concatenated to the demo guest's initrd.
$(GUEST)/stress-ng.img: scripts/fetch-stress-ng $(GUEST)/demo/mkcpio
	$(call say,FETCH,$@)
	$(Q)scripts/fetch-stress-ng $(GUEST)/demo/mkcpio $@

guest-kernels: $(GUEST)/stress-ng.img

# The attacker's module, for both kernels, and its script, likewise.
$(GUEST)/attack/attack-6.12.ko: $(GUEST)/vmlinuz
$(GUEST)/attack/attack-6.1.ko: $(GUEST)/vmlinuz-6.1
$(GUEST)/attack/attack-%.ko: scripts/build-module guest/attack/main.c guest/attack/deputy.c \
		guest/attack/attempt.h guest/attack/deputy.h guest/attack/Kbuild
	$(call say,KBUILD,$@)
	$(Q)scripts/build-module $(filter $(GUEST)/vmlinuz%,$^) guest/attack $@

# The module that brings a VTL1, and its script, likewise.
$(GUEST)/vtl1/vtl1.ko: $(GUEST)/vmlinuz scripts/build-module guest/vtl1/main.c guest/vtl1/entry.S \
		guest/vtl1/vtl1.h guest/vtl1/Kbuild
	$(call say,KBUILD,$@)
	$(Q)scripts/build-module $< guest/vtl1 $@

# What a module's test needs beside the demo guest: to be concatenated to its initrd.
$(GUEST)/attack.img: guest/attack/protect $(GUEST)/attack/attack-6.12.ko $(GUEST)/attack/attack-6.1.ko
$(GUEST)/vtl1.img: guest/vtl1/vtl1 $(GUEST)/vtl1/vtl1.ko
$(GUEST)/attack.img $(GUEST)/vtl1.img: $(GUEST)/%.img: guest/%/initrd.list $(GUEST)/demo/mkcpio
	$(call say,CPIO,$@)
	$(Q)sed -e 's|@BUILD@|$(GUEST)/$*|' -e 's|@SOURCE@|guest/$*|' $< | \
		$(GUEST)/demo/mkcpio > $@.cpio
	$(Q)gzip -n -9 < $@.cpio > $@.tmp
	$(Q)rm $@.cpio
	$(Q)mv $@.tmp $@

guest-kernels: $(GUEST)/attack.img $(GUEST)/vtl1.img

# --- test kernels: guest/testkernel/NAME.c, one file each, linked with the library beside them ----
TK_SRCS  := $(wildcard guest/testkernel/*.c)
TK_LIB   := $(wildcard guest/testkernel/lib/*.c guest/testkernel/lib/*.S)
TK_OBJS  := $(patsubst guest/testkernel/lib/%,$(GUEST)/tests/lib/%.o,$(TK_LIB))
TK_ELFS  := $(TK_SRCS:guest/testkernel/%.c=$(GUEST)/tests/%.elf)

TK_CFLAGS := -std=gnu11 -O2 -g -Wall -Wextra -Werror -Wmissing-prototypes -Wvla -ffreestanding \
	-fno-pic -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-omit-frame-pointer -fno-strict-aliasing -fno-common -mno-red-zone -mgeneral-regs-only \
	-fno-tree-loop-distribute-patterns -fcf-protection=none -Wno-array-bounds \
	-Iguest/testkernel/lib -MMD -MP

guest: $(TK_ELFS)

$(GUEST)/tests/lib/%.c.o: guest/testkernel/lib/%.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(TK_CFLAGS) -c $< -o $@

$(GUEST)/tests/lib/%.S.o: guest/testkernel/lib/%.S $(RULES)
	@mkdir -p $(@D)
	$(call say,AS,$@)
	$(Q)$(CC) $(TK_CFLAGS) -c $< -o $@

$(GUEST)/tests/%.o: guest/testkernel/%.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(TK_CFLAGS) -c $< -o $@

# Multiboot v1 wants a 32-bit ELF file around the 64-bit code.
$(GUEST)/tests/%.elf: $(GUEST)/tests/%.o $(TK_OBJS) guest/testkernel/lib/link.ld $(LISTS)
	$(call say,LD,$@)
	$(Q)$(CC) -nostdlib -static -no-pie -Wl,--build-id=none,--no-warn-rwx-segments \
		-Wl,-z,noexecstack,-z,max-page-size=4096 -T guest/testkernel/lib/link.ld \
		$< $(TK_OBJS) -o $@.64
	$(Q)objcopy -O elf32-i386 $@.64 $@

-include $(TK_OBJS:.o=.d) $(TK_SRCS:guest/testkernel/%.c=$(GUEST)/tests/%.d) \
	$(GUEST)/demo/storm.d $(GUEST)/demo/work.d $(GUEST)/demo/nothing.d $(GUEST)/demo/tlbstorm.d $(GUEST)/demo/watch.d $(GUEST)/demo/mkcpio.d
