# Permissions on the host: one transaction against page by page, many locks against one.

PROTECT_BENCH_SRCS := bench/protect/bench_protect.c platform/sim/sim_npt.c \
	$(sort $(foreach room,vpset run flush tlblock protect trace,$(wildcard core/$(room)/*.c)))

$(B)/bench/bench-protect: $(PROTECT_BENCH_SRCS) $(RULES) \
		$(wildcard bench/*.h platform/sim/*.h core/*.h core/*/*.h include/parapet/*.h)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(filter-out -MMD -MP,$(HOST_CFLAGS)) -pthread $(PROTECT_BENCH_SRCS) -o $@

BENCH_PARTS += bench-protect
BENCH_RESULTS += $(B)/bench/protect.json

.PHONY: bench-protect
bench-protect: $(B)/bench/bench-protect
	$(Q)$< --json $(B)/bench/protect.json
