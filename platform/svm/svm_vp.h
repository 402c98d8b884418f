/* A VP of the SVM platform in one of its VTLs, for the files of the platform alone. */
#ifndef PARAPET_SVM_VP_H
#define PARAPET_SVM_VP_H

#include <parapet/platform.h>
#include "platform/svm/debug.h"
#include "platform/svm/vmcb.h"

/* A VP in one of its VTLs. */
struct svm_vp {
	struct platform_vp vp;
	struct vmcb *vmcb;
	uint64_t vmcb_hpa;
	uint64_t host_vmcb_hpa; /* this processor's own FS, GS, TR, ... while the guest runs */
	uint64_t host_save_hpa; /* where VMRUN keeps the rest of it */
	enum vtl vtl;
	bool active; /* else TSC_AUX is here and not in the processor */
	bool notify; /* interrupts of the machine make it exit */
	uint8_t offered; /* the interrupt that the control block offers, or 0 */
	uint64_t tsc_aux;
	struct svm_debug debug;
};

static inline struct svm_vp *svm_vp(struct platform_vp *vp)
{
	return (struct svm_vp *)vp;
}

#endif
