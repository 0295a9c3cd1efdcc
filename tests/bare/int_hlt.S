/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HLT: left by the local APIC timer (one-shot and periodic) and by the PIT through the PIC; the saved RIP
 * is behind HLT; the same from compatibility mode.
 * Manual: SDM 2A HLT.
 */
#include "rt.h"

#define V 0x40
TEST64 int_hlt
    call rt_lapic_on
    call rt_pic_init
    HOOK V, on_irq
    HOOK 0x20, on_pic
    movl $0xB, LAPIC + 0x3E0        /* divide by 1 */
    movl $V, LAPIC + 0x320
    movl $3000000, LAPIC + 0x380
    sti
    hlt
1:  cli
    EXPECT "the APIC timer wakes it", rt_counts+4*V, $1
    EXPECT "rip is behind hlt", irq_rip, $1b
    /* the PIT */
    movl $0x10000, LAPIC + 0x320
    mov $0xFFFE, %edi
    call rt_pic_mask
    mov $0, %edi
    mov $20000, %esi
    call rt_pit0
    sti
    hlt
2:  cli
    EXPECT "the PIT wakes it", rt_counts+4*0x20, $1
    EXPECT "rip is behind hlt", irq_rip, $2b
    mov $0xFFFF, %edi
    call rt_pic_mask
    /* HLT in a loop that waits for three more */
    movl $V | 0x20000, LAPIC + 0x320        /* periodic */
    movl $3000000, LAPIC + 0x380
3:  sti
    hlt
    cli
    cmpl $4, rt_counts + 4 * V
    jb 3b
    movl $0, LAPIC + 0x380
    EXPECT "three more", $0, $0
    sti                         /* one may be pending */
    nop
    nop
    cli
    movl $0, rt_counts + 4 * V
    movl $V, LAPIC + 0x320
    COMPAT
    movl $3000000, LAPIC + 0x380
    sti
    hlt
4:  cli
    EXPECT "from compatibility mode", rt_counts+4*V, $1
    EXPECT "rip is behind hlt", irq_rip, $4b
    COMPAT_END
    DONE

on_irq:
    mov 17*8(%rdi), %rcx
    mov %rcx, irq_rip
    jmp rt_count_apic
on_pic:
    mov 17*8(%rdi), %rcx
    mov %rcx, irq_rip
    jmp rt_count_pic
    .bss
irq_rip: .skip 8
