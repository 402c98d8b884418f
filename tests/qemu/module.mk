# Tests that run whole boots in QEMU. MODES=bare runs what does not need Parapet itself.

QEMU_TESTS := tests/qemu/kernels.sh tests/qemu/ends.sh tests/qemu/linux.sh tests/qemu/demo.sh \
	tests/qemu/bad.sh

.PHONY: check-qemu stress
check-qemu: all guest-kernels
	@status=0; for test in $(QEMU_TESTS); do \
		echo "# $$test"; PARAPET=$(B)/parapet $$test || status=1; \
	done; exit $$status

stress: all guest-kernels
	PARAPET=$(B)/parapet tests/qemu/stress.sh
