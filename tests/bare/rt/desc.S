/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptor tables, task state segments, page tables, and the functions that fill their entries.
 * Layouts: SDM 3A 3.4.5 (segments), 6.11 and 6.14.1 (gates), 7.2 (TSS), 4.3 to 4.5 (paging).
 */
#include "rt.h"

    .data
    .align 16
    .globl rt_gdt, rt_gdtr, rt_idtr32, rt_idtr64, rt_idtr16, rt_tss32, rt_tss64
rt_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    /* 08 kernel code, 32-bit */
    .quad 0x00CF93000000FFFF    /* 10 kernel data */
    .quad 0x00CFFB000000FFFF    /* 18 user code, 32-bit (SYSEXIT of KCS32) */
    .quad 0x00CFF3000000FFFF    /* 20 user data */
    .quad 0x00AFFB000000FFFF    /* 28 user code, 64-bit */
    .quad 0x00CFF3000000FFFF    /* 30 user data */
    .quad 0x00AF9B000000FFFF    /* 38 kernel code, 64-bit */
    .quad 0x00CF93000000FFFF    /* 40 kernel data */
    .quad 0x00CFFB000000FFFF    /* 48 user code, 32-bit (SYSRET, SYSEXIT of KCS64) */
    .quad 0x00CFF3000000FFFF    /* 50 user data */
    .quad 0x00AFFB000000FFFF    /* 58 user code, 64-bit */
    .quad 0x00CFF3000000FFFF    /* 60 user data */
    .quad 0x00009B000000FFFF    /* 68 code, 16-bit */
    .quad 0x000093000000FFFF    /* 70 data, 16-bit */
    .fill 256 - 15, 8, 0        /* 78 and 88: the TSSs, filled below; from 90 on: the tests' */
rt_gdtr: .word 256 * 8 - 1
    .quad rt_gdt
rt_idtr32: .word 256 * 8 - 1
    .quad rt_idt32
rt_idtr64: .word 256 * 16 - 1
    .quad rt_idt64
    .section .lowdata, "aw"
rt_idtr16: .word 0x3FF
    .long 0
    .data
    .align 16
rt_tss32:
    .long 0, rt_stack0_top, KDS, 0, 0, 0, 0
    .fill 18, 4, 0
    .word 0, 104    /* I/O map base: past the limit */
    .align 16
rt_tss64:
    .long 0
    .quad rt_stack0_top, rt_stack1_top, rt_stack2_top, 0
    .quad rt_ist1_top, rt_ist2_top, rt_ist3_top, rt_ist4_top, 0, 0, 0
    .quad 0
    .word 0, 104

    .bss
    .globl rt_idt32, rt_idt64, rt_pml4, rt_pdpt, rt_pd, rt_pt, rt_pd32, rt_pt32, rt_pdpt_pae, rt_pages
    .globl rt_stack_top, rt_stack0_top, rt_stack1_top, rt_stack2_top, rt_ist1_top, rt_ist2_top, rt_ist3_top
    .globl rt_ist4_top, rt_ap_stack_top, rt_buf
    .align 4096
rt_pml4: .skip 4096
rt_pdpt: .skip 4096
rt_pd: .skip 4 * 4096
rt_pt: .skip 4096
rt_pd32: .skip 4096
rt_pt32: .skip 4096
rt_pages: .skip 8 * 4096    /* page-aligned, zero, for the test */
rt_buf: .skip 4 * 4096      /* the same, for data */
rt_pdpt_pae: .skip 4096
rt_idt32: .skip 4096
rt_idt64: .skip 4096
    .skip 8192
rt_stack_top: .skip 4096
rt_stack0_top: .skip 4096
rt_stack1_top: .skip 4096
rt_stack2_top: .skip 4096
rt_ist1_top: .skip 4096
rt_ist2_top: .skip 4096
rt_ist3_top: .skip 4096
rt_ist4_top: .skip 4096
rt_ap_stack_top: .skip 64

    .text
    CODE32
    .globl rt_pages_init, rt_tables_init
/* Identity maps of 4 GiB (read, write, user), with TVA and the alias of the chips below 2 GiB. */
rt_pages_init:
    movl $rt_pdpt + 7, rt_pml4
    mov $rt_pd + 7, %eax
    xor %ecx, %ecx
1:  mov %eax, rt_pdpt(,%ecx,8)
    lea -6(%eax), %edx  /* PAE's PDPTEs have only P */
    mov %edx, rt_pdpt_pae(,%ecx,8)
    add $4096, %eax
    inc %ecx
    cmp $4, %ecx
    jb 1b
    mov $0x87, %eax
    xor %ecx, %ecx
2:  mov %eax, rt_pd(,%ecx,8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jb 2b
    mov $0x87, %eax
    xor %ecx, %ecx
3:  mov %eax, rt_pd32(,%ecx,4)
    add $0x400000, %eax
    inc %ecx
    cmp $1024, %ecx
    jb 3b
    movl $rt_pt + 7, rt_pd + 8 * (TVA >> 21)
    movl $rt_pt32 + 7, rt_pd32 + 4 * (TVA >> 22)
    movl $0xFEC00087, rt_pd + 8 * (IOAPIC >> 21)
    movl $0xFEE00087, rt_pd + 8 * (LAPIC >> 21)
    ret

rt_tables_init:
    push $0x0089
    push $103
    push $rt_tss32
    push $TSS32
    call rt_gdt_set32
    push $0x0089
    push $103
    push $rt_tss64
    push $TSS64
    call rt_gdt_set32
    mov $rt_stubs32, %eax
    xor %ecx, %ecx
1:  push $G_INT32
    push %eax
    push $KCS32
    push %ecx
    call rt_idt_set32
    add $16, %eax
    inc %ecx
    cmp $256, %ecx
    jb 1b
    mov $rt_stubs64, %eax
    xor %ecx, %ecx
2:  mov %ecx, %edx
    shl $4, %edx
    mov %ax, rt_idt64(%edx)
    movw $KCS64, rt_idt64 + 2(%edx)
    movw $0x8E00, rt_idt64 + 4(%edx)
    ror $16, %eax
    mov %ax, rt_idt64 + 6(%edx)
    ror $16, %eax
    add $16, %eax
    inc %ecx
    cmp $256, %ecx
    jb 2b
    movb $1, rt_idt64 + 16 * DF + 4
    mov $0x81, %ecx     /* 81 to 8F may be called from ring 3 */
3:  orb $0x60, rt_idt32 + 5(,%ecx,8)
    lea (,%ecx,8), %edx
    orb $0x60, rt_idt64 + 5(%edx,%edx)
    inc %ecx
    cmp $0x90, %ecx
    jb 3b
    mov $rt_stubs16, %eax
    xor %ecx, %ecx
4:  mov %eax, (,%ecx,4)
    add $16, %eax
    inc %ecx
    cmp $256, %ecx
    jb 4b
    ret

/* The bodies that are the same in 32-bit and 64-bit code but for the width of the stack's slots. */
#define BITS 32
#include "desc.inc"
#undef BITS
#define BITS 64
#include "desc.inc"
#undef BITS
