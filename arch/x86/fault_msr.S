/* RDMSR and WRMSR that may fault: fault_resume() sends RIP to the failure path. */
	.text
	.code64

	/* bool fault_safe_rdmsr(uint32_t index, uint64_t *value) */
	.globl	fault_safe_rdmsr, fault_rdmsr_at, fault_rdmsr_failed
fault_safe_rdmsr:
	mov	%edi, %ecx
fault_rdmsr_at:
	rdmsr
	shl	$32, %rdx
	mov	%eax, %eax
	or	%rdx, %rax
	mov	%rax, (%rsi)
	mov	$1, %eax
	ret
fault_rdmsr_failed:
	xor	%eax, %eax
	ret

	/* bool fault_safe_wrmsr(uint32_t index, uint64_t value) */
	.globl	fault_safe_wrmsr, fault_wrmsr_at, fault_wrmsr_failed
fault_safe_wrmsr:
	mov	%edi, %ecx
	mov	%esi, %eax
	mov	%rsi, %rdx
	shr	$32, %rdx
fault_wrmsr_at:
	wrmsr
	mov	$1, %eax
	ret
fault_wrmsr_failed:
	xor	%eax, %eax
	ret

	.section .note.GNU-stack, "", @progbits
