/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code modified through another linear address of the same page, with a serialising instruction between;
 * the same physical page run at two addresses; through 4 KiB and 2 MiB mappings at once; code that a
 * changed page table entry replaces; an immediate written by SGDT and FNSTCW.
 * Manual: SDM 3A 8.1.3, 11.6.
 */
#include "rt.h"

.macro SERIALISE
    push %rbx
    xor %eax, %eax
    cpuid
    pop %rbx
.endm

TEST64 smc_alias
    movl $TPA + 7, rt_pt            /* TVA, TVA + 0x1000 and TPA are one page */
    movl $TPA + 7, rt_pt + 8
    movb $0xB8, TPA
    movl $1, TPA + 1
    movb $0xC3, TPA + 5
    mov $TVA, %edi
    mov $TVA + 0x1000, %esi
    mov $TPA, %ebp
    call *%rdi
    EXPECT "at the first address", %rax, $1
    call *%rsi
    EXPECT "at the second address", %rax, $1
    call *%rbp
    EXPECT "at the third address, a 2 MiB page", %rax, $1
    mov $2, %r12d
next:
    mov %r12d, TVA + 0x1001
    SERIALISE
    call *%rdi
    EXPECT "modified through the second, run at the first", %rax, %r12
    call *%rbp
    EXPECT "modified through the second, run at the third", %rax, %r12
    inc %r12d
    mov %r12d, TPA + 1
    SERIALISE
    call *%rdi
    EXPECT "modified through the third, run at the first", %rax, %r12
    call *%rsi
    EXPECT "modified through the third, run at the second", %rax, %r12
    inc %r12d
    cmp $40, %r12d
    jb next
    /* another page behind the same address */
    movb $0xB8, TPA + 0x1000
    movl $0x9999, TPA + 0x1001
    movb $0xC3, TPA + 0x1005
    mov $20, %r12d
1:  movl $TPA + 0x1007, rt_pt
    invlpg TVA
    call *%rdi
    EXPECT "remapped", %rax, $0x9999
    movl $TPA + 7, rt_pt
    invlpg TVA
    call *%rdi
    mov TPA + 1, %ecx
    EXPECT "mapped back", %rax, %rcx
    /* a change while it was not mapped */
    movl $TPA + 0x1007, rt_pt
    invlpg TVA
    incl TPA + 1
    movl $TPA + 7, rt_pt
    invlpg TVA
    SERIALISE
    call *%rdi
    mov TPA + 1, %ecx
    EXPECT "changed while it was not mapped", %rax, %rcx
    dec %r12d
    jnz 1b
    /* written by the processor itself: SGDT stores over an immediate */
    mov $TPA + 0x2000, %edi
    movb $0xB8, (%rdi)
    movb $0xC3, 5(%rdi)
    movl $0, 1(%rdi)
    call *%rdi
    EXPECT "before", %rax, $0
    sgdt TPA + 0x2001 - 2           /* its base lands in the immediate, its limit before it */
    movb $0xB8, (%rdi)
    movb $0xC3, 5(%rdi)
    SERIALISE
    call *%rdi
    EXPECT "SGDT's base as an immediate", %rax, $rt_gdt
    fnstcw TPA + 0x2001
    SERIALISE
    call *%rdi
    mov $rt_gdt, %ecx
    mov $0x37F, %cx
    EXPECT "FNSTCW into an immediate", %rax, %rcx
    DONE
