/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87 registers in hot code that is interrupted: CR0.TS set again and again (#NM, whose handler does CLTS), page faults of memory operands, whose
 * handler saves the x87 state, uses it and puts it back, and exceptions that the control word unmasks now and then, also by an FLDCW whose
 * operand lies across two pages (#MF). Sums in ST(0) and MM1 show each addition once. The instruction pointer is that of the last one that sets it. The same
 * in compatibility mode.
 * Manual: SDM 1 8.1.8, 8.7.1; 3A 2.5 (TS), 6.15 (interrupts 7, 14, 16).
 * qemu: differs (as many #MF as times that it was unmasked): TCG delivers #MF only on FWAIT
 * timeout: 200
 */
#include "rt.h"
#include "hot.h"

#define ROUNDS 6000

TEST64 hot_x87
    call hot_vec_on
    CR_SET cr0, CR0_NE
    CR_CLEAR cr0, (CR0_EM | CR0_TS)
    HOOK NM, on_nm
    HOOK PF, on_pf
    HOOK MF, on_mf
    mov $ROUNDS, %edi
    call hot_count
    mov %rax, rounds
    call round_begin
    call hot_sum
    EXPECT "the sum", sum, rounds
    EXPECT "the pointers", wrong, $0
    call check_counts
    call round_begin
    call hot_mmx
    EXPECT "MMX: the sum", sum, rounds
    EXPECT "MMX: no register is empty", empty, $0
    EXPECT "EMMS: all are", tags, $0xFFFF
    call check_counts
    call round_begin
    COMPAT
    call hot_sum32
    COMPAT_END
    EXPECT "32-bit: the sum", sum, rounds
    EXPECT "32-bit: the pointers", wrong, $0
    call check_counts
    UNHOOK NM
    UNHOOK PF
    UNHOOK MF
    DONE

round_begin:
    movl $0, nm
    movl $0, pf
    movl $0, mf
    movl $0, nm_want
    movl $0, pf_want
    movl $0, mf_want
    movl $0, wrong
    mov rounds, %r12
    mov %r12d, %esi
    mov $12345, %r13d
    mov %r13d, %ebp
    mov $TVA + 0x100, %edi
    movl $TPA + 7, rt_pt
    mov $1, %eax
    mov %rax, TPA + 0x100
    FLUSH_TLB
    fninit
    ret
check_counts:
    EXPECT "as many #NM as times that TS was set", nm, nm_want
    EXPECT "as many #PF as times that the page went", pf, pf_want
    EXPECT "as many #MF as times that it was unmasked", mf, mf_want
    ret

/* Random: TS, the page, the mask of division by zero. Clobbers EAX. */
.macro TROUBLE random, cr, address
    imul $1103515245, \random, \random
    add $12345, \random
    bt $20, \random
    jc 8f
    bt $21, \random
    jc 7f
    incl nm_want
    mov %cr0, \cr
    or $CR0_TS, \cr
    mov \cr, %cr0
    jmp 8f
7:  bt $22, \random
    jc 6f
    incl pf_want
    movl $0, rt_pt
    invlpg (\address)
    jmp 8f
6:  bt $23, \random
    jc 8f
    incl mf_want
    bt $24, \random
    jc 5f
    fldcw unmasked
    jmp 8f
5:  fldcw across
8:
.endm

/* The instruction pointer of the environment must be that of the label. */
.macro POINTER label, at
    fnstenv env
    fldcw masked                    /* FNSTENV masks all */
    cmpl $\label, env + 12
    je 4f
    incl wrong
4:
.endm

    .balign 8
hot_sum:
    fldz
1:  TROUBLE %r13d, %rax, %rdi
    fld1
    fdivs zero                      /* stays what it is, if that is not masked */
2:  fstp %st(0)                     /* then #MF */
    fildll (%rdi)                   /* #PF, if the page is gone */
3:  faddp
    POINTER 3b
    dec %r12
    jnz 1b
    fistpll sum
    ret
    .balign 8
hot_mmx:
    pxor %mm1, %mm1
1:  TROUBLE %r13d, %rax, %rdi
    paddq (%rdi), %mm1
    fldcw across_masked             /* no flag is set, so nothing was raised */
    dec %r12
    jnz 1b
    movq %mm1, sum
    fnstenv env
    movzwl env + 8, %eax            /* 3: empty */
    mov %eax, %ecx
    shr %ecx
    and %ecx, %eax
    and $0x5555, %eax
    mov %rax, empty
    emms
    fnstenv env
    movzwl env + 8, %eax
    mov %rax, tags
    movl $0, mf_want
    ret

    .code32
    .balign 8
hot_sum32:
    fldz
1:  TROUBLE %ebp, %eax, %edi
    fld1
    fdivs zero
    fstp %st(0)
    fildll (%edi)
3:  faddp
    POINTER 3b
    dec %esi
    jnz 1b
    fistpll sum
    ret
    .code64

on_nm:
    incl nm
    clts
    ret
on_pf:
    incl pf
    fxsave64 save
    fninit
    fldpi
    fistpl sum
    fxrstor64 save
    movl $TPA + 7, rt_pt
    invlpg TVA + 0x100
    ret
on_mf:
    incl mf
    fnclex
    fldcw masked
    ret

    .section .rodata
    .balign 4
zero: .float 0
masked: .word 0x37F
unmasked: .word 0x37B /* ZM */
    .data
    .balign 4096
    .skip 4095
across: .word 0x37B
    .balign 4096
    .skip 4095
across_masked: .word 0x37F
    .bss
    .balign 64
save: .skip 512
env: .skip 28
    .balign 8
sum: .skip 8
tags: .skip 8
empty: .skip 8
wrong: .skip 8
rounds: .skip 8
nm: .skip 8
pf: .skip 8
mf: .skip 8
nm_want: .skip 8
pf_want: .skip 8
mf_want: .skip 8
