/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC priorities: pending vectors come highest first, TPR and CR8 mask by class, PPR, IRR and ISR, a
 * higher one interrupts the handler of a lower, EOI retires the highest in service, self-IPIs of each
 * vector from 16 on, the illegal-vector error below 16.
 * Manual: SDM 3A 10.8.3, 10.8.4, 10.8.6, 10.5.3.
 * qemu: differs (CR8 reserved bits): TCG does not check
 * qemu: differs (CR8 upper half): TCG does not check
 * qemu: differs (ESR: illegal vector sent): the APIC model has no such error
 * qemu: differs (disabled: they stay masked): the APIC model lets them be unmasked
 */
#include "rt.h"

.macro SELF vec
    movl $(0x40000 | (\vec)), LAPIC + 0x300
.endm
.macro WINDOW
    sti
    nop
    nop
    cli
.endm

TEST64 int_prio
    call rt_lapic_on
    mov $0x30, %ecx
1:  movl $rt_count_apic, rt_hooks(,%rcx,4)
    inc %ecx
    cmp $0x100, %ecx
    jb 1b
    SELF 0x41
    SELF 0x93
    SELF 0x42
    SELF 0x51
    mov LAPIC + 0x220, %eax
    EXPECT "IRR 0x40 to 0x5F", %rax, $0x20006
    mov LAPIC + 0x240, %eax
    EXPECT "IRR 0x80 to 0x9F", %rax, $0x80000
    sti
    nop
    nop
    nop
    nop
    nop
    nop
    cli
    mov rt_log, %eax
    EXPECT "highest first", %rax, $0x41425193
    EXPECT "four of them", rt_log_n, $4
    /* TPR */
    movl $0x50, LAPIC + 0x80
    mov %cr8, %rax
    EXPECT "CR8 is TPR's class", %rax, $5
    SELF 0x51
    SELF 0x5F
    WINDOW
    EXPECT "class 5 is masked by TPR 0x50", rt_log_n, $4
    SELF 0x60
    WINDOW
    EXPECT "class 6 is not", rt_counts+4*0x60, $1
    mov LAPIC + 0xA0, %eax
    EXPECT "PPR", %rax, $0x50
    mov $4, %eax
    mov %rax, %cr8
    mov LAPIC + 0x80, %eax
    EXPECT "writing CR8 sets TPR", %rax, $0x40
    sti
    nop
    nop
    nop
    cli
    EXPECT "now both come", rt_log_n, $7
    mov $15, %eax
    mov %rax, %cr8
    SELF 0xFE
    WINDOW
    EXPECT "CR8 = 15 masks all", rt_log_n, $7
    xor %eax, %eax
    mov %rax, %cr8
    WINDOW
    EXPECT "CR8 = 0 lets it in", rt_counts+4*0xFE, $1
    mov $16, %eax
    FAULTS "CR8 reserved bits", GP, 0, mov %rax, %cr8
    mov $1, %eax
    shl $32, %rax
    FAULTS "CR8 upper half", GP, 0, mov %rax, %cr8
    /* nesting */
    movl $0, rt_log_n
    HOOK 0x61, nest
    SELF 0x61
    WINDOW
    EXPECT "nested: 0x61 began, 0x71 came inside, 0x62 of the same class waited", rt_log_n, $3
    EXPECT_BITS "nested: order", rt_log, $0xFFFFFF, $0x627161
    EXPECT "in the handler: ISR", isr, $2
    EXPECT "in the handler: PPR", ppr, $0x60
    /* the same vector twice while pending is one interrupt; once in service one more can wait */
    movl $0, rt_counts + 4 * 0x45
    SELF 0x45
    SELF 0x45
    sti
    nop
    nop
    nop
    nop
    cli
    EXPECT "twice pending is once", rt_counts+4*0x45, $1
    /* vector below 16 */
    movl $0, LAPIC + 0x280
    movl $0, LAPIC + 0x280
    SELF 5
    movl $0, LAPIC + 0x280
    mov LAPIC + 0x280, %eax
    EXPECT_BITS "ESR: illegal vector sent", %rax, $0x20, $0x20
    /* software disable: SVR bit 8 */
    movl $0xFF, LAPIC + 0xF0
    mov LAPIC + 0x320, %eax
    EXPECT_BITS "disabled: LVTs are masked", %rax, $0x10000, $0x10000
    movl $0x31, LAPIC + 0x320
    mov LAPIC + 0x320, %eax
    EXPECT_BITS "disabled: they stay masked", %rax, $0x10000, $0x10000
    DONE

nest:
    call rt_count
    mov LAPIC + 0x130, %eax
    mov %rax, isr
    mov LAPIC + 0xA0, %eax
    mov %rax, ppr
    movl $(0x40000 | 0x62), LAPIC + 0x300
    movl $(0x40000 | 0x71), LAPIC + 0x300
    sti
    nop
    nop
    nop
    cli
    movl $0, LAPIC + 0xB0
    ret
    .bss
isr: .skip 8
ppr: .skip 8
