/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818 RTC: periodic interrupt at its rates through IRQ 8, register C (flags, cleared by the read),
 * update-ended interrupt and UIP, alarm each second, BCD and binary, CMOS memory; bit 7 of port 0x70 is not
 * part of the index.
 * Manual: Motorola MC146818A data sheet.
 * timeout: 90
 */
#include "rt.h"

.macro RTC_GET reg
    OUTB 0x70, $\reg
    INB 0x71
    movzbl %al, %eax
.endm
.macro RTC_SET reg, val
    OUTB 0x70, $\reg
    OUTB 0x71, $\val
.endm

TEST64 rtc
    call rt_lapic_on
    call rt_pic_init
    HOOK 0x28, on_rtc
    mov $0xFEFB, %edi
    call rt_pic_mask
    RTC_GET 0x0D
    EXPECT_BITS "valid RAM and time", %rax, $0x80, $0x80
    RTC_GET 0x0A
    EXPECT_BITS "the oscillator runs", %rax, $0x70, $0x20
    RTC_SET 0x40, 0x5A
    RTC_GET 0x40
    EXPECT "memory", %rax, $0x5A
    RTC_GET 0xC0
    EXPECT "bit 7 of the index is the NMI mask", %rax, $0x5A
    RTC_GET 0x40
    /* periodic interrupts in 200 ms; tried twenty times, as the host may be busy */
    .macro RATE name, sel, n
    mov $20, %r13d
1:  RTC_SET 0x0A, (0x20|\sel)
    RTC_GET 0x0C
    movl $0, rt_counts + 4 * 0x28
    RTC_SET 0x0B, 0x42
    sti
    mov $200, %edi
    call rt_delay_ms
    cli
    RTC_SET 0x0B, 0x02
    mov rt_counts + 4 * 0x28, %eax
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
    RATE "64 Hz", 10, 13
    RATE "32 Hz", 11, 6
    EXPECT_BITS "register C in the handler: IRQF and PF", last_c, $0xC0, $0xC0
    mov $20, %r13d          /* several tries: the flags go on being set */
1:  RTC_GET 0x0C
    RTC_GET 0x0C
    test $0xF0, %al
    jz 2f
    dec %r13d
    jnz 1b
2:  EXPECT_BITS "register C is clear after a read", %rax, $0xF0, $0
    /* update-ended, once a second */
    RTC_SET 0x0B, 0x12
    movl $0, rt_counts + 4 * 0x28
    mov $0x28, %edi
    mov $1, %esi
    call rt_wait
    EXPECT "update-ended interrupt", %rax, $1
    EXPECT_BITS "register C: UF", last_c, $0x90, $0x90
    RTC_GET 0x00
    mov %eax, %ebx
    movl $0, rt_counts + 4 * 0x28
    mov $1, %esi
    mov $0x28, %edi
    call rt_wait
    RTC_GET 0x00
    cmp %eax, %ebx
    setne %al
    movzbl %al, %eax
    EXPECT "the seconds go on", %rax, $1
    RTC_SET 0x0B, 0x02
    /* alarm: any second, minute and hour */
    RTC_SET 0x01, 0xFF
    RTC_SET 0x03, 0xFF
    RTC_SET 0x05, 0xFF
    sti                     /* one that the PIC still holds */
    nop
    nop
    cli
    RTC_GET 0x0C
    movl $0, rt_counts + 4 * 0x28
    RTC_SET 0x0B, 0x22
    mov $0x28, %edi
    mov $1, %esi
    call rt_wait
    EXPECT "alarm", %rax, $1
    RTC_SET 0x0B, 0x02
    EXPECT_BITS "register C: AF", last_c, $0xA0, $0xA0
    /* BCD and binary */
    RTC_SET 0x0B, 0x82      /* SET: no updates */
    RTC_SET 0x02, 0x45
    RTC_GET 0x02
    EXPECT "minutes hold what is written", %rax, $0x45
    RTC_SET 0x0B, 0x86
    RTC_SET 0x02, 37
    RTC_GET 0x02
    EXPECT "binary minutes", %rax, $37
    DONE
on_rtc:
    RTC_GET 0x0C
    mov %rax, last_c
    mov $0x28, %eax
    jmp rt_count_pic
    .bss
last_c: .skip 8
