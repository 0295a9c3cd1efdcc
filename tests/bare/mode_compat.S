/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compatibility mode: 32- and 16-bit code under long mode: default sizes, no REX, 32-bit address wrap,
 * segment bases count, exceptions push 64-bit frames with zero-extended values, far calls to 64-bit code
 * and back, ring 3 both ways, instructions that exist again (AAM, PUSHA, INTO, BOUND, PUSH ES, far direct
 * jumps, LES).
 * Manual: SDM 3A 3.2.4, 5.2.1, 6.14; 1 3.3.
 */
#include "rt.h"

TEST64 mode_compat
    mov $0xFFFFFFFF00000000, %r9
    mov %rsp, %r14
    COMPAT
    mov $1, %eax
    .byte 0x40                          /* inc %eax, REX in 64-bit mode */
    EXPECT "0x40 is inc eax", %eax, $2
    mov $0x1505, %eax
    aam
    EXPECT "aam", %eax, $5
    pushal
    popal
    mov $0xFFFFFFF0, %ecx
    movl $0x71727374, rt_buf + 0x10
    mov rt_buf + 0x20(%ecx), %eax
    EXPECT "addresses wrap at 4 GiB", %eax, $0x71727374
    FAULTS "ud2", UD, 0, ud2
    EXPECT "cs of the frame", x_cs, $KCS32
    EXPECT "upper half of the frame's rip", x_rip+4, $0
    TRAPS "int3", BP, 0, int3
    mov $0x7FFFFFFF, %eax
    add $1, %eax
    TRAPS "into", OF, 0, into
    GDT_SET SEL(0), $0x10, $0xFFFFF, 0xC93
    mov $SEL(0), %eax
    mov %eax, %fs
    mov %fs:rt_buf, %eax
    EXPECT "a segment base counts", %eax, $0x71727374
    push %es
    pop %eax
    mov %esp, %edi
    lcall $KCS64, $far64
    EXPECT "far call to 64-bit code: it ran as such", %ecx, $8
    EXPECT "the stack is back", %edi, %ebp
    COMPAT_END
    mov %rsp, %rax
    EXPECT "rsp", %rax, %r14
    mov $0xFFFFFFFF00000000, %rax
    EXPECT "r9 is kept", %r9, %rax
    USER32
    mov $3, %eax
    .byte 0x48
    EXPECT "ring 3 compatibility: dec", %eax, $2
    FAULTS "hlt", GP, 0, hlt
    EXPECT "cs of the frame, ring 3", x_cs, $UCS32
    EXPECT "ss of the frame, ring 3", x_ss, $UDS
    ljmp $UCS64, $1f
    CODE64
1:  mov $3, %eax
    .byte 0x48
    nop
    EXPECT "ring 3, 64-bit", %rax, $3
    KERNEL
    /* 16-bit compatibility code */
    mov $KDS, %eax
    mov %eax, %ss
    jmp low16
    .section .low, "awx"
    CODE64
low16:
    mov %rsp, %rdi
    mov $0x7000, %esp
    pushq $CS16
    pushq $3f
    lretq
    CODE16
3:  mov $0x1234FFFF, %eax
    inc %ax
    EXPECT "16-bit compatibility code", %eax, $0x12340000
    ljmpl $KCS64, $4f
    CODE64
4:  mov %rdi, %rsp
    jmp 2f
    .text
2:  DONE

    CODE64
far64:
    mov $9, %ecx
    .byte 0x48          /* REX.W, in 32-bit code a decrement */
    mov %ecx, %ecx
    mov %rsp, %rbp
    add $8, %rbp
    mov $8, %ecx
    lretl
