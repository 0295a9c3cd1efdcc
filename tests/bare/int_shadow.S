/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Masking windows: an interrupt that is pending when STI sets IF comes after the next instruction, not when
 * IF was set before; MOV SS and POP SS hold interrupts off for one instruction; STI; HLT is atomic; STI;
 * CLI lets none in; POPF and IRET have no shadow; a fault in the shadow.
 * Manual: SDM 2B STI, MOV, POP; 3A 6.8.1, 6.8.3.
 */
#include "rt.h"

#define V 0x40
TEST64 int_shadow
    call rt_lapic_on
    HOOK V, on_irq
    /* STI */
    call pend
    sti
1:  nop
2:  nop
    cli
    EXPECT "sti: it comes after one more instruction", irq_rip, $2b
    EXPECT "once", rt_counts+4*V, $1
    call pend
    sti
    cli
    nop
    EXPECT "sti; cli: not", irq_rip, $0
    sti
    nop
3:  cli
    EXPECT "then with the next sti", irq_rip, $3b
    /* with IF already set STI has no shadow: the self-IPI is taken at once */
    movq $0, irq_rip
    sti
    nop
    mov $LAPIC + 0x300, %edx
    movl $(0x40000 | V), (%rdx)
4:  sti
5:  nop
6:  cli
    mov irq_rip, %rax
    sub $4b, %rax
    cmp $6b - 4b, %rax
    setbe %al
    movzbl %al, %eax
    EXPECT "with IF set: within three instructions", %rax, $1
    /* MOV SS, POP SS */
    mov $KDS, %ecx
    call pend
    mov %rsp, %rax
    push $KDS
    push %rax
    pushfq
    orl $FL_IF, (%rsp)
    push $KCS64
    push $7f
    iretq
7:  nop
    cli
    EXPECT "iret: no shadow", irq_rip, $7b
    call pend
    sti
    mov %ecx, %ss
9:  nop
1:  nop
    cli
    /* STI's shadow covers MOV SS; whether that one has a shadow too is left open for two in a row */
    mov $1b, %eax
    sub irq_rip, %eax
    shr $1, %eax
    EXPECT "sti; mov ss; nop: after mov ss or after the nop", %rax, $0
    call pend
    pushfq
    orl $FL_IF, (%rsp)
    popfq
2:  nop
    cli
    EXPECT "popf: no shadow", irq_rip, $2b
    /* HLT in the shadow: it wakes, never sleeps for good */
    call pend
    sti
    hlt
3:  cli
    EXPECT "sti; hlt: the interrupt comes out of hlt", irq_rip, $3b
    /* an exception in the shadow is delivered; the interrupt comes afterwards */
    call pend
    ARM 4f
    sti
5:  ud2
4:  RT_CHECK "ud2 in the shadow", UD, 0, 5b
    EXPECT_BITS "IF is set in its frame", x_flags, $FL_IF, $FL_IF
    EXPECT "no interrupt yet", irq_rip, $0
    sti
    nop
    nop
    cli
    EXPECT "it is not lost", rt_counts+4*V, $8
    /* often, so that a translator has it, at the end of a page, and only just pending */
    mov $100, %ebx
    mov $LAPIC + 0x300, %edx
1:  movq $0, irq_rip
    call sti_at_end
    cmpq $sti_after, irq_rip
    jne 2f
    dec %ebx
    jnz 1b
2:  EXPECT "sti at a page's end, hot: rounds left", %rbx, $0
    mov $100, %ebx
1:  movq $0, irq_rip
    call sti_inside
    cmpq $sti_inside_after, irq_rip
    jne 2f
    dec %ebx
    jnz 1b
2:  EXPECT "sti inside a page, hot: rounds left", %rbx, $0
    COMPAT
    mov $KDS, %ecx
    push %ecx
    mov $LAPIC + 0x300, %edx
    movl $0, irq_rip
    movl $(0x40000 | V), (%edx)
    sti
    pop %ss
    nop
6:  nop
    cli
    mov $6b, %eax
    sub irq_rip, %eax
    shr $1, %eax
    EXPECT "sti; pop ss; nop: after pop ss or after the nop", %eax, $0
    COMPAT_END
    DONE

pend:
    movq $0, irq_rip
    movl $(0x40000 | V), LAPIC + 0x300
1:  mov LAPIC + 0x200 + (V / 32) * 16, %eax    /* until it is in the IRR */
    bt $V % 32, %eax
    jnc 1b
    ret
on_irq:
    mov 17*8(%rdi), %rcx
    mov %rcx, irq_rip
    jmp rt_count_apic
sti_inside:
    movl $(0x40000 | V), (%rdx)
    sti
    nop
sti_inside_after:
    cli
    ret
    .balign 4096
    .skip 4095 - (1f - sti_at_end)
sti_at_end:
    movl $(0x40000 | V), (%rdx)
1:  sti
    nop
sti_after:
    cli
    ret
    .bss
irq_rip: .skip 8
