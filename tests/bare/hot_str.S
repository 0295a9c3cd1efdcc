/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults in the middle of hot instructions that do more than one thing, and JRCXZ: REP MOVS and REP STOS of each size into pages that are missing or
 * read-only, from pages that are missing, with elements across their edges; IRET from a stack that is missing in part, to good
 * and bad segments. The same code at the same place runs well most of the time. hot_str.c does it.
 * Manual: SDM 2B (REP, MOVS, STOS), 2A (IRET), 3A 6.15 (interrupt 14).
 * timeout: 200
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_str
    IST PF, 1
    IST GP, 1
    call hot_str
    DONE

    .globl do_jrcxz, do_jrcxz_back, do_movsb, do_movsw, do_movsl, do_movsq, do_stosb, do_stosw, do_stosl, do_stosq, do_iret, do_iret_at, do_iret_back
.macro DO name, insn:vararg
    .balign 8
\name:
    \insn
    ret
.endm
    DO do_movsb, rep movsb
    DO do_movsw, rep movsw
    DO do_movsl, rep movsl
    DO do_movsq, rep movsq
    DO do_stosb, rep stosb
    DO do_stosw, rep stosw
    DO do_stosl, rep stosl
    DO do_stosq, rep stosq
/* RAX: 1 if RCX is zero, else 2. Forward and backward. */
    .balign 8
do_jrcxz:
    mov $1, %eax
    jrcxz 1f
    lea 1(%rax), %eax
1:  ret
2:  mov $1, %eax
    ret
do_jrcxz_back:
    mov $2, %eax
    jrcxz 2b
    ret
/* RDI: a frame. */
    .balign 8
do_iret:
    mov %rsp, %rbp
    mov %rdi, %rsp
do_iret_at:
    iretq
do_iret_back:
    mov %rbp, %rsp
    inc %r10
    ret
