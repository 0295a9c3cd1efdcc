/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kind of memory operand, hot: a function of one instruction runs on aligned operands until it is translated, then
 * on unaligned ones, on ones across two pages that are not neighbours in memory, and with the second or the first page
 * missing or read-only: the same result as on flat memory; or the exact fault, and nothing changed. In rings 0 and 3, with
 * EFLAGS.AC set (and CR0.AM clear), and under SMAP. hot_mem.c does it.
 * Manual: SDM 3A 4.7, 8.1.1, 6.15 (#PF: saved state); 1 4.1.1.
 * timeout: 300
 * qemu: differs (a read-modify-write reports a write): TCG reads first
 */
#include "rt.h"
#include "hot.h"

.macro PUSH_M
    push (%r11)
    pop %r10
.endm
/* As FORM, with a push before it. */
.macro FORM_POP name, insn:vararg
    .pushsection .text
.Lfn\@:
    push %rsi
.Lin\@:
    \insn
    ret
    .popsection
    FORM_ROW "\name", HOT_WRITE, 8, 2, 0, .Lfn\@, .Lin\@, 0
.endm
.macro FLD_FSTP
    fldl (%r8)
    fstp %st
.endm
.macro CALL_NEXT
    call 9f
9:
.endm

TEST64 hot_mem
    IST PF, 1
    IST GP, 1
    IST SSF, 1
    call hot_vec_on
    CR_SET cr0, CR0_WP
    mov $1, %edi
    call hot_mem
    SUPERVISOR_ONLY
    NEED 7, ebx, 20, "no SMAP"
    CR_SET cr4, CR4_SMAP
    xor %edi, %edi
    call hot_mem
    DONE

    .data 2
    .globl forms, forms_end
    .balign 8
forms:
    FORM "mov r16", HOT_READ, 2, 7, 0, mov (%rdi), %ax
    FORM "mov r32", HOT_READ, 4, 10, 0, mov (%r10), %eax
    FORM "mov r64", HOT_READ, 8, 11, 0, mov (%r11), %r11
    FORM "mov r64, scaled", HOT_READ, 8, 14, 0, mov -16(%r14,%rcx,4), %r8
    FORM "mov r64, 32-bit address", HOT_READ, 8, 6, 0, mov (%esi), %rsi
    FORM "movslq", HOT_READ, 4, 15, 0, movslq (%r15), %rdx
    FORM "movzwl", HOT_READ, 2, 3, 0, movzwl (%rbx), %r9d
    FORM "cmov not taken", HOT_READ, 8, 0, 0, cmovnc (%rax), %rbp
    FORM "add r, m", HOT_READ, 4, 2, 0, add (%rdx), %r10d
    FORM "sbb r, m", HOT_READ, 8, 11, 0, sbb (%r11), %rax
    FORM "cmp m, r", HOT_READ, 8, 10, 0, cmp %r11, (%r10)
    FORM "test m, imm", HOT_READ, 4, 9, 0, testl $0x80000001, (%r9)
    FORM "imul r, m, imm", HOT_READ, 8, 8, 0, imul $-7, (%r8), %r15
    FORM "mul m", HOT_READ, 8, 6, 0, mulq (%rsi)
    FORM "bt m, imm", HOT_READ, 4, 14, 0, btl $31, (%r14)
    FORM "push m", HOT_READ, 8, 11, 0, PUSH_M
    FORM "popcnt", HOT_READ, 8, 7, 0, popcnt (%rdi), %rsi
    FORM "lods", HOT_READ, 8, 6, 0, lodsq
    FORM "scas", HOT_READ, 4, 7, 0, scasl
    FORM_FILL "call m", HOT_READ, 8, 5, just_ret, call *(%rbp)
    FORM_FILL "jmp m", HOT_READ, 8, 10, just_ret, jmp *(%r10)
    FORM "mov m16", HOT_WRITE, 2, 12, 0, mov %cx, (%r12)
    FORM "mov m32", HOT_WRITE, 4, 13, 0, mov %r10d, (%r13)
    FORM "mov m64", HOT_WRITE, 8, 10, 0, mov %r11, (%r10)
    FORM "mov m64, imm", HOT_WRITE, 8, 5, 0, movq $-3, (%rbp)
    FORM "mov m64, scaled", HOT_WRITE, 8, 0, 0, mov %r15, -8(%rax,%rcx,2)
    FORM_POP "pop m", pop (%rdx)
    FORM "stos", HOT_WRITE, 8, 7, 0, stosq
    FORM "movnti", HOT_WRITE, 8, 14, 0, movnti %rax, (%r14)
    FORM "fnstcw", HOT_WRITE, 2, 3, 0, fnstcw (%rbx)
    FORM "add m, r", HOT_RMW, 8, 15, 0, add %r11, (%r15)
    FORM "adc m, r", HOT_RMW, 4, 10, 0, adc %eax, (%r10)
    FORM "inc m", HOT_RMW, 4, 11, 0, incl (%r11)
    FORM "neg m", HOT_RMW, 8, 0, 0, negq (%rax)
    FORM "not m", HOT_RMW, 2, 2, 0, notw (%rdx)
    FORM "shl m, cl", HOT_RMW, 8, 3, 0, shlq %cl, (%rbx)
    FORM "shld m", HOT_RMW, 8, 6, 0, shld $5, %rax, (%rsi)
    FORM "rcr m", HOT_RMW, 4, 7, 0, rcrl $1, (%rdi)
    FORM "bts m, imm", HOT_RMW, 8, 8, 0, btsq $63, (%r8)
    FORM "xchg", HOT_RMW, 8, 9, 0, xchg %r10, (%r9)
    FORM "xadd", HOT_RMW, 4, 5, 0, xadd %r11d, (%rbp)
    FORM "lock add", HOT_RMW, 4, 12, 0, lock addl $0x1234567, (%r12)
    FORM "lock xadd", HOT_RMW, 8, 13, 0, lock xadd %rax, (%r13)
    FORM "cmpxchg", HOT_RMW, 8, 10, 0, cmpxchg %r11, (%r10)
    FORM "lock cmpxchg", HOT_RMW, 4, 11, 0, lock cmpxchg %edx, (%r11)
    FORM "lock cmpxchg8b", HOT_RMW, 8, 7, 0, lock cmpxchg8b (%rdi)
    FORM "movups load", HOT_READ, 16, 10, 0, movups (%r10), %xmm0
    FORM "movups store", HOT_WRITE, 16, 11, 0, movups %xmm1, (%r11)
    FORM "movdqu load", HOT_READ, 16, 0, 0, movdqu (%rax), %xmm2
    FORM "movsd load", HOT_READ, 8, 14, 0, movsd (%r14), %xmm0
    FORM "movsd store", HOT_WRITE, 8, 6, 0, movsd %xmm2, (%rsi)
    FORM "movhps load", HOT_READ, 8, 2, 0, movhps (%rdx), %xmm1
    FORM "cvtsi2sd", HOT_READ, 8, 3, 0, cvtsi2sdq (%rbx), %xmm0
    FORM "ucomiss", HOT_READ, 4, 15, 0, ucomiss (%r15), %xmm0
    FORM "pinsrw", HOT_READ, 2, 9, 0, pinsrw $3, (%r9), %xmm0
    FORM "fld, fstp", HOT_READ, 8, 8, 0, FLD_FSTP
    FORM "vmovups ymm load", HOT_READ, 32, 10, NEED_AVX, vmovups (%r10), %ymm0
    FORM "vmovups ymm store", HOT_WRITE, 32, 0, NEED_AVX, vmovups %ymm1, (%rax)
    FORM "vpxor ymm", HOT_READ, 32, 11, NEED_AVX, vxorps (%r11), %ymm1, %ymm2
    FORM "vbroadcastss", HOT_READ, 4, 7, NEED_AVX, vbroadcastss (%rdi), %ymm0
    FORM "vmovdqu64 zmm load", HOT_READ, 64, 14, NEED_AVX512, vmovdqu64 (%r14), %zmm0
    FORM "vmovdqu64 zmm store", HOT_WRITE, 64, 10, NEED_AVX512, vmovdqu64 %zmm1, (%r10)
    FORM "vpaddd zmm", HOT_READ, 64, 3, NEED_AVX512, vpaddd (%rbx), %zmm1, %zmm2
    FORM_SP "push", HOT_WRITE, 8, 0, push %rsi
    FORM_SP "push imm", HOT_WRITE, 8, 0, pushq $-5
    FORM_SP "push r16", HOT_WRITE, 2, 0, push %dx
    FORM_SP "pushfq", HOT_WRITE, 8, 0, pushfq
    FORM_SP "call", HOT_WRITE, 8, 0, CALL_NEXT
    FORM_SP "enter", HOT_WRITE, 8, 0, enter $0x20, $0
    FORM_SP "pop", HOT_READ, 8, 0, pop %r10
    FORM_SP "pop r16", HOT_READ, 2, 0, pop %ax
    FORM_SP "popfq", HOT_READ, 8, 0x896, popfq
    FORM_SP "ret", HOT_READ, 8, end, ret
    FORM_SP "ret imm", HOT_READ, 8, end, ret $0x18
forms_end:
    .text
just_ret: ret
