/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entering and leaving long mode step by step: LMA follows PG, compatibility mode until the far jump to a
 * segment with L; 64-bit code, back to compatibility mode and out; the same again; the upper halves of
 * registers are zero-extended by 32-bit operations.
 * Manual: SDM 3A 9.8.5; 1 3.4.1.1.
 */
#include "rt.h"

TEST32 mode_long
    mov $3, %esi
again:
    mov %cr4, %eax
    or $CR4_PAE, %eax
    mov %eax, %cr4
    mov $rt_pml4, %eax
    mov %eax, %cr3
    WRMSR_ MSR_EFER, $EFER_LME
    RDMSR_ MSR_EFER
    EXPECT "LME, not LMA", %eax, $EFER_LME
    CR_SET cr0, CR0_PG
    RDMSR_ MSR_EFER
    EXPECT "LMA follows PG", %eax, $(EFER_LME|EFER_LMA)
    lidtl rt_idtr64
    mov $5, %eax
    .byte 0x48                  /* dec %eax here, REX.W in 64-bit code */
    nop
    EXPECT "compatibility mode: 0x48 is dec", %eax, $4
    ljmp $KCS64, $1f
    CODE64
1:  mov $5, %eax
    .byte 0x48
    nop
    EXPECT "64-bit mode: 0x48 is a prefix", %rax, $5
    mov $-1, %rax
    mov $1, %eax
    EXPECT "a 32-bit result clears the upper half", %rax, $1
    mov $-1, %rax
    mov $1, %ax
    EXPECT "a 16-bit result does not", %rax, $-0xFFFF
    mov $0x1122334455667788, %r8
    mov %r8, %r15
    ljmp *to_compat
    .data
to_compat: .long 2f
    .word KCS32
    .text
    CODE32
2:  mov $5, %eax
    .byte 0x48
    nop
    EXPECT "compatibility mode again", %eax, $4
    ljmp $KCS64, $3f
    CODE64
3:  EXPECT "r8 survives compatibility mode", %r8, %r15
    ljmp *to_compat2
    .data
to_compat2: .long 4f
    .word KCS32
    .text
    CODE32
4:  CR_CLEAR cr0, CR0_PG
    RDMSR_ MSR_EFER
    EXPECT "LMA goes with PG", %eax, $EFER_LME
    WRMSR_ MSR_EFER, $0
    CR_CLEAR cr4, CR4_PAE
    lidtl rt_idtr32
    FAULTS "32-bit exceptions work again", UD, 0, ud2
    EXPECT "with the 32-bit CS", x_cs, $KCS32
    dec %esi
    jnz again
    DONE
