/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLB shootdown: after processor 0 has changed an entry and processor 1 has answered its IPI with INVLPG,
 * processor 1 sees the new page and rights only; accessed and dirty bits set by both processors at once are
 * not lost; a page that processor 1 made dirty is seen as such here.
 * cpus: 2
 * timeout: 150
 * Manual: SDM 3A 4.10.5, 4.8.
 */
#include "rt.h"

#define N 2000

TEST64 smp_tlb
    HOOK 0x40, on_flush
    HOOK 0x41, on_answer
    movl $TPA + 7, rt_pt
    movl $0, TPA
    movl $1, TPA + 0x1000
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    mov $ready, %edi            /* an APIC that is still disabled drops IPIs */
    mov $1, %esi
    call rt_ap_wait
    EXPECT "its APIC is enabled", %rax, $1
    xor %r15d, %r15d
    mov $N, %r14d
1:  mov %r14d, %eax
    and $1, %eax
    shl $12, %eax
    add $TPA + 7, %eax
    mov %eax, rt_pt
    invlpg TVA
    movl $0, flushed
    movl $0x01000000, LAPIC + 0x310
    movl $0x4040, LAPIC + 0x300
2:  cmpl $0, flushed
    jne 3f
    sti                         /* sleeps until the answer: on a busy host the other runs at once */
    hlt
    cli
    jmp 2b
3:  mov %r14d, %eax
    and $1, %eax
    cmp %eax, flushed_saw
    je 4f
    inc %r15d
4:  dec %r14d
    jnz 1b
    EXPECT "stale translations after the shootdown", %r15, $0
    mov flushes, %eax
    EXPECT "each IPI came once", %rax, $N
    /* dirty bits: the other writes to 64 pages, this one to the same, both set bits */
    xor %ecx, %ecx
5:  mov %ecx, %eax
    shl $12, %eax
    add $TPA + 7, %eax
    mov %eax, rt_pt + 8 * 16(,%rcx,8)
    inc %ecx
    cmp $64, %ecx
    jb 5b
    movl $1, go
    xor %ecx, %ecx
6:  mov %ecx, %eax
    shl $12, %eax
    mov TVA + 0x10000(%rax), %edx
    inc %ecx
    cmp $64, %ecx
    jb 6b
    mov $wrote, %edi
    mov $1, %esi
    call rt_ap_wait
    xor %ecx, %ecx
    xor %edx, %edx
7:  mov rt_pt + 8 * 16(,%rcx,8), %eax
    and $PT_A | PT_D, %eax
    cmp $PT_A | PT_D, %eax
    jne 8f
    inc %edx
8:  inc %ecx
    cmp $64, %ecx
    jb 7b
    EXPECT "all 64 pages are accessed and dirty", %rdx, $64
    DONE

on_flush:
    invlpg TVA
    mov TVA, %eax
    mov %eax, flushed_saw
    lock incl flushes
    movl $0, LAPIC + 0xB0
    movl $1, flushed
    movl $0, LAPIC + 0x310
    movl $0x4041, LAPIC + 0x300
    ret
on_answer:
    movl $0, LAPIC + 0xB0
    ret
ap:
    movl $0x1FF, LAPIC + 0xF0
    movl $0, LAPIC + 0x80
    movl $1, ready
    sti
1:  mov TVA, %eax           /* keeps the translation hot */
    cmpl $0, go
    je 1b
    cli
    xor %ecx, %ecx
2:  mov %ecx, %eax
    shl $12, %eax
    movl $7, TVA + 0x10000 + 64(%rax)
    inc %ecx
    cmp $64, %ecx
    jb 2b
    movl $1, wrote
3:  hlt
    jmp 3b
    .bss
    .align 8
flushed: .skip 8
flushed_saw: .skip 8
flushes: .skip 8
ready: .skip 8
go: .skip 8
wrote: .skip 8
