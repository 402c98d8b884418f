# The device tree between the boot shim and the core. Needs libfdt, on the host and in the image.
PORTABLE_SRCS += $(wildcard boot/handover/*.c)
