/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 64-bit call gates (16 bytes): from ring 3 through RSP0 with four 8-byte slots and SS null in ring 0,
 * RETFQ back, from compatibility mode, without a change of ring; the target must be 64-bit code; the type
 * of the upper half must be 0; a non-canonical offset is #GP.
 * Manual: SDM 3A 5.8.3.1, 5.8.5.1; 2A CALL.
 * qemu: differs (a non-canonical offset): the fault is at the target
 */
#include "rt.h"

TEST64 gate_call64
    CALLGATE_SET SEL(0), KCS64, $target, (G_CALL64|A_DPL3)
    CALLGATE_SET SEL(2), KCS32, $target, (G_CALL64|A_DPL3)
    CALLGATE_SET SEL(4), KCS64, $target, G_CALL64
    CALLGATE_SET SEL(6), KCS64, $target, (G_CALL64|A_DPL3)
    movl $0x0C00, rt_gdt + SEL(7) + 4
    CALLGATE_SET SEL(8), KCS64, $target, (G_CALL64|A_DPL3)
    movl $0x8000, rt_gdt + SEL(9)
    CALLGATE_SET SEL(10), KCS64, $target, (0x0C|A_DPL3)
    mov %rsp, %rbx
    .macro GATE sel
    movl $0, rt_buf
    movw $(\sel), rt_buf + 4
    .endm
    GATE SEL(0)
    lcall *rt_buf
    EXPECT "same ring: two slots", %rsi, "$-16"
    mov %rsp, %rax
    EXPECT "same ring: rsp is back", %rax, %rbx
    USER
    GATE SEL(0)
    lcall *rt_buf
    EXPECT "from ring 3: cs", %rbp, $KCS64
    EXPECT "ss is null", %rdx, $0
    EXPECT "rsp: four slots of RSP0's stack", %rdi, $(rt_stack0_top-32)
    EXPECT "saved cs", rt_buf+24, $UCS64
    EXPECT "saved rsp", rt_buf+32, %rbx
    EXPECT "saved ss", rt_buf+40, $UDS
    mov %rsp, %rax
    EXPECT "rsp is back", %rax, %rbx
    GATE SEL(2)
    FAULTS "gate to 32-bit code", GP, KCS32, lcall *rt_buf
    GATE SEL(4)
    FAULTS "gate of DPL 0", GP, SEL(4), lcall *rt_buf
    GATE SEL(6)
    FAULTS "the type of the upper half", GP, SEL(6), lcall *rt_buf
    GATE SEL(8)
    FAULTS "a non-canonical offset", GP, 0, lcall *rt_buf
    GATE SEL(10)
    FAULTS "not present", NP, SEL(10), lcall *rt_buf
    GATE SEL(0)
    FAULTS "jump through a gate to an inner ring", GP, KCS64, ljmp *rt_buf
    GATE 0x7F8
    FAULTS "a gate whose upper half is past the GDT", GP, 0x7F8, lcall *rt_buf
    KERNEL
    USER32
    mov %esp, %ebx
    lcall $SEL(0), $0
    EXPECT "from compatibility mode: cs", %ebp, $KCS64
    EXPECT "saved cs of compatibility mode", rt_buf+24, $UCS32
    mov %esp, %eax
    EXPECT "esp is back", %eax, %ebx
    KERNEL64
    DONE

target:
    mov %rsp, %rsi
    mov %rsp, %rdi
    sub %rbx, %rsi
    mov %ss, %edx
    mov %cs, %ebp
    mov (%rsp), %rax
    mov %rax, rt_buf + 16
    mov 8(%rsp), %rax
    mov %rax, rt_buf + 24
    mov 16(%rsp), %rax
    mov %rax, rt_buf + 32
    mov 24(%rsp), %rax
    mov %rax, rt_buf + 40
    lretq
