# The instruction decoder, the emulator of trapped accesses and the guest page-table walker.
PORTABLE_SRCS += $(wildcard arch/x86/insn/*.c)
