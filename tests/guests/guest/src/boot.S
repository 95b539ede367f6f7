# SPDX-License-Identifier: GPL-2.0 OR MIT
#
# From the PVH entry (32-bit protected mode, paging off, EBX = start info) and
# from a start-up IPI (real mode) to guest_entry(cpu) in 64-bit mode.

.set SEL_CODE32, 0x08
.set SEL_DATA,   0x10
.set SEL_CODE64, 0x18
.set AP_STACK,   0x8000         # = smp::AP_STACK_SIZE
.set MAX_CPUS,   96             # = percpu::MAX_CPUS

# Multiboot 1 header for loaders without PVH (GRUB, SYSLINUX: real machines,
# Bochs). The magic number is left out, or QEMU would prefer this way; who
# wants it writes 0x1BADB002 into the first word, at file offset 0x1000.
.section .multiboot, "a", @progbits
.balign 4
multiboot_header:
    .long 0
    .long 0x00010000            # the addresses below, not the ELF header
    .long -(0x1badb002 + 0x00010000)
    .long multiboot_header, multiboot_header, __data_end, __bss_end, pvh_entry

# QEMU aligns the name by the segment's alignment and reads 8 bytes of value.
.section .note.pvh, "a", @note
.balign 4
    .long 4, 8, 0x12            # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

.section .text.boot, "ax", @progbits
.code32
.globl pvh_entry
pvh_entry:
    cli
    cld
    movl %ebx, %ebp
    movl $__bss_start, %edi
    movl $__bss_end, %ecx
    subl %edi, %ecx
    xorl %eax, %eax
    rep stosb
    movl %ebp, pvh_start_info

    # Identity map of 4 GiB in 2 MiB pages, uncached (PCD, PWT) from 3 GiB on.
    movl $boot_pd, %edi
    movl $0x83, %eax            # P, RW, PS
    movl $1536, %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    orl $0x18, %eax
    movl $512, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b
    movl $boot_pd + 3, %eax
    movl $boot_pdpt, %edi
    movl $4, %ecx
3:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 3b
    movl $boot_pdpt + 3, boot_pml4

    xorl %ebx, %ebx
    movl $boot_stack_top, %esp

# EBX = number of this processor, ESP = its stack.
enter_long_mode:
    movl $0x620, %eax           # CR4: PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # IA32_EFER: LME, NXE
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010033, %eax      # CR0: PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    lgdt boot_gdtr
    ljmp $SEL_CODE64, $long_mode

.code64
long_mode:
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl %esp, %esp
    movl %ebx, %edi
    xorl %ebp, %ebp
    call guest_entry
    ud2

# Copied to a page below 1 MiB; CS.base is that page.
.code16
.globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdtr - ap_trampoline
    movl %cr0, %eax
    andl $0x9fffffff, %eax      # CD, NW off
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $SEL_CODE32, $ap_protected
trampoline_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
ap_trampoline_end:

.code32
ap_protected:
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1, %ebx
    lock xaddl %ebx, ap_next
    cmpl $MAX_CPUS, %ebx
    jae 4f
    movl %ebx, %eax
    imull $AP_STACK, %eax, %eax
    leal ap_stacks(%eax), %esp  # slot 0 is unused: the top of slot n-1
    jmp enter_long_mode
4:  hlt
    jmp 4b

.section .rodata.boot_gdt, "a", @progbits
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    # 08 code, 32 bits
    .quad 0x00cf93000000ffff    # 10 data
    .quad 0x00af9b000000ffff    # 18 code, 64 bits
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .quad boot_gdt

.section .data.boot, "aw", @progbits
.balign 8
.globl ap_next, pvh_start_info
pvh_start_info:
    .quad 0
ap_next:
    .long 1

.section .bss.boot, "aw", @nobits
.balign 4096
.globl boot_pml4
boot_pml4:  .skip 4096
boot_pdpt:  .skip 4096
boot_pd:    .skip 4096 * 4
boot_stack: .skip 65536
boot_stack_top:
ap_stacks:  .skip AP_STACK * MAX_CPUS
.code64
