/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Non-canonical addresses in 64-bit mode: #SS(0) when RSP or RBP is the base (or the stack is implied),
 * #GP(0) otherwise; an access across the edge faults too.
 * Manual: SDM 1 3.3.7.1; 3A 5.3.1, 6.15 "Interrupt 12".
 * qemu: differs: TCG reports every non-canonical address as #GP and does not look at an access's last byte
 */
#include "rt.h"

TEST64 exc_ss64
    mov $0x800000000000, %rcx
    mov %rsp, %rdi
    IST SSF, 1
    ARM 1f
    mov %rcx, %rsp
5:  mov (%rsp), %rax
1:  RT_CHECK "64-bit load (%rsp)", SSF, 0, 5b
    ARM 2f
    mov %rcx, %rsp
    pop %rax
2:  RT_CHECK "64-bit pop", SSF, 0, 0
    ARM 3f
    lea 8(%rcx), %rsp
    push %rax
    push %rax
3:  RT_CHECK "64-bit push", SSF, 0, 0
    ARM 4f
    lea 8(%rcx), %rsp
    call done64
4:  RT_CHECK "64-bit call", SSF, 0, 0
    mov %rcx, %rbp
    FAULTS "64-bit load (%rbp)", SSF, 0, mov (%rbp), %rax
    FAULTS "64-bit load with ss prefix is ignored: ds rules", GP, 0, .byte 0x36, 0x48, 0x8B, 0x01
    FAULTS "64-bit load (%rcx)", GP, 0, mov (%rcx), %rax
    FAULTS "64-bit load across the edge (%rbp)", SSF, 0, mov -4(%rbp), %rax
    FAULTS "64-bit load across the edge (%rcx)", GP, 0, mov -4(%rcx), %rax
    FAULTS "64-bit fs", GP, 0, mov %fs:(%rbp), %rax
    mov %rsp, %rax
    EXPECT "the stack is back", %rax, %rdi
done64:
    DONE

