/*
 * QEMU's firmware configuration device: test kernels and Linux read it, so its selector and data
 * ports work; its DMA register, which writes anywhere in memory, does not exist for a guest, and the
 * feature word does not offer it.
 */
#include "arch/x86/asm.h"
#include "core/atomic.h"
#include "partition/policy.h"

#define PORT_SELECT 0x510
#define PORT_DATA   0x511

#define KEY_ID	   0x0001
#define KEY_ID_DMA 0x02 /* in the first byte */
#define KEY_WRITE  0x4000

static struct atomic_u32 selected; /* key, and in bit 16 that something of it has been read */

bool fw_cfg_owns_port(uint16_t port)
{
	return port == PORT_SELECT || port == PORT_DATA;
}

uint32_t fw_cfg_read(struct vp *vp, uint16_t port, uint8_t size)
{
	if (port != PORT_DATA || size != 1) {
		vp_deny(vp, COUNTER_DENIED_IO, port);
		return size == 4 ? ~0u : (1u << (8 * size)) - 1;
	}

	uint8_t value = asm_in8(PORT_DATA);

	/* Relaxed: the device itself is shared; guests that race on it get what they deserve. */
	if (atomic_u32_fetch_or(&selected, 1u << 16, memory_order_relaxed) == KEY_ID) {
		value &= (uint8_t)~KEY_ID_DMA;
	}
	return value;
}

void fw_cfg_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value)
{
	if (port != PORT_SELECT || size != 2) {
		vp_deny(vp, COUNTER_DENIED_IO, port);
		return;
	}
	/* Relaxed: see fw_cfg_read. */
	atomic_u32_store(&selected, value & 0xffff & ~(uint32_t)KEY_WRITE, memory_order_relaxed);
	asm_out16(PORT_SELECT, (uint16_t)(value & ~(uint32_t)KEY_WRITE));
}
