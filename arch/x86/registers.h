/*
 * Numbers and bits of the x86 architecture that Parapet uses, by their names in the manuals
 * (AMD64 Architecture Programmer's Manual, volume 2; Intel SDM, volumes 3 and 4). No code.
 */
#ifndef PARAPET_ARCH_X86_REGISTERS_H
#define PARAPET_ARCH_X86_REGISTERS_H

#define CR0_PE (1ull << 0)
#define CR0_MP (1ull << 1)
#define CR0_EM (1ull << 2)
#define CR0_TS (1ull << 3)
#define CR0_ET (1ull << 4)
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_AM (1ull << 18)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)

#define CR4_DE	   (1ull << 3)
#define CR4_PSE	   (1ull << 4)
#define CR4_PAE	   (1ull << 5)
#define CR4_MCE	   (1ull << 6)
#define CR4_PGE	   (1ull << 7)
#define CR4_OSFXSR (1ull << 9)
#define CR4_LA57   (1ull << 12)
#define CR4_PCIDE  (1ull << 17)
#define CR4_SMEP   (1ull << 20)
#define CR4_SMAP   (1ull << 21)
#define CR4_PKE	   (1ull << 22)

#define EFER_SCE   (1ull << 0)
#define EFER_LME   (1ull << 8)
#define EFER_LMA   (1ull << 10)
#define EFER_NXE   (1ull << 11)
#define EFER_SVME  (1ull << 12)
#define EFER_LMSLE (1ull << 13)
#define EFER_FFXSR (1ull << 14)

#define RFLAGS_FIXED (1ull << 1)
#define RFLAGS_TF    (1ull << 8)
#define RFLAGS_IF    (1ull << 9)
#define RFLAGS_RF    (1ull << 16)
#define RFLAGS_VM    (1ull << 17)
#define RFLAGS_AC    (1ull << 18)

#define DR6_BREAKPOINTS 0xfull
#define DR6_SINGLE_STEP (1ull << 14)

#define PTE_PRESENT  (1ull << 0)
#define PTE_WRITE    (1ull << 1)
#define PTE_USER     (1ull << 2)
#define PTE_PWT	     (1ull << 3)
#define PTE_PCD	     (1ull << 4)
#define PTE_ACCESSED (1ull << 5)
#define PTE_DIRTY    (1ull << 6)
#define PTE_LARGE    (1ull << 7)
#define PTE_NX	     (1ull << 63)
#define PTE_ADDRESS  0x000ffffffffff000ull

#define MSR_TSC		      0x10
#define MSR_APIC_BASE	      0x1b
#define MSR_FEATURE_CONTROL   0x3a
#define MSR_TSC_ADJUST	      0x3b
#define MSR_SPEC_CTRL	      0x48
#define MSR_PRED_CMD	      0x49
#define MSR_UCODE_WRITE	      0x79
#define MSR_UCODE_REVISION    0x8b
#define MSR_MTRR_CAP	      0xfe
#define MSR_SYSENTER_CS	      0x174
#define MSR_SYSENTER_ESP      0x175
#define MSR_SYSENTER_EIP      0x176
#define MSR_MCG_CAP	      0x179
#define MSR_MCG_STATUS	      0x17a
#define MSR_MCG_CTL	      0x17b
#define MSR_MISC_ENABLE	      0x1a0
#define MSR_DEBUG_CTL	      0x1d9
#define MSR_MTRR_PHYS_FIRST   0x200
#define MSR_MTRR_PHYS_LAST    0x20f
#define MSR_MTRR_FIX_64K      0x250
#define MSR_MTRR_FIX_16K_80   0x258
#define MSR_MTRR_FIX_16K_A0   0x259
#define MSR_MTRR_FIX_4K_FIRST 0x268
#define MSR_MTRR_FIX_4K_LAST  0x26f
#define MSR_PAT		      0x277
#define MSR_MTRR_DEF_TYPE     0x2ff
#define MSR_MC_FIRST	      0x400
#define MSR_EFER	      0xc0000080
#define MSR_STAR	      0xc0000081
#define MSR_LSTAR	      0xc0000082
#define MSR_CSTAR	      0xc0000083
#define MSR_SFMASK	      0xc0000084
#define MSR_FS_BASE	      0xc0000100
#define MSR_GS_BASE	      0xc0000101
#define MSR_KERNEL_GS_BASE    0xc0000102
#define MSR_TSC_AUX	      0xc0000103
#define MSR_XSS		      0xda0
#define MSR_SYSCFG	      0xc0010010
#define MSR_HWCR	      0xc0010015
#define MSR_TOP_MEM	      0xc001001a
#define MSR_TOP_MEM2	      0xc001001d
#define MSR_VM_CR	      0xc0010114
#define MSR_IGNNE	      0xc0010115
#define MSR_SMM_CTL	      0xc0010116
#define MSR_VM_HSAVE_PA	      0xc0010117
#define MSR_SVM_KEY	      0xc0010118

#define APIC_BASE_BSP	  (1ull << 8)
#define APIC_BASE_X2APIC  (1ull << 10)
#define APIC_BASE_ENABLE  (1ull << 11)
#define APIC_BASE_ADDRESS 0x000ffffffffff000ull

/* Local APIC registers: byte offsets in its page. */
#define APIC_ID		   0x020
#define APIC_VERSION	   0x030
#define APIC_TPR	   0x080
#define APIC_EOI	   0x0b0
#define APIC_LDR	   0x0d0
#define APIC_DFR	   0x0e0
#define APIC_SVR	   0x0f0
#define APIC_ISR	   0x100
#define APIC_ESR	   0x280
#define APIC_LVT_CMCI	   0x2f0
#define APIC_ICR_LOW	   0x300
#define APIC_ICR_HIGH	   0x310
#define APIC_LVT_TIMER	   0x320
#define APIC_LVT_THERMAL   0x330
#define APIC_LVT_PERF	   0x340
#define APIC_LVT_LINT0	   0x350
#define APIC_LVT_LINT1	   0x360
#define APIC_LVT_ERROR	   0x370
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_DIVIDE  0x3e0

#define APIC_SVR_ENABLE (1u << 8)
#define APIC_LVT_MASKED (1u << 16)

#define APIC_MODE_SHIFT	 8
#define APIC_MODE_MASK	 7u
#define APIC_MODE_FIXED	 0u
#define APIC_MODE_LOWEST 1u
#define APIC_MODE_SMI	 2u
#define APIC_MODE_NMI	 4u
#define APIC_MODE_INIT	 5u
#define APIC_MODE_SIPI	 6u
#define APIC_MODE_EXTINT 7u

#define APIC_ICR_LOGICAL	  (1u << 11)
#define APIC_ICR_PENDING	  (1u << 12)
#define APIC_ICR_ASSERT		  (1u << 14)
#define APIC_ICR_LEVEL		  (1u << 15)
#define APIC_ICR_SHORTHAND_SHIFT  18
#define APIC_ICR_SHORTHAND_SELF	  1u
#define APIC_ICR_SHORTHAND_ALL	  2u
#define APIC_ICR_SHORTHAND_OTHERS 3u

#define VECTOR_DB  1
#define VECTOR_NMI 2
#define VECTOR_UD  6
#define VECTOR_DF  8
#define VECTOR_GP  13
#define VECTOR_PF  14
#define VECTOR_AC  17
#define VECTOR_MC  18

#endif
