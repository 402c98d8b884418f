# The image for a CD or a USB stick: GRUB, Parapet, the demo guest.

ISO_TREE := $(B)/iso

.PHONY: iso
iso: packages-check ## build build/parapet.iso, which boots the demo guest from GRUB
	$(Q)$(MAKE) --no-print-directory $(PARALLEL) $(B)/parapet.iso
check-programs: $(B)/parapet.iso

# Only GRUB for the BIOS: Parapet is started by Multiboot v1, which means that.
$(B)/parapet.iso: boot/iso/grub.cfg $(B)/parapet.elf $(B)/guest/vmlinuz $(B)/guest/initrd.img
	$(call say,ISO,$@)
	$(Q)rm -rf $(ISO_TREE)
	$(Q)mkdir -p $(ISO_TREE)/boot/grub
	$(Q)cp boot/iso/grub.cfg $(ISO_TREE)/boot/grub/
	$(Q)cp $(B)/parapet.elf $(B)/guest/vmlinuz $(B)/guest/initrd.img $(ISO_TREE)/boot/
	$(Q)grub-mkrescue -d /usr/lib/grub/i386-pc -o $@ $(ISO_TREE) >$@.log 2>&1 || \
		{ cat $@.log >&2; exit 1; }
