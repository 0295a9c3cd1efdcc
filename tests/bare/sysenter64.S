/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSENTER in IA-32e mode: Intel enters 64-bit code with 64-bit MSRs from 64-bit and compatibility mode,
 * SYSEXIT returns to compatibility mode or, with REX.W, to 64-bit mode; AMD raises #UD.
 * Manual: SDM 2B SYSENTER, SYSEXIT; APM 3 SYSENTER.
 * qemu: differs (AMD: sysenter in compatibility mode): TCG enters and raises #UD only there
 */
#include "rt.h"

TEST64 sysenter64
    WRMSR_ MSR_SYSENTER_CS, $KCS64
    WRMSR_ MSR_SYSENTER_ESP, $stack_top
    WRMSR_ MSR_SYSENTER_EIP, $entry
    cmpl $0, rt_amd
    je intel
    FAULTS "AMD: sysenter in 64-bit mode", UD, 0, sysenter
    mov $1f, %edx
    mov %rsp, %rcx
    mov %rsp, %rbx
    COMPAT
    FAULTS "AMD: sysenter in compatibility mode", UD, 0, sysenter
    COMPAT_END
    FAULTS "AMD: sysexit", UD, 0, sysexitl
1:  DONE
intel:
    USER
    mov %rsp, %rbx
    mov $back64, %r12d
    mov $1, %r13d
    sysenter
back64:
    EXPECT "entry from 64-bit mode: cs", %rsi, $KCS64
    EXPECT "entry: ss", %rdi, $KDS2
    EXPECT "entry: rsp", %rbp, $stack_top
    mov %cs, %eax
    EXPECT "exit with REX.W: cs", %rax, $UCS64
    mov %ss, %eax
    EXPECT "exit with REX.W: ss", %rax, $UDS2
    FAULTS "sysexit at CPL 3", GP, 0, sysexitl
    KERNEL
    mov $back32, %r12d
    xor %r13d, %r13d
    USER32
    mov %esp, %ebx
    sysenter
back32:
    mov $3, %eax
    .byte 0x48
    EXPECT "exit without REX.W: compatibility mode", %eax, $2
    mov %cs, %eax
    EXPECT "exit without REX.W: cs", %eax, $UCS32
    KERNEL64
    DONE
entry:
    mov %cs, %esi
    mov %ss, %edi
    mov %rsp, %rbp
    mov %r12, %rdx
    mov %rbx, %rcx
    test %r13d, %r13d
    jz 1f
    sysexitq
1:  sysexitl
    .bss
    .skip 256
stack_top: .skip 16
