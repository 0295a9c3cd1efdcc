/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments in 64-bit mode: bases and limits of CS, DS, ES, SS do not count, those of FS and GS do (32 bits
 * by a selector, 64 bits by MSR); null selectors everywhere, in SS at CPL 0 to 2 only; a code segment with
 * L and D is #GP; FS loads write the base MSR.
 * Manual: SDM 3A 3.4.4, 5.2.1, 5.4.1.1.
 */
#include "rt.h"

TEST64 seg64
    GDT_SET SEL(0), $0x12345000, $0xF, 0x493
    mov $SEL(0), %ecx
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %ss
    movl $0x600D, rt_buf
    mov rt_buf, %eax
    EXPECT "ds: neither base nor limit", %rax, $0x600D
    push %rax
    pop %rcx
    EXPECT "ss: neither base nor limit", %rcx, $0x600D
    xor %ecx, %ecx
    NOFAULT "null ds", mov %ecx, %ds
    NOFAULT "use of null ds", mov rt_buf, %eax
    NOFAULT "null ss at CPL 0", mov %ecx, %ss
    NOFAULT "use of null ss", push %rax
    add $8, %rsp
    cmpl $0, rt_amd
    jne 5f
    mov $3, %ecx
    FAULTS "null ss with RPL 3 at CPL 0 (Intel)", GP, 0, mov %ecx, %ss
5:
    mov $KDS, %ecx
    mov %ecx, %ss
    GDT_SET SEL(1), $rt_buf, $0xF, 0x493
    mov $SEL(1), %ecx
    mov %ecx, %fs
    mov %fs:0, %eax
    EXPECT "fs: base", %rax, $0x600D
    NOFAULT "fs: no limit", mov %fs:0x1000, %eax
    RDMSR_ MSR_FS_BASE
    EXPECT "FS_BASE shows the descriptor's base", %rax, $rt_buf
    EXPECT "FS_BASE, high half", %rdx, $0
    WRMSR_ MSR_GS_BASE, $0x1000, 0xFFFFFFFF
    RDMSR_ MSR_GS_BASE
    shl $32, %rdx
    or %rdx, %rax
    mov $0xFFFFFFFF00001000, %rcx
    EXPECT "GS_BASE reads back", %rax, %rcx
    mov $rt_buf - 0x1000, %ecx
    bts $32, %rcx
    mov %gs:(%rcx), %eax
    EXPECT "gs: a 64-bit base, the sum wraps", %rax, $0x600D
    mov $SEL(1), %ecx
    mov %ecx, %gs
    RDMSR_ MSR_GS_BASE
    EXPECT "loading gs replaces the 64-bit base", %rdx, $0
    EXPECT "loading gs: base", %rax, $rt_buf
    xor %ecx, %ecx
    mov %ecx, %fs
    cmpl $0, rt_amd
    jne 1f
    RDMSR_ MSR_FS_BASE
    EXPECT "Intel: a null selector clears the base", %rax, $0
1:  WRMSR_ MSR_GS_BASE, $0
    /* code segments */
    GDT_SET SEL(2), $0, $0xFFFFF, (A_4G|A_32|A_L|A_CODE)
    movl $2f, rt_buf
    movw $SEL(2), rt_buf + 4
    FAULTS "far jump to a segment with L and D", GP, SEL(2), ljmp *rt_buf
    GDT_SET SEL(2), $0x1000, $0, (A_L|A_CODE)
    ljmp *rt_buf
2:  mov %cs, %eax
    EXPECT "a 64-bit code segment's base and limit do not count", %rax, $SEL(2)
    pushq $KCS64
    pushq $3f
    lretq
3:  mov $-1, %rax
    mov %fs, %rax
    EXPECT "mov r64, fs zero-extends", %rax, $0
    push %fs
    pop %rax
    EXPECT "push fs is eight bytes", %rax, $0
    USER
    xor %ecx, %ecx
    FAULTS "null ss at CPL 3", GP, 0, mov %ecx, %ss
    NOFAULT "null ds at CPL 3", mov %ecx, %ds
    NOFAULT "use of null ds at CPL 3", mov rt_buf, %eax
    mov $SEL(1), %ecx
    FAULTS "ds of DPL 0 at CPL 3", GP, SEL(1), mov %ecx, %ds
    KERNEL
    DONE
