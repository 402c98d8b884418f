# The explorer: the core's own files under scheduled atomics, with rings of one and of two slots.

EXPLORE_SRCS := $(sort $(wildcard verify/explore/*.c)) \
	$(sort $(foreach room,vpset run flush tlblock,$(wildcard core/$(room)/*.c)))
EXPLORE_CFLAGS := $(filter-out -MMD -MP,$(HOST_CFLAGS)) -DPARAPET_EXPLORE -Iverify/explore

$(B)/verify/explore-1 $(B)/verify/explore-2: $(B)/verify/explore-%: $(EXPLORE_SRCS) $(RULES) \
		$(wildcard verify/explore/*.h core/*.h core/*/*.h include/parapet/*.h)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(EXPLORE_CFLAGS) -DFLUSH_RING_SLOTS=$* $(EXPLORE_SRCS) -o $@

.PHONY: verify verify-short verify-mutants
verify: $(B)/verify/explore-1 $(B)/verify/explore-2 ## explore every interleaving, then the mutants (long)
	$(Q)verify/run $^
	$(Q)CC='$(CC)' BUILD='$(B)/verify/mutants' verify/mutants

verify-short: $(B)/verify/explore-1 $(B)/verify/explore-2
	$(Q)verify/run --short $^

verify-mutants:
	$(Q)CC='$(CC)' BUILD='$(B)/verify/mutants' verify/mutants
