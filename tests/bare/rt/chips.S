/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers for the PC's chips: 8259, 8254, local APIC, IO-APIC, ACPI tables, second processor.
 * Sources: Intel 8259A and 8254 data sheets, SDM 3A chapter 10, 82093AA, ACPI 6.4 section 5.2,
 * MultiProcessor Specification B.4 (INIT-SIPI-SIPI).
 */
#include "rt.h"

    .text
    CODE32
    .globl rt_chips_off
/* Nothing may interrupt until the test asks for it. */
rt_chips_off:
    OUTB 0x21, $0xFF
    OUTB 0xA1, $0xFF
    OUTB 0x70, $0x0B    /* RTC: no interrupts, 24 hours; NMI on */
    OUTB 0x71, $0x02
    mov $0x10, %ecx     /* IO-APIC: mask all */
1:  mov %ecx, 0xFEC00000
    movl $0x10000, 0xFEC00010
    add $2, %ecx
    cmp $0x40, %ecx
    jb 1b
    ret

    CODE64
    .globl rt_pic_init, rt_lapic_on, rt_delay_ms, rt_wait, rt_ap_start, rt_ap_wait
    .globl rt_ioapic_write, rt_ioapic_read, rt_acpi_find, rt_pit0, rt_ap_alive, rt_pic_mask

/* PICs at vectors 0x20 and 0x28, everything masked but the cascade. */
rt_pic_init:
    push %rax
    OUTB 0x20, $0x11
    OUTB 0xA0, $0x11
    OUTB 0x21, $0x20
    OUTB 0xA1, $0x28
    OUTB 0x21, $4
    OUTB 0xA1, $2
    OUTB 0x21, $1
    OUTB 0xA1, $1
    OUTB 0x21, $0xFB
    OUTB 0xA1, $0xFF
    pop %rax
    ret

/* EDI: mask of 16 bits */
rt_pic_mask:
    push %rax
    mov %edi, %eax
    out %al, $0x21
    mov %ah, %al
    out %al, $0xA1
    pop %rax
    ret

/* Local APIC on in xAPIC mode, everything masked, TPR 0, LINT0 = ExtINT (the PIC reaches the processor). */
rt_lapic_on:
    push %rax
    push %rcx
    push %rdx
    mov $MSR_APIC_BASE, %ecx
    rdmsr
    test $0x400, %eax
    jz 1f
    and $~0xC00, %eax   /* x2APIC to xAPIC goes through disabled */
    wrmsr
1:  or $0x800, %eax
    wrmsr
    movl $0x1FF, LAPIC + 0xF0
    movl $0, LAPIC + 0x80
    movl $0x10000, LAPIC + 0x320
    movl $0x700, LAPIC + 0x350
    movl $0x10000, LAPIC + 0x360
    movl $0x10000, LAPIC + 0x370
    movl $0, LAPIC + 0x380
    movl $0, LAPIC + 0xB0
    pop %rdx
    pop %rcx
    pop %rax
    ret

/* EDI: milliseconds, by channel 2 of the PIT in mode 0. */
rt_delay_ms:
    pushfq
    push %rax
    push %rcx
    push %rdi
    in $0x61, %al
    and $0xFC, %al
    or $1, %al
    out %al, $0x61
1:  test %edi, %edi
    jz 3f
    mov $50, %ecx       /* at most 54 ms at once */
    cmp %ecx, %edi
    cmovb %edi, %ecx
    sub %ecx, %edi
    OUTB 0x43, $0xB0
    imul $1193, %ecx, %eax
    out %al, $0x42
    mov %ah, %al
    out %al, $0x42
2:  in $0x61, %al
    test $0x20, %al
    jz 2b
    jmp 1b
3:  pop %rdi
    pop %rcx
    pop %rax
    popfq
    ret

/* EDI: vector, ESI: count, interrupts on meanwhile. EAX: the count, ESI at most. Gives up after RT_PATIENCE. */
rt_wait:
    push %rdx
    pushfq
    mov $RT_PATIENCE, %edx
    sti
