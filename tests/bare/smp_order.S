/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory ordering between two processors, by litmus tests: with MFENCE, with a locked instruction and with
 * XCHG between the store and the load, "store buffering" never shows both loads 0; stores are seen in order
 * ("message passing"); loads are not reordered with older loads; a store is not seen before an older load
 * ("load buffering"); a processor sees its own store; two pairs of stores have one order ("2+2W"), also against a load before one
 * of them ("S") or behind a fence ("R"); what was read is not read older again ("CoRR"); stores of REP STOS come before later ones.
 * cpus: 2
 * timeout: 150
 * Manual: SDM 3A 8.2.2, 8.2.3.
 */
#include "rt.h"

#define ROUNDS 200
#define BATCH 100           /* instances of the test a round: meeting is what takes long on a busy host */
#define SIZE 256            /* of an instance, with each variable in a cache line of its own: */
#define X 0
#define Y 64
#define R0 128              /* what processor 0 saw */
#define R1 192

/* EBP: instance, in all of a test's three functions. The sides give in EAX what they saw; the check adds to R15. */
.macro LITMUS name, side0, side1, check
    mov $\side0, %r12d
    movl $\side1, work
    mov $\check, %r13d
    call litmus
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
    LITMUS "2+2W", ww0, ww1, ww_bad
    LITMUS "S", s0, s1, s_bad
    LITMUS "R with mfence", r0, r1, r_bad
    LITMUS "CoRR", co0, co1, co_bad
    LITMUS "message passing behind rep stos", mps0, mps1, mp_bad
    DONE

sb0_mfence:
    movl $1, X(%rbp)
    mfence
    mov Y(%rbp), %eax
    ret
sb1_mfence:
    movl $1, Y(%rbp)
    mfence
    mov X(%rbp), %eax
    ret
sb0_lock:
    movl $1, X(%rbp)
    lock addl $0, (%rsp)
    mov Y(%rbp), %eax
    ret
sb1_lock:
    movl $1, Y(%rbp)
    lock addl $0, (%rsp)
    mov X(%rbp), %eax
    ret
sb0_xchg:
    mov $1, %eax
    xchg %eax, X(%rbp)
    mov Y(%rbp), %eax
    ret
sb1_xchg:
    mov $1, %eax
    xchg %eax, Y(%rbp)
    mov X(%rbp), %eax
    ret
both_zero:
    mov R0(%rbp), %eax
    or R1(%rbp), %eax
    setz %al
    movzbl %al, %eax
    add %eax, %r15d
    ret
mp0:
    movl $1, X(%rbp)
    movl $1, Y(%rbp)
    ret
mp1:
    mov Y(%rbp), %ecx
    mov X(%rbp), %eax
    test %ecx, %ecx
    jnz 1f
    mov $1, %eax            /* the flag was not seen: nothing to say */
1:  ret
mp_bad:
    mov R1(%rbp), %eax
    xor $1, %eax
    add %eax, %r15d
    ret
lb0:
    mov X(%rbp), %eax
    movl $1, Y(%rbp)
    ret
lb1:
    mov Y(%rbp), %eax
    movl $1, X(%rbp)
    ret
both_one:
    mov R0(%rbp), %eax
    and R1(%rbp), %eax
    add %eax, %r15d
    ret
own0:
    movl $2, X(%rbp)
    mov X(%rbp), %eax            /* 2, or 3 from the other: never 0 */
    ret
own1:
    movl $3, X(%rbp)
    mov X(%rbp), %eax
    ret
own_bad:
    cmpl $2, R0(%rbp)
    setb %al
    movzbl %al, %eax
    add %eax, %r15d
    cmpl $2, R1(%rbp)
    setb %al
    movzbl %al, %eax
    add %eax, %r15d
    ret

ww0:
    movl $1, X(%rbp)
    movl $2, Y(%rbp)
    ret
ww1:
    movl $1, Y(%rbp)
    movl $2, X(%rbp)
    ret
ww_bad:                          /* both first stores came last */
    mov X(%rbp), %eax
    and Y(%rbp), %eax
    and $1, %eax
    add %eax, %r15d
    ret
s0:
    movl $2, X(%rbp)
    movl $1, Y(%rbp)
    ret
s1:
    mov Y(%rbp), %eax
    movl $1, X(%rbp)
    ret
s_bad:                           /* Y was seen, but the store behind that came before X = 2 */
    mov X(%rbp), %eax
    shr $1, %eax
    and R1(%rbp), %eax
    add %eax, %r15d
    ret
r0:
    movl $1, X(%rbp)
    movl $1, Y(%rbp)
    ret
r1:
    movl $2, Y(%rbp)
    mfence
    mov X(%rbp), %eax
    ret
r_bad:                           /* Y = 2 came last, but X was not seen behind it */
    mov Y(%rbp), %eax
    shr $1, %eax
    mov R1(%rbp), %ecx
    xor $1, %ecx
    and %ecx, %eax
    add %eax, %r15d
    ret
co0:
    movl $1, X(%rbp)
    ret
co1:
    mov X(%rbp), %eax
    mov X(%rbp), %ecx
    xor $1, %ecx
    and %ecx, %eax
    ret
co_bad:
    add R1(%rbp), %r15d
    ret
mps0:                            /* 32 bytes at X, the last of which is looked at, then the flag */
    lea X(%rbp), %rdi
    mov $4, %ecx
    mov $1, %eax
    rep stosq
    movl $1, Y(%rbp)
    ret
mps1:
    mov Y(%rbp), %ecx
    mov X + 24(%rbp), %eax
    test %ecx, %ecx
    jnz 1f
    mov $1, %eax
1:  ret

/* EBX: called for each instance. */
each:
    mov $instances, %ebp
1:  call *%rbx
    add $SIZE, %ebp
    cmp $instances + BATCH * SIZE, %ebp
    jb 1b
    ret
run0:
    call *%r12
    mov %eax, R0(%rbp)
    ret
run1:
    call *%r12
    mov %eax, R1(%rbp)
    ret

/* R12: side of processor 0, R13: check. R15: forbidden outcomes. */
litmus:
    mov $ROUNDS, %r14d
    xor %r15d, %r15d
1:  mov $instances, %edi
    mov $BATCH * SIZE / 8, %ecx
    xor %eax, %eax
    rep stosq
    lock incl epoch             /* lets the other go */
    mov %r14d, %ecx
    and $63, %ecx
2:  dec %ecx                    /* begins a little later each time: the two meet closely in some rounds */
    jns 2b
    mov $run0, %ebx
    call each
    mov epoch, %ebx
3:  pause
    cmp %ebx, done
    jne 3b
    mov %r13d, %ebx
    call each
    dec %r14d
    jnz 1b
    ret
ap:
    xor %r14d, %r14d
1:  pause
    cmp epoch, %r14d
    je 1b
    inc %r14d
    mov work, %r12d
    mov $run1, %ebx
    call each
    mov %r14d, done
    jmp 1b
    .bss
    .align 64
work: .skip 64
epoch: .skip 64
done: .skip 64
instances: .skip BATCH * SIZE
