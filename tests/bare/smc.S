/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Self-modifying code through the same linear address takes effect at once: an instruction further on in
 * the same straight line, the very next one, an immediate in a hot loop, by REP MOVSB, by PUSH, a byte of a
 * straddling instruction in each of its pages, a whole function again and again; data in the same page as
 * code changes nothing.
 * Manual: SDM 3A 11.6; APM 2 7.6.1.
 */
#include "rt.h"

TEST64 smc
    /* ahead in the same block */
    movb $0x22, 1f + 1
    nop
    nop
1:  mov $0x11, %al
    movzbl %al, %eax
    EXPECT "an instruction ahead", %rax, $0x22
    movb $0x33, 2f + 1
2:  mov $0x11, %al
    movzbl %al, %eax
    EXPECT "the next instruction", %rax, $0x33
    movw $0x9090, 3f
    xor %eax, %eax
3:  inc %eax
    EXPECT "an instruction becomes NOPs", %rax, $0
    movb $0xEB, 4f
    movb $2, 4f + 1
    xor %eax, %eax
4:  nop
    nop
    inc %eax
    EXPECT "NOPs become a jump over the next", %rax, $0
    /* a loop that patches its own immediate each time */
    xor %ecx, %ecx
    xor %ebx, %ebx
5:  mov %ecx, 6f + 1
6:  mov $0, %eax
    add %rax, %rbx
    inc %ecx
    cmp $20000, %ecx
    jb 5b
    EXPECT "a loop with a patched immediate", %rbx, $199990000
    /* code written by string instructions and by push */
    mov $code_a, %esi
    mov $7f, %edi
    mov $code_a_end - code_a, %ecx
    rep movsb
7:  mov $0xDEAD, %eax
    nop
    EXPECT "rep movsb over the instruction behind it", %rax, $0x4444
    mov %rsp, %rbx
    mov $8f + 8, %esp
    mov code_b, %rax
    push %rax
8:  mov $0xDEAD, %eax
    nop
    nop
    nop
    mov %rbx, %rsp
    EXPECT "push over the next instruction", %rax, $0x5555
    /* a function rewritten and called, with data in its page */
    mov $rt_buf, %edi
    movb $0xB8, (%rdi)
    movb $0xC3, 5(%rdi)
    xor %ebx, %ebx
    mov $5000, %r12d
9:  mov %r12d, 1(%rdi)
    call *%rdi
    add %rax, %rbx
    mov %rax, 64(%rdi)
    dec %r12d
    jnz 9b
    EXPECT "a function rewritten 5000 times", %rbx, $12502500
    /* data writes next to running code */
    mov $loop_with_data, %esi
    mov $rt_buf + 0x100, %edi
    mov $loop_end - loop_with_data, %ecx
    rep movsb
    mov $rt_buf + 0x100, %edx
    mov $0, %eax
    mov $100000, %ecx
    mov $rt_buf + 0x180, %ebx
    movl $0, (%rbx)
    call *%rdx
    mov (%rbx), %eax
    EXPECT "a counter in the page of the code that counts", %rax, $100000
    /* straddling two pages: patch the part in each */
    movl $TPA + 7, rt_pt
    movl $TPA + 0x2007, rt_pt + 8
    mov $TVA + 0xFFD, %edi
    movb $0xB8, (%rdi)
    movl $0x04030201, 1(%rdi)
    movb $0xC3, 5(%rdi)
    call *%rdi
    EXPECT "a straddling instruction", %rax, $0x04030201
    movb $0x55, TVA + 0x1001
    call *%rdi
    EXPECT "patched in the second page", %rax, $0x55030201
    movb $0x66, TVA + 0xFFE
    call *%rdi
    EXPECT "patched in the first page", %rax, $0x55030266
    mov $0x0A0B0C0D, %ecx
    mov %ecx, TVA + 0xFFE
    call *%rdi
    EXPECT "patched across", %rax, $0x0A0B0C0D
    /* the same from 32-bit code */
    COMPAT
    movl $0x77, 1f + 1
1:  mov $0, %eax
    EXPECT "compatibility mode", %eax, $0x77
    COMPAT_END
    DONE

loop_with_data:
    lock incl (%rbx)
    dec %ecx
    jnz loop_with_data
    ret
loop_end:
code_a: mov $0x4444, %eax
code_a_end:
    .align 8
code_b: mov $0x5555, %eax
    nop
    nop
    nop
