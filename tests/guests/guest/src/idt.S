# SPDX-License-Identifier: GPL-2.0 OR MIT
#
# 256 entry stubs of 16 bytes. All gates use interrupt stacks (IST), because
# code of the linux-gnu target keeps data in the red zone below RSP.
# Vectors of 32 and more then move to the interrupted stack, below the red
# zone, so that their handlers may nest; exceptions stay on their IST.

.section .text.isr, "ax", @progbits
.balign 16
.globl isr_stubs
isr_stubs:
.set vector, 0
.rept 256
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
    .else
    pushq $0
    .endif
    pushq $vector
    jmp isr_common
    .set vector, vector + 1
.endr

.balign 16
isr_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rbp
    cmpq $32, 15*8(%rbp)        # vector
    jb 1f
    testb $3, 18*8(%rbp)        # CS
    jnz 1f
    movq 20*8(%rbp), %rdi       # RSP
    subq $128 + 22*8, %rdi
    andq $-16, %rdi
    movq %rsp, %rsi
    movq %rdi, %rbp
    movl $22, %ecx
    rep movsq
    movq %rbp, %rsp
1:  movq %cr0, %rbx             # tests set TS and EM: not while Rust code runs
    testb $0xc, %bl
    jz 2f
    movq %rbx, %rax
    andq $~0xc, %rax
    movq %rax, %cr0
2:  subq $512, %rsp
    andq $-16, %rsp
    fxsave64 (%rsp)
    movq %rbp, %rdi
    call isr_dispatch
    fxrstor64 (%rsp)
    testb $0xc, %bl
    jz 3f
    movq %rbx, %cr0
3:  movq %rbp, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

# u64 guarded_call(fn(u64), u64 arg, Context *context): calls fn(arg) and
# returns 0, or the value that guarded_return was given meanwhile.
.globl guarded_call
guarded_call:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushfq
    movq %rsp, (%rdx)
    movq %rdx, %rbx
    movq %rdi, %rax
    movq %rsi, %rdi
    andq $-16, %rsp
    callq *%rax
    movq (%rbx), %rsp
    xorl %eax, %eax
    jmp 2f
# noreturn guarded_return(Context *context, u64 value). By IRETQ, so that NMIs
# are unblocked when an NMI handler leaves this way.
.globl guarded_return
guarded_return:
    movq %rsi, %rax
    movq (%rdi), %rsp
    movq %rsp, %rcx
    movl $0x10, %edx            # SS is null after an exception at CPL 3
    pushq %rdx
    pushq %rcx
    pushfq
    movl %cs, %edx
    pushq %rdx
    leaq 2f(%rip), %rdx
    pushq %rdx
    iretq
2:  popfq
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    retq
