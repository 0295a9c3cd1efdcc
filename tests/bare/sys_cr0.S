/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CR0: ET is always 1; LMSW sets PE but never clears it and reaches four bits; SMSW's operand sizes; CLTS;
 * CR2 is a plain register; privilege.
 * Manual: SDM 3A 2.5; 2B MOV to control registers, LMSW, SMSW, CLTS.
 */
#include "rt.h"

TEST64 sys_cr0
    mov %cr0, %rbx
    mov %rbx, %rcx
    and $~0x10, %rcx
    mov %rcx, %cr0
    mov %cr0, %rcx
    EXPECT_BITS "ET is always 1", %rcx, $0x10, $0x10
    mov %rbx, %cr0
    /* LMSW, SMSW */
    mov %rbx, %rcx
    xor $0xE, %rcx
    and $0xE, %rcx
    lmsw %cx
    mov %cr0, %rcx
    mov %rbx, %rdx
    xor $0xE, %rdx
    EXPECT "lmsw changes MP, EM, TS and does not clear PE", %rcx, %rdx
    xor %ecx, %ecx
    lmsw %cx
    mov %cr0, %rcx
    EXPECT_BITS "lmsw 0: PE stays", %rcx, $0xF, $1
    mov $0xFFF0, %ecx
    lmsw %cx
    mov %cr0, %rcx
    mov %rbx, %rdx
    and $~0xE, %rdx
    EXPECT "lmsw: only four bits", %rcx, %rdx
    mov %rbx, %cr0
    mov $-1, %rcx
    smsw %cx
    mov %rbx, %rdx
    mov %cr0, %rbx
    mov $-1, %rdx
    mov %bx, %dx
    EXPECT "smsw r16 keeps the rest", %rcx, %rdx
    smsw %rcx
    EXPECT "smsw r64 is all of CR0", %rcx, %rbx
    movl $-1, rt_buf
    smsw rt_buf
    mov rt_buf, %ecx
    mov $0xFFFF0000, %edx
    mov %bx, %dx
    EXPECT "smsw to memory is 16 bits", %rcx, %rdx
    CR_SET cr0, CR0_TS
    clts
    mov %cr0, %rcx
    EXPECT "clts", %rcx, %rbx
    USER
    FAULTS "mov from cr0 at CPL 3", GP, 0, mov %cr0, %rax
    FAULTS "mov to cr0 at CPL 3", GP, 0, mov %rax, %cr0
    FAULTS "lmsw at CPL 3", GP, 0, lmsw %ax
    FAULTS "clts at CPL 3", GP, 0, clts
    FAULTS "mov from cr2 at CPL 3", GP, 0, mov %cr2, %rax
    FAULTS "mov from cr3 at CPL 3", GP, 0, mov %cr3, %rax
    FAULTS "mov to cr4 at CPL 3", GP, 0, mov %rax, %cr4
    FAULTS "mov to cr8 at CPL 3", GP, 0, mov %rax, %cr8
    NOFAULT "smsw at CPL 3 without UMIP", smsw %rax
    KERNEL
    mov $0x123456789ABCDEF0, %rcx
    mov %rcx, %cr2
    mov %cr2, %rdx
    EXPECT "cr2 holds 64 bits, canonical or not", %rdx, %rcx
    DONE
