/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory ordering between two processors, by litmus tests: with MFENCE, with a locked instruction and with
 * XCHG between the store and the load, "store buffering" never shows both loads 0; stores are seen in order
 * ("message passing"); loads are not reordered with older loads; a store is not seen before an older load
 * ("load buffering"); a processor sees its own store.
 * cpus: 2
 * timeout: 150
 * Manual: SDM 3A 8.2.2, 8.2.3.
 */
#include "rt.h"

#define N 20000
#define XV rt_buf
#define YV (rt_buf+256)

/* Each round: both wait at the barrier, run their side, wait; processor 0 looks at R0 and R1. */
.macro LITMUS name, side0, side1, check
    movl $\side1, work
    mov $N, %r14d
    xor %r15d, %r15d        /* forbidden outcomes */
1:  movl $0, XV
    movl $0, YV
    mov $\side0, %r13d
    call round
    call \check
    dec %r14d
    jnz 1b
    EXPECT "\name: forbidden outcomes", %r15, $0
.endm

TEST64 smp_order
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    LITMUS "store buffering with mfence", sb0_mfence, sb1_mfence, both_zero
    LITMUS "store buffering with lock add to the stack", sb0_lock, sb1_lock, both_zero
    LITMUS "store buffering with xchg", sb0_xchg, sb1_xchg, both_zero
    LITMUS "message passing", mp0, mp1, mp_bad
    LITMUS "load buffering", lb0, lb1, both_one
    LITMUS "own store is seen", own0, own1, own_bad
    DONE

sb0_mfence:
    movl $1, XV
    mfence
    mov YV, %eax
    ret
sb1_mfence:
    movl $1, YV
    mfence
    mov XV, %eax
    ret
sb0_lock:
    movl $1, XV
    lock addl $0, (%rsp)
    mov YV, %eax
    ret
sb1_lock:
    movl $1, YV
    lock addl $0, (%rsp)
    mov XV, %eax
    ret
sb0_xchg:
    mov $1, %eax
    xchg %eax, XV
    mov YV, %eax
    ret
sb1_xchg:
    mov $1, %eax
    xchg %eax, YV
    mov XV, %eax
    ret
both_zero:
    mov r0, %eax
    or r1, %eax
    setz %al
    movzbl %al, %eax
    add %eax, %r15d
    ret
mp0:
    movl $1, XV
    movl $1, YV
    ret
mp1:
    mov YV, %ecx
    mov XV, %eax
    test %ecx, %ecx
    jnz 1f
    mov $1, %eax            /* the flag was not seen: nothing to say */
1:  ret
mp_bad:
    mov r1, %eax
    xor $1, %eax
    add %eax, %r15d
    ret
lb0:
    mov XV, %eax
    movl $1, YV
    ret
lb1:
    mov YV, %eax
    movl $1, XV
    ret
both_one:
    mov r0, %eax
    and r1, %eax
    add %eax, %r15d
    ret
own0:
    movl $2, XV
    mov XV, %eax            /* 2, or 3 from the other: never 0 */
    ret
own1:
    movl $3, XV
    mov XV, %eax
    ret
own_bad:
    cmpl $2, r0
    setb %al
    movzbl %al, %eax
    add %eax, %r15d
    cmpl $2, r1
    setb %al
    movzbl %al, %eax
    add %eax, %r15d
    ret

round:
    lock incl epoch         /* lets the other go */
    mov epoch, %ebx
    call *%r13
    mov %eax, r0
1:  cmp %ebx, done
    je 2f
    pause
    jmp 1b
2:  ret
ap:
    xor %ebx, %ebx
1:  cmp epoch, %ebx
    jne 2f
    pause
    jmp 1b
2:  inc %ebx
    mov work, %eax
    call *%rax
    mov %eax, r1
    mov %ebx, done
    jmp 1b
    .bss
    .align 64
work: .skip 64
epoch: .skip 64
done: .skip 64
r0: .skip 64
r1: .skip 64
