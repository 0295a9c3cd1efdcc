/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry and changes of mode. Multiboot 1 (specification 0.6.96, section 3): 32-bit protected mode, flat
 * segments, paging off, EAX = 0x2BADB002. The mode switches follow SDM 3A 10.8.5, 10.9 and 3A 9.9.
 */
#include "rt.h"

    .section .multiboot, "a"
    .align 4
    .long 0x1BADB002, 0, -0x1BADB002

    .text
    .code32
    .globl rt_start, rt_to_real, rt_to_prot, rt_to_long, rt_pg32_on, rt_pae_on, rt_pg_off
    .globl rt_cpuid, rt_cpu_init32
rt_start:
    cli
    cld
    mov $rt_stack_top, %esp
    mov %eax, %ebp
    mov $rt_low_load, %esi
    mov $rt_low_start, %edi
    mov $rt_low_size, %ecx
    rep movsb
    mov %ebp, rt_magic
    call rt_pages_init
    call rt_tables_init
    lgdtl rt_gdtr
    ljmp $KCS32, $1f
1:  mov $KDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    lldt %ax
    call rt_cpu_init32
    call rt_serial_init
    call rt_chips_off
    call rt_vendor_init
    mov $TSS32, %eax
    ltr %ax
    cmpl $0x2BADB002, rt_magic
    je 2f
    pushl $magic_text
    call rt_skip32
2:  cmpb $64, rt_test_bits
    je 3f
    jmp test_main
3:  mov $test_main, %eax
    jmp rt_to_long

/* CR0, CR4, EFER and IDTR as every test finds them (NE and the SSE bits on, paging off). */
rt_cpu_init32:
    mov $CR0_PE | CR0_NE | 0x10, %eax
    mov %eax, %cr0
    mov $CR4_OSFXSR | CR4_OSXMM, %eax
    mov %eax, %cr4
    lidtl rt_idtr32
    fninit
    ret

/* EAX = leaf, subleaf 0: like CPUID, but zeroes when the leaf is above the range's maximum. */
    CODE32
rt_cpuid:   /* the same bytes serve 32-bit and 64-bit code */
    push %ebp
    mov %eax, %ebp
    and $0x80000000, %eax
    cpuid
    cmp %ebp, %eax
    jae 1f
    xor %eax, %eax
    xor %ebx, %ebx
    xor %ecx, %ecx
    xor %edx, %edx
    jmp 2f
1:  mov %ebp, %eax
    xor %ecx, %ecx
    cpuid
2:  pop %ebp
    ret

rt_vendor_init:
    xor %eax, %eax
    cpuid
    xor %eax, %eax
    cmp $0x68747541, %ebx   /* Auth(enticAMD) */
    je 1f
    cmp $0x6F677948, %ebx   /* Hygo(nGenuine) */
    jne 2f
1:  inc %eax
2:  mov %eax, rt_amd
    ret

/* Paging on, from 32-bit flat code: 2-level with PSE, or PAE (both with TVA by rt_pt32 or rt_pt). */
rt_pg32_on:
    mov %cr4, %eax
    and $~CR4_PAE, %eax
    or $CR4_PSE, %eax
    mov %eax, %cr4
    mov $rt_pd32, %eax
    mov %eax, %cr3
    jmp 1f
rt_pae_on:
    mov %cr4, %eax
    or $CR4_PAE, %eax
    mov %eax, %cr4
    mov $rt_pdpt_pae, %eax
    mov %eax, %cr3
1:  mov %cr0, %eax
    or $CR0_PG, %eax
    mov %eax, %cr0
    ret
rt_pg_off:
    mov %cr0, %eax
    and $~CR0_PG, %eax
    mov %eax, %cr0
    mov %cr4, %eax
    and $~(CR4_PAE | CR4_PSE | CR4_PGE), %eax
    mov %eax, %cr4
    ret

