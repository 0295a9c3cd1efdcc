/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stack instructions: PUSH and POP of RSP, POP to memory addressed by RSP, sizes of immediates and
 * segments, ENTER with nesting levels, LEAVE, RET n, PUSHA and POPA, PUSHF and POPF sizes and which flags
 * they may change, LAHF and SAHF.
 * Manual: SDM 2A ENTER, LEAVE, POPA; 2B POP, PUSH, POPF, PUSHA, RET.
 */
#include "rt.h"

TEST64 stack_ops
    mov %rsp, %rbx
    push %rsp
    pop %rax
    EXPECT "push rsp pushes the old value", %rax, %rbx
    pushq $0x1234
    mov %rsp, %rcx
    pushq %rcx
    pop %rsp
    mov %rsp, %rax
    EXPECT "pop rsp", %rax, %rcx
    pushq $0x55
    popq 8(%rsp)            /* the address uses RSP after the pop */
    mov 8(%rsp), %rax
    EXPECT "pop to memory by rsp", %rax, $0x55
    mov %rbx, %rsp
    movq $0, -16(%rsp)
    pushq $-2
    pop %rax
    EXPECT "push imm8 sign-extends", %rax, $-2
    pushq $0x7FFFFFFF
    pop %rax
    EXPECT "push imm32", %rax, $0x7FFFFFFF
    pushw $0x1234
    mov %rsp, %rax
    sub %rbx, %rax
    EXPECT "push imm16 is two bytes", %rax, $-2
    mov %rbx, %rsp
    mov $KDS, %eax
    mov %eax, %fs
    movq $-1, -8(%rsp)
    push %fs
    pop %rax
    EXPECT "push fs zero-extends", %rax, $KDS
    push %fs
    popw %ax
    mov %rsp, %rax
    sub %rbx, %rax
    EXPECT "a two-byte pop", %rax, $-6
    mov %rbx, %rsp
    /* ENTER */
    mov $rt_buf + 0x800, %ebp
    movq $0x1001, -8(%rbp)
    movq $0x1002, -16(%rbp)
    mov $rt_buf + 0x400, %esp
    enter $32, $0
    mov %rsp, %rax
    mov %rbx, %rsp
    EXPECT "enter 32, 0: rsp", %rax, $(rt_buf+0x400-8-32)
    EXPECT "enter 32, 0: rbp", %rbp, $(rt_buf+0x400-8)
    mov $rt_buf + 0x800, %ebp
    mov $rt_buf + 0x400, %esp
    enter $16, $3
    mov %rsp, %rax
    mov %rbx, %rsp
    EXPECT "enter 16, 3: rsp", %rax, $(rt_buf+0x400-8-24-16)
    EXPECT "enter 16, 3: rbp", %rbp, $(rt_buf+0x400-8)
    EXPECT "enter 16, 3: old rbp", rt_buf+0x400-8, $(rt_buf+0x800)
    EXPECT "enter 16, 3: first frame pointer", rt_buf+0x400-16, $0x1001
    EXPECT "enter 16, 3: second", rt_buf+0x400-24, $0x1002
    EXPECT "enter 16, 3: itself", rt_buf+0x400-32, $(rt_buf+0x400-8)
    mov $rt_buf + 0x400, %esp
    mov $rt_buf + 0x3F8, %ebp
    leave
    mov %rsp, %rax
    mov %rbx, %rsp
    EXPECT "leave: rsp", %rax, $(rt_buf+0x400)
    EXPECT "leave: rbp", %rbp, $(rt_buf+0x800)
    enter $8, $33           /* the level is taken modulo 32 */
    mov %rsp, %rax
    mov %rbx, %rsp
    sub %rbx, %rax
    EXPECT "enter 8, 33", %rax, $(-8-8-8)
    /* RET n */
    push $0x77
    push $0x78
    push $1f
    ret $8
1:  pop %rax
    EXPECT "ret 8 drops eight more bytes", %rax, $0x77
    /* flags: all but TF and IF; VM and RF cannot be set, VIF and VIP are cleared by POPF at CPL 0 */
    pushq $0x3FFCFF & ~0x180000
    popfq
    pushfq
    pop %rax
    pushq $2
    popfq
    EXPECT "popfq at CPL 0", %rax, $0x247CD7
    pushq $0x200000
    popfq
    pushw $0x0CD7
    popfw
    pushfq
    pop %rax
    pushq $2
    popfq
    EXPECT "popfw keeps the upper half", %rax, $0x200CD7
    mov $0xD700, %eax
    sahf
    EXPECT_FLAGS "sahf", 0xFF, 0xD7
    mov $0x0000, %eax
    sahf
    lahf
    shr $8, %eax
    EXPECT "lahf: bit 1 is 1, 3 and 5 are 0", %rax, $2
    COMPAT
    mov %esp, %edi
    mov $1, %eax
    mov $2, %ecx
    mov $3, %edx
    mov $4, %ebx
    mov $6, %ebp
    mov $7, %esi
    pushal
    mov %esp, %esi
    mov 12(%esi), %eax
    EXPECT "pusha: esp is the old one", %eax, %edi
    mov 28(%esi), %eax
    EXPECT "pusha: eax", %eax, $1
    mov (%esi), %eax
    EXPECT "pusha: edi", %eax, %edi
    movl $0x1234, 12(%esi)
    movl $0x99, 16(%esi)
    popal
    mov %esp, %eax
    EXPECT "popa does not load esp", %eax, %edi
    EXPECT "popa: ebx", %ebx, $0x99
    EXPECT "popa: ebp", %ebp, $6
    pushaw
    mov %esp, %eax
    sub %edi, %eax
    mov %eax, rt_buf
    popaw
    EXPECT "16-bit pusha is 16 bytes", rt_buf, $-16
    COMPAT_END
    DONE
