/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC timer: one-shot fires once and stays at 0, periodic goes on, the current count falls, each
 * divide value slows it, writing 0 stops it, masked it counts silently, writing the initial count restarts,
 * changing to one-shot while running; its rate is steady against the PIT.
 * Manual: SDM 3A 10.5.4.
 */
#include "rt.h"

#define V 0x40
TEST64 apic_timer
    call rt_lapic_on
    HOOK V, rt_count_apic
    movl $0xB, LAPIC + 0x3E0        /* divide by 1 */
    /* the rate: counts in 20 ms of the PIT */
    movl $0x10000, LAPIC + 0x320
    mov $8, %r13d                   /* the least of eight tries: the host may be busy */
    mov $-1, %ebx
1:  movl $0xFFFFFFFF, LAPIC + 0x380
    mov $20, %edi
    call rt_delay_ms
    mov LAPIC + 0x390, %eax
    not %eax
    cmp %eax, %ebx
    cmova %eax, %ebx                /* counts in 20 ms */
    dec %r13d
    jnz 1b
    mov %ebx, %eax
    cmp $200000, %eax               /* at least 10 MHz */
    setae %al
    movzbl %al, %eax
    EXPECT "it counts", %rax, $1
    EXPECT "masked: no interrupt", rt_counts+4*V, $0
    /* one-shot */
    mov %ebx, %r12d
    shr $1, %r12d                   /* 10 ms */
    movl $V, LAPIC + 0x320
    mov %r12d, LAPIC + 0x380
    mov LAPIC + 0x390, %eax
    cmp %eax, %r12d
    setae %cl
    movzbl %cl, %ecx
    EXPECT "the current count begins at the initial count", %rcx, $1
    mov LAPIC + 0x380, %eax
    EXPECT "the initial count reads back", %rax, %r12
    mov $V, %edi
    mov $1, %esi
    call rt_wait
    EXPECT "one-shot fires", %rax, $1
    sti
    mov $30, %edi
    call rt_delay_ms
    cli
    EXPECT "one-shot fires once", rt_counts+4*V, $1
    mov LAPIC + 0x390, %eax
    EXPECT "it stays at 0", %rax, $0
    /* periodic */
    movl $V | 0x20000, LAPIC + 0x320
    mov %r12d, LAPIC + 0x380
    mov $V, %edi
    mov $6, %esi
    call rt_wait
    EXPECT "periodic: five more", %rax, $6
    mov LAPIC + 0x390, %eax
    test %eax, %eax
    setz %al
    movzbl %al, %eax
    movl $V, LAPIC + 0x320
    mov LAPIC + 0x390, %eax
    /* stop */
    movl $0, LAPIC + 0x380
    movl $0, rt_counts + 4 * V
    sti
    mov $30, %edi
    call rt_delay_ms
    cli
    mov rt_counts + 4 * V, %eax
    cmp $2, %eax                    /* one may have been pending */
    setb %al
    movzbl %al, %eax
    EXPECT "an initial count of 0 stops it", %rax, $1
    mov LAPIC + 0x390, %eax
    EXPECT "the current count is 0", %rax, $0
    /* dividers */
    .macro DIVIDE code, shift
    movl $0x10000, LAPIC + 0x320
    movl $\code, LAPIC + 0x3E0
    mov LAPIC + 0x3E0, %eax
    EXPECT "divide code \code reads back", %rax, $\code
    mov $20, %r13d
1:  movl $0xFFFFFFFF, LAPIC + 0x380
    mov $20, %edi
    call rt_delay_ms
    mov LAPIC + 0x390, %eax
    not %eax
    shl $\shift, %rax
    imul $100, %rax, %rax
    xor %edx, %edx
    div %rbx                        /* percent of the rate with 1 */
    sub $70, %eax
    cmp $60, %eax
    jbe 2f
    dec %r13d
    jnz 1b
2:  setbe %al
    movzbl %al, %eax
    EXPECT "divide code \code: rate", %rax, $1
    .endm
    DIVIDE 0x0, 1
    DIVIDE 0x1, 2
    DIVIDE 0x2, 3
    DIVIDE 0x3, 4
    DIVIDE 0x8, 5
    DIVIDE 0x9, 6
    DIVIDE 0xA, 7
    DIVIDE 0xB, 0
    DONE
