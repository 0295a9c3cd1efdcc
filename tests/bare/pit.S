/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8254: modes 0, 2, 3, 4 on channel 2 by its output in port 0x61 and its gate, counter latch, read-back
 * with status, byte access modes, BCD, null count, channel 0 interrupts in modes 2 and 3 at their rate,
 * speaker gate restart (mode 1).
 * Manual: Intel 8254 data sheet.
 * qemu: differs (mode 0: the gate holds the count): the model is simpler here
 * qemu: differs (status: null count before a count is written, output low): the model is simpler here
 * qemu: differs (mode 2: high): the model is simpler here
 * qemu: differs (mode 2: high with the gate off): the model is simpler here
 * qemu: differs (mode 1: low after the trigger): the model is simpler here
 * qemu: differs (mode 1: high after the count): the model is simpler here
 * qemu: differs (BCD: 500 counts of decimal digits): the model is simpler here
 */
#include "rt.h"

.macro CTL val
    OUTB 0x43, $\val
.endm
.macro COUNT2 n
    OUTB 0x42, $((\n) & 255)
    OUTB 0x42, $((\n) >> 8)
.endm
.macro GATE on
    OUTB 0x61, $\on
.endm
.macro OUT2 /* EAX: output of channel 2 */
    INB 0x61
    shr $5, %eax
    and $1, %eax
.endm
.macro READ2 /* EAX: latched count of channel 2, 16 bits */
    CTL 0x80
    INB 0x42
    movzbl %al, %ebx
    INB 0x42
    movzbl %al, %eax
    shl $8, %eax
    or %ebx, %eax
.endm

TEST64 pit
    /* mode 0 */
    GATE 1
    CTL 0xB0
    OUT2
    EXPECT "mode 0: low after the control word", %rax, $0
    COUNT2 0xFFFF
    OUT2
    EXPECT "mode 0: low while counting", %rax, $0
    READ2
    mov %eax, %r12d
    mov $2, %edi
    call delay_tsc
    READ2
    cmp %r12d, %eax
    setb %al
    movzbl %al, %eax
    EXPECT "mode 0: it counts down", %rax, $1
    COUNT2 100
    call ms10
    OUT2
    EXPECT "mode 0: high at the end", %rax, $1
    call ms10
    OUT2
    EXPECT "mode 0: and stays", %rax, $1
    COUNT2 0xFFFF
    OUT2
    EXPECT "mode 0: a new count drives it low", %rax, $0
    /* the gate stops mode 0 */
    GATE 0
    READ2
    mov %eax, %r12d
    call ms10
    READ2
    EXPECT "mode 0: the gate holds the count", %rax, %r12
    GATE 1
    call ms10
    READ2
    cmp %r12d, %eax
    setne %al
    movzbl %al, %eax
    EXPECT "mode 0: and lets it go on", %rax, $1
    /* latch: the count stands still until it is read; tried again when the host was busy */
    mov $20, %r13d
8:  CTL 0x80
    INB 0x42
    movzbl %al, %ebx
    mov $1, %edi
    call delay_tsc
    INB 0x42
    movzbl %al, %eax
    shl $8, %eax
    or %eax, %ebx
    CTL 0x80
    mov $30, %edi
    call delay_tsc
    CTL 0x80                        /* a second latch is ignored */
    INB 0x42
    movzbl %al, %r12d
    INB 0x42
    movzbl %al, %eax
    shl $8, %eax
    or %eax, %r12d
    sub %r12d, %ebx
    movzwl %bx, %ebx
    cmp $29830, %ebx                /* less than 25 ms passed between the latches, not 31 */
    jb 9f
    dec %r13d
    jnz 8b
9:  setb %al
    movzbl %al, %eax
    EXPECT "a second latch command is ignored", %rax, $1
    /* read-back: status */
    CTL 0xB6
    COUNT2 0x1000
    call ms10
    CTL 0xE8                        /* status only, channel 2 */
    INB 0x42
    movzbl %al, %eax
    EXPECT_BITS "status: mode 3, both bytes, binary, count loaded", %rax, $0x7F, $0x36
    CTL 0xB0
    CTL 0xE8
    INB 0x42
    movzbl %al, %eax
    EXPECT_BITS "status: null count before a count is written, output low", %rax, $0xFF, $0x70
    /* read-back of status and count: the status comes first */
    mov $20, %r13d
8:  CTL 0xB0
    COUNT2 0x8000
    call ms10
    CTL 0xC8
    INB 0x42
    movzbl %al, %eax
    mov %eax, %r12d
    INB 0x42
    INB 0x42
    movzbl %al, %eax
    shr $4, %eax
    cmp $8, %eax
    jb 9f
    dec %r13d
    jnz 8b
