/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit call gates: from ring 3 with a change of stack and copied parameters, RETF n back, without a
 * change of ring, to conforming code, 16-bit gates, JMP through a gate; checks: DPL against CPL and RPL,
 * not present, target null, data, not present; the new stack's segment in the TSS: #TS.
 * Manual: SDM 3A 5.8.2 to 5.8.6; 2A CALL.
 * qemu: differs (gate to conforming code: no change of ring): TCG takes the DPL of the target as the new CPL
 */
#include "rt.h"

TEST32 gate_call32
    CALLGATE_SET SEL(0), KCS32, $target, (G_CALL32|A_DPL3), 3
    CALLGATE_SET SEL(1), KCS32, $target, G_CALL32, 0            /* DPL 0 */
    CALLGATE_SET SEL(2), 0, $target, (G_CALL32|A_DPL3), 0
    CALLGATE_SET SEL(3), KDS, $target, (G_CALL32|A_DPL3), 0
    CALLGATE_SET SEL(4), UCS32, $target_conf, (G_CALL32|A_DPL3), 0
    CALLGATE_SET SEL(5), KCS32, $target, (0x0C|A_DPL3), 0       /* not present */
    CALLGATE_SET SEL(6), KCS32, $target_same, (G_CALL32|A_DPL3), 2
    GDT_SET SEL(7), $0, $0xFFFFF, 0xC9F                         /* conforming */
    CALLGATE_SET SEL(8), SEL(7), $target_conf, (G_CALL32|A_DPL3), 0
    CALLGATE_SET SEL(10), 0x803, $target, (G_CALL32|A_DPL3), 0
    /* no change of ring: nothing is copied */
    mov %esp, %ebx
    push $1
    push $2
    mov %esp, %ebp
    lcall $SEL(6), $0xDEADBEEF
    EXPECT "same ring: no copy, two slots pushed", %eax, $8
    mov %ebx, %esp
    ljmp $SEL(6), $0
after_jump:
    EXPECT "jump through a gate", $0, $0
    FAULTS "a gate to outer code from ring 0", GP, (UCS32&~3), lcall $SEL(4), $0
    FAULTS "gate RPL 3 > DPL 0", GP, SEL(1), lcall $(SEL(1)|3), $0
    USER
    mov %esp, %ebx
    push $0x33
    push $0x22
    push $0x11
    lcall $SEL(0), $0
    EXPECT "from ring 3: cs", %ebp, $KCS32
    EXPECT "ss is that of the TSS", %edx, $KDS
    EXPECT "esp: four slots and three parameters below the TSS's", %esi, $(rt_stack0_top-28)
    EXPECT "parameter 1", rt_buf+8, $0x11
    EXPECT "parameter 3", rt_buf+16, $0x33
    EXPECT "saved cs", rt_buf+4, $UCS32
    lea -12(%ebx), %eax
    EXPECT "saved esp", rt_buf+20, %eax
    EXPECT "saved ss", rt_buf+24, $UDS
    mov %esp, %eax
    EXPECT "RETF 12 drops the parameters on both stacks", %eax, %ebx
    mov %cs, %eax
    EXPECT "back in ring 3", %eax, $UCS32
    lcall $SEL(8), $0
    EXPECT "gate to conforming code: no change of ring", %eax, $(SEL(7)|3)
    FAULTS "gate of DPL 0", GP, SEL(1), lcall $SEL(1), $0
    FAULTS "gate with a null target", GP, 0, lcall $SEL(2), $0
    FAULTS "gate to data", GP, KDS, lcall $SEL(3), $0
    FAULTS "gate not present", NP, SEL(5), lcall $SEL(5), $0
    FAULTS "gate to a selector past the GDT", GP, 0x800, lcall $SEL(10), $0
    FAULTS "jump through a gate to an inner ring", GP, KCS32, ljmp $SEL(0), $0
    NOFAULT "gate to ring 3 code", lcall $SEL(4), $0
    KERNEL
    /* the stack in the TSS is bad: an interrupt could not come in either, so #TS goes through a task gate */
    GDT_SET SEL(11), $ts_tss, $103, A_TSS32
    GDT_SET SEL(12), $0, $0xFFFFF, 0xC13    /* stack not present */
    movl $0, rt_idt32 + 8 * TS
    movl $(SEL(11) << 16), rt_idt32 + 8 * TS
    movl $(G_TASK << 8), rt_idt32 + 8 * TS + 4
    mov rt_idt32 + 8 * TS, %eax
    mov %eax, rt_idt32 + 8 * SSF
    movl $(G_TASK << 8), rt_idt32 + 8 * SSF + 4
    mov %esp, ts_esp
    .macro BAD_STACK name, ss, err
    movl $(\ss), rt_tss32 + 8
    movl $1f, ts_back
    movl $ts_handler, ts_tss + 32
    andb $~2, rt_gdt + SEL(11) + 5
    USER
    lcall $SEL(0), $0
1:  EXPECT "\name: error code", ts_err, $(\err)
    .endm
    BAD_STACK "ss null: #TS(0)", 0, 0
    BAD_STACK "ss of DPL 3: #TS", UDS, 0x50
    BAD_STACK "ss RPL 3: #TS", (KDS|3), KDS
    BAD_STACK "ss a code segment: #TS", KCS32, KCS32
    BAD_STACK "ss past the GDT: #TS", 0x1000, 0x1000
    BAD_STACK "ss not present: #SS", SEL(12), SEL(12)
    movl $KDS, rt_tss32 + 8
    DONE

target:
    mov %esp, %esi
    mov %ss, %edx
    mov %cs, %ebp
    mov $KDS, %ecx
    mov %ecx, %es
    cld
    push %esi
    mov $rt_buf, %edi
    mov $7, %ecx
    rep movsl
    pop %esi
    mov $UDS, %ecx
    mov %ecx, %es
    lret $12
target_same:
    mov %ebp, %eax
    sub %esp, %eax
    cmp $8, %eax
    jne after_jump
    lret
target_conf:
    mov %cs, %eax
    lret
/* A task of its own: notes the error code and leaves the interrupted task for good. */
ts_handler:
    popl ts_err
    clts
    pushfl
    andl $~FL_NT, (%esp)
    popfl
    andb $~2, rt_gdt + TSS32 + 5
    mov $TSS32, %eax
    ltr %ax
    mov ts_esp, %esp
    mov $UDS, %eax
    mov %eax, %ds
    mov %eax, %es
    jmp *ts_back

    .data
    .align 16
ts_tss: .long 0, 0, 0, 0, 0, 0, 0, 0, ts_handler, 2, 0, 0, 0, 0, ts_stack_top, 0, 0, 0
    .long KDS, KCS32, KDS, KDS, 0, 0, 0
    .word 0, 104
ts_esp: .long 0
ts_back: .long 0
ts_err: .long 0
    .bss
    .skip 1024
ts_stack_top: .skip 16
