/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID's topology with two processors, asked on each: the APIC IDs of leaf 1 and leaf B are the local
 * APIC's, the counts say two, everything else of leaf 1 is the same.
 * cpus: 2
 * Manual: SDM 2A CPUID; 3A 8.9.
 */
#include "rt.h"

TEST64 smp_cpuid
    mov $rec0, %ebp
    call look
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    mov $done, %edi
    mov $1, %esi
    call rt_ap_wait
    EXPECT "it has looked", %rax, $1
    .irp p, 0, 1
    mov rec\p, %eax             /* local APIC ID */
    EXPECT "processor \p: local APIC ID", %rax, $\p
    mov rec\p + 8, %eax
    shr $24, %eax
    EXPECT "processor \p: initial APIC ID", %rax, $\p
    mov rec\p + 8, %eax
    shr $16, %eax
    movzbl %al, %eax
    cmp $2, %eax
    setae %al
    movzbl %al, %eax
    EXPECT "processor \p: at least two IDs in the package", %rax, $1
    EXPECT_BITS "processor \p: HTT", rec\p+16, $(1<<28), $(1<<28)
    mov rec\p + 24, %eax
    test %eax, %eax
    jz 1f
    mov rec\p + 36, %eax
    EXPECT "processor \p: leaf B has the x2APIC ID", %rax, $\p
    EXPECT_BITS "processor \p: leaf B.1 counts two", rec\p+40, $0xFFFF, $2
1:
    .endr
    mov rec0 + 4, %eax
    mov rec1 + 4, %ecx
    EXPECT "the same family, model and stepping", %rcx, %rax
    mov rec0 + 12, %eax
    mov rec1 + 12, %ecx
    and $~0x8000000, %eax
    and $~0x8000000, %ecx
    EXPECT "the same features, ECX", %rcx, %rax
    mov rec0 + 16, %eax
    mov rec1 + 16, %ecx
    EXPECT "the same features, EDX", %rcx, %rax
    DONE

/* RBP: record: APIC ID, leaf 1 (EAX EBX ECX EDX), -, leaf B.0 (EBX ECX EDX), leaf B.1 EBX */
look:
    mov LAPIC + 0x20, %eax
    shr $24, %eax
    mov %eax, (%rbp)
    mov $1, %eax
    cpuid
    mov %eax, 4(%rbp)
    mov %ebx, 8(%rbp)
    mov %ecx, 12(%rbp)
    mov %edx, 16(%rbp)
    mov $0xB, %eax
    call rt_cpuid
    mov %ebx, 24(%rbp)
    mov %edx, 36(%rbp)
    mov $0xB, %eax
    mov $1, %ecx
    cpuid
    mov %ebx, 40(%rbp)
    ret
ap:
    mov $rec1, %ebp
    call look
    movl $1, done
1:  hlt
    jmp 1b
    .bss
    .align 8
rec0: .skip 64
rec1: .skip 64
done: .skip 8
