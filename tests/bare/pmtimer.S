/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI PM timer (found through the FADT): 24 or 32 bits at 3.579545 MHz, rate against the TSC by way of the
 * PIT, never goes back over wrap-around of 24 bits.
 * Manual: ACPI 6.4 4.8.2.1, 5.2.9.
 */
#include "rt.h"

TEST64 pmtimer
    mov $0x50434146, %edi       /* "FACP" */
    call rt_acpi_find
    test %rax, %rax
    jnz 1f
    SKIP "no FADT in ACPI"
1:  mov 76(%rax), %ebx          /* PM_TMR_BLK */
    test %ebx, %ebx
    jnz 2f
    mov 208 + 4(%rax), %ebx     /* X_PM_TMR_BLK */
2:  mov %ebx, %edx
    EXPECT_BITS "an I/O port", %rbx, $-0x10000, $0
    mov $20, %r13d
3:  mov %ebx, %edx
    in %dx, %eax
    mov %eax, %r12d
    rdtsc
    shl $32, %rdx
    or %rax, %rdx
    mov %rdx, %r14
    mov $50, %edi
    call rt_delay_ms
    mov %ebx, %edx
    in %dx, %eax
    sub %r12d, %eax
    and $0xFFFFFF, %eax
    mov %eax, %r15d
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    sub %r14, %rax
    mov %rax, %r14              /* TSC ticks of the same time */
    mov %r15d, %eax
    sub $143181, %eax           /* 40 ms */
    cmp $71590, %eax            /* up to 60 ms */
    jbe 4f
    dec %r13d
    jnz 3b
4:  setbe %al
    movzbl %al, %eax
    EXPECT "50 ms of the PIT are 40 to 60 ms of the PM timer", %rax, $1
    mov %r15, %rcx
    mov %r14, %rax
    xor %edx, %edx
    div %rcx                    /* TSC ticks a PM tick */
    cmp $20, %eax               /* 71 MHz */
    setae %al
    movzbl %al, %eax
    EXPECT "the TSC is faster", %rax, $1
    mov $10000, %ecx
    mov %ebx, %edx
    in %dx, %eax
    mov %eax, %r12d
5:  in %dx, %eax
    mov %eax, %esi
    sub %r12d, %eax
    and $0xFFFFFF, %eax
    cmp $0x800000, %eax
    jae 6f
    mov %esi, %r12d
    dec %ecx
    jnz 5b
6:  EXPECT "it never goes back", %rcx, $0
    DONE
