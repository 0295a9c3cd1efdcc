/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest whose exits can be counted: 1000 times CPUID in a loop, 500 loads of a register of the HPET, 300 page faults of one
 * hot load, 20 overwritten immediates in hot code; and a hot loop with BMI instructions and one across two pages, which no handler does; 400 PAUSEs, as a
 * processor waits for another one. trace_check compares with what `vitro run --trace` tells of it.
 * Manual: SDM 3A 4.7, 11.6.
 */
#include "rt.h"

TEST64 trace
    movl $0, rt_pt      /* TVA is not mapped */
    invlpg TVA
    mov $1000, %r12d
    xor %r13d, %r13d
    jmp hot_cpuid

    .balign 4096
    .globl hot_cpuid
hot_cpuid:
    xor %eax, %eax
    cpuid
    inc %r13d
    dec %r12d
    jnz hot_cpuid
    EXPECT "rounds with CPUID", %r13, $1000

    mov $400, %r12d
    jmp 1f
    .balign 64
1:  pause
    dec %r12d
    jnz 1b

    mov $HPET + 4, %ebx
    mov $500, %r12d
    xor %r13d, %r13d
    jmp 1f
    .balign 64
1:  test %ebp, (%rbx)
    inc %r13d
    dec %r12d
    jnz 1b
    EXPECT "rounds with the HPET", %r13, $500

    mov $TVA + 0x123, %ebx
    mov $300, %r12d
    xor %r13d, %r13d
2:  ARM 4f
    call hot_load
    UNREACHED "no fault"
4:  add x_err, %r13d
    cmpl $PF, x_vec
    jne 5f
    inc %r13d
5:  dec %r12d
    jnz 2b
    EXPECT "page faults", %r13, $300

    mov $20, %r12d
    xor %r13d, %r13d
6:  mov %r12d, rt_buf + 1   /* mov $imm, %eax; ret */
    movb $0xB8, rt_buf
    movb $0xC3, rt_buf + 5
    mov $50, %ebp
    mov $rt_buf, %ebx
7:  call *%rbx
    add %eax, %r13d
    dec %ebp
    jnz 7b
    dec %r12d
    jnz 6b
    EXPECT "overwritten immediates", %r13, $50*20*21/2

    mov $1000, %ebp
    mov $rt_buf, %ebx
    xor %r13d, %r13d
    jmp hot_bmi

    .balign 4096
    .skip 4096 - 80
hot_bmi:
    mov $3, %edx
    mulx (%rbx), %rax, %r14
    mulx %r13, %rcx, %r15
    bzhi %rdx, %rax, %rcx
    blsmsk %r15, %r11
    sarx %rdx, %r11, %r10
    andn (%rbx), %r10, %rsi
    pext %rdx, %rsi, %rdi
    prefetcht0 64(%rbx)
    .balign 16, 0x90
    .skip 16 - 2, 0x90
    add $0x12345, %r13d /* two bytes of it here, the rest in the next page */
    dec %ebp
    jnz hot_bmi
    EXPECT "rounds of an instruction across two pages", %r13, $0x12345*1000
    DONE

    .balign 64
hot_load:
    mov (%rbx), %al
    ret
