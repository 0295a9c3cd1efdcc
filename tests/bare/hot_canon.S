/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses that are not canonical, hot: every addressing form runs on good addresses until it is translated, then on
 * the edges of the hole, inside it, and across its edges: #GP(0), or #SS(0) through RSP and RBP, with all registers and
 * flags kept; the last and the first canonical byte: #PF at exactly that address. Then on good ones again.
 * Manual: SDM 1 3.3.7.1; 3A 6.15 (#GP, #SS).
 * timeout: 300
 * qemu: differs (across the edge): TCG reports a page fault at the first byte
 * qemu: differs (through RSP or RBP): TCG raises #GP
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_canon
    IST PF, 1
    IST GP, 1
    IST SSF, 1
    call hot_vec_on
    WRMSR_ MSR_FS_BASE, $0x1000
    WRMSR_ MSR_GS_BASE, $-0x2000, -1
    call hot_canon
    DONE

    .data 2
    .globl forms, forms_end
    .balign 8
forms:
    FORM "mov load", HOT_READ, 8, 7, 0, mov (%rdi), %rax
    FORM "byte load", HOT_READ, 1, 10, 0, movzbl (%r10), %r10d
    FORM "disp32", HOT_READ, 8, 11, 0, mov -0x7ffffff0(%r11), %rbx
    FORM "scaled", HOT_READ, 4, 14, 0, mov 8(%r14,%rcx,8), %r11d
    FORM "base and index", HOT_READ, 2, 0, 0, mov (%rax,%rcx), %dx
    FORM "fs", HOT_READ, 8, 6, 0, mov %fs:8(%rsi), %rsi
    FORM "gs", HOT_READ, 8, 8, 0, mov %gs:(%r8,%rcx,2), %r9
    FORM "rbp", HOT_READ, 8, 5, 0, mov 8(%rbp), %rax
    FORM "ds:rbp", HOT_READ, 4, 13, 0, mov (%r13), %eax
    FORM "add r, m", HOT_READ, 8, 2, 0, add (%rdx), %rdx
    FORM "cmp m, imm", HOT_READ, 4, 15, 0, cmpl $5, (%r15)
    FORM "store", HOT_WRITE, 8, 3, 0, mov %r11, (%rbx)
    FORM "store imm", HOT_WRITE, 4, 12, 0, movl $77, 4(%r12)
    FORM "rbp store", HOT_WRITE, 8, 5, 0, mov %rsi, (%rbp,%rcx)
    FORM "adc m, r", HOT_RMW, 8, 9, 0, adc %rax, (%r9)
    FORM "lock inc", HOT_RMW, 4, 7, 0, lock incl (%rdi)
    FORM "xchg", HOT_RMW, 8, 6, 0, xchg %rax, (%rsi)
    FORM "stos", HOT_WRITE, 8, 7, 0, stosq
    FORM "rep stos", HOT_WRITE, 8, 7, 0, rep stosq
    FORM "bt m, r", HOT_READ, 8, 10, 0, bt %rcx, (%r10)
    FORM "bt m, far", HOT_READ, 4, 14, 0, bt %esi, (%r14)
    FORM "bts m, r", HOT_RMW, 4, 6, 0, bts %ecx, (%rsi)
    FORM "lock btr m, far", HOT_RMW, 4, 7, 0, lock btr %r12d, (%rdi)
    FORM "cmpxchg16b", HOT_RMW, 16, 9, 0, cmpxchg16b (%r9)
    FORM "lods", HOT_READ, 4, 6, 0, lodsl
    FORM "movups load", HOT_READ, 16, 10, 0, movups (%r10), %xmm0
    FORM "movups store", HOT_WRITE, 16, 0, 0, movups %xmm1, (%rax)
    FORM "movsd load", HOT_READ, 8, 11, 0, movsd (%r11), %xmm2
    FORM "vmovups ymm", HOT_READ, 32, 3, NEED_AVX, vmovups (%rbx), %ymm0
    FORM "vmovdqu64 zmm", HOT_WRITE, 64, 2, NEED_AVX512, vmovdqu64 %zmm1, (%rdx)
    FORM_SP "push", HOT_WRITE, 8, 0, push %rsi
    FORM_SP "pop", HOT_READ, 8, 0, pop %r10
    FORM_SP "ret", HOT_READ, 8, end, ret
forms_end:
