/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One processor loads MXCSR, or the x87 control word, while the other one changes it in memory between a value that masks all exceptions and one
 * that does not: what was loaded is one of both, and decides whether a division by zero raises #XM or #MF. (A translator that looks at the value
 * before it loads it must load what it looked at.)
 * cpus: 2
 * timeout: 150
 * Manual: SDM 1 8.1.5, 10.2.3; 3A 6.15 (interrupts 16, 19).
 * qemu: differs (x87: as many exceptions as words that unmask it): TCG delivers #MF only on FWAIT
 * qemu: differs (MXCSR: as many exceptions as words that unmask it): TCG raises no SIMD exceptions
 */
#include "rt.h"

#define ROUNDS 1000000
#define XMMEXCPT 0x400

TEST64 smp_fpctl
    CR_SET cr4, (CR4_OSFXSR | XMMEXCPT)
    CR_SET cr0, CR0_NE
    CR_CLEAR cr0, (CR0_EM | CR0_TS)
    HOOK XM, on_xm
    HOOK MF, on_mf
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    mov $ROUNDS, %r12d
    xor %r13d, %r13d
    movss zero, %xmm1
1:  ldmxcsr mxcsr
    stmxcsr seen
    mov seen, %eax                  /* bit 9: masked */
    not %eax
    shr $9, %eax
    and $1, %eax
    add %eax, %r13d
    movss one, %xmm0
    divss %xmm1, %xmm0
    dec %r12d
    jnz 1b
    EXPECT "MXCSR: as many exceptions as words that unmask it", raised, %r13
    movq $0, raised
    mov $ROUNDS, %r12d
    xor %r13d, %r13d
    fninit
1:  fldcw control
    fnstcw seen
    mov seen, %eax                  /* bit 2: masked */
    not %eax
    shr $2, %eax
    and $1, %eax
    add %eax, %r13d
    fld1
    fdivs zero
    fstp %st(0)                     /* #MF, if it is not */
    fnclex
    dec %r12d
    jnz 1b
    EXPECT "x87: as many exceptions as words that unmask it", raised, %r13
    movl $1, over
    DONE

on_xm:
    incq raised
    ldmxcsr masked
    ret
on_mf:
    incq raised
    fnclex
    ret

    .text
ap: xorl $0x200, mxcsr
    xorw $0x4, control
    cmpl $0, over
    je ap
2:  hlt
    jmp 2b

    .section .rodata
    .balign 4
one: .float 1
zero: .float 0
masked: .long 0x1F80
    .data
    .balign 64
mxcsr: .long 0x1F80
control: .word 0x37F
    .balign 64
over: .long 0
seen: .quad 0
raised: .quad 0
