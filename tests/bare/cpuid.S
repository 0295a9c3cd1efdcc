/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID: maximum leaves, vendor, features that imply others, upper halves of the registers cleared, APIC ID
 * and topology leaves (1, 4 or 8000001D, B) in agreement with the local APIC, sizes of addresses, no
 * garbage above the maximum, features shown are there (a sample), allowed at CPL 3.
 * Manual: SDM 2A CPUID; APM 3 appendix E.
 */
#include "rt.h"

/* Feature \l1:\r1 bit \b1 implies \l2:\r2 bit \b2. */
.macro IMPLIES name, l1, r1, b1, l2, r2, b2
    mov $\l1, %eax
    call rt_cpuid
    mov %\r1, %r8d
    mov $\l2, %eax
    call rt_cpuid
    mov %\r2, %r9d
    bt $\b1, %r8d
    jnc 1f
    bt $\b2, %r9d
1:  setc %al
    bt $\b1, %r8d
    setc %cl
    cmp %al, %cl
    setbe %al
    movzbl %al, %eax
    EXPECT "\name", %rax, $1
.endm

TEST64 cpuid
    mov $-1, %rax
    mov $-1, %rbx
    mov $-1, %rcx
    mov $-1, %rdx
    mov $0, %eax
    cpuid
    mov %eax, %r15d
    mov %rbx, %rsi
    or %rcx, %rsi
    or %rdx, %rsi
    shr $32, %rsi
    EXPECT "upper halves are cleared", %rsi, $0
    cmp $0xD, %eax
    setae %al
    movzbl %al, %eax
    EXPECT "leaves up to D at least", %rax, $1
    mov $0x80000000, %eax
    cpuid
    mov %eax, %ecx
    cmp $0x80000008, %ecx
    setae %al
    movzbl %al, %eax
    EXPECT "extended leaves up to 80000008 at least", %rax, $1
    mov $0x80000000, %eax
    cpuid
    mov %eax, %ecx
    cmpl $0, rt_amd
    je 1f
    EXPECT "AMD: the vendor is in 80000000 too", %rbx, $0x68747541
1:  mov $1, %eax
    cpuid
    mov %ebx, %r12d         /* APIC ID in 31:24, processors in 23:16 */
    mov %ecx, %r13d
    mov %edx, %r14d
    EXPECT_BITS "what 64-bit mode needs", %rdx, $0x701AB71, $0x701AB71
    mov $0x80000001, %eax
    cpuid
    EXPECT_BITS "long mode and SYSCALL", %rdx, $0x20000800, $0x20000800
    mov $0x80000008, %eax
    cpuid
    movzbl %al, %ecx
    sub $36, %ecx
    cmp $16, %ecx
    setbe %cl
    movzbl %cl, %ecx
    EXPECT "36 to 52 physical address bits", %rcx, $1
    shr $8, %eax
    movzbl %al, %eax
    sub $48, %eax
    test $~9, %eax
    setz %al
    movzbl %al, %eax
    EXPECT "48 or 57 linear address bits", %rax, $1
    IMPLIES "AVX needs XSAVE", 1, ecx, 28, 1, ecx, 26
    IMPLIES "AVX2 needs AVX", 7, ebx, 5, 1, ecx, 28
    IMPLIES "FMA needs AVX", 1, ecx, 12, 1, ecx, 28
    IMPLIES "F16C needs AVX", 1, ecx, 29, 1, ecx, 28
    IMPLIES "AVX-512F needs AVX2", 7, ebx, 16, 7, ebx, 5
    IMPLIES "AVX-512BW needs AVX-512F", 7, ebx, 30, 7, ebx, 16
    IMPLIES "SSE4.2 needs SSE4.1", 1, ecx, 20, 1, ecx, 19
    IMPLIES "SSE4.1 needs SSSE3", 1, ecx, 19, 1, ecx, 9
    IMPLIES "SSSE3 needs SSE3", 1, ecx, 9, 1, ecx, 0
    IMPLIES "AES needs SSE2", 1, ecx, 25, 1, edx, 26
    IMPLIES "VPCLMULQDQ needs AVX", 7, ecx, 10, 1, ecx, 28
    IMPLIES "VAES needs AES", 7, ecx, 9, 1, ecx, 25
    EXPECT_BITS "OSXSAVE is clear, as CR4.OSXSAVE", %r13, $0x8000000, $0
    /* APIC ID */
    mov LAPIC + 0x20, %eax
    shr $24, %eax
    mov %r12d, %ecx
    shr $24, %ecx
    EXPECT "initial APIC ID is the local APIC's", %rcx, %rax
    cmp $0xB, %r15d
    jb 2f
    mov $0xB, %eax
    xor %ecx, %ecx
    cpuid
    test %ebx, %ebx
    jz 2f
    mov LAPIC + 0x20, %eax
    shr $24, %eax
    EXPECT "leaf B: x2APIC ID", %rdx, %rax
    EXPECT_BITS "leaf B.0: level type SMT", %rcx, $0xFFFF, $0x100
    mov $0xB, %eax
    mov $1, %ecx
    cpuid
    EXPECT_BITS "leaf B.1: level type core", %rcx, $0xFFFF, $0x201
    EXPECT_BITS "leaf B.1: one processor", %rbx, $0xFFFF, $1
    mov $0xB, %eax
    mov $2, %ecx
    cpuid
    EXPECT_BITS "leaf B.2: no such level", %rcx, $0xFF00, $0
    EXPECT "leaf B.2: EBX", %rbx, $0
2:  /* samples: what is shown works */
    bt $23, %r13d
    jnc 3f
    mov $0xFF, %ecx
    NOFAULT "POPCNT", popcnt %ecx, %eax
3:  bt $30, %r13d
    jnc 4f
    NOFAULT "RDRAND", rdrand %eax
4:  mov $7, %eax
    call rt_cpuid
    bt $8, %ebx
    jnc 5f
    NOFAULT "BMI2", rorx $3, %eax, %ecx
5:  mov $7, %eax
    call rt_cpuid
    bt $18, %ebx
    jnc 6f
    NOFAULT "RDSEED", rdseed %eax
6:  mov $0x80000001, %eax
    call rt_cpuid
    bt $27, %edx
    jnc 7f
    NOFAULT "RDTSCP", rdtscp
7:  mov $1, %eax
    call rt_cpuid
    bt $22, %ecx
    jc 8f
    FAULTS "MOVBE is not shown", UD, 0, movbe rt_buf, %eax
8:  USER
    NOFAULT "CPL 3", cpuid
    KERNEL
    /* the brand string is text */
    mov $0x80000002, %eax
    cpuid
    movzbl %al, %eax
    sub $0x20, %eax
    cmp $0x5F, %eax
    setb %al
    movzbl %al, %eax
    EXPECT "the brand string begins with a printable character", %rax, $1
    DONE
