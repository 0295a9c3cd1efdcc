/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16-bit protected mode: default sizes, stack of 16 bits (SP wraps in 64 KiB, the upper half of ESP is
 * kept), 16-bit interrupt and call gates push 16-bit frames, far calls between 16- and 32-bit code, operand
 * and address size prefixes.
 * Manual: SDM 3A 21 (mixing 16-bit and 32-bit code), 6.12.1.
 */
#include "rt.h"

TEST_LOW mode_pm16
    GDT_SET SEL(0), $0, $0xFFFF, 0x093     /* 16-bit stack: B = 0 */
    mov %esp, %edi
    ljmp $CS16, $1f
    CODE16
1:  mov $0x12345678, %eax
    .byte 0xB8, 0xCD, 0xAB              /* mov $0xABCD, %ax: three bytes */
    EXPECT "16-bit operands by default", %eax, $0x1234ABCD
    mov $SEL(0), %ax
    mov %ax, %ss
    mov $0x7000, %esp
    pushw $1
    mov %esp, %ecx
    EXPECT "push of two bytes", %ecx, $0x6FFE
    pop %ax
    mov $0xABCD0000, %esp
    pushw $0x7788
    mov %esp, %edx
    mov $0x7000, %esp
    EXPECT "SP wraps, the upper half of ESP stays", %edx, $0xABCDFFFE
    movzwl 0xFFFE, %eax
    EXPECT "pushed at 0xFFFE", %eax, $0x7788
    FAULTS "ud2 in 16-bit code through a 32-bit gate", UD, 0, ud2
    EXPECT "its CS", x_cs, $CS16
    /* a 16-bit interrupt gate */
    ljmpl $KCS32, $2f
    CODE32
2:  IDT_SET 0x40, CS16, $handler16, G_INT16
    ljmp $CS16, $3f
    CODE16
3:  mov $0x7000, %esp
    stc
    int $0x40
after:
    EXPECT_FLAGS "16-bit iret restores the flags", FL_CF, FL_CF
    EXPECT "16-bit gate: six bytes pushed", %ecx, $(0x7000-6)
    movzwl %dx, %edx
    EXPECT "16-bit gate: ip", %edx, $after
    /* far calls to 32-bit code and back */
    lcallw $KCS32, $callee32
    EXPECT "16-bit far call to 32-bit code", %ecx, $0x32323232
    lcalll $KCS32, $callee32l
    EXPECT "32-bit far call to 32-bit code", %ecx, $0x64646464
    mov $0x12348000, %esp
    mov %esp, %ebp
    enterw $0, $0
    mov %esp, %edx
    leavew
    mov $0x7000, %esp
    EXPECT "enter uses SP", %edx, $0x12347FFE
    ljmpl $KCS32, $4f
    CODE32
4:  mov $KDS, %eax
    mov %eax, %ss
    mov %edi, %esp
    /* a 32-bit code segment on a 16-bit stack: pushes of four bytes, SP of 16 bits */
    mov $SEL(0), %eax
    mov %eax, %ss
    mov $0x55550000, %esp
    push $0x01020304
    mov %esp, %edx
    mov $KDS, %eax
    mov %eax, %ss
    mov %edi, %esp
    EXPECT "a 32-bit push on a 16-bit stack wraps SP", %edx, $0x5555FFFC
    DONE

    CODE16
handler16:
    mov %esp, %ecx
    mov %esp, %ebp
    movw (%bp), %dx
    clc
    iretw
    CODE32
callee32:
    mov $0x32323232, %ecx
    lretw
callee32l:
    mov $0x64646464, %ecx
    lretl
