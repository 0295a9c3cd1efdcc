/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Near branches with the 66 prefix in 64-bit mode: Intel ignores the prefix (32-bit displacement, 64-bit
 * RIP), AMD takes a 16-bit operand (16-bit displacement, RIP truncated to 16 bits).
 * Manual: SDM 2A JMP, CALL ("operand size is forced to 64 bits"); APM 3 1.2.7, JMP, CALL.
 */
#include "rt.h"

/* Everything lies below 64 KiB, so that a truncated RIP is the same RIP. */
TEST_LOW branch66
    LONG
    mov %rsp, %rbx
    xor %ecx, %ecx
    cmpl $0, rt_amd
    je intel
    .byte 0x66, 0xE9            /* jmp rel16: four bytes */
    .word 1f - 2f
2:  inc %ecx
1:  EXPECT "AMD: jmp rel16", %rcx, $0
    .byte 0x66, 0xE8            /* call rel16 pushes two bytes */
    .word 3f - 4f
4:  nop
3:  mov %rsp, %rax
    sub %rbx, %rax
    EXPECT "AMD: call rel16 pushes a word", %rax, $-2
    movzwl (%rsp), %eax
    mov %rbx, %rsp
    EXPECT "AMD: which is IP", %rax, $4b
    push %rbx
    pushw $5f
    .byte 0x66, 0xC3
5:  pop %rax
    EXPECT "AMD: ret of a word", %rax, %rbx
    xor %eax, %eax
    .byte 0x66, 0x0F, 0x84      /* jz rel16 */
    .word 6f - 7f
7:  inc %ecx
6:  EXPECT "AMD: jz rel16", %rcx, $0
    DONE
intel:
    .byte 0x66, 0xE9            /* jmp rel32 */
    .long 1f - 2f
2:  inc %ecx
1:  EXPECT "Intel: jmp rel32", %rcx, $0
    .byte 0x66, 0xE8
    .long 3f - 4f
4:  nop
3:  mov %rsp, %rax
    sub %rbx, %rax
    EXPECT "Intel: call pushes eight bytes", %rax, $-8
    mov (%rsp), %rax
    mov %rbx, %rsp
    EXPECT "Intel: which are RIP", %rax, $4b
    DONE
