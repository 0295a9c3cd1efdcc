/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and interrupts through task gates in the IDT: INT n, #GP with its error code on the new task's
 * stack, a #DF with a broken stack, from ring 3; nesting and IRET; the T bit of a TSS raises #DB with
 * DR6.BT.
 * Manual: SDM 3A 6.12.2, 7.3, 7.2.1; 3B 17.3.1.5.
 * qemu: differs (T bit: #DB): TCG has no T bit
 * qemu: differs (T bit: DR6.BT): TCG has no T bit
 * qemu: differs (RF in the saved flags): TCG does not set RF for a fault
 */
#include "rt.h"

.macro TASK_GATE vec, dpl=0
    movl $(SEL(0) << 16), rt_idt32 + 8 * \vec
    movl $((G_TASK | \dpl << 5) << 8), rt_idt32 + 8 * \vec + 4
.endm
.macro TASK_AT label
    movl $\label, tss2 + 32
    movl $2, tss2 + 36
    movl $stack2_top, tss2 + 56
.endm

TEST32 task_gate
    GDT_SET SEL(0), $tss2, $103, A_TSS32
    TASK_GATE 0x40, 3
    TASK_GATE GP
    TASK_GATE DF
    TASK_AT simple
    int $0x40
after_int:
    EXPECT "int through a task gate", rt_buf, $SEL(0)
    EXPECT_BITS "link", tss2, $0xFFFF, $TSS32
    EXPECT "the eip saved is behind INT", rt_tss32+32, $after_int
    /* #GP: error code on the new stack, the saved EIP is the instruction's; the handler moves it on */
    TASK_AT with_error
    mov $0xFFF8, %ecx
bad:
    mov %ecx, %fs
good:
    EXPECT "#GP: error code on the stack of the task", rt_buf+4, $0xFFF8
    EXPECT "#GP: eip saved", rt_buf+8, $bad
    EXPECT_BITS "RF in the saved flags", rt_buf+12, $FL_RF, $FL_RF
    /* #DF: the stack is gone, an interrupt gate could not come in */
    TASK_AT with_error
    movl $df_good, rt_buf + 16
    call rt_pg32_on
    mov %cr3, %eax
    mov %eax, tss2 + 28
    mov %eax, rt_tss32 + 28
    mov %esp, %ebx
    mov $TVA + 0x800, %esp
    push %eax
df_good:
    mov %ebx, %esp
    EXPECT "#DF: error code 0", rt_buf+4, $0
    call rt_pg_off
    /* from ring 3 */
    TASK_AT simple
    movl $0, rt_buf
    USER
    int $0x40
    EXPECT "from ring 3", rt_buf, $SEL(0)
    EXPECT_BITS "saved cs is ring 3's", rt_tss32+76, $0xFFFF, $UCS32
    KERNEL
    /* T bit */
    TASK_AT simple
    movw $1, tss2 + 100
    mov $0, %eax
    mov %eax, %dr6
    ARM 1f
    int $0x40
1:  RT_CHECK "T bit: #DB", DB, 0, simple
    mov %dr6, %eax
    EXPECT_BITS "T bit: DR6.BT", %eax, $0x8000, $0x8000
    DONE

simple:
    str %eax
    mov %eax, rt_buf
    iretl
    jmp simple
with_error:
    pop %eax
    mov %eax, rt_buf + 4
    mov rt_tss32 + 32, %eax
    mov %eax, rt_buf + 8
    mov rt_tss32 + 36, %eax
    mov %eax, rt_buf + 12
    mov rt_buf + 16, %eax
    test %eax, %eax
    jnz 1f
    mov $good, %eax
1:  mov %eax, rt_tss32 + 32
    iretl
    jmp with_error

    .data
    .align 16
tss2: .long 0, 0, 0, 0, 0, 0, 0, 0, simple, 2, 0, 0, 0, 0, stack2_top, 0, 0, 0
    .long KDS, KCS32, KDS, KDS, 0, 0, 0
    .word 0, 104
    .bss
    .skip 1024
stack2_top: .skip 16
