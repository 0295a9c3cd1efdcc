/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No access is seen half done: one processor writes all zeros and all ones in turns, the other reads, and sees nothing else. Aligned
 * accesses of 2, 4 and 8 bytes, accesses across those within a cache line, by MOV, PUSH, POP, XCHG, STOS, LODS, CMPXCHG;
 * in an ordinary page and in one with code that both run, whose stores go another way.
 * cpus: 2
 * timeout: 150
 * Manual: SDM 3A 8.1.1.
 * qemu: may differ (8 bytes within a line beside code: halves): TCG stores them by parts
 */
#include "rt.h"

#define WRITES 20000

/* EBP: the variable. Writers store RAX, readers give in RAX what they saw. */
.macro TORN name, writer, reader, where
    movq $\writer, work
    movl $\where, where
    mov $\reader, %r12d
    call torn
    EXPECT "\name: halves", %r15, $0
.endm

TEST64 smp_torn
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    TORN "8 bytes", w_mov8, r_mov8, plain
    TORN "4 bytes", w_mov4, r_mov4, plain
    TORN "2 bytes", w_mov2, r_mov2, plain
    TORN "8 bytes within a line", w_mov8, r_mov8, (plain + 3)
    TORN "4 bytes within a line", w_mov4, r_mov4, (plain + 13)
    TORN "push and pop", w_push, r_pop, plain
    TORN "xchg and lods", w_xchg, r_lods, plain
    TORN "stos", w_stos, r_mov8, plain
    TORN "pop to memory", w_pop, r_mov8, plain
    TORN "cmpxchg", w_cmpxchg, r_cmpxchg, plain
    TORN "8 bytes beside code", w_mov8, r_mov8, beside
    TORN "4 bytes beside code", w_mov4, r_mov4, beside
    TORN "2 bytes beside code", w_mov2, r_mov2, beside
    TORN "8 bytes within a line beside code", w_mov8, r_mov8, (beside + 3)
    TORN "push and pop beside code", w_push, r_pop, beside
    TORN "xchg and lods beside code", w_xchg, r_lods, beside
    TORN "stos beside code", w_stos, r_mov8, beside
    TORN "pop to memory beside code", w_pop, r_mov8, beside
    TORN "cmpxchg beside code", w_cmpxchg, r_cmpxchg, beside
    DONE

/* R12: reader. R15: values that are neither. */
torn:
    xor %r15d, %r15d
    mov where, %ebp
    movq $0, (%rbp)
    movq $0, 8(%rbp)
    mov epoch, %r13d
    inc %r13d
    mov %r13d, epoch
1:  mov $100, %r14d             /* in a row, without a look at the other */
2:  call *%r12
    lea 1(%rax), %rcx           /* 1 or 0 of what is right */
    cmp $1, %rcx
    seta %cl
    movzbl %cl, %ecx
    add %ecx, %r15d
    dec %r14d
    jnz 2b
    pause
    cmp %r13d, done
    jne 1b
    ret

r_mov8:
    mov (%rbp), %rax
    ret
r_mov4:
    movslq (%rbp), %rax
    ret
r_mov2:
    movswq (%rbp), %rax
    ret
r_pop:
    mov %rsp, %rdx
    mov %rbp, %rsp
    pop %rax
    mov %rdx, %rsp
    ret
r_lods:
    mov %rbp, %rsi
    lodsq
    ret
r_cmpxchg:                      /* compares with what it never is, and so gives what it is */
    mov $0x55, %eax
    mov $0xAA, %ecx
    cmpxchg %rcx, (%rbp)
    ret

ap:
    xor %r13d, %r13d
1:  pause
    cmp epoch, %r13d
    je 1b
    mov epoch, %r13d
    mov where, %ebp
    mov $WRITES, %r14d
    xor %eax, %eax
2:  not %rax
    call *work
    call code                   /* is code, and stays it */
    dec %r14d
    jnz 2b
    mov %r13d, done
    jmp 1b
w_mov8:
    mov %rax, (%rbp)
    ret
w_mov4:
    mov %eax, (%rbp)
    ret
w_mov2:
    mov %ax, (%rbp)
    ret
w_push:
    mov %rsp, %rdx
    lea 8(%rbp), %rsp
    push %rax
    mov %rdx, %rsp
    ret
w_pop:
    push %rax
    popq (%rbp)
    ret
w_xchg:
    mov %rax, %rcx
    xchg %rcx, (%rbp)
    ret
w_stos:
    mov %rbp, %rdi
    stosq
    ret
w_cmpxchg:
    mov %rax, %rcx
    not %rax
    lock cmpxchg %rcx, (%rbp)
    mov %rcx, %rax
    ret
    .balign 4096
code:
    ret
    .balign 128
beside: .skip 64
    .balign 4096
    .bss
    .align 64
plain: .skip 64
work: .skip 64
where: .skip 64
epoch: .skip 64
done: .skip 64