1:  mov rt_counts(,%rdi,4), %eax
    cmp %esi, %eax
    jae 2f
    test %edx, %edx
    jz 2f
    push %rdi
    mov $1, %edi
    call rt_delay_ms
    pop %rdi
    dec %edx
    jmp 1b
2:  popfq
    mov rt_counts(,%rdi,4), %eax
    cmp %esi, %eax
    cmova %esi, %eax
    pop %rdx
    ret

/* PIT channel 0: DIL = control bits (mode << 1), ESI = count. */
rt_pit0:
    push %rax
    mov %edi, %eax
    or $0x30, %al
    out %al, $0x43
    mov %esi, %eax
    out %al, $0x40
    mov %ah, %al
    out %al, $0x40
    pop %rax
    ret

/* EDI: where the second processor goes (64-bit, own stack, interrupts off). EAX: 1 when it came. */
rt_ap_start:
    push %rdi
    push %rcx
    push %rdx
    mov %edi, rt_ap_entry2
    movq $rt_ap_hello, rt_ap_entry
    mov $MSR_EFER, %ecx
    rdmsr
    and $~EFER_LMA, %eax
    mov %eax, rt_ap_efer
    movl $0, rt_ap_alive
    call rt_lapic_on
    movl $0xC4500, LAPIC + 0x300    /* INIT to all but self */
    mov $10, %edi
    call rt_delay_ms
    movl $0xC4600 + 0x8000 / 4096, LAPIC + 0x300
    mov $2, %edi
    call rt_delay_ms
    cmpl $0, rt_ap_alive
    jne 1f
    movl $0xC4600 + 0x8000 / 4096, LAPIC + 0x300
1:  mov $rt_ap_alive, %edi
    push %rsi
    mov $1, %esi
    call rt_ap_wait
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rdi
    ret
rt_ap_hello:
    movl $1, rt_ap_alive
    mov rt_ap_entry2, %eax
    jmp *%rax

/* EDI: address of a 32-bit flag, ESI: value to wait for. EAX: its value. Gives up after RT_PATIENCE. */
rt_ap_wait:
    push %rdx
    mov $RT_PATIENCE, %edx
1:  mov (%rdi), %eax
    cmp %esi, %eax
    je 2f
    test %edx, %edx
    jz 2f
    push %rdi
    mov $1, %edi
    call rt_delay_ms
    pop %rdi
    dec %edx
    jmp 1b
2:  pop %rdx
    ret

/* EDI: register, ESI: value; EAX: value read */
rt_ioapic_write:
    mov %edi, IOAPIC
    mov %esi, IOAPIC + 0x10
    ret
rt_ioapic_read:
    mov %edi, IOAPIC
    mov IOAPIC + 0x10, %eax
    ret

/* EDI: signature. RAX: physical address of the ACPI table, or 0. */
rt_acpi_find:
    push %rbx
    push %rcx
    push %rdx
    mov $0xE0000, %ebx
    mov $0x2052545020445352, %rax   /* "RSD PTR " */
1:  cmp %rax, (%rbx)
    je 2f
    add $16, %ebx
    cmp $0x100000, %ebx
    jb 1b
    xor %eax, %eax
    jmp 9f
2:  mov 16(%rbx), %eax      /* RSDT, or XSDT when there is none */
    test %eax, %eax
    jz 5f
    mov %eax, %ebx
    mov 4(%rbx), %ecx
    sub $36, %ecx
    shr $2, %ecx
3:  test %ecx, %ecx
    jz 4f
    mov 32(%rbx,%rcx,4), %eax
    cmp %edi, (%rax)
    je 9f
    dec %ecx
    jmp 3b
4:  xor %eax, %eax
    jmp 9f
5:  mov 24(%rbx), %rbx
    mov 4(%rbx), %ecx
    sub $36, %ecx
    shr $3, %ecx
6:  test %ecx, %ecx
    jz 4b
    mov 28(%rbx,%rcx,8), %rax
    cmp %edi, (%rax)
    je 9f
    dec %ecx
    jmp 6b
9:  pop %rdx
    pop %rcx
    pop %rbx
    ret

    .bss
    .align 8
rt_ap_entry2: .skip 8
rt_ap_alive: .skip 8
