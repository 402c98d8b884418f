# The explorer: the core's own files and the image's nested tables under scheduled atomics, with rings
# of one and of two slots, and with tables of two entries.

EXPLORE_SRCS := $(sort $(wildcard verify/explore/*.c)) platform/svm/npt.c platform/svm/npt_pool.c \
	$(sort $(foreach room,vpset run flush tlblock protect trace,$(wildcard core/$(room)/*.c)))
EXPLORE_DEFINES := -DPARAPET_EXPLORE -DNPT_LEVEL_BITS=1 \
	-DPROTECT_REGION_SHARDS=2 -DPROTECT_REGION_SHARD_BYTES=0x2000 -DPROTECT_TABLE_SHARDS=2 \
	-DPROTECT_TABLE_SHARD_BYTES=0x4000 -DPROTECT_RANGES_MAX=4
EXPLORE_CFLAGS := $(filter-out -MMD -MP,$(HOST_CFLAGS)) $(EXPLORE_DEFINES) -Iverify/explore

$(B)/verify/explore-1 $(B)/verify/explore-2: $(B)/verify/explore-%: $(EXPLORE_SRCS) $(RULES) \
		$(wildcard verify/explore/*.h platform/svm/*.h arch/x86/registers.h core/*.h core/*/*.h include/parapet/*.h)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(EXPLORE_CFLAGS) -DFLUSH_RING_SLOTS=$* $(EXPLORE_SRCS) -o $@

.PHONY: verify verify-short verify-mutants verify-qemu
verify: $(B)/verify/explore-1 $(B)/verify/explore-2 ## explore every interleaving, then the mutants (long)
	$(Q)verify/run $^
	$(Q)CC='$(CC)' EXPLORE_DEFINES='$(EXPLORE_DEFINES)' BUILD='$(B)/verify/mutants' verify/mutants

verify-short: $(B)/verify/explore-1 $(B)/verify/explore-2
	$(Q)verify/run --short $^

verify-mutants:
	$(Q)CC='$(CC)' EXPLORE_DEFINES='$(EXPLORE_DEFINES)' BUILD='$(B)/verify/mutants' verify/mutants

verify-qemu: all guest
	$(Q)BUILD='$(B)/verify/qemu' verify/qemu
