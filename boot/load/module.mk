PORTABLE_SRCS += $(wildcard boot/load/*.c)
