/* Numbers of the Hyper-V TLFS: hypercall codes and status values (appendices A and B). No code. */
#ifndef PARAPET_HV_STATUS_H
#define PARAPET_HV_STATUS_H

#define HV_STATUS_SUCCESS		  0
#define HV_STATUS_INVALID_HYPERCALL_CODE  2
#define HV_STATUS_INVALID_HYPERCALL_INPUT 3
#define HV_STATUS_INVALID_ALIGNMENT	  4
#define HV_STATUS_INVALID_PARAMETER	  5
#define HV_STATUS_ACCESS_DENIED		  6
#define HV_STATUS_INVALID_VP_INDEX	  14

#define HV_CALL_FLUSH_SPACE    0x0002
#define HV_CALL_FLUSH_LIST     0x0003
#define HV_CALL_SEND_IPI       0x000b
#define HV_CALL_FLUSH_SPACE_EX 0x0013
#define HV_CALL_FLUSH_LIST_EX  0x0014
#define HV_CALL_SEND_IPI_EX    0x0015

#endif
