/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit interrupts and rings: stack switch through the TSS, the frame, interrupt against trap gate,
 * conforming handlers, a 16-bit gate from ring 3, handlers in ring 1 and 2 with their stacks, task state of
 * segment registers, IRET to an outer ring and its checks, NT.
 * Manual: SDM 3A 6.12.1; 2A INT n, IRET.
 */
#include "rt.h"

TEST_LOW gate_int_ring
    USER
    mov %esp, %ebx
    TRAPS "int 0x81 from ring 3", 0x81, 0, int $0x81
    EXPECT "saved cs", x_cs, $UCS32
    EXPECT "saved ss", x_ss, $UDS
    EXPECT "saved esp", x_rsp, %ebx
    EXPECT "cs of the handler", x_hcs, $KCS32
    EXPECT "ss of the handler", x_hss, $KDS
    EXPECT "five slots on ring 0's stack", x_frame, $(rt_stack0_top-20)
    FAULTS "with an error code", GP, 0, hlt
    EXPECT "six slots on ring 0's stack", x_frame, $(rt_stack0_top-24)
    KERNEL
    /* trap gate, conforming handler */
    IDT_SET 0x86, KCS32, $flags_handler, (G_TRAP32|A_DPL3)
    IDT_SET 0x87, KCS32, $flags_handler, (G_INT32|A_DPL3)
    GDT_SET SEL(0), $0, $0xFFFFF, 0xC9F
    IDT_SET 0x88, SEL(0), $conf_handler, (G_INT32|A_DPL3)
    GDT_SET SEL(1), $0, $0xFFFFF, 0xCBB     /* ring 1 code */
    GDT_SET SEL(2), $0, $0xFFFFF, 0xCB3     /* ring 1 data */
    IDT_SET 0x89, SEL(1), $ring1_handler, (G_INT32|A_DPL3)
    IDT_SET 0x8A, UCS32, $ring1_handler, (G_INT32|A_DPL3)
    movl $rt_stack1_top, rt_tss32 + 12
    movl $SEL(2) | 1, rt_tss32 + 16
    pushfl
    orl $FL_IF, (%esp)
    popfl
    int $0x86
    EXPECT_BITS "trap gate keeps IF", %eax, $FL_IF, $FL_IF
    int $0x87
    EXPECT_BITS "interrupt gate clears IF", %eax, $FL_IF, $0
    EXPECT_FLAGS "iret brings IF back", FL_IF, FL_IF
    cli
    USER
    int $0x86
    EXPECT_BITS "trap gate from ring 3", %eax, $FL_IF, $0
    mov %esp, %ebx
    int $0x88
    EXPECT "conforming handler: ring 3", %eax, $(SEL(0)|3)
    sub %esp, %ecx
    EXPECT "conforming handler: the same stack, three slots", %ecx, $-12
    int $0x89
    EXPECT "handler in ring 1: cs", %eax, $(SEL(1)|1)
    EXPECT "handler in ring 1: ss", %edx, $(SEL(2)|1)
    EXPECT "handler in ring 1: esp", %ecx, $(rt_stack1_top-20)
    int $0x8A
    EXPECT "handler in ring 3", %eax, $UCS32
    KERNEL
    FAULTS "a gate to ring 3 from ring 0", GP, (UCS32&~3), int $0x8A
    FAULTS "a gate to ring 1 from ring 0", GP, SEL(1), int $0x89
    /* a 16-bit gate from ring 3 */
    IDT_SET 0x86, KCS32, $handler16, (G_INT16|A_DPL3)
    USER
    int $0x86
    movzwl %ax, %eax
    EXPECT "16-bit gate: cs", %eax, $UCS32
    EXPECT "16-bit gate: five words", %ecx, $(rt_stack0_top-10)
    KERNEL
    /* IRET: checks */
    mov %esp, %ebx
    .macro IRET_BAD name, cs, ss, vec, err, eip=1f
    push $(\ss)
    push %ebx
    pushfl
    push $(\cs)
    push $\eip
    FAULTS "\name", \vec, \err, iretl
    mov %ebx, %esp
    .endm
    IRET_BAD "iret to null", 0, UDS, GP, 0
    IRET_BAD "iret to data", UDS, UDS, GP, 0x50
    IRET_BAD "iret, RPL 3, DPL 0", (KCS32|3), UDS, GP, KCS32
    IRET_BAD "iret outwards, ss null", UCS32, 0, GP, 0
    IRET_BAD "iret outwards, ss of DPL 0", UCS32, KDS, GP, KDS
    IRET_BAD "iret outwards, ss code", UCS32, UCS32, GP, 0x48
    USER
    pushfl
    push $KCS32
    push $1f
    FAULTS "iret inwards", GP, KCS32, iretl
    add $12, %esp
    /* IRET in ring 3 changes neither IOPL nor IF */
    pushfl
    orl $0x3200, (%esp)
    push $UCS32
    push $2f
    iretl
2:  EXPECT_FLAGS "iret in ring 3 keeps IOPL and IF", 0x3200, 0
    KERNEL
    /* outwards: data segments */
    mov $KDS, %eax
    mov %eax, %fs
    mov $UDS, %eax
    mov %eax, %gs
    USER
    mov %fs, %eax
    EXPECT "iret outwards nulls fs of DPL 0", %eax, $0
    mov %gs, %eax
    EXPECT "and keeps gs of DPL 3", %eax, $UDS
    KERNEL
    DONE
1:  UNREACHED "the code behind"
    DONE

flags_handler:
    pushfl
    pop %eax
    iretl
conf_handler:
    mov %cs, %eax
    mov %esp, %ecx
    iretl
ring1_handler:
    mov %cs, %eax
    mov %ss, %edx
    mov %esp, %ecx
    iretl
handler16:
    movw 2(%esp), %ax
    mov %esp, %ecx
    iretw
