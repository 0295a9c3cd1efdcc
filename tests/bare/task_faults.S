/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults of task switches. Before the switch (in the old task): not present #NP, limit too small #TS, busy
 * #GP, an LDT or data selector, IRET with NT to a link that is no busy TSS #TS. In the new task: LDT, CS,
 * SS, DS selectors that are bad, #TS, #NP or #SS with their selector (caught through a task gate).
 * Manual: SDM 3A 7.3 (table 7-1), 6.15 "Interrupt 10".
 * qemu: differs (gate to the LDT): TCG reports #TS
 */
#include "rt.h"

TEST32 task_faults
    GDT_SET SEL(0), $tss2, $103, A_TSS32
    GDT_SET SEL(1), $tss2, $102, A_TSS32            /* too short */
    GDT_SET SEL(2), $tss2, $103, 0x009              /* not present */
    GDT_SET SEL(3), $tss2, $103, 0x08B              /* busy */
    GDT_SET SEL(6), $0, $0xFFFFF, 0xC13             /* data not present */
    GDT_SET SEL(7), $0, $0xFFFFF, 0xC1B             /* code not present */
    GDT_SET SEL(8), $0, $0xFFFFF, 0xC91             /* read-only data */
    CALLGATE_SET SEL(4), KDS, $0, G_TASK            /* gate to data */
    CALLGATE_SET SEL(5), SEL(0), $0, 0x05           /* gate not present */
    CALLGATE_SET SEL(9), 0xC, $0, G_TASK            /* gate to the LDT */
    FAULTS "limit too small", TS, SEL(1), ljmp $SEL(1), $0
    FAULTS "not present", NP, SEL(2), ljmp $SEL(2), $0
    FAULTS "busy", GP, SEL(3), ljmp $SEL(3), $0
    FAULTS "busy, by call", GP, SEL(3), lcall $SEL(3), $0
    FAULTS "the running task itself", GP, TSS32, ljmp $TSS32, $0
    FAULTS "gate not present", NP, SEL(5), lcall $SEL(5), $0
    FAULTS "gate to data", GP, KDS, lcall $SEL(4), $0
    FAULTS "gate to the LDT", GP, 0xC, lcall $SEL(9), $0
    EXPECT_BITS "the TSS is not busy after all that", rt_gdt+SEL(0)+5, $0xFF, $0x89
    /* IRET with NT */
    .macro IRET_NT name, link, err
    movw $(\link), rt_tss32
    push $(KCS32)
    pushfl
    orl $FL_NT, (%esp)
    popfl
    FAULTS "\name", TS, (\err), iretl
    pushfl
    andl $~FL_NT, (%esp)
    popfl
    add $4, %esp
    .endm
    IRET_NT "iret, link null", 0, 0
    IRET_NT "iret, link to data", KDS, KDS
    IRET_NT "iret, link to a TSS that is not busy", SEL(0), SEL(0)
    IRET_NT "iret, link past the GDT", 0x800, 0x800
    /* faults in the new task */
    GDT_SET SEL(11), $ts_tss, $103, A_TSS32
    .irp vec, TS, NP, SSF
    movl $(SEL(11) << 16), rt_idt32 + 8 * \vec
    movl $(G_TASK << 8), rt_idt32 + 8 * \vec + 4
    .endr
    mov %esp, ts_esp
    .macro NEW_TASK name, field, value, vec, err
    movl $ts_handler\vec, ts_tss + 32
    movl $1f, ts_back
    movl $stack2_top, ts_tss + 56
    movl $0, got_vec
    mov tss2 + \field, %ebx
    mov %ebx, saved_bx
    movl $(\value), tss2 + \field
    movl $unreached, tss2 + 32
    movl $2, tss2 + 36
    ljmp $SEL(0), $0
1:  EXPECT "\name: vector", got_vec, $\vec
    EXPECT "\name: error code", ts_err, $((\err)&0xFFFC)
    EXPECT_BITS "\name: the new task was interrupted", ts_tss, $0xFFFF, $SEL(0)
    mov %ebx, tss2 + \field
    andb $~2, rt_gdt + SEL(0) + 5
    andb $~2, rt_gdt + SEL(11) + 5
    andb $~2, rt_gdt + TSS32 + 5
    mov $TSS32, %eax
    ltr %ax
    .endm
    NEW_TASK "LDT is data", 96, KDS, 10, KDS
    NEW_TASK "LDT past the GDT", 96, 0x800, 10, 0x800
    NEW_TASK "cs is data", 76, KDS, 10, KDS
    NEW_TASK "cs is null", 76, 0, 10, 0
    NEW_TASK "cs: RPL is not DPL", 76, (KCS32|3), 10, KCS32
    NEW_TASK "cs not present", 76, SEL(7), 11, SEL(7)
    NEW_TASK "ss is null", 80, 0, 10, 0
    NEW_TASK "ss is code", 80, KCS32, 10, KCS32
    NEW_TASK "ss is read-only", 80, SEL(8), 10, SEL(8)
    NEW_TASK "ss: DPL", 80, UDS, 10, UDS
    NEW_TASK "ss not present", 80, SEL(6), 12, SEL(6)
    NEW_TASK "ds is a TSS", 84, TSS32, 10, TSS32
    NEW_TASK "ds not present", 84, SEL(6), 11, SEL(6)
    NEW_TASK "gs past the GDT", 92, 0x1000, 10, 0x1000
    DONE
unreached:
    UNREACHED "the new task ran"
    DONE
ts_handler10:
    movl $10, got_vec
    jmp ts_handler
ts_handler11:
    movl $11, got_vec
    jmp ts_handler
ts_handler12:
    movl $12, got_vec
ts_handler:
    popl ts_err
    clts
    pushfl
    andl $~FL_NT, (%esp)
    popfl
    mov ts_esp, %esp
    mov $UDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov saved_bx, %ebx
    jmp *ts_back

    .data
    .align 16
tss2: .long 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, stack3_top, 0, 0, 0
    .long KDS, KCS32, KDS, KDS, 0, 0, 0
    .word 0, 104
ts_tss: .long 0, 0, 0, 0, 0, 0, 0, 0, ts_handler, 2, 0, 0, 0, 0, stack2_top, 0, 0, 0
    .long KDS, KCS32, KDS, KDS, 0, 0, 0
    .word 0, 104
ts_esp: .long 0
ts_back: .long 0
ts_err: .long 0
got_vec: .long 0
saved_bx: .long 0
    .bss
    .skip 1024
stack2_top: .skip 1024
stack3_top: .skip 16
