/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CMPXCHG, CMPXCHG8B, CMPXCHG16B: ZF and registers both ways; the destination is written (the page must be
 * writable, D is set) also when the comparison fails; CMPXCHG16B not aligned to 16 is #GP(0); registers
 * keep their values over a fault; page crossing; the 32-bit forms' effect on upper halves.
 * Manual: SDM 2A CMPXCHG, CMPXCHG8B/CMPXCHG16B; APM 3 CMPXCHG.
 */
#include "rt.h"

TEST64 mem_cmpxchg
    movq $5, rt_buf
    mov $5, %eax
    mov $9, %ecx
    cmpxchg %ecx, rt_buf
    EXPECT_FLAGS "equal: ZF", FL_ZF, FL_ZF
    EXPECT "equal: stored", rt_buf, $9
    EXPECT "equal: rax is kept", %rax, $5
    cmpxchg %ecx, rt_buf
    EXPECT_FLAGS "not equal: flags of the comparison 5 - 9", (FL_ZF|FL_CF|FL_SF), (FL_CF|FL_SF)
    EXPECT "not equal: rax is loaded", %rax, $9
    mov $-1, %rax
    movl $0x7FFFFFFF, rt_buf
    cmpxchg %ecx, rt_buf
    EXPECT "not equal: 32 bits, upper half cleared", %rax, $0x7FFFFFFF
    mov $-1, %rax
    mov $-1, %rbx
    mov $7, %ecx
    cmpxchg %ecx, %ebx
    EXPECT "register, equal: destination zero-extended", %rbx, $7
    EXPECT "register, equal: rax is kept", %rax, $-1
    /* 8B */
    movl $1, rt_buf
    movl $2, rt_buf + 4
    mov $1, %eax
    mov $2, %edx
    mov $3, %ebx
    mov $4, %ecx
    stc
    cmpxchg8b rt_buf
    EXPECT_FLAGS "8b equal: ZF only changes", (FL_ZF|FL_CF), (FL_ZF|FL_CF)
    mov $0x400000003, %rsi
    EXPECT "8b equal: stored", rt_buf, %rsi
    cmpxchg8b rt_buf
    EXPECT_FLAGS "8b not equal: ZF", FL_ZF, 0
    EXPECT "8b not equal: eax", %rax, $3
    EXPECT "8b not equal: edx", %rdx, $4
    /* faults */
    CR_SET cr0, CR0_WP
    movl $TPA + 5, rt_pt
    movq $77, TPA
    mov $1, %eax
    mov $2, %edx
    FAULTS "cmpxchg, read-only page, not equal", PF, 3, cmpxchg %ecx, TVA
    EXPECT "rax is kept", %rax, $1
    FAULTS "lock cmpxchg8b, read-only page, not equal", PF, 3, lock cmpxchg8b TVA
    EXPECT "8b: eax is kept", %rax, $1
    EXPECT "8b: edx is kept", %rdx, $2
    movl $TPA + 7, rt_pt
    FLUSH_TLB
    lock cmpxchg8b TVA
    EXPECT_BITS "not equal: D is set", rt_pt, $PT_D, $PT_D
    EXPECT "the memory is the same", TPA, $77
    mov $1, %eax
    FAULTS "8b across into a page not present", PF, -1, lock cmpxchg8b TVA+0xFFC
    EXPECT "8b across: cr2", x_cr2, $(TVA+0x1000)
    EXPECT "8b across: eax is kept", %rax, $1
    mov $1, %eax
    call rt_cpuid
    bt $13, %ecx
    jnc 1f
    movq $1, rt_buf
    movq $2, rt_buf + 8
    mov $1, %eax
    mov $2, %edx
    mov $3, %ebx
    mov $4, %ecx
    lock cmpxchg16b rt_buf
    EXPECT_FLAGS "16b equal: ZF", FL_ZF, FL_ZF
    EXPECT "16b equal: low", rt_buf, $3
    EXPECT "16b equal: high", rt_buf+8, $4
    cmpxchg16b rt_buf
    EXPECT_FLAGS "16b without lock, not equal: ZF", FL_ZF, 0
    EXPECT "16b not equal: rax", %rax, $3
    EXPECT "16b not equal: rdx", %rdx, $4
    FAULTS "16b, not aligned to 16", GP, 0, cmpxchg16b rt_buf+8
    FAULTS "lock 16b, not aligned to 16", GP, 0, lock cmpxchg16b rt_buf+1
    movl $TPA + 5, rt_pt
    FLUSH_TLB
    FAULTS "16b, read-only page", PF, 3, lock cmpxchg16b TVA
1:  DONE