/* EAX = 64-bit target. RSP keeps its value; EFER = LME (NXE where CPUID has NX). */
rt_to_long:
    cli
    mov %eax, rt_target
    mov %ebx, rt_save_bx
    mov %ecx, rt_save_cx
    mov %edx, rt_save_dx
    call rt_pg_off
    mov %cr4, %eax
    or $CR4_PAE, %eax
    mov %eax, %cr4
    mov $rt_pml4, %eax
    mov %eax, %cr3
    mov $0x80000001, %eax
    call rt_cpuid
    and $0x100000, %edx
    shr $9, %edx        /* bit 20 to bit 11 */
    or $EFER_LME, %edx
    mov %edx, %eax
    xor %edx, %edx
    mov $MSR_EFER, %ecx
    wrmsr
    mov %cr0, %eax
    or $CR0_PG, %eax
    mov %eax, %cr0
    lidtl rt_idtr64
    ljmp $KCS64, $1f
    CODE64
1:  lidt rt_idtr64
    mov $KDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    andb $~2, rt_gdt + TSS64 + 5    /* not busy */
    mov $TSS64, %eax
    ltr %ax
    mov rt_save_bx, %ebx
    mov rt_save_cx, %ecx
    mov rt_save_dx, %edx
    mov rt_target, %eax
    jmp *%rax

/* EAX = 32-bit target, from 64-bit code; RSP keeps its low half. */
rt_to_prot:
    cli
    mov %eax, rt_target
    mov %ecx, rt_save_cx
    mov %edx, rt_save_dx
    pushq $KCS32
    pushq $1f
    lretq
    CODE32
1:  mov $KDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    call rt_pg_off
    mov $MSR_EFER, %ecx
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
    lidtl rt_idtr32
    andb $~2, rt_gdt + TSS32 + 5
    mov $TSS32, %eax
    ltr %ax
    mov rt_save_cx, %ecx
    mov rt_save_dx, %edx
    jmp *rt_target

    .section .low, "awx"
    CODE32
rt_to_real:
    cli
    mov %eax, rt_target
    mov %esp, rt_pm_sp
    mov %cr0, %eax
    and $~CR0_PG, %eax
    mov %eax, %cr0
    ljmp $CS16, $1f
    CODE16
1:  mov $DS16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %fs
    mov %ax, %gs
    mov %ax, %ss
    mov %cr0, %eax
    and $~CR0_PE, %eax
    mov %eax, %cr0
    ljmp $0, $2f
2:  xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %fs
    mov %ax, %gs
    mov %ax, %ss
    mov $0x7000, %esp
    lidt rt_idtr16
    jmp *rt_target

    .globl rt_to_pm32
rt_to_pm32: /* EAX = target */
    cli
    xor %cx, %cx
    mov %cx, %ds
    mov %eax, rt_target
    lgdtl rt_gdtr_low
    mov %cr0, %eax
    or $CR0_PE, %eax
    mov %eax, %cr0
    ljmpl $KCS32, $1f
    CODE32
1:  mov $KDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov rt_pm_sp, %esp
    lidtl rt_idtr32
    jmp *rt_target

/* The page at which a second processor starts (rt_ap_start): real mode to rt_ap_long. */
    .section .trampoline, "awx"
    .globl rt_trampoline
    CODE16
    .align 4096
rt_trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl rt_gdtr_low
    mov $CR0_PE | CR0_NE | 0x10, %eax
    mov %eax, %cr0
    ljmpl $KCS32, $1f
    CODE32
1:  mov $KDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $rt_ap_stack_top, %esp
    call rt_cpu_init32
    mov %cr4, %eax
    or $CR4_PAE, %eax
    mov %eax, %cr4
    mov $rt_pml4, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    mov rt_ap_efer, %eax
    xor %edx, %edx
    wrmsr
    mov %cr0, %eax
    or $CR0_PG, %eax
    mov %eax, %cr0
    lidtl rt_idtr64
    ljmp $KCS64, $1f
    CODE64
1:  lidt rt_idtr64
    mov rt_ap_entry, %eax
    jmp *%rax

    .section .lowdata, "aw"
    .globl rt_gdtr_low, rt_pm_sp, rt_target, rt_ap_entry, rt_ap_efer, rt_amd
    .align 8
rt_gdtr_low: .word 256 * 8 - 1
    .long rt_gdt
    .word 0
rt_target: .quad 0
rt_pm_sp: .long 0
rt_save_bx: .long 0
rt_save_cx: .long 0
rt_save_dx: .long 0
rt_ap_entry: .quad 0
rt_ap_efer: .quad 0
rt_magic: .quad 0
rt_amd: .quad 0

    .section .rodata
magic_text: .asciz "EAX does not hold the Multiboot magic"
