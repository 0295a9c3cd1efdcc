/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locked operations are atomic between two processors: INC, ADD, XADD, CMPXCHG loop, CMPXCHG8B, CMPXCHG16B,
 * BTS/BTR spinlock, XCHG spinlock with a plain counter inside, a counter across two cache lines and across
 * two pages, the 8-, 16- and 64-bit forms; bit operations on the same word do not disturb each other.
 * cpus: 2
 * timeout: 150
 * Manual: SDM 3A 8.1.2.
 */
#include "rt.h"

#define N 30000

/* Both processors run \fn `rounds` times; then the 64-bit value at \addr is \want. */
.macro BOTH name, fn, addr, want
    mov $\fn, %edi
    call both
    mov \addr, %rax
    mov \want, %rcx
    EXPECT "\name", %rax, %rcx
.endm

TEST64 smp_lock
    movl $TPA + 0x3007, rt_pt
    movl $TPA + 7, rt_pt + 8
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    BOTH "lock inc", f_inc, rt_buf, $(2*N)
    BOTH "lock add", f_add, rt_buf+8, $(6*N)
    BOTH "lock xadd", f_xadd, rt_buf+16, $(2*N)
    BOTH "lock cmpxchg", f_cmpxchg, rt_buf+24, $(2*N)
    BOTH "lock cmpxchg8b", f_cmpxchg8b, rt_buf+32, $(2*N)
    mov $1, %eax
    call rt_cpuid
    bt $13, %ecx
    jnc 1f
    BOTH "lock cmpxchg16b, low", f_cmpxchg16b, rt_buf+48, $(2*N)
    mov rt_buf + 56, %rax
    EXPECT "lock cmpxchg16b, high", %rax, $(4*N)
1:  BOTH "spinlock by xchg", f_xchg, rt_buf+64, $(2*N)
    BOTH "spinlock by bts and btr", f_bts, rt_buf+80, $(2*N)
    call split_rounds
    BOTH "across cache lines", f_split, rt_buf+0xFE, %rbx
    BOTH "across pages", f_page, (TVA+0xFFC), %rbx
    movl $N, rounds
    BOTH "16-bit", f_word, rt_buf+0x200, $((2*N)&0xFFFF)
    BOTH "bits of one word, all toggled back", f_btc, rt_buf+0x208, $0
    BOTH "lock or and lock and", f_orand, rt_buf+0x210, $0
    DONE

f_inc:
    lock incl rt_buf
    ret
f_add:
    lock addq $3, rt_buf + 8
    ret
f_xadd:
    mov $1, %eax
    lock xadd %rax, rt_buf + 16
    ret
f_cmpxchg:
    mov rt_buf + 24, %rax
1:  lea 1(%rax), %rcx
    lock cmpxchg %rcx, rt_buf + 24
    jne 1b
    ret
f_cmpxchg8b:
    mov rt_buf + 32, %eax
    mov rt_buf + 36, %edx
1:  lea 1(%rax), %ebx
    mov %edx, %ecx
    lock cmpxchg8b rt_buf + 32
    jne 1b
    ret
f_cmpxchg16b:
    mov rt_buf + 48, %rax
    mov rt_buf + 56, %rdx
1:  lea 1(%rax), %rbx
    lea 2(%rdx), %rcx
    lock cmpxchg16b rt_buf + 48
    jne 1b
    ret
f_xchg:
    mov $1, %eax
1:  xchg %eax, rt_buf + 72
    test %eax, %eax
    jz 2f
    pause
    jmp 1b
2:  incq rt_buf + 64
    movl $0, rt_buf + 72
    ret
f_bts:
    lock btsl $5, rt_buf + 88
    jnc 1f
    pause
    jmp f_bts
1:  incq rt_buf + 80
    lock btrl $5, rt_buf + 88
    ret
f_split:
    lock incq rt_buf + 0xFE
    ret
f_page:
    lock incq TVA + 0xFFC
    ret
f_word:
    lock incw rt_buf + 0x200
    ret
f_btc:      /* each its own bit, an even number of times */
    lock btcl %ebp, rt_buf + 0x208
    lock btcl %ebp, rt_buf + 0x208
    ret
f_orand:
    mov %ebp, %ecx
    mov $1, %eax
    shl %cl, %eax
    lock or %eax, rt_buf + 0x210
    not %eax
    lock and %eax, rt_buf + 0x210
    ret

/* Linux makes whoever locks across cache lines wait for many milliseconds each time, on hosts whose CPU reports it (split lock
 * detection): then fewer rounds. RBX: what two processors count to. */
split_rounds:
    rdtsc
    mov %eax, %esi
    lock incq rt_buf + 0xFE
    rdtsc
    movq $0, rt_buf + 0xFE
    sub %esi, %eax
    cmp $2000000, %eax
    jb 1f
    movl $100, rounds
1:  mov rounds, %ebx
    add %ebx, %ebx
    ret

/* EDI: function; runs it `rounds` times here (EBP = 0) and there (EBP = 1). */
both:
    mov %edi, work
    movl $0, finished
    lock incl round
    xor %ebp, %ebp
    mov rounds, %r14d
1:  mov work, %eax
    call *%rax
    dec %r14d
    jnz 1b
    mov $finished, %edi
    mov $1, %esi
    jmp rt_ap_wait
ap:
    mov $1, %ebp
    xor %r15d, %r15d
1:  pause
    cmp round, %r15d
    je 1b
    mov round, %r15d
    mov rounds, %r14d
2:  mov work, %eax
    call *%rax
    dec %r14d
    jnz 2b
    lock incl finished
    jmp 1b
    .data
    .align 8
rounds: .quad N
    .bss
    .align 8
work: .skip 8
round: .skip 8
finished: .skip 8
