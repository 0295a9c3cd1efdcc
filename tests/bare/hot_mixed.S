/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compatibility mode and 64-bit mode in turns, hot: the same bytes mean something else in each, at the same address; in compatibility mode the upper halves of
 * registers do not count; page faults there, and in ring 3.
 * Manual: SDM 3A 9.8.5.3; 1 3.4.1.1.
 */
#include "rt.h"

#define ROUNDS 200

TEST64 hot_mixed
    IST PF, 1
    xor %ebp, %ebp                  /* the number of rounds */
1:  mov $7, %eax
    call bytes
    cmp $8, %eax
    jne out
    movabs $0x1234500000000, %rsi
    lea rt_buf, %edx
    add %rdx, %rsi
    movl $0x600D, rt_buf
    COMPAT
    mov $7, %eax
    call bytes
    mov %eax, %ebx
    call load32
    mov %esi, %edi
    COMPAT_END
    cmp $7, %ebx
    jne out
    cmp $0x600D, %eax
    jne out
    lea rt_buf, %edx
    cmp %rdx, %rdi
    jne out
    inc %ebp
    cmp $ROUNDS, %ebp
    jne 1b
out:
    EXPECT "rounds", %rbp, $ROUNDS

    movq $0, rt_pt
    invlpg TVA
    COMPAT
    mov $TVA + 8, %esi
    FAULTS_AT "not present", PF, 0, load32, call load32
    EXPECT "its address", x_cr2, $TVA + 8
    COMPAT_END
    movq $(TPA | PT_P | PT_W), rt_pt
    movl $0x77, TPA + 8
    COMPAT
    mov $TVA + 8, %esi
    call load32
    EXPECT "present", %eax, $0x77
    mov $100, %edi
3:  USER
    mov $rt_buf, %esi
    call load32
    KERNEL
    dec %edi
    jnz 3b
    EXPECT "ring 3", %eax, $0x600D
    USER
    mov $TVA + 8, %esi
    FAULTS_AT "ring 3: the supervisor's page", PF, 5, load32, call load32
    KERNEL
    call load32
    EXPECT "ring 0 again", %eax, $0x77
    COMPAT_END
    DONE

    .balign 4096 /* another page, so that calls look it up */
bytes: /* 64-bit: inc %rax; 32-bit: dec %eax, inc %eax */
    .byte 0x48, 0xFF, 0xC0
    ret
    CODE32
load32:
    mov (%esi), %eax
    ret
