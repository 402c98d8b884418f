# Part 2 of the flush benchmark: storms of mapping changes in a stock guest.

BENCH_PARTS += bench-flush-guest
BENCH_RESULTS += $(B)/bench/flush-guest.json

.PHONY: bench-flush-guest
bench-flush-guest: all guest ## flush hypercalls against the guest's IPIs and the bare machine
	$(Q)bench/flush-guest/measure --parapet $(B)/parapet --output $(B)/bench/flush-guest.json \
		--rounds $(ROUNDS) $(BENCH_OPTIONS)
