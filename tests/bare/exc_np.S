/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments and gates whose P bit is clear: #NP with the selector, #SS for the stack segment, and the
 * register keeps its old value.
 * Manual: SDM 3A 6.15 "Interrupt 11" and "Interrupt 12"; 2A/2B MOV, LTR, LLDT, JMP, CALL.
 */
#include "rt.h"

TEST32 exc_np
    GDT_SET SEL(0), $0, $0xFFFFF, 0xC13
    GDT_SET SEL(1), $0, $0xFFFFF, 0xC1B
    GDT_SET SEL(2), $rt_tss32, $103, 0x009
    GDT_SET SEL(3), $rt_buf, $0xFFF, 0x002
    CALLGATE_SET SEL(4), KCS32, $1f, 0x0C
    mov $SEL(0), %ecx
    FAULTS "ds", NP, SEL(0), mov %ecx, %ds
    FAULTS "es", NP, SEL(0), mov %ecx, %es
    FAULTS "fs", NP, SEL(0), mov %ecx, %fs
    mov %fs, %eax
    EXPECT "fs is kept", %eax, $0
    FAULTS "ss", SSF, SEL(0), mov %ecx, %ss
    mov %ss, %eax
    EXPECT "ss is kept", %eax, $KDS
    push %ecx
    FAULTS "pop es", NP, SEL(0), popl %es
    EXPECT "the stack pointer is kept", (%esp), $SEL(0)
    pop %ecx
    movl $0x12345678, rt_buf
    movw $SEL(0), rt_buf + 4
    mov $77, %eax
    FAULTS "lfs", NP, SEL(0), lfs rt_buf, %eax
    EXPECT "lfs: eax is kept", %eax, $77
    FAULTS "lss", SSF, SEL(0), lss rt_buf, %eax
    GDT_SET SEL(5), $0, $0xFFFFF, 0xC73
    mov $SEL(5) | 3, %ecx
    FAULTS "the error code has no RPL", NP, SEL(5), mov %ecx, %gs
    FAULTS "far jump", NP, SEL(1), ljmp $SEL(1), $1f
    FAULTS "far call", NP, SEL(1), lcall $SEL(1), $1f
    FAULTS "call gate", NP, SEL(4), lcall $SEL(4), $0
    CALLGATE_SET SEL(4), SEL(1), $1f, G_CALL32
    FAULTS "call gate to a code segment", NP, SEL(1), lcall $SEL(4), $0
    push $SEL(1)
    push $1f
    FAULTS "far return", NP, SEL(1), lret
    add $8, %esp
    pushf
    push $SEL(1)
    push $1f
    FAULTS "iret", NP, SEL(1), iret
    add $12, %esp
    mov $SEL(2), %ecx
    FAULTS "ltr", NP, SEL(2), ltr %cx
    mov $SEL(3), %ecx
    FAULTS "lldt", NP, SEL(3), lldt %cx
    FAULTS "jump to a TSS", NP, SEL(2), ljmp $SEL(2), $0
    DONE
1:  UNREACHED "the code behind"
    DONE
