/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #XM: unmasked SIMD floating-point exceptions are faults that leave the destination alone and set the
 * flag; with CR4.OSXMMEXCPT = 0 they are #UD; masked ones only set flags. LDMXCSR with reserved bits: #GP(0).
 * Manual: SDM 1 11.5; 3A 6.15 "Interrupt 19".
 * qemu: differs (divps by zero): TCG has no unmasked SIMD exceptions
 * qemu: differs (the destination is kept): TCG has no unmasked SIMD exceptions
 * qemu: differs (addps with a signalling NaN): TCG has no unmasked SIMD exceptions
 * qemu: differs (ucomiss with a signalling NaN): TCG has no unmasked SIMD exceptions
 * qemu: differs (cvttss2si out of range): TCG has no unmasked SIMD exceptions
 * qemu: differs (inexact, detected after the computation): TCG has no unmasked SIMD exceptions
 * qemu: differs (inexact: the destination is kept): TCG has no unmasked SIMD exceptions
 * qemu: differs (OSXMMEXCPT = 0): TCG has no unmasked SIMD exceptions
 * qemu: differs (ldmxcsr, reserved bit): TCG has no unmasked SIMD exceptions
 * qemu: differs (mxcsr is kept): TCG has no unmasked SIMD exceptions
 */
#include "rt.h"

TEST64 exc_xm
    movups ones, %xmm0
    xorps %xmm1, %xmm1
    ldmxcsr all_masked
    NOFAULT "masked", divps %xmm1, %xmm0
    stmxcsr rt_buf
    movl $0, rt_buf + 4
    EXPECT_BITS "ZE", rt_buf, $0x3F, $4
    movups ones, %xmm0
    ldmxcsr zm_clear
    FAULTS "divps by zero", XM, 0, divps %xmm1, %xmm0
    movd %xmm0, %eax
    EXPECT "the destination is kept", %rax, $0x3F800000
    stmxcsr rt_buf
    EXPECT_BITS "ZE is set", rt_buf, $0x3F, $4
    ldmxcsr im_clear
    movups nans, %xmm2
    FAULTS "addps with a signalling NaN", XM, 0, addps %xmm2, %xmm0
    FAULTS "ucomiss with a signalling NaN", XM, 0, ucomiss %xmm2, %xmm0
    FAULTS "cvttss2si out of range", XM, 0, cvttss2si big, %eax
    NOFAULT "other exceptions are masked", divps %xmm1, %xmm0
    ldmxcsr pm_clear
    movups ones, %xmm0
    FAULTS "inexact, detected after the computation", XM, 0, divss three, %xmm0
    movd %xmm0, %eax
    EXPECT "inexact: the destination is kept", %rax, $0x3F800000
    CR_CLEAR cr4, CR4_OSXMM
    ldmxcsr zm_clear
    FAULTS "OSXMMEXCPT = 0", UD, 0, divps %xmm1, %xmm0
    CR_SET cr4, CR4_OSXMM
    FAULTS "ldmxcsr, reserved bit", GP, 0, ldmxcsr reserved
    stmxcsr rt_buf
    EXPECT_BITS "mxcsr is kept", rt_buf, $0x1F80, $0x1D80
    ldmxcsr all_masked
    DONE

    .data
    .align 16
ones: .long 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000
nans: .long 0x7F800001, 0x7F800001, 0x7F800001, 0x7F800001
all_masked: .long 0x1F80
zm_clear: .long 0x1D80
im_clear: .long 0x1F00
pm_clear: .long 0x0F80
big: .long 0x7F000000
three: .long 0x40400000
reserved: .long 0x10001F80
