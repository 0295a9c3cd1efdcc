/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions, edges: overlapping copies both ways, a copy onto its own bytes (fill pattern), DF,
 * segment overrides, wrap of a 16-bit SI/DI/CX, REPE/REPNE ends and flags, zero counts, REP on LODS.
 * Manual: SDM 2B REP, MOVS, CMPS, SCAS; 1 7.3.9.
 */
#include "rt.h"

TEST_LOW str_edges
    movl $0x64636261, rt_buf
    mov $rt_buf, %esi
    lea 1(%esi), %edi
    mov $7, %ecx
    rep movsb
    EXPECT "overlap forward spreads the first byte", rt_buf+4, $0x61616161
    movl $0x64636261, rt_buf
    movl $0x68676665, rt_buf + 4
    mov $rt_buf, %esi
    lea 2(%esi), %edi
    mov $3, %ecx
    rep movsw
    EXPECT "overlap by a word", rt_buf+4, $0x62616261
    movl $0x64636261, rt_buf
    mov $rt_buf, %esi
    lea 1(%esi), %edi
    mov $1, %ecx
    rep movsl
    EXPECT "overlapping dword", rt_buf+1, $0x64636261
    movl $0x64636261, rt_buf
    mov $rt_buf + 3, %esi
    mov $rt_buf + 4, %edi
    mov $4, %ecx
    std
    rep movsb
    cld
    EXPECT "overlap backward moves it", rt_buf+1, $0x64636261
    EXPECT "backward: esi", %esi, $(rt_buf-1)
    EXPECT "backward: edi", %edi, $rt_buf
    /* a large overlapping copy, faster paths included */
    mov $rt_buf, %edi
    mov $0x800, %ecx
1:  mov %cl, (%edi)
    inc %edi
    loop 1b
    mov $rt_buf, %esi
    mov $rt_buf + 3, %edi
    mov $0x700, %ecx
    rep movsb
    mov $rt_buf, %edi
    mov (%edi), %eax
    xor %edx, %edx
2:  movzbl (%edi,%edx), %ecx
    push %edx
    mov %edx, %eax
    xor %edx, %edx
    push $3
    divl (%esp)
    pop %eax
    movzbl rt_buf(%edx), %eax
    pop %edx
    cmp %eax, %ecx
    jne 3f
    inc %edx
    cmp $0x700, %edx
    jb 2b
3:  EXPECT "a large copy at distance 3 repeats three bytes", %edx, $0x700
    /* compares */
    movl $0x04030201, rt_buf
    movl $0x04030201, rt_buf + 16
    movl $0x08070605, rt_buf + 4
    movl $0x08070905, rt_buf + 20
    mov $rt_buf, %esi
    mov $rt_buf + 16, %edi
    mov $20, %ecx
    repe cmpsb
    EXPECT_FLAGS "repe cmpsb: below", (FL_CF|FL_ZF|FL_SF), (FL_CF|FL_SF)
    EXPECT "repe cmpsb: ecx", %ecx, $14
    EXPECT "repe cmpsb: esi", %esi, $(rt_buf+6)
    mov $rt_buf, %edi
    mov $8, %al
    mov $20, %ecx
    repne scasb
    EXPECT_FLAGS "repne scasb: found", FL_ZF, FL_ZF
    EXPECT "repne scasb: ecx", %ecx, $12
    xor %ecx, %ecx
    stc
    mov $1, %al
    repe scasb
    EXPECT_FLAGS "repe scasb of nothing keeps the flags", FL_CF, FL_CF
    mov $rt_buf, %esi
    mov $3, %ecx
    rep lodsb
    EXPECT_BITS "rep lodsb leaves the last", %eax, $0xFF, $3
    /* segment override holds for the source only */
    GDT_SET SEL(0), $rt_buf, $0xFFFF, 0x493
    mov $SEL(0), %eax
    mov %eax, %fs
    xor %esi, %esi
    mov $rt_buf + 32, %edi
    .byte 0x64
    movsl
    EXPECT "fs: movsl", rt_buf+32, $0x04030201
    /* 16-bit registers wrap */
    REAL
    mov $0x6000, %ax
    mov %ax, %es
    mov $0xFFFE, %edi
    mov $0xABCD0004, %ecx
    mov $0x11, %al
    cld
    rep stosb
    EXPECT "di wraps", %edi, $2
    EXPECT "only cx counts", %ecx, $0xABCD0000
    EXPECT_BITS "the byte at 0xFFFF", %es:0xFFFC, $0x7FFF0000, $0x11110000
    EXPECT_BITS "the byte at 0", %es:0, $0xFFFF, $0x1111
    mov $0x12340001, %edi
    mov $2, %cx
    std
    rep stosb
    cld
    EXPECT "di wraps down, the upper half stays", %edi, $0x1234FFFF
    xor %ax, %ax
    mov %ax, %es
    DONE
