# Tests that run whole boots in QEMU. MODES=bare runs what does not need Parapet itself.

.PHONY: check-qemu stress
check-qemu: all guest-kernels
	$(Q)B='$(B)' tests/run qemu

check-programs: guest-kernels

stress: packages-check ## boot everything over and over (ROUNDS=20)
	$(Q)$(MAKE) --no-print-directory $(PARALLEL) all guest-kernels
	$(Q)PARAPET=$(B)/parapet tests/qemu/stress.sh
	$(Q)PARAPET=$(B)/parapet LONG=1 tests/qemu/stressng.sh
