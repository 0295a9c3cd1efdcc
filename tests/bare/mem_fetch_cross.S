/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that straddle two pages: they run when both are there; when the second is missing or NX the
 * fault has the saved RIP of the instruction and CR2 of the second page; when the instruction ends with the
 * first page the second is not needed; fetch crosses a remapped second page after the proper flush.
 * Manual: SDM 3A 4.7, 6.15 "Interrupt 14".
 */
#include "rt.h"

#define LO (TPA + 0x3000)
#define HI TPA

TEST64 mem_fetch_cross
    movl $LO + 7, rt_pt
    movl $HI + 7, rt_pt + 8
    /* mov $0x44332211, %eax; ret, at each place around the edge */
    .irp n, 0xFFB, 0xFFC, 0xFFD, 0xFFE, 0xFFF, 0x1000
    movb $0xB8, TVA + \n
    movl $0x44332211, TVA + \n + 1
    movb $0xC3, TVA + \n + 5
    mov $TVA + \n, %ecx
    xor %eax, %eax
    call *%rcx
    EXPECT "mov at \n", %rax, $0x44332211
    .endr
    /* the second page missing */
    movl $0, rt_pt + 8
    FLUSH_TLB
    .irp n, 0xFFC, 0xFFD, 0xFFE, 0xFFF
    movb $0xB8, TVA + \n
    mov $TVA + \n, %ecx
    FAULTS_AT "second page missing, at \n", PF, 0x10, (TVA+\n), jmp *%rcx
    EXPECT "cr2, at \n", x_cr2, $(TVA+0x1000)
    .endr
    movb $0xC3, TVA + 0xFFF
    mov $TVA + 0xFFF, %ecx
    NOFAULT "ret as the last byte", call *%rcx
    movb $0x90, TVA + 0xFFF
    FAULTS_AT "nop as the last byte: the fault is the next instruction's", PF, 0x10, (TVA+0x1000), jmp *%rcx
    movw $0x0B0F, TVA + 0xFFE
    mov $TVA + 0xFFE, %ecx
    FAULTS_AT "ud2 at the end", UD, 0, (TVA+0xFFE), jmp *%rcx
    movw $0xFEEB, TVA + 0xFFE   /* jmp . */
    movb $0xC3, TVA + 0xFF0
    movw $0xF0EB, TVA + 0xFFE
    NOFAULT "a jump as the last bytes", call *%rcx
    /* the second page NX */
    mov $HI + 7, %eax
    mov $1, %edx
    ror $1, %rdx
    or %rdx, %rax
    mov %rax, rt_pt + 8
    movb $0xB8, TVA + 0xFFD
    mov $TVA + 0xFFD, %ecx
    FAULTS_AT "second page NX", PF, 0x11, (TVA+0xFFD), jmp *%rcx
    EXPECT "cr2, NX", x_cr2, $(TVA+0x1000)
    /* the second page supervisor's, code run by the user */
    movl $HI + 3, rt_pt + 8
    movl $0, rt_pt + 12
    FLUSH_TLB
    USER
    FAULTS_AT "second page supervisor's", PF, 0x15, (TVA+0xFFD), jmp *%rcx
    EXPECT "cr2, supervisor's", x_cr2, $(TVA+0x1000)
    KERNEL
    /* remapped second page: another immediate */
    movl $HI + 7, rt_pt + 8
    FLUSH_TLB
    movl $0x22221111, TVA + 0xFFE
    movb $0xB8, TVA + 0xFFD
    movb $0xC3, TVA + 0x1002
    movl $0x00C35555, TPA + 0x5000
    call *%rcx
    EXPECT "before the remapping", %rax, $0x22221111
    movl $TPA + 0x5007, rt_pt + 8
    invlpg TVA + 0x1000
    call *%rcx
    EXPECT "after the remapping", %rax, $0x55551111
    movl $HI + 7, rt_pt + 8
    FLUSH_TLB
    call *%rcx
    EXPECT "mapped back", %rax, $0x22221111
    DONE
