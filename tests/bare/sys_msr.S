/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMSR and WRMSR: #GP(0) for MSRs that do not exist and at CPL 3; 32-bit halves and cleared upper register
 * halves; the PAT's reserved types; the APIC base's reserved bits.
 * Manual: SDM 2B RDMSR, WRMSR; 3A 11.12.2; 4.
 * qemu: differs: TCG reads unknown MSRs as 0, ignores writes, and does not check the PAT
 */
#include "rt.h"

TEST64 sys_msr
    .irp msr, 0xC0000070, 0x12345678, 0xFFFFFFFF, 0x40001FFF, 0xC00000FF, 0x7FFFFFFF
    mov $\msr, %ecx
    FAULTS "rdmsr \msr", GP, 0, rdmsr
    xor %eax, %eax
    xor %edx, %edx
    FAULTS "wrmsr \msr", GP, 0, wrmsr
    .endr
    mov $-1, %rax
    mov $-1, %rdx
    mov $0xFFFFFFFF00000000 + MSR_EFER, %rcx
    NOFAULT "only ECX counts", rdmsr
    shr $32, %rax
    EXPECT "rdmsr clears the upper half of RAX", %rax, $0
    EXPECT "rdmsr clears the upper half of RDX", %rdx, $0
    WRMSR_ MSR_KERNEL_GS_BASE, $0x55667788, 0x1122
    xor %eax, %eax
    xor %edx, %edx
    rdmsr
    EXPECT "low half", %rax, $0x55667788
    EXPECT "high half", %rdx, $0x1122
    WRMSR_ MSR_KERNEL_GS_BASE, $0
    mov $MSR_PAT, %ecx
    rdmsr
    mov %eax, %ebx
    mov %edx, %edi
    EXPECT "PAT at reset, low", %rax, $0x00070406
    EXPECT "PAT at reset, high", %rdx, $0x00070406
    mov $0x00070402, %eax
    FAULTS "PAT type 2 is reserved", GP, 0, wrmsr
    mov $0x00070403, %eax
    FAULTS "PAT type 3 is reserved", GP, 0, wrmsr
    mov $0x08070406, %eax
    FAULTS "PAT type 8 is reserved", GP, 0, wrmsr
    mov $0x01050406, %eax
    NOFAULT "PAT: WC and WP", wrmsr
    rdmsr
    EXPECT "PAT reads back", %rax, $0x01050406
    mov %ebx, %eax
    wrmsr
    mov $MSR_APIC_BASE, %ecx
    rdmsr
    mov %eax, %ebx
    EXPECT_BITS "APIC base: address, enabled, bootstrap", %rax, $0x7FFFF900, $0x7EE00900
    or $1, %eax
    FAULTS "APIC base, reserved bit", GP, 0, wrmsr
    mov %ebx, %eax
    or $0x80000000, %edx
    FAULTS "APIC base, high bit", GP, 0, wrmsr
    USER
    mov $MSR_EFER, %ecx
    FAULTS "rdmsr at CPL 3", GP, 0, rdmsr
    FAULTS "wrmsr at CPL 3", GP, 0, wrmsr
    KERNEL
    DONE
