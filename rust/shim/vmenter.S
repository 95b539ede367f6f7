/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The inner loop of the root window: enter the guest, leave it, one direct call
 * to hvrs_rs_exit, enter again while that returns 0.
 *
 * rbp and r12-r15 of the guest survive the call by the C ABI; they are stored
 * only when the loop ends. At an exit rbp is the guest's: nothing here uses it
 * as a frame pointer.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <linux/stringify.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/nospec-branch.h>
#include <asm/segment.h>
#include <asm/unwind_hints.h>

/* u64 gprs[16], in the processor's order */
#define GPR_RAX	0x00
#define GPR_RCX	0x08
#define GPR_RDX	0x10
#define GPR_RBX	0x18
#define GPR_RBP	0x28
#define GPR_RSI	0x30
#define GPR_RDI	0x38
#define GPR_R8	0x40
#define GPR_R9	0x48
#define GPR_R10	0x50
#define GPR_R11	0x58
#define GPR_R12	0x60
#define GPR_R13	0x68
#define GPR_R14	0x70
#define GPR_R15	0x78

/* VMCS encodings (SDM appendix B) */
#define HOST_RSP	0x6c14
#define HOST_RIP	0x6c16

/* The kernel's own selector for VERW is not exported. */
.section .rodata
.balign 2
hvrs_verw_sel:
	.short __KERNEL_DS

/* MDS, MMIO stale data: nothing of the host stays in CPU buffers for the guest to sample. */
.macro CLEAR_BUFFERS
	ALTERNATIVE "", __stringify(verw hvrs_verw_sel(%rip)), X86_FEATURE_CLEAR_CPU_BUF_VM
.endm

.section .noinstr.text, "ax"

/*
 * BHI: the guest's branch history must not choose the targets of the host's indirect branches. Intel's
 * sequence of taken branches that displaces it; the kernel's own is for KVM's modules alone. Its RETs have
 * calls of their own, so SPEC_CTRL may still be the guest's. Uses rax and rcx.
 */
SYM_FUNC_START_LOCAL(hvrs_clear_branch_history)
	mov $5, %ecx
	ANNOTATE_INTRA_FUNCTION_CALL
	call .Lhistory_outer
	lfence
	RET
	.balign 64, 0xcc
.Lhistory_outer:
	ANNOTATE_INTRA_FUNCTION_CALL
	call .Lhistory_inner
	RET
	.balign 64, 0xcc
.Lhistory_inner:
	mov $5, %eax
1:	jmp 2f
	nop
2:	dec %eax
	jnz 1b
	dec %ecx
	jnz .Lhistory_outer
	RET
SYM_FUNC_END(hvrs_clear_branch_history)
/* The calls nest by ECX. */
STACK_FRAME_NON_STANDARD(hvrs_clear_branch_history)

/*
 * s64 hvrs_vmx_loop(u64 *gprs, void *running, bool launched)
 *
 * The VMCS is current. Stack inside the loop: gprs, running.
 */
SYM_FUNC_START(hvrs_vmx_loop)
	push %rbp
	push %r15
	push %r14
	push %r13
	push %r12
	push %rbx
	push %rsi
	push %rdi
	sub $8, %rsp			/* keeps the call below aligned */

	mov $HOST_RSP, %eax
	vmwrite %rsp, %rax
	mov $HOST_RIP, %eax
	lea .Lexit(%rip), %rcx
	vmwrite %rcx, %rax
	bt $0, %edx			/* CF: neither MOV nor VERW below changes it */

	mov GPR_RBP(%rdi), %rbp
	mov GPR_R12(%rdi), %r12
	mov GPR_R13(%rdi), %r13
	mov GPR_R14(%rdi), %r14
	mov GPR_R15(%rdi), %r15
	mov GPR_RBX(%rdi), %rbx
	mov GPR_RAX(%rdi), %rax
	mov GPR_RCX(%rdi), %rcx
	mov GPR_RDX(%rdi), %rdx
	mov GPR_RSI(%rdi), %rsi
	mov GPR_R8(%rdi), %r8
	mov GPR_R9(%rdi), %r9
	mov GPR_R10(%rdi), %r10
	mov GPR_R11(%rdi), %r11
	mov GPR_RDI(%rdi), %rdi
	UNWIND_HINT_SAVE
	CLEAR_BUFFERS
	jc 1f
	vmlaunch
	jmp .Lfail
