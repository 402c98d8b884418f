/*
 * MSRs of the synthetic interrupt controller (TLFS, "SynIC Registers"), where VSM is offered. In VTL1 they
 * say where intercepts go. VTL0 has them because who looks for VSM looks for them too; nothing ever sends
 * it a message.
 */
#include "hv/hv_msr.h"
#include "partition/guest_access.h"
#include "partition/vtl.h"

#define SYNIC_VERSION 1

#define SCONTROL_KNOWN VTL_SCONTROL_ENABLE
#define PAGE_ENABLE    1ull
#define PAGE_RESERVED  0xffeull
#define SINT_KNOWN     (VTL_SINT_VECTOR | VTL_SINT_MASKED | VTL_SINT_AUTO_EOI | VTL_SINT_POLLING)
#define VECTOR_FIRST   16

static struct vtl_synic *synic_of(struct vp *vp, enum vtl vtl)
{
	return vtl == VTL1 ? &vp->vtl1.synic : &vp->vtl0_synic;
}

bool hv_synic_owns(uint32_t index)
{
	return (index >= HV_MSR_SCONTROL && index <= HV_MSR_EOM) ||
		(index >= HV_MSR_SINT0 && index < HV_MSR_SINT0 + VTL_SINTS);
}

bool hv_synic_get(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t *value)
{
	const struct vtl_synic *synic = synic_of(vp, vtl);

	if (!vp->partition->options.vsm) {
		return false;
	}
	switch (index) {
	case HV_MSR_SCONTROL:
		*value = synic->scontrol;
		return true;
	case HV_MSR_SVERSION:
		*value = SYNIC_VERSION;
		return true;
	case HV_MSR_SIEFP:
		*value = synic->siefp;
		return true;
	case HV_MSR_SIMP:
		*value = synic->simp;
		return true;
	case HV_MSR_EOM:
		*value = 0;
		return true;
	default:
		*value = synic->sint[index - HV_MSR_SINT0];
		return true;
	}
}

/* A page of zeros at first and wherever it is put. */
static bool write_page(struct vp *vp, enum vtl vtl, uint64_t *msr, uint64_t value)
{
	if (value & PAGE_RESERVED) {
		return false;
	}
	if (!hv_page_move(vp, vtl, *msr, value)) {
		return false;
	}
	*msr = value;
	return true;
}

static bool write_sint(uint64_t *sint, uint64_t value)
{
	/* TLFS: "Specifying an invalid vector number results in #GP"; a masked one needs none. */
	if ((value & ~SINT_KNOWN) ||
		(!(value & VTL_SINT_MASKED) && (value & VTL_SINT_VECTOR) < VECTOR_FIRST)) {
		return false;
	}
	*sint = value;
	return true;
}

static bool write(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t value)
{
	struct vtl_synic *synic = synic_of(vp, vtl);

	switch (index) {
	case HV_MSR_SCONTROL:
		if (value & ~SCONTROL_KNOWN) {
			return false;
		}
		synic->scontrol = value;
		return true;
	case HV_MSR_SVERSION:
		return false;
	case HV_MSR_SIEFP:
		return write_page(vp, vtl, &synic->siefp, value);
	case HV_MSR_SIMP:
		return write_page(vp, vtl, &synic->simp, value);
	case HV_MSR_EOM:
		return true;
	default:
		return write_sint(&synic->sint[index - HV_MSR_SINT0], value);
	}
}

bool hv_synic_set(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t value)
{
	if (!vp->partition->options.vsm || !write(vp, vtl, index, value)) {
		return false;
	}
	if (vtl == VTL1) {
		vtl_synic_retry(vp);
	}
	return true;
}
