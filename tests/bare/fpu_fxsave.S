/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FXSAVE and FXRSTOR: the image's fields (FCW, FSW, abridged tag, MXCSR and mask, ST registers in stack
 * order, XMM 0 to 15), reserved bytes left alone, 64-bit and 32-bit formats, restore of everything, 16-byte
 * alignment, MXCSR reserved bits on restore #GP, FNSAVE and FRSTOR, FNINIT, FNSTENV.
 * Manual: SDM 2A FXSAVE, FXRSTOR; 1 8.1.10, 10.5.
 * qemu: differs (fxrstor with a reserved bit of MXCSR): TCG does not check or mask
 * qemu: differs (fnstenv masks all): TCG does not check or mask
 */
#include "rt.h"

#define IMG rt_buf
#define IMG2 (rt_buf+512)

TEST64 fpu_fxsave
    fninit
    fldpi
    fld1
    fldz
    ldmxcsr mxcsr
    mov $0x1122334455667788, %rax
    movq %rax, %xmm0
    movq %rax, %xmm15
    punpcklqdq %xmm15, %xmm15
    mov $rt_buf, %edi
    mov $0xCC, %al
    mov $1024, %ecx
    rep stosb
    fxsave IMG
    mov IMG, %eax
    movzwl %ax, %eax
    EXPECT "FCW", %rax, $0x37F
    mov IMG + 2, %ax
    EXPECT_BITS "FSW: TOP", %rax, $0x3800, $0x2800
    movzbl IMG + 4, %eax
    EXPECT "abridged tag word: ST0 to ST2 are physical 5 to 7", %rax, $0xE0
    mov IMG + 24, %eax
    EXPECT "MXCSR", %rax, $0x1FA0
    mov IMG + 32, %rax
    EXPECT "ST0 is 0.0", %rax, $0
    mov IMG + 48, %rax
    mov $0x8000000000000000, %rcx
    EXPECT "ST1: mantissa of 1.0", %rax, %rcx
    mov IMG + 56, %rax
    EXPECT_BITS "ST1: exponent of 1.0", %rax, $0xFFFF, $0x3FFF
    mov $0x1122334455667788, %rcx
    EXPECT "XMM0", IMG+160, %rcx
    EXPECT "XMM0, high", IMG+168, $0
    EXPECT "XMM15", IMG+160+240, %rcx
    EXPECT "XMM15, high", IMG+160+248, %rcx
    mov $0xCCCCCCCCCCCCCCCC, %rcx
    EXPECT "bytes 464 and up are left alone", IMG+464, %rcx
    EXPECT "bytes 504 and up are left alone", IMG+504, %rcx
    /* restore */
    fninit
    pxor %xmm0, %xmm0
    pxor %xmm15, %xmm15
    ldmxcsr mxcsr0
    fxrstor IMG
    fxsave IMG2
    movq $0, IMG + 8
    movq $0, IMG + 16
    movq $0, IMG2 + 8
    movq $0, IMG2 + 16
    movw $0, IMG + 6
    movw $0, IMG2 + 6
    mov $IMG, %esi
    mov $IMG2, %edi
    mov $416 / 8, %ecx
    repe cmpsq
    EXPECT_FLAGS "fxsave after fxrstor: the same image", FL_ZF, FL_ZF
    stmxcsr IMG2
    mov IMG2, %eax
    EXPECT "MXCSR is restored", %rax, $0x1FA0
    faddp
    fstpl IMG2
    mov $0x3FF0000000000000, %rcx
    EXPECT "the stack works: 0 + 1", IMG2, %rcx
    /* checks */
    mov $IMG + 8, %ebx
    FAULTS "fxsave, not aligned to 16", GP, 0, fxsave (%rbx)
    FAULTS "fxrstor, not aligned to 16", GP, 0, fxrstor (%rbx)
    movl $0x10001F80, IMG + 24
    FAULTS "fxrstor with a reserved bit of MXCSR", GP, 0, fxrstor IMG
    movl $0x1F80, IMG + 24
    /* FNSAVE initialises; FRSTOR */
    fninit
    fld1
    fldpi
    fnsave IMG2
    fnstsw %ax
    EXPECT_BITS "fnsave initialises", %rax, $0xFFFF, $0
    movzwl IMG2 + 8, %eax
    EXPECT "fnsave: full tag word", %rax, $0x0FFF
    frstor IMG2
    fstp %st(0)
    fstpl IMG2
    EXPECT "frstor", IMG2, %rcx
    /* FNSTENV masks all exceptions */
    fninit
    fldcw cw_unmasked
    fnstenv IMG2
    fnstcw IMG
    movzwl IMG, %eax
    EXPECT "fnstenv masks all", %rax, $0x37F
    movzwl IMG2, %eax
    EXPECT "after storing the control word", %rax, $0x340
    /* 32-bit mode saves XMM0 to 7 only */
    mov $rt_buf, %edi
    mov $0xCC, %al
    mov $512, %ecx
    rep stosb
    mov $0x1122334455667788, %rax
    movq %rax, %xmm8
    movq %rax, %xmm7
    COMPAT
    fxsave IMG
    COMPAT_END
    mov $0xCCCCCCCCCCCCCCCC, %rcx
    EXPECT "compatibility mode: XMM8 is not saved", IMG+160+128, %rcx
    mov $0x1122334455667788, %rcx
    EXPECT "compatibility mode: XMM7 is", IMG+160+112, %rcx
    DONE

    .data
mxcsr: .long 0x1FA0
mxcsr0: .long 0x1F80
cw_unmasked: .word 0x340
