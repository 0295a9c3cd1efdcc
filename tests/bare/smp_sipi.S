/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INIT and SIPI: the second processor begins in real mode at vector << 12 with the registers of INIT (CS,
 * IP, EFLAGS, CR0, EDX, DS, GDTR and IDTR limits); it can be stopped by INIT and started again at another
 * vector; a SIPI to a running processor does nothing; BSP bit of its APIC base is clear, its APIC ID is
 * another.
 * cpus: 2
 * Manual: SDM 3A 8.4, 9.1 (table 9-1), 10.6.1.
 */
#include "rt.h"

TEST64 smp_sipi
    call rt_lapic_on
    mov LAPIC + 0x20, %ebx
    EXPECT_BITS "my APIC ID is 0", %rbx, $0x7F000000, $0
    mov $ap16, %esi
    mov $0xF000, %edi
    mov $ap16_end - ap16, %ecx
    rep movsb
    mov $ap16, %esi
    mov $0x6000, %edi
    mov $ap16_end - ap16, %ecx
    rep movsb
    mov $0x0F, %ecx
    call start
    mov rec, %eax
    EXPECT "it came", %rax, $1
    mov rec+4, %eax
    EXPECT "cs", %rax, $0xF00
    mov rec+8, %eax
    EXPECT "ip", %rax, $0
    mov rec+12, %eax
    EXPECT_BITS "cr0", %rax, $0x6000FFFF, $0x60000010
    mov rec+16, %eax
    EXPECT_BITS "eflags", %rax, $-1, $2
    mov rec+20, %eax
    EXPECT "ds", %rax, $0
    mov rec+24, %eax
    EXPECT "ss", %rax, $0
    mov $1, %eax
    cpuid
    mov rec + 28, %ecx
    and $0xF00, %eax
    and $0xF00, %ecx
    EXPECT "edx holds the family", %rcx, %rax
    mov rec+32, %eax
    EXPECT "GDTR limit", %rax, $0xFFFF
    mov rec+36, %eax
    EXPECT "IDTR limit", %rax, $0xFFFF
    mov rec + 40, %eax
    EXPECT "eax", %rax, $0
    /* a SIPI to a running processor does nothing */
    movl $0, rec
    movl $0xC4606, LAPIC + 0x300
    mov $20, %edi
    call rt_delay_ms
    mov rec, %eax
    EXPECT "SIPI without INIT", %rax, $0
    /* INIT stops it: its counter stands */
    movl $0xC4500, LAPIC + 0x300
    mov $10, %edi
    call rt_delay_ms
    mov $(RT_PATIENCE / 20), %r13d  /* soon: the host may be busy */
1:  mov rec + 44, %eax
    mov %rax, %r12
    mov $10, %edi
    call rt_delay_ms
    mov rec + 44, %eax
    cmp %rax, %r12
    je 2f
    dec %r13d
    jnz 1b
2:  EXPECT "INIT stops it", %rax, %r12
    mov $0x06, %ecx
    call start
    mov rec, %eax
    EXPECT "again, at another vector", %rax, $1
    mov rec+4, %eax
    EXPECT "cs again", %rax, $0x600
    movl $0xC4500, LAPIC + 0x300
    mov $10, %edi
    call rt_delay_ms
    /* through the runtime into 64-bit mode */
    mov $ap64, %edi
    call rt_ap_start
    EXPECT "in 64-bit mode", %rax, $1
    mov $done, %edi
    mov $1, %esi
    call rt_ap_wait
    EXPECT "it ran", %rax, $1
    mov ap_id, %eax
    EXPECT_BITS "another APIC ID", %rax, $0x7F000000, $0x01000000
    EXPECT_BITS "no bootstrap bit", ap_base, $0x900, $0x800
    mov LAPIC + 0x20, %eax
    EXPECT_BITS "my ID is still mine", %rax, $0x7F000000, $0
    RDMSR_ MSR_APIC_BASE
    EXPECT_BITS "I am the bootstrap processor", %rax, $0x100, $0x100
    DONE

/* ECX: vector */
start:
    mov $rec, %edi
    push %rcx
    mov $12, %ecx
    xor %eax, %eax
    rep stosl
    pop %rcx
    movl $0xC4500, LAPIC + 0x300
    mov $10, %edi
    call rt_delay_ms
    or $0xC4600, %ecx
    mov %ecx, LAPIC + 0x300
    mov $rec, %edi
    mov $1, %esi
    jmp rt_ap_wait

ap64:
    mov LAPIC + 0x20, %eax
    mov %eax, ap_id
    RDMSR_ MSR_APIC_BASE
    mov %rax, ap_base
    movl $1, done
1:  cli
    hlt
    jmp 1b
    .bss
    .align 8
ap_id: .skip 8
ap_base: .skip 8
done: .skip 8

    .section .low, "awx"
    CODE16
ap16:   /* position-independent */
    mov %eax, %esi
    pushfl              /* the stack is at SS:SP = 0:0, below 64 KiB */
    pop %eax
    mov %ds, %bx
    mov %ss, %bp
    movzwl %bx, %ebx
    movzwl %bp, %ebp
    call 1f
1:  pop %di
    sub $1b - ap16, %di
    movzwl %di, %edi
    xor %cx, %cx
    mov %cx, %ds
    mov %eax, rec + 16
    mov %esi, rec + 40
    mov %edi, rec + 8
    mov %ebx, rec + 20
    mov %ebp, rec + 24
    mov %edx, rec + 28
    mov %cs, %cx
    movzwl %cx, %ecx
    mov %ecx, rec + 4
    mov %cr0, %ecx
    mov %ecx, rec + 12
    sgdtl rec + 48
    movzwl rec + 48, %ecx
    mov %ecx, rec + 32
    sidtl rec + 48
    movzwl rec + 48, %ecx
    mov %ecx, rec + 36
    movl $1, rec
2:  incl rec + 44
    jmp 2b
ap16_end:
    .section .lowdata, "aw"
    .align 8
rec: .fill 64, 1, 0
