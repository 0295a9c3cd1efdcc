/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16-bit TSS: JMP and CALL from a 32-bit task, 16-bit registers saved and loaded (upper halves of the
 * loaded ones are all ones), IRET back; its limit is 43; FS and GS are null in a task of a 16-bit TSS.
 * Manual: SDM 3A 7.6, 7.3.
 */
#include "rt.h"

TEST_LOW task_16
    GDT_SET SEL(0), $tss16, $43, A_TSS16
    GDT_SET SEL(1), $tss16, $42, A_TSS16
    mov $KDS, %eax
    mov %eax, %fs
    mov $0x11112222, %eax
    mov $0x33334444, %ecx
    FAULTS "limit too small", TS, SEL(1), ljmp $SEL(1), $0
    lcall $SEL(0), $0
    EXPECT "back: eax", %eax, $0x11112222
    EXPECT "back: ecx", %ecx, $0x33334444
    EXPECT "dx in the 16-bit task", rt_buf, $0x2003
    EXPECT "sp", rt_buf+4, $0x6F00
    EXPECT "NT", rt_buf+8, $FL_NT
    EXPECT "fs", rt_buf+12, $0
    EXPECT "tr", rt_buf+16, $SEL(0)
    EXPECT_BITS "link", tss16, $0xFFFF, $TSS32
    EXPECT_BITS "ip saved by iret", tss16+14, $0xFFFF, $after_iret
    EXPECT_BITS "ax saved", tss16+18, $0xFFFF, $0xABCD
    EXPECT_BITS "not busy", rt_gdt+SEL(0)+5, $0xFF, $0x81
    EXPECT_BITS "the 32-bit task is busy", rt_gdt+TSS32+5, $0xFF, $0x8B
    mov %fs, %eax
    EXPECT "fs of the 32-bit task is back", %eax, $KDS
    DONE

    CODE16
entry16:
    movzwl %dx, %edx
    addr32 movl %edx, rt_buf
    mov %sp, %dx
    movzwl %dx, %edx
    addr32 movl %edx, rt_buf + 4
    pushfw
    pop %dx
    and $FL_NT, %edx
    addr32 movl %edx, rt_buf + 8
    mov %fs, %dx
    movzwl %dx, %edx
    addr32 movl %edx, rt_buf + 12
    str %dx
    movzwl %dx, %edx
    addr32 movl %edx, rt_buf + 16
    mov $0xABCD, %ax
    iretw
after_iret:
    nop

    .section .lowdata, "aw"
    .align 4
tss16: .word 0, 0x7000, KDS, 0, 0, 0, 0, entry16, 2
    .word 0x2001, 0x2002, 0x2003, 0x2004, 0x6F00, 0x2006, 0x2007, 0x2008
    .word KDS, CS16, KDS, KDS, 0
