/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TSC-deadline mode: fires when the TSC passes the deadline and clears the MSR, a past deadline fires at
 * once, 0 disarms, in other modes the MSR reads 0 and writes do nothing, in this mode the initial count
 * register does nothing.
 * Manual: SDM 3A 10.5.4.1.
 */
#include "rt.h"

#define V 0x40
.macro DEADLINE
    mov %rax, %rdx
    shr $32, %rdx
    mov $MSR_TSC_DEADLINE, %ecx
    wrmsr
.endm
.macro TSC
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
.endm

TEST64 apic_deadline
    NEED 1, ecx, 24, "no TSC-deadline"
    call rt_lapic_on
    HOOK V, on_irq
    movl $V, LAPIC + 0x320          /* one-shot */
    TSC
    add $100000000, %rax
    DEADLINE
    RDMSR_ MSR_TSC_DEADLINE
    EXPECT "in one-shot mode the MSR reads 0", %rax, $0
    movl $V | 0x40000, LAPIC + 0x320
    mfence
    RDMSR_ MSR_TSC_DEADLINE
    EXPECT "not armed", %rax, $0
    TSC
    add $200000000, %rax
    mov %rax, %r12
    DEADLINE
    RDMSR_ MSR_TSC_DEADLINE
    shl $32, %rdx
    or %rdx, %rax
    EXPECT "the MSR reads back", %rax, %r12
    mov $V, %edi
    mov $1, %esi
    call rt_wait
    EXPECT "it fires", %rax, $1
    mov irq_tsc, %rax
    cmp %r12, %rax
    setae %al
    movzbl %al, %eax
    EXPECT "not before the deadline", %rax, $1
    RDMSR_ MSR_TSC_DEADLINE
    EXPECT "the MSR is cleared", %rax, $0
    TSC
    sub $1000, %rax
    DEADLINE
    mov $V, %edi
    mov $2, %esi
    call rt_wait
    EXPECT "a past deadline fires at once", %rax, $2
    TSC
    add $400000000, %rax
    DEADLINE
    xor %eax, %eax
    DEADLINE
    movl $100, LAPIC + 0x380
    sti
    mov $250, %edi
    call rt_delay_ms
    cli
    EXPECT "0 disarms, the initial count does nothing", rt_counts+4*V, $2
    mov LAPIC + 0x390, %eax
    EXPECT "the current count reads 0", %rax, $0
    /* leaving the mode disarms */
    TSC
    add $400000000, %rax
    DEADLINE
    movl $V, LAPIC + 0x320
    movl $V | 0x40000, LAPIC + 0x320
    sti
    mov $250, %edi
    call rt_delay_ms
    cli
    EXPECT "leaving the mode disarms", rt_counts+4*V, $2
    DONE
on_irq:
    TSC
    mov %rax, irq_tsc
    mov $V, %eax
    jmp rt_count_apic
    .bss
    .align 8
irq_tsc: .skip 8