1:	vmresume
	jmp .Lfail

SYM_INNER_LABEL_ALIGN(hvrs_vmx_exit, SYM_L_LOCAL)
.Lexit:
	UNWIND_HINT_RESTORE
	ENDBR
	mov %rdi, (%rsp)
	mov 8(%rsp), %rdi
	mov %rax, GPR_RAX(%rdi)
	mov (%rsp), %rax
	mov %rax, GPR_RDI(%rdi)
	mov %rcx, GPR_RCX(%rdi)
	mov %rdx, GPR_RDX(%rdi)
	mov %rbx, GPR_RBX(%rdi)
	mov %rsi, GPR_RSI(%rdi)
	mov %r8, GPR_R8(%rdi)
	mov %r9, GPR_R9(%rdi)
	mov %r10, GPR_R10(%rdi)
	mov %r11, GPR_R11(%rdi)
	mov %rdi, %rbx
	ALTERNATIVE "", "call hvrs_clear_branch_history", X86_FEATURE_CLEAR_BHB_VMEXIT
	mov 16(%rsp), %rdi
	call hvrs_rs_exit
	test %rax, %rax
	jnz .Lleave

	mov %rbx, %rdi
	mov GPR_RBX(%rdi), %rbx
	mov GPR_RAX(%rdi), %rax
	mov GPR_RCX(%rdi), %rcx
	mov GPR_RDX(%rdi), %rdx
	mov GPR_RSI(%rdi), %rsi
	mov GPR_R8(%rdi), %r8
	mov GPR_R9(%rdi), %r9
	mov GPR_R10(%rdi), %r10
	mov GPR_R11(%rdi), %r11
	mov GPR_RDI(%rdi), %rdi
	CLEAR_BUFFERS
	vmresume

.Lfail:
	/* CF: no VMCS; ZF: VM_INSTRUCTION_ERROR says why. Registers are the guest's. */
	mov $-1, %rax
	jmp .Lunwind

.Lleave:
	mov %rbx, %rdi
	mov %rbp, GPR_RBP(%rdi)
	mov %r12, GPR_R12(%rdi)
	mov %r13, GPR_R13(%rdi)
	mov %r14, GPR_R14(%rdi)
	mov %r15, GPR_R15(%rdi)

.Lunwind:
	/* Returns of the guest must not predict ours. */
	FILL_RETURN_BUFFER %rcx, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, X86_FEATURE_RSB_VMEXIT_LITE
	/* Nothing of the guest's stays in registers that the caller may speculate with. */
	xor %edx, %edx
	xor %esi, %esi
	xor %r8d, %r8d
	xor %r9d, %r9d
	xor %r10d, %r10d
	xor %r11d, %r11d
	add $24, %rsp
	pop %rbx
	pop %r12
	pop %r13
	pop %r14
	pop %r15
	pop %rbp
	RET
SYM_FUNC_END(hvrs_vmx_loop)

.text

/* bool hvrs_vmptrst_safe(u64 *vmcs) */
SYM_FUNC_START(hvrs_vmptrst_safe)
	mov $1, %eax
1:	vmptrst (%rdi)
	RET
2:	xor %eax, %eax
	RET
	_ASM_EXTABLE(1b, 2b)
SYM_FUNC_END(hvrs_vmptrst_safe)

/* bool hvrs_rdmsr_safe(u32 msr, u64 *value) */
SYM_FUNC_START(hvrs_rdmsr_safe)
	mov %edi, %ecx
1:	rdmsr
	mov %eax, (%rsi)
	mov %edx, 4(%rsi)
	mov $1, %eax
	RET
2:	xor %eax, %eax
	RET
	_ASM_EXTABLE(1b, 2b)
SYM_FUNC_END(hvrs_rdmsr_safe)