9:  setb %al
    EXPECT_BITS "status first", %r12, $0x3F, $0x30
    movzbl %al, %eax
    EXPECT "then the count", %rax, $1
    /* mode 2: high but for one clock; reloads */
    CTL 0xB4
    COUNT2 0x2000
    mov $2000, %ecx
    xor %r12d, %r12d
1:  READ2
    cmp %eax, %r12d
    jae 2f
    mov %eax, %r12d
2:  dec %ecx
    jnz 1b
    cmp $0x2001, %r12d
    setb %al
    movzbl %al, %eax
    EXPECT "mode 2: never above the initial count", %rax, $1
    OUT2
    EXPECT "mode 2: high", %rax, $1
    GATE 0
    OUT2
    EXPECT "mode 2: high with the gate off", %rax, $1
    mov $20, %r13d
8:  GATE 0
    GATE 1
    READ2
    cmp $0x1C00, %eax
    jae 9f
    dec %r13d
    jnz 8b
9:  setae %al
    movzbl %al, %eax
    EXPECT "mode 2: the gate's edge reloads", %rax, $1
    /* mode 3: a square wave: both levels are seen about as often */
    CTL 0xB6
    COUNT2 11932                    /* 10 ms */
    mov $20, %r13d
6:  xor %r12d, %r12d
    mov $60, %r14d
3:  mov $1, %edi
    call delay_tsc
    OUT2
    add %eax, %r12d
    dec %r14d
    jnz 3b
    sub $15, %r12d
    cmp $30, %r12d
    jbe 7f
    dec %r13d
    jnz 6b
7:  setbe %al
    movzbl %al, %eax
    EXPECT "mode 3: about half of the time high", %rax, $1
    /* mode 1: the gate's edge triggers */
    GATE 0
    CTL 0xB2
    COUNT2 0xFFFF
    OUT2
    EXPECT "mode 1: high before the trigger", %rax, $1
    GATE 1
    OUT2
    EXPECT "mode 1: low after the trigger", %rax, $0
    mov $80, %edi
    call delay_tsc
    OUT2
    EXPECT "mode 1: high after the count", %rax, $1
    /* byte modes and BCD */
    CTL 0x90                        /* low byte only, mode 0 */
    OUTB 0x42, $0x80
    call ms10
    OUT2
    EXPECT "low byte only: 128 counts", %rax, $1
    CTL 0xB5                        /* BCD, mode 2, 2000 */
    COUNT2 0x2000
    mov $500, %r13d
4:  READ2
    mov %eax, %ecx
    lea 0x6666(%rax), %edx          /* a digit above 9 carries into the next */
    xor %edx, %ecx
    xor $0x6666, %ecx
    test $0x11110, %ecx
    jnz 5f
    dec %r13d
    jnz 4b
5:  EXPECT "BCD: 500 counts of decimal digits", %r13, $0
    GATE 1
    DONE

ms10:
    mov $10, %edi
/* EDI: milliseconds by the TSC (the PIT is under test), calibrated once. */
delay_tsc:
    cmpq $0, khz
    jne 1f
    call calibrate
1:  push %rax
    push %rcx
    push %rdx
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %edi, %ecx
    imul khz, %rcx
    add %rax, %rcx
2:  rdtsc
    shl $32, %rdx
    or %rdx, %rax
    cmp %rcx, %rax
    jb 2b
    pop %rdx
    pop %rcx
    pop %rax
    ret
/* TSC ticks a millisecond, by channel 0 in mode 2. */
calibrate:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rdi
    mov $2 << 1, %edi
    xor %esi, %esi
    call rt_pit0
    rdtsc
    shl $32, %rdx
    or %rax, %rdx
    mov %rdx, %rbx
    call pit0_count
    mov %eax, %edi
3:  call pit0_count
    mov %edi, %ecx
    sub %eax, %ecx
    movzwl %cx, %ecx
    cmp $23864, %ecx        /* 20 ms */
    jb 3b
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    sub %rbx, %rax
    imul $1193182, %rax, %rax
    xor %edx, %edx
    mov %ecx, %ecx
    div %rcx
    xor %edx, %edx
    mov $1000, %ecx
    div %rcx
    mov %rax, khz
    pop %rdi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    ret
pit0_count:
    CTL 0x00
    INB 0x40
    mov %al, %ah
    INB 0x40
    xchg %al, %ah
    movzwl %ax, %eax
    ret
    .bss
    .align 8
khz: .skip 8
