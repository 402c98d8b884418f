# How much runs between an exit and the next entry: counted, so any computer gives the same answer.

BENCH_PARTS += bench-path
BENCH_RESULTS += $(B)/bench/path.json

$(B)/bench/path.so: bench/path/path.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(filter-out -MMD -MP,$(HOST_CFLAGS)) -fPIC -shared -fvisibility=hidden $< -o $@

.PHONY: bench-path
bench-path: all guest $(B)/bench/path.so ## count instructions and pages from an exit to the next entry
	$(Q)bench/path/measure --parapet $(B)/parapet --plugin $(B)/bench/path.so \
		--output $(B)/bench/path.json
