/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IO-APIC with the PIT at pin 2 (edge) and the RTC at pin 8: version, ID and redirection registers,
 * delivery to the local APIC, mask, an edge while masked, logical destination, level-triggered RTC: remote
 * IRR, again after EOI while the line is up, registers that are not there.
 * Manual: Intel 82093AA data sheet; SDM 3A 10.8.5.
 */
#include "rt.h"

.macro REDIR pin, lo, hi=0
    mov $(0x11 + 2 * \pin), %edi
    mov $(\hi), %esi
    call rt_ioapic_write
    mov $(0x10 + 2 * \pin), %edi
    mov $(\lo), %esi
    call rt_ioapic_write
.endm
.macro REDIR_LO pin
    mov $(0x10 + 2 * \pin), %edi
    call rt_ioapic_read
.endm

TEST64 ioapic
    call rt_pic_init
    OUTB 0x21, $0xFF
    call rt_lapic_on
    movl $0x10000, LAPIC + 0x350
    HOOK 0x50, rt_count_apic
    HOOK 0x58, on_level
    mov $1, %edi
    call rt_ioapic_read
    EXPECT_BITS "24 pins", %rax, $0xFF0000, $0x170000
    REDIR 5, 0x1A0FF, 0x12000000
    REDIR_LO 5
    EXPECT "redirection entry reads back", %rax, $0x1A0FF
    mov $0x1B, %edi
    call rt_ioapic_read
    EXPECT "its upper half", %rax, $0x12000000
    REDIR 5, 0x10000
    REDIR 5, 0x15000
    REDIR_LO 5
    EXPECT_BITS "delivery status and remote IRR are read-only", %rax, $0x5000, $0
    REDIR 5, 0x10000
    /* edge: PIT */
    REDIR 2, 0x50
    mov $(2 << 1), %edi
    mov $11932, %esi
    call rt_pit0
    mov $0x50, %edi
    mov $5, %esi
    call rt_wait
    EXPECT "edge: five PIT interrupts", %rax, $5
    mov $0, %edi
    mov $0xFFFF, %esi
    call rt_pit0
    mov $70, %edi
    call rt_delay_ms
    REDIR 2, 0x10050
    mov $30, %edi
    sti
    call rt_delay_ms
    cli
    movl $0, rt_counts + 4 * 0x50
    mov $(2 << 1), %edi
    mov $11932, %esi
    call rt_pit0
    mov $50, %edi
    sti
    call rt_delay_ms
    cli
    EXPECT "masked: none", rt_counts+4*0x50, $0
    /* logical destination */
    movl $0xFFFFFFFF, LAPIC + 0xE0
    movl $0x04000000, LAPIC + 0xD0
    REDIR 2, 0x850, 0x04000000
    mov $0x50, %edi
    mov $2, %esi
    call rt_wait
    EXPECT "logical destination", %rax, $2
    REDIR 2, 0x850, 0x08000000
    movl $0, rt_counts + 4 * 0x50
    mov $50, %edi
    sti
    call rt_delay_ms
    cli
    mov rt_counts + 4 * 0x50, %eax
    cmp $2, %eax
    setb %al
    movzbl %al, %eax
    EXPECT "another logical destination: none", %rax, $1
    REDIR 2, 0x10000
    /* level: the RTC's line stays up until register C is read */
    call rtc_ack
    REDIR 8, 0x8058
    OUTB 0x70, $0x0A
    OUTB 0x71, $0x26
    OUTB 0x70, $0x0B
    OUTB 0x71, $0x42
    mov $0x58, %edi
    mov $1, %esi
    call rt_wait
    sti
    mov $20, %edi
    call rt_delay_ms
    cli
    EXPECT "level: one, as there was no EOI", rt_counts+4*0x58, $1
    REDIR_LO 8
    EXPECT_BITS "remote IRR", %rax, $0x4000, $0x4000
    mov LAPIC + 0x180 + 0x20, %eax
    EXPECT_BITS "TMR", %rax, $0x1000000, $0x1000000
    /* EOI with the line up: at once again */
    movl $0, LAPIC + 0xB0
    mov $0x58, %edi
    mov $2, %esi
    call rt_wait
    EXPECT "EOI with the line up: again", rt_counts+4*0x58, $2
    /* line down, EOI: quiet */
    OUTB 0x70, $0x0B
    OUTB 0x71, $0x02
    call rtc_ack
    movl $0, LAPIC + 0xB0
    sti
    mov $10, %edi
    call rt_delay_ms
    cli
    EXPECT "line down: quiet", rt_counts+4*0x58, $2
    REDIR_LO 8
    EXPECT_BITS "remote IRR is clear", %rax, $0x4000, $0
    REDIR 8, 0x10000
    /* a register that is not there */
    mov $0x50, %edi
    call rt_ioapic_read
    NOFAULT "a register that is not there", call rt_ioapic_read
    DONE

on_level:   /* no EOI */
    jmp rt_count
rtc_ack:
    OUTB 0x70, $0x0C
    INB 0x71
    ret
