/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XSAVE family: #UD without CR4.OSXSAVE, XSETBV's checks, XGETBV, CPUID sizes following XCR0, XSAVE and
 * XRSTOR with masks (XSTATE_BV, init state), header checks (#GP), 64-byte alignment, AVX without XCR0.AVX
 * #UD, YMM upper halves, #NM by TS, XSAVEOPT, XSAVEC.
 * Manual: SDM 1 13; 2D XSAVE, XRSTOR, XSETBV, XGETBV.
 * qemu: differs (xsave with TS): TCG does not check
 * qemu: differs (xrstor with a reserved bit of MXCSR): TCG does not check
 */
#include "rt.h"

#define IMG rt_buf
#define HDR (rt_buf+512)

TEST64 fpu_xsave
    NEED 1, ecx, 26, "no XSAVE"
    xor %ecx, %ecx
    FAULTS "xgetbv without OSXSAVE", UD, 0, xgetbv
    mov $3, %eax
    xor %edx, %edx
    FAULTS "xsave without OSXSAVE", UD, 0, xsave IMG
    CR_SET cr4, CR4_OSXSAVE
    xor %ecx, %ecx
    xgetbv
    EXPECT "XCR0 at reset", %rax, $1
    EXPECT "XCR0 at reset, high", %rdx, $0
    mov $0xD, %eax
    xor %ecx, %ecx
    cpuid
    mov %eax, %r12d     /* supported components */
    EXPECT "CPUID.D.0: size with x87 only", %rbx, $576
    xor %ecx, %ecx
    xor %edx, %edx
    mov $2, %eax
    FAULTS "xsetbv without x87", GP, 0, xsetbv
    mov $5, %eax
    FAULTS "xsetbv: AVX without SSE", GP, 0, xsetbv
    mov $1, %eax
    mov $0x40000000, %edx
    FAULTS "xsetbv: a component that is not there", GP, 0, xsetbv
    xor %edx, %edx
    inc %ecx
    FAULTS "xsetbv of XCR1", GP, 0, xsetbv
    mov $99, %ecx
    FAULTS "xgetbv of XCR99", GP, 0, xgetbv
    xor %ecx, %ecx
    mov $3, %eax
    NOFAULT "xsetbv: x87 and SSE", xsetbv
    test $4, %r12d
    jz no_avx
    FAULTS "AVX without XCR0.AVX", UD, 0, vpxor %xmm0, %xmm0, %xmm0
    mov $7, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    NOFAULT "xsetbv: AVX", xsetbv
    mov $0xD, %eax
    cpuid
    EXPECT "CPUID.D.0: size with AVX", %rbx, $832
    vpcmpeqd %xmm3, %xmm3, %xmm3
    vinsertf128 $1, %xmm3, %ymm3, %ymm3
    mov $7, %eax
    xor %edx, %edx
    call clear
    xsave IMG
    EXPECT "YMM3's upper half", IMG+576+48, $-1
    EXPECT_BITS "XSTATE_BV has AVX and SSE", HDR, $6, $6
    vxorps %ymm3, %ymm3, %ymm3
    mov $3, %eax
    xrstor IMG
    vextractf128 $1, %ymm3, %xmm4
    movq %xmm4, %rcx
    EXPECT "xrstor with mask 3 leaves the upper half", %rcx, $0
    mov $7, %eax
    xrstor IMG
    vextractf128 $1, %ymm3, %xmm4
    movq %xmm4, %rcx
    EXPECT "xrstor with mask 7 restores it", %rcx, $-1
    andq $~4, HDR
    xrstor IMG
    vextractf128 $1, %ymm3, %xmm4
    movq %xmm4, %rcx
    EXPECT "a clear bit of XSTATE_BV: initial state", %rcx, $0
    movq %xmm3, %rcx
    EXPECT "the lower half is SSE's", %rcx, $-1
    CR_SET cr0, CR0_TS
    FAULTS "AVX with TS", NM, 0, vpxor %xmm0, %xmm0, %xmm0
    mov $7, %eax
    xor %edx, %edx
    FAULTS "xsave with TS", NM, 0, xsave IMG
    clts
no_avx:
    fninit
    call clear
    mov $7, %eax
    xor %edx, %edx
    pxor %xmm0, %xmm0
    xsave IMG
    /* header checks */
    mov $3, %eax
    movq $0x8, HDR
    FAULTS "XSTATE_BV bit that XCR0 does not have", GP, 0, xrstor IMG
    movq $3, HDR
    movq $1, HDR + 8
    FAULTS "XCOMP_BV without bit 63", GP, 0, xrstor IMG
    movq $0, HDR + 8
    movq $1, HDR + 16
    FAULTS "reserved bytes of the header", GP, 0, xrstor IMG
    movq $0, HDR + 16
    NOFAULT "all right again", xrstor IMG
    mov $IMG + 16, %ebx
    FAULTS "xsave, not aligned to 64", GP, 0, xsave (%rbx)
    FAULTS "xrstor, not aligned to 64", GP, 0, xrstor (%rbx)
    FAULTS "xsave with lock", UD, 0, .byte 0xF0, 0x0F, 0xAE, 0x23
    movl $0x10001F80, IMG + 24
    FAULTS "xrstor with a reserved bit of MXCSR", GP, 0, xrstor IMG
    movl $0x1F80, IMG + 24
    USER
    xor %ecx, %ecx
    NOFAULT "xgetbv at CPL 3", xgetbv
    FAULTS "xsetbv at CPL 3", GP, 0, xsetbv
    KERNEL
    /* XSAVEC */
    mov $0xD, %eax
    mov $1, %ecx
    cpuid
    bt $1, %eax
    jnc 1f
    call clear
    mov $3, %eax
    xor %edx, %edx
    xsavec IMG
    mov $0x8000000000000003, %rcx
    EXPECT "xsavec: XCOMP_BV", HDR+8, %rcx
    NOFAULT "xrstor of the compact form", xrstor IMG
1:  DONE

clear:
    push %rax
    push %rcx
    mov $rt_buf, %edi
    mov $1024, %ecx
    xor %eax, %eax
    rep stosb
    pop %rcx
    pop %rax
    ret
