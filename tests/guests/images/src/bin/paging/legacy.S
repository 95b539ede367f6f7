# SPDX-License-Identifier: GPL-2.0 OR MIT
#
# Out of long mode and back. u32 legacy_call(): takes the modes and the 32-bit
# function from legacy_* below, runs it with the stack as it is (below 4 GiB),
# and gives back its EAX; a fault in it gives 0xfa170000 + vector.

.set SEL_CODE32, 0x08
.set SEL_DATA,   0x10
.set SEL_CODE64, 0x18
.set SEL_CODE16, 0x38
.set SEL_DATA16, 0x40
.set REAL_PAGE,  0x9000

.section .text.legacy, "ax", @progbits
.code64
.globl legacy_call
legacy_call:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushfq
    cli
    movq %rsp, saved_rsp
    movq %cr0, %rax
    movq %rax, saved_cr0
    movq %cr3, %rax
    movq %rax, saved_cr3
    movq %cr4, %rax
    movq %rax, saved_cr4
    sidt saved_idtr
    ljmpl *to_code32
.code32
in_compatibility:
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0             # out of long mode
    movl $0xc0000080, %ecx
    rdmsr
    andl $~0x100, %eax
    wrmsr
    lidt legacy_idtr
    movl legacy_cr4, %eax
    movl %eax, %cr4
    movl legacy_cr3, %eax
    movl %esp, legacy_esp
    movl %eax, %cr3
    movl legacy_cr0, %eax
    movl %eax, %cr0
    jmp 1f
1:  movl legacy_arg, %ecx
    call *legacy_function
legacy_back:
    movl legacy_esp, %esp
    movl %eax, legacy_result
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl saved_cr4, %eax
    movl %eax, %cr4
    movl saved_cr3, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    movl %eax, legacy_efer
    orl $0x100, %eax
    wrmsr
    movl saved_cr0, %eax
    movl %eax, %cr0
    ljmpl $SEL_CODE64, $1f
.code64
1:  lidt saved_idtr
    movq saved_rsp, %rsp
    movl $SEL_DATA, %eax
    movl %eax, %ss
    popfq
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    movl legacy_result, %eax
    retq

.code32
.globl legacy_gp, legacy_pf
legacy_gp:
    popl legacy_error
    movl $0xfa17000d, %eax
    jmp legacy_back
legacy_pf:
    popl legacy_error
    movl %cr2, %eax
    movl %eax, legacy_cr2
    movl $0xfa17000e, %eax
    jmp legacy_back

# Functions for legacy_call: argument in ECX.
.globl legacy_read, legacy_write, legacy_exits, legacy_set_cr3, legacy_real
legacy_read:
    movl (%ecx), %eax
    ret
legacy_write:
    movl $0x57a7e, (%ecx)
    xorl %eax, %eax
    ret
# Exits of several kinds; the sum of what must be the same each time.
legacy_exits:
    movl $20, %ebp
1:  xorl %eax, %eax
    cpuid
    movl $0x1b, %ecx
    rdmsr
    movw $0x3fd, %dx
    inb %dx, %al
    movl %cr0, %eax
    movl %eax, %cr0
    decl %ebp
    jnz 1b
    movl %cr0, %eax
    shrl $31, %eax
    ret
# Loads CR3 again with the value in ECX.
legacy_set_cr3:
    movl %ecx, %cr3
    xorl %eax, %eax
    ret

# To real mode and back, by way of 16-bit protected mode in a page below 1 MiB.
legacy_real:
    movl %esp, real_esp
    sidt real_idtr
    movl $real_page_end, %ecx
    subl $real_page, %ecx
    movl $real_page, %esi
    movl $REAL_PAGE, %edi
    rep movsb
    ljmpl $SEL_CODE16, $REAL_PAGE
.code16
real_page:
    movw $SEL_DATA16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    ljmpw $REAL_PAGE >> 4, $(in_real - real_page)
in_real:
    movw $REAL_PAGE >> 4, %ax
    movw %ax, %ds
    movw $0x3000, %ax
    movw %ax, %ss
    movl $0xf00, %esp
    lidtl real_ivt - real_page
    xorw %ax, %ax
    movw %ax, %es
    movw $(real_isr - real_page), %es:0x60*4
    movw $REAL_PAGE >> 4, %es:0x60*4+2
    xorl %ebx, %ebx
    int $0x60                   # BX = 0x60
    # Segment arithmetic: 0x2000:0x10 and 0x2001:0 are the same byte.
    movw $0x2000, %ax
    movw %ax, %es
    movb $0x5a, %es:0x10
    movw $0x2001, %ax
    movw %ax, %es
    cmpb $0x5a, %es:0
    jne 1f
    orl $0x100, %ebx
1:  pushl %ebx                  # exits
    xorl %eax, %eax
    cpuid
    movw $0x3fd, %dx
    inb %dx, %al
    movl $0x1b, %ecx
    rdmsr
    popl %ebx
    movl %cr0, %eax
    testb $1, %al
    jnz 1f
    orl $0x200, %ebx
1:  orb $1, %al
    movl %eax, %cr0
    ljmpl $SEL_CODE32, $real_back
real_isr:
    movw $0x60, %bx
    iretw
.balign 4
real_ivt:
    .word 0x3ff
    .long 0
real_page_end:
.code32
real_back:
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl real_esp, %esp
    lidt real_idtr
    movl %ebx, %eax
    ret
.code64

.section .data.legacy, "aw", @progbits
.balign 8
.globl legacy_cr0, legacy_cr3, legacy_cr4, legacy_function, legacy_arg
.globl legacy_error, legacy_cr2, legacy_idtr, legacy_efer
saved_rsp:       .quad 0
saved_cr0:       .quad 0
saved_cr3:       .quad 0
saved_cr4:       .quad 0
saved_idtr:      .skip 16
to_code32:       .long in_compatibility
                 .word SEL_CODE32
.balign 8
legacy_cr0:      .long 0
legacy_cr3:      .long 0
legacy_cr4:      .long 0
legacy_esp:      .long 0
legacy_function: .long 0
legacy_arg:      .long 0
legacy_result:   .long 0
legacy_error:    .long 0
legacy_cr2:      .long 0
legacy_efer:     .long 0
legacy_idtr:     .skip 8
real_idtr:       .skip 8
real_esp:        .long 0
