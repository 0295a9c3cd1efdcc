/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CR0.NE = 0: an unmasked x87 exception does not raise #MF but, at the next waiting instruction, IRQ 13
 * through the second PIC; writing port 0xF0 clears the request (IGNNE#).
 * Manual: SDM 1 8.7.2; 3A 2.5 (NE).
 * qemu: differs: TCG of 7.2 ends itself with a failed assertion
 */
#include "rt.h"

TEST64 fpu_irq13
    call rt_lapic_on
    call rt_pic_init
    HOOK 0x2D, on_irq13
    mov $0xDFFB, %edi
    call rt_pic_mask
    CR_CLEAR cr0, CR0_NE
    fninit
    fldcw cw_zm
    fld1
    fldz
    fdivrp
    sti
    ARM 1f
    fwait
    mov $0x2D, %edi
    mov $1, %esi
    call rt_wait
    DISARM
1:  cli
    EXPECT "no #MF", x_vec, $-1
    EXPECT "IRQ 13", rt_counts+4*0x2D, $1
    fnclex
    DONE
on_irq13:
    call rt_count
    mov $0, %al
    out %al, $0xF0
    fnclex
    mov $0x20, %al
    out %al, $0xA0
    out %al, $0x20
    ret
    .data
cw_zm: .word 0x37B
