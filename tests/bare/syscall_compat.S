/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL from compatibility mode: AMD enters at CSTAR (in 64-bit mode), Intel raises #UD; SYSCALL in
 * 32-bit legacy mode on AMD enters at STAR[31:0], Intel #UD.
 * Manual: SDM 2B SYSCALL; APM 3 SYSCALL.
 */
#include "rt.h"

TEST64 syscall_compat
    RDMSR_ MSR_EFER
    or $EFER_SCE, %eax
    wrmsr
    WRMSR_ MSR_STAR, $legacy, (KCS64 | UCS32 << 16)
    WRMSR_ MSR_CSTAR, $entry
    WRMSR_ MSR_FMASK, $FL_CF
    xor %ebx, %ebx
    cmpl $0, rt_amd
    jne amd
    USER32
    FAULTS "Intel: syscall in compatibility mode", UD, 0, .byte 0x0F, 0x05
    FAULTS "Intel: sysret in compatibility mode", UD, 0, .byte 0x0F, 0x07
    KERNEL64
    UNLONG
    WRMSR_ MSR_EFER, $EFER_SCE
    FAULTS "Intel: syscall in legacy mode", UD, 0, .byte 0x0F, 0x05
    DONE
    CODE64
amd:
    USER32
    stc
    .byte 0x0F, 0x05
1:  mov %esi, %eax
    EXPECT "AMD: entered in 64-bit mode, cs", %edx, $KCS64
    EXPECT "AMD: rcx", %ebx, $1b
    EXPECT_BITS "AMD: FMASK counts", %edi, $FL_CF, $0
    EXPECT_FLAGS "AMD: the flags are back", FL_CF, FL_CF
    mov %cs, %eax
    EXPECT "AMD: back in compatibility mode", %eax, $UCS32
    KERNEL64
    UNLONG
    WRMSR_ MSR_STAR, $legacy, (KCS32 | UCS32 << 16)
    WRMSR_ MSR_EFER, $EFER_SCE
    USER
    .byte 0x0F, 0x05
2:  EXPECT "AMD, legacy mode: cs", %edx, $KCS32
    EXPECT "AMD, legacy mode: ecx", %ebx, $2b
    mov %cs, %eax
    EXPECT "AMD, legacy mode: back in ring 3", %eax, $UCS32
    KERNEL
    WRMSR_ MSR_EFER, $0
    DONE

    CODE64
entry:
    pushfq
    pop %rdi
    mov %cs, %edx
    mov %ecx, %ebx
    sysretl
    CODE32
legacy:
    mov %cs, %edx
    mov %ecx, %ebx
    .byte 0x0F, 0x07
