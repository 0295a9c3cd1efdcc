/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #DE: division by zero and quotients that do not fit. The saved RIP is that of the instruction and the
 * operands keep their values.
 * Manual: SDM 2A DIV, IDIV, AAM; 3A 6.15 "Interrupt 0".
 */
#include "rt.h"

TEST64 exc_de
    mov $7, %eax
    xor %edx, %edx
    xor %ecx, %ecx
    FAULTS "div r32 by zero", DE, 0, div %ecx
    EXPECT "rax is kept", %rax, $7
    FAULTS "idiv r32 by zero", DE, 0, idiv %ecx
    FAULTS "div r8 by zero", DE, 0, div %cl
    FAULTS "div r16 by zero", DE, 0, div %cx
    FAULTS "div r64 by zero", DE, 0, div %rcx
    mov $1, %edx
    mov $1, %ecx
    FAULTS "div r32, quotient of 33 bits", DE, 0, div %ecx
    EXPECT "rdx is kept", %rdx, $1
    FAULTS "div r64, quotient of 65 bits", DE, 0, div %rcx
    mov $0x100, %eax
    FAULTS "div r8, quotient of 9 bits", DE, 0, div %cl
    mov $0xFF, %eax
    NOFAULT "div r8, quotient of 8 bits", div %cl
    EXPECT "quotient and remainder", %rax, $0xFF
    mov $0x80, %eax
    mov $-1, %ecx
    FAULTS "idiv r8, quotient 128", DE, 0, idiv %ecx
    mov $0xFF80, %eax
    FAULTS "idiv r8, -128 / -1", DE, 0, idiv %cl
    mov $0x80000000, %eax
    cltd
    FAULTS "idiv r32, minimum / -1", DE, 0, idiv %ecx
    mov $1, %rax
    ror $1, %rax
    cqto
    mov $-1, %rcx
    FAULTS "idiv r64, minimum / -1", DE, 0, idiv %rcx
    mov $0xFF80, %eax
    mov $1, %ecx
    NOFAULT "idiv r8, quotient -128", idiv %cl
    EXPECT "quotient -128", %rax, $0x80
    movl $0, rt_buf
    FAULTS "div by zero in memory", DE, 0, divl rt_buf
    COMPAT
    mov $0x1234, %eax
    FAULTS "aam 0", DE, 0, aam $0
    NOFAULT "aam 10", aam $10
    EXPECT "aam 10: 0x34 = 52", %eax, $0x0502
    COMPAT_END
    DONE
