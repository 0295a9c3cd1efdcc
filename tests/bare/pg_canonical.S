/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Non-canonical addresses everywhere: data, jumps, calls, returns, LGDT, LLDT bases, MSRs, string
 * instructions; a near jump faults before it is taken, so the saved RIP is that of the jump; running off
 * the lower half too.
 * Manual: SDM 1 3.3.7.1; 2A/2B JMP, CALL, RET, LGDT, WRMSR.
 * qemu: differs: TCG takes near branches to non-canonical addresses and faults at the target, or with #PF
 */
#include "rt.h"

#define NC 0x0000800000000000

TEST64 pg_canonical
    mov $5, %eax
    mov %cr4, %rcx
    mov $NC, %rcx
    mov $0xFFFF7FFFFFFFFFFF, %rdx
    FAULTS "read, lower edge", GP, 0, mov (%rcx), %al
    FAULTS "write", GP, 0, mov %al, (%rcx)
    FAULTS "read, upper edge", GP, 0, mov (%rdx), %al
    FAULTS "the last canonical byte", PF, 0, mov -1(%rcx), %al
    FAULTS "the first of the upper half", PF, 0, mov 1(%rdx), %al
    FAULTS "inside the hole", GP, 0, movabs 0x1234567812345678, %al
    FAULTS "a qword across the edge", GP, 0, mov -7(%rcx), %rax
    FAULTS "jmp r64", GP, 0, jmp *%rcx
    mov %rsp, %rbx
    FAULTS "call r64", GP, 0, call *%rcx
    mov %rsp, %rsi
    EXPECT "call r64 pushes nothing", %rsi, %rbx
    push %rcx
    FAULTS "ret", GP, 0, ret
    pop %rax
    EXPECT "ret pops nothing", %rax, %rcx
    push $KCS64
    push %rcx
    FAULTS "far return", GP, 0, lretq
    add $16, %rsp
    mov %rcx, rt_buf
    FAULTS "jmp m64", GP, 0, jmp *rt_buf
    mov %rcx, %rsi
    mov $rt_buf, %edi
    mov $3, %ecx
    FAULTS "rep movsb", GP, 0, rep movsb
    EXPECT "rcx is kept", %rcx, $3
    mov $NC, %rcx
    movw $0x7FF, rt_buf + 6
    mov %rcx, rt_buf + 8
    FAULTS "lgdt", GP, 0, lgdt rt_buf + 6
    FAULTS "lidt", GP, 0, lidt rt_buf + 6
    .irp msr, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_LSTAR, MSR_CSTAR, MSR_SYSENTER_ESP, \
        MSR_SYSENTER_EIP
    mov $\msr, %ecx
    xor %eax, %eax
    mov $0x01000000, %edx     /* bit 56: no linear address is that wide, with LA57 or without */
    /* AMD's SYSENTER MSRs hold 32 bits: no check there */
    .if \msr != MSR_SYSENTER_ESP && \msr != MSR_SYSENTER_EIP
    FAULTS "wrmsr \msr", GP, 0, wrmsr
    .else
    cmpl $0, rt_amd
    jne 1f
    FAULTS "wrmsr \msr", GP, 0, wrmsr
1:
    .endif
    .endr
    WRMSR_ MSR_FS_BASE, $0, 0x7FFF
    mov $0x10000000000, %rcx
    FAULTS "fs base + offset", GP, 0, mov %fs:(%rcx), %al
    WRMSR_ MSR_FS_BASE, $0, 0
    DONE
