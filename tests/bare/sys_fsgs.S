/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SWAPGS and the FSGSBASE instructions: exchange with KERNEL_GS_BASE, #UD without CR4.FSGSBASE and outside
 * 64-bit mode, 32-bit forms zero-extend, non-canonical bases are #GP(0), allowed at CPL 3, agreement with
 * the MSRs.
 * Manual: SDM 2B SWAPGS, WRFSBASE, RDFSBASE.
 * qemu: differs (wrfsbase, non-canonical): TCG does not check
 * qemu: differs (wrgsbase, non-canonical): TCG does not check
 * qemu: differs (the MSR shows it): follows from the former
 */
#include "rt.h"

TEST64 sys_fsgs
    WRMSR_ MSR_GS_BASE, $0x1000, 0x12
    WRMSR_ MSR_KERNEL_GS_BASE, $0x2000, 0x34
    swapgs
    RDMSR_ MSR_GS_BASE
    EXPECT "swapgs: GS_BASE, low", %rax, $0x2000
    EXPECT "swapgs: GS_BASE, high", %rdx, $0x34
    RDMSR_ MSR_KERNEL_GS_BASE
    EXPECT "swapgs: KERNEL_GS_BASE, low", %rax, $0x1000
    EXPECT "swapgs: KERNEL_GS_BASE, high", %rdx, $0x12
    COMPAT
    FAULTS "swapgs in compatibility mode", UD, 0, .byte 0x0F, 0x01, 0xF8
    COMPAT_END
    NEED 7, ebx, 0, "no FSGSBASE (the rest passed)"
    FAULTS "rdfsbase without CR4.FSGSBASE", UD, 0, rdfsbase %rax
    FAULTS "wrgsbase without CR4.FSGSBASE", UD, 0, wrgsbase %rax
    CR_SET cr4, CR4_FSGSBASE
    movl $0x600D, rt_buf
    USER
    mov $rt_buf, %eax
    wrfsbase %rax
    mov %fs:0, %eax
    EXPECT "wrfsbase at CPL 3", %rax, $0x600D
    mov $0x0000123456789ABC, %rcx
    wrgsbase %rcx
    rdgsbase %rdx
    EXPECT "rdgsbase", %rdx, %rcx
    rdgsbase %edx
    EXPECT "rdgsbase r32", %rdx, $0x56789ABC
    mov $-1, %rcx
    wrgsbase %ecx
    rdgsbase %rdx
    mov %ecx, %ecx
    EXPECT "wrgsbase r32 zero-extends", %rdx, %rcx
    mov $0x0100000000000000, %rcx
    FAULTS "wrfsbase, non-canonical", GP, 0, wrfsbase %rcx
    FAULTS "wrgsbase, non-canonical", GP, 0, wrgsbase %rcx
    KERNEL
    RDMSR_ MSR_FS_BASE
    EXPECT "the MSR shows it", %rax, $rt_buf
    COMPAT
    FAULTS "rdfsbase in compatibility mode", UD, 0, .byte 0xF3, 0x0F, 0xAE, 0xC0
    COMPAT_END
    DONE
