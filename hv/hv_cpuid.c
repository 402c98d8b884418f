/*
 * What Parapet offers a guest, in the leaves that Hyper-V's guests read: enough for clocks that need no
 * calibration and for cheap APIC accesses. Each bit here is a promise; what is not offered is not
 * mentioned, because stock kernels take one bit for more than it says.
 */
#include "hv/hv_cpuid.h"

#define LEAF_VENDOR    0x40000000
#define LEAF_INTERFACE 0x40000001
#define LEAF_VERSION   0x40000002
#define LEAF_FEATURES  0x40000003
#define LEAF_HINTS     0x40000004
#define LEAF_LIMITS    0x40000005

/* LEAF_FEATURES EAX: partition privileges, low half. */
#define ACCESS_TIME_REF_COUNT (1u << 1)
#define ACCESS_APIC_MSRS      (1u << 4)
#define ACCESS_HYPERCALL_MSRS (1u << 5)
#define ACCESS_VP_INDEX	      (1u << 6)
#define ACCESS_REFERENCE_TSC  (1u << 9)
#define ACCESS_FREQUENCY_MSRS (1u << 11)
#define ACCESS_TSC_INVARIANT  (1u << 15)

#define ACCESS_SYNIC_MSRS (1u << 2) /* a guest that wants VSM looks for it too */

/* LEAF_FEATURES EBX: their high half. */
#define ACCESS_VSM	    (1u << 16)
#define ACCESS_VP_REGISTERS (1u << 17)
#define START_VP	    (1u << 21)

/* LEAF_FEATURES EDX. */
#define FEATURE_XMM_INPUT	(1u << 4)
#define FEATURE_FREQUENCY_MSRS	(1u << 8)
#define FEATURE_EXTENDED_RANGES (1u << 14) /* in flush lists */
#define FEATURE_HYPERCALL_LOCK	(1u << 18)

/* LEAF_HINTS EAX. */
#define HINT_REMOTE_FLUSH   (1u << 2) /* flush other processors' TLBs by hypercall */
#define HINT_CLUSTER_IPI    (1u << 10)
#define HINT_EX_SETS	    (1u << 11) /* the forms with sparse processor sets exist */
#define HINT_APIC_MSRS	    (1u << 3) /* use MSRs for EOI, ICR and TPR: one exit, no decoding */
#define HINT_RELAXED_TIMING (1u << 5)

#define SPINLOCK_NEVER 0xffffffff

struct cpuid_result hv_cpuid(struct vp *vp, uint32_t leaf)
{
	struct cpuid_result r = {0};

	switch (leaf) {
	case LEAF_VENDOR:
		r.eax = LEAF_LIMITS;
		r.ebx = 0x7263694d; /* "Microsoft Hv": what stock guests look for */
		r.ecx = 0x666f736f;
		r.edx = 0x76482074;
		break;
	case LEAF_INTERFACE:
		r.eax = 0x31237648; /* "Hv#1" */
		break;
	case LEAF_VERSION:
		break;
	case LEAF_FEATURES:
		r.eax = ACCESS_TIME_REF_COUNT | ACCESS_APIC_MSRS | ACCESS_HYPERCALL_MSRS |
			ACCESS_VP_INDEX | ACCESS_FREQUENCY_MSRS |
			(vp->partition->tsc_is_invariant
					? ACCESS_TSC_INVARIANT | ACCESS_REFERENCE_TSC
					: 0);
		if (vp->partition->options.vsm) {
			r.eax |= ACCESS_SYNIC_MSRS;
			r.ebx = ACCESS_VSM | ACCESS_VP_REGISTERS | START_VP;
		}
		r.edx = FEATURE_XMM_INPUT | FEATURE_FREQUENCY_MSRS | FEATURE_EXTENDED_RANGES |
			FEATURE_HYPERCALL_LOCK;
		break;
	case LEAF_HINTS:
		r.eax = HINT_APIC_MSRS | HINT_RELAXED_TIMING | HINT_CLUSTER_IPI | HINT_EX_SETS |
			(vp->partition->flush_hypercalls ? HINT_REMOTE_FLUSH : 0);
		r.ebx = SPINLOCK_NEVER;
		break;
	case LEAF_LIMITS:
		r.eax = VP_COUNT_MAX;
		r.ebx = vp->partition->vp_count;
		break;
	default:
		break;
	}
	return r;
}
