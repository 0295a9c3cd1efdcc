/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 8259 pair with IRQ 0 of the PIT and the RTC's IRQ 8: IMR, IRR and ISR by OCW3, specific and
 * non-specific EOI, auto EOI, vector bases, priority (a lower one waits while a higher is in service),
 * rotation, special mask mode, poll, spurious IRQ 7 with an empty ISR, the cascade.
 * Manual: Intel 8259A data sheet.
 */
#include "rt.h"

.macro OCW3 port, reg /* AL: IRR (0x0A) or ISR (0x0B) */
    OUTB \port, $\reg
    INB \port
    movzbl %al, %eax
.endm
/* IRQ 0 becomes pending: PIT mode 0. */
.macro IRQ0
    call irq0
.endm
.macro RTC_IRQ
    call rtc_irq
.endm
.macro WINDOW
    sti
    nop
    nop
    cli
.endm

TEST64 pic
    call rt_lapic_on
    call rt_pic_init
    HOOK 0x20, rt_count
    HOOK 0x28, rt_count
    HOOK 0x27, rt_count
    /* masked: IRR shows it, nothing comes */
    call irq0_low
    OUTB 0x21, $0xFF
    IRQ0
    WINDOW
    EXPECT "masked", rt_counts+4*0x20, $0
    OCW3 0x20, 0x0A
    EXPECT_BITS "IRR shows it", %rax, $1, $1
    OUTB 0x21, $0xFA
    INB 0x21
    movzbl %al, %eax
    EXPECT "IMR reads back", %rax, $0xFA
    WINDOW
    EXPECT "unmasked", rt_counts+4*0x20, $1
    OCW3 0x20, 0x0B
    EXPECT "ISR", %rax, $1
    OCW3 0x20, 0x0A
    EXPECT_BITS "IRR is clear (edge)", %rax, $1, $0
    /* in service: no lower one, and not itself again */
    call irq0_low
    IRQ0
    WINDOW
    EXPECT "not again while in service", rt_counts+4*0x20, $1
    OUTB 0x20, $0x20
    OCW3 0x20, 0x0B
    EXPECT "EOI clears ISR", %rax, $0
    WINDOW
    EXPECT "then it comes", rt_counts+4*0x20, $2
    /* IRQ 8 through the cascade has a lower priority than IRQ 0 and waits */
    OUTB 0xA1, $0xFE
    RTC_IRQ
    WINDOW
    EXPECT "IRQ 8 waits for IRQ 0", rt_counts+4*0x28, $0
    OUTB 0x20, $0x60            /* specific EOI of IRQ 0 */
    WINDOW
    EXPECT "IRQ 8 after a specific EOI", rt_counts+4*0x28, $1
    OCW3 0x20, 0x0B
    EXPECT "ISR of the master: the cascade", %rax, $4
    OCW3 0xA0, 0x0B
    EXPECT "ISR of the slave", %rax, $1
    /* IRQ 0 interrupts IRQ 8 */
    call irq0_low
    IRQ0
    WINDOW
    EXPECT "IRQ 0 comes while IRQ 8 is in service", rt_counts+4*0x20, $3
    OCW3 0x20, 0x0B
    EXPECT "both in service", %rax, $5
    OUTB 0x20, $0x20
    OCW3 0x20, 0x0B
    EXPECT "non-specific EOI ends the highest", %rax, $4
    OUTB 0xA0, $0x20
    OUTB 0x20, $0x20
    OCW3 0x20, 0x0B
    EXPECT "all done", %rax, $0
    call rtc_ack
    /* special mask mode: with IRQ 0 in service and masked, lower ones come */
    OUTB 0xA1, $0xFE
    call irq0_low
    IRQ0
    WINDOW
    EXPECT "IRQ 0 in service", rt_counts+4*0x20, $4
    OUTB 0x20, $0x68
    OUTB 0x21, $0xFB
    RTC_IRQ
    WINDOW
    EXPECT "special mask mode lets IRQ 8 in", rt_counts+4*0x28, $2
    OUTB 0x20, $0x48
    OUTB 0xA0, $0x20
    OUTB 0x20, $0x62
    OUTB 0x20, $0x60
    call rtc_ack
    OUTB 0x21, $0xFA
    OCW3 0x20, 0x0B
    EXPECT "nothing in service", %rax, $0
    /* rotation: after IRQ 0 with rotate-on-EOI, IRQ 0 is lowest: IRQ 8 (cascade, 2) goes first */
    call irq0_low
    IRQ0
    WINDOW
    OUTB 0x20, $0xA0
    call irq0_low
    IRQ0
    RTC_IRQ
    movl $0, rt_log_n
    WINDOW
    EXPECT_BITS "rotated: IRQ 8 before IRQ 0", rt_log, $0xFF, $0x28
    OUTB 0xA0, $0x20
    OUTB 0x20, $0x20
    WINDOW
    EXPECT_BITS "then IRQ 0", rt_log, $0xFFFF, $0x2028
    OUTB 0x20, $0x20
    OUTB 0x20, $0xC7            /* lowest: 7, the usual order */
    call rtc_ack
    /* poll */
    call irq0_low
    IRQ0
    OUTB 0x20, $0x0C
    INB 0x20
    movzbl %al, %eax
    EXPECT_BITS "poll: IRQ 0", %rax, $0x87, $0x80
    OCW3 0x20, 0x0B
    EXPECT "poll acknowledges", %rax, $1
    OUTB 0x20, $0x20
    /* spurious: a level that is gone before the acknowledge. IRQ 0's edge is withdrawn while IF = 0 */
    call irq0_low
    IRQ0
    call irq0_low
    movl $0, rt_counts + 4 * 0x20
    WINDOW
    mov rt_counts + 4 * 0x27, %eax
    add rt_counts + 4 * 0x20, %eax
    cmp $2, %eax
    setb %al
    movzbl %al, %eax
    EXPECT "a request withdrawn is spurious IRQ 7, or nothing", %rax, $1
    OCW3 0x20, 0x0B
    EXPECT_BITS "spurious: no ISR bit 7", %rax, $0x80, $0
    OUTB 0x20, $0x60
    /* automatic EOI and another vector base */
    OUTB 0x20, $0x11
    OUTB 0x21, $0x50
    OUTB 0x21, $4
    OUTB 0x21, $3
    OUTB 0x21, $0xFA
    HOOK 0x50, rt_count
    call irq0_low
    IRQ0
    WINDOW
    EXPECT "another base", rt_counts+4*0x50, $1
    OCW3 0x20, 0x0B
    EXPECT "automatic EOI", %rax, $0
    call irq0_low
    IRQ0
    WINDOW
    EXPECT "and again", rt_counts+4*0x50, $2
    DONE

/* PIT mode 0: the output goes low with the control word, and high at the end of the count. */
irq0_low:
    OUTB 0x43, $0x30
    ret
irq0:
    OUTB 0x43, $0x30
    OUTB 0x40, $50
    OUTB 0x40, $0
    mov $RT_PATIENCE, %ecx
1:  OCW3 0x20, 0x0A         /* until the request is in the IRR */
    test $1, %al
    jnz 2f
    mov $1, %edi
    call rt_delay_ms
    dec %ecx
    jnz 1b
2:  ret
/* The RTC's periodic interrupt at 1024 Hz, once: until register C is read the line stays. */
rtc_irq:
    call rtc_ack
    OUTB 0x70, $0x0A
    OUTB 0x71, $0x26
    OUTB 0x70, $0x0B
    OUTB 0x71, $0x42
    mov $RT_PATIENCE, %ecx
1:  OCW3 0xA0, 0x0A
    test $1, %al
    jnz 2f
    mov $1, %edi
    call rt_delay_ms
    dec %ecx
    jnz 1b
2:  ret
rtc_ack:
    OUTB 0x70, $0x0B
    OUTB 0x71, $0x02
    OUTB 0x70, $0x0C
    INB 0x71
    ret
