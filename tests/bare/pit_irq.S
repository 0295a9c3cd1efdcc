/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channel 0 of the PIT through the PIC: mode 2 and mode 3 give the programmed number of interrupts in a
 * given time of the TSC, mode 0 one; mode 4 one strobe.
 * Manual: Intel 8254 data sheet; 8259A data sheet.
 */
#include "rt.h"

/* About \n interrupts (70 % to 130 %) in 200 ms; tried twenty times, as the host may be busy. */
.macro RATE name, mode, count, n
    mov $20, %r13d
1:  mov $(\mode << 1), %edi
    mov $\count, %esi
    call rt_pit0
    movl $0, rt_counts + 4 * 0x20
    mov $200, %edi
    sti
    call rt_delay_ms
    cli
    mov rt_counts + 4 * 0x20, %eax
    mov %eax, %ebx
    sub $(\n * 7 / 10), %eax
    cmp $(\n * 6 / 10), %eax
    jbe 2f
    dec %r13d
    jnz 1b
    EXPECT "\name: interrupts in 200 ms", %rbx, $\n
    jmp 3f
2:  EXPECT "\name", $0, $0
3:
.endm

TEST64 pit_irq
    call rt_lapic_on
    call rt_pic_init
    HOOK 0x20, rt_count_pic
    mov $0xFFFA, %edi
    call rt_pic_mask
    RATE "mode 2, 100 Hz", 2, 11932, 20
    RATE "mode 3, 100 Hz", 3, 11932, 20
    RATE "mode 2, 40 Hz", 2, 29830, 8
    .macro ONCE name, mode
    mov $(\mode << 1), %edi
    mov $1193, %esi
    call rt_pit0
    movl $0, rt_counts + 4 * 0x20
    mov $0x20, %edi
    mov $1, %esi
    call rt_wait
    mov $50, %edi
    sti
    call rt_delay_ms
    cli
    EXPECT "\name", rt_counts+4*0x20, $1
    .endm
    /* the last edge of mode 2 may still be on its way */
    mov $0, %edi
    mov $0xFFFF, %esi
    call rt_pit0
    mov $150, %edi
    sti
    call rt_delay_ms
    cli
    ONCE "mode 0: one interrupt", 0
    ONCE "mode 4: one strobe", 4
    DONE
