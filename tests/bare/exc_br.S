/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BOUND: both limits are inclusive and signed; #BR is a fault; a register operand is #UD.
 * Manual: SDM 2A BOUND.
 */
#include "rt.h"

TEST32 exc_br
    movl $-5, rt_buf
    movl $10, rt_buf + 4
    mov $-5, %eax
    NOFAULT "at the lower bound", bound %eax, rt_buf
    mov $10, %eax
    NOFAULT "at the upper bound", bound %eax, rt_buf
    mov $-6, %eax
    FAULTS "below", BR, 0, bound %eax, rt_buf
    mov $11, %eax
    FAULTS "above", BR, 0, bound %eax, rt_buf
    movw $1, rt_buf
    movw $3, rt_buf + 2
    mov $2, %eax
    NOFAULT "16-bit inside", bound %ax, rt_buf
    mov $4, %eax
    FAULTS "16-bit above", BR, 0, bound %ax, rt_buf
    mov $0xFFFF0002, %eax
    NOFAULT "16-bit looks at AX only", bound %ax, rt_buf
    FAULTS "register operand", UD, 0, .byte 0x62, 0xC0
    DONE
