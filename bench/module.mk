# Measuring: whole guests here; the flush path in bench/flush has rules of its own.

ROUNDS ?= 5
BENCH_PARTS += bench-guest
BENCH_RESULTS += $(B)/bench/guest.json
BENCH_DEMO  := $(B)/guest/demo

# One part after the other, whatever -j says: nothing else may run while something is measured.
.PHONY: bench bench-guest bench-report
bench: packages-bench ## measure, beside the bare machine (ROUNDS=5; results under build/bench)
	$(Q)status=0; for part in $(sort $(BENCH_PARTS)); do \
		$(MAKE) --no-print-directory -j1 $$part || status=1; \
	done; exit $$status

# BENCH_OPTIONS passes more to the command: bench/guest --help lists it.
bench-guest: all guest $(B)/bench/idle.img
	$(Q)bench/guest --parapet $(B)/parapet --output $(B)/bench/guest.json \
		--rounds $(ROUNDS) $(BENCH_OPTIONS)

# Writes what was measured last into the document.
bench-report:
	$(Q)bench/report docs/benchmarks.md $(BENCH_RESULTS)

$(B)/bench/idle.img: bench/guest-idle/initrd.list bench/guest-idle/init $(BENCH_DEMO)/mkcpio \
		$(BENCH_DEMO)/busybox
	@mkdir -p $(@D)
	$(call say,CPIO,$@)
	$(Q)sed -e 's|@BUILD@|$(BENCH_DEMO)|' -e 's|@SOURCE@|bench/guest-idle|' $< | \
		$(BENCH_DEMO)/mkcpio > $@.tmp
	$(Q)mv $@.tmp $@
