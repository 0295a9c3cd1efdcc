/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HPET: capabilities (period, number of timers), the main counter runs when enabled and stands when not,
 * can be written while it stands, its rate against the TSC-calibrated PIT; timer 0 one-shot and periodic
 * through the IO-APIC.
 * Manual: IA-PC HPET specification 1.0a, 2.3.
 */
#include "rt.h"

TEST64 hpet
    mov $0x54455048, %edi       /* "HPET" */
    call rt_acpi_find
    test %rax, %rax
    jnz 1f
    SKIP "no HPET table in ACPI"
1:  mov 44(%rax), %rax
    mov $0xFED00000, %ecx
    EXPECT "base address in the table", %rax, %rcx
    movl $0, HPET + 0x10
    movl $0, HPET + 0x14
    mov HPET + 4, %ebx          /* period in femtoseconds */
    mov %ebx, %eax
    sub $1, %eax
    cmp $100000000, %eax
    setb %al
    movzbl %al, %eax
    EXPECT "the period is at most 100 ns and not 0", %rax, $1
    mov HPET, %eax
    EXPECT_BITS "64-bit counter, at least three timers", %rax, $0x2200, $0x2200
    mov HPET + 0xF0, %rax
    mov $1, %edi
    call rt_delay_ms
    mov HPET + 0xF0, %rcx
    EXPECT "halted: the counter stands", %rcx, %rax
    movl $0, HPET + 0xF0
    movl $0x7, HPET + 0xF4
    mov HPET + 0xF0, %rax
    mov $0x700000000, %rcx
    EXPECT "the counter can be written", %rax, %rcx
    movl $0, HPET + 0xF4
    /* rate: 50 ms */
    mov $20, %r13d
2:  movl $0, HPET + 0x10
    movl $0, HPET + 0xF0
    movl $0, HPET + 0xF4
    movl $1, HPET + 0x10
    mov $50, %edi
    call rt_delay_ms
    mov HPET + 0xF0, %rax
    imul %rbx, %rax
    mov $1000000000, %ecx       /* microseconds */
    xor %edx, %edx
    div %rcx
    sub $40000, %rax
    cmp $20000, %rax
    jbe 3f
    dec %r13d
    jnz 2b
3:  setbe %al
    movzbl %al, %eax
    EXPECT "50 ms of the PIT are 40 to 60 ms of the HPET", %rax, $1
    /* timer 0 through a pin that is not the PIT's */
    call rt_pic_init
    OUTB 0x21, $0xFF
    call rt_lapic_on
    HOOK 0x50, rt_count_apic
    mov HPET + 0x104, %eax
    and $~4, %eax
    bsf %eax, %r12d             /* an IO-APIC pin that timer 0 may use */
    test %eax, %eax
    setnz %al
    movzbl %al, %eax
    EXPECT "timer 0 has a route", %rax, $1
    lea 0x10(%r12,%r12), %edi
    mov $0x50, %esi
    call rt_ioapic_write
    sti                         /* an edge that the IO-APIC may have kept */
    mov $1, %edi
    call rt_delay_ms
    cli
    movl $0, rt_counts + 4 * 0x50
    movl $0, HPET + 0x10
    mov HPET + 0xF0, %r14
    mov $10000000, %rax         /* 10 ms in periods */
    mov $1000000, %ecx
    mul %rcx
    div %rbx
    mov %rax, %r15
    mov %r12d, %ecx
    shl $9, %ecx
    or $4, %ecx                 /* interrupt enable, edge, one-shot */
    mov %ecx, HPET + 0x100
    add %r15, %r14
    mov %r14, HPET + 0x108
    movl $1, HPET + 0x10
    mov $0x50, %edi
    mov $1, %esi
    call rt_wait
    EXPECT "one-shot", %rax, $1
    sti
    mov $40, %edi
    call rt_delay_ms
    cli
    EXPECT "one-shot: once", rt_counts+4*0x50, $1
    mov HPET + 0x100, %eax
    test $0x10, %eax
    jz 4f
    movl $0, HPET + 0x10
    mov %r12d, %ecx
    shl $9, %ecx
    or $0x4C, %ecx              /* periodic, write the accumulator */
    mov %ecx, HPET + 0x100
    mov HPET + 0xF0, %rax
    add %r15, %rax
    mov %rax, HPET + 0x108
    mov %r15, HPET + 0x108
    movl $1, HPET + 0x10
    mov $0x50, %edi
    mov $5, %esi
    call rt_wait
    EXPECT "periodic: four more", %rax, $5
4:  movl $0, HPET + 0x10
    movl $0, HPET + 0x100
    DONE
