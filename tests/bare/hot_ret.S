/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hot calls and jumps into the next page, and their returns, while a callee changes what they will find: the code behind the call, in
 * place or by another page at the same address, with INVLPG and MOV to CR3; the page that is called, at two addresses with different
 * neighbours; and the return address itself. hot_ret.c does that. And interrupts come in while all that runs is returns to one address,
 * that of a call that was made once.
 * Manual: SDM 1 6.4.2 (near calls and returns); SDM 3A 4.10, 11.6.
 * timeout: 120
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_ret
    CR_SET cr4, CR4_PGE
    call hot_ret
    TICKS 0x40
    mov $WARM, %r12d
1:  movl $0, hot_seen
    movl $300000, LAPIC + 0x380
    sti
    mov %rsp, %rbx
    call 2f                         /* whoever remembers calls remembers this one */
2:  mov %rbx, %rsp
    cmpl $0, hot_seen
    jne 3f
    lea 2b, %rax
    push %rax
    ret
3:  cli
    dec %r12d
    jnz 1b
    EXPECT "interrupts between returns", hot_irqs, $WARM
    DONE

/* u64 call_it(fn, callee's callback, where EDX goes): EAX */
    .globl call_it
    .balign 8
call_it:
    push %rbx
    mov %rdx, %rbx
    mov %rdi, %rax
    mov %rsi, %rcx
    call *%rax
    mov %edx, (%rbx)
    pop %rbx
    ret

/* The caller returns two bytes further on. */
    .globl call_moved
call_moved:
    addq $2, 8(%rsp)
    ret
