/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDTSC and RDTSCP: count upwards, CR4.TSD makes them #GP(0) at CPL 3 only; writing the TSC; TSC_AUX by
 * RDTSCP and RDPID; RDPMC needs CR4.PCE at CPL 3 and an existing counter.
 * Manual: SDM 2B RDTSC, RDTSCP, RDPID, RDPMC; 3A 2.5, 17.17.
 * qemu: differs (rdpmc of a counter that is not there): TCG has no performance counters: #UD
 * qemu: differs (TSC, high half after a write): TCG ignores a write to the TSC
 * qemu: differs (rdtscp: high half): TCG ignores a write to the TSC
 */
#include "rt.h"

TEST64 sys_tsc
    NEED 1, edx, 4, "no TSC"
    rdtsc
    shl $32, %rdx
    or %rax, %rdx
    mov %rdx, %rbx
    mov $1000, %ecx
1:  rdtsc
    shl $32, %rdx
    or %rax, %rdx
    cmp %rbx, %rdx
    jb 2f
    mov %rdx, %rbx
    dec %ecx
    jnz 1b
2:  EXPECT "it never goes back", %rcx, $0
    mov %rbx, %rsi
    mov $10, %edi
    call rt_delay_ms
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    sub %rsi, %rax
    cmp $1000000, %rax  /* at least 100 MHz */
    setb %al
    movzbl %al, %eax
    EXPECT "it counts in real time", %rax, $0
    CR_SET cr4, CR4_TSD
    NOFAULT "TSD does not matter at CPL 0", rdtsc
    USER
    FAULTS "rdtsc at CPL 3 with TSD", GP, 0, rdtsc
    KERNEL
    CR_CLEAR cr4, CR4_TSD
    USER
    NOFAULT "rdtsc at CPL 3 without TSD", rdtsc
    FAULTS "rdpmc at CPL 3 without PCE", GP, 0, rdpmc
    KERNEL
    mov $0x3FFFFFFF, %ecx
    FAULTS "rdpmc of a counter that is not there", GP, 0, rdpmc
    /* the TSC can be written */
    WRMSR_ 0x10, $0, 0x100
    rdtsc
    EXPECT "TSC, high half after a write", %rdx, $0x100
    mov $0x80000001, %eax
    call rt_cpuid
    bt $27, %edx
    jnc 3f
    WRMSR_ 0xC0000103, $0x1234567
    mov $-1, %rcx
    rdtscp
    EXPECT "rdtscp: TSC_AUX in RCX", %rcx, $0x1234567
    EXPECT "rdtscp: high half", %rdx, $0x100
    CR_SET cr4, CR4_TSD
    USER
    FAULTS "rdtscp at CPL 3 with TSD", GP, 0, rdtscp
    KERNEL
    mov $7, %eax
    call rt_cpuid
    bt $22, %ecx
    jnc 3f
    mov $-1, %rcx
    .byte 0xF3, 0x0F, 0xC7, 0xF9    /* rdpid %rcx */
    EXPECT "rdpid", %rcx, $0x1234567
3:  DONE
