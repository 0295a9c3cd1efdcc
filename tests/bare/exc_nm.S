/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CR0.MP, EM and TS: which of x87, WAIT, MMX and SSE instructions raise #NM or #UD, for all eight settings;
 * CR4.OSFXSR = 0 makes SSE #UD; CLTS clears TS; instructions without vector state do not care.
 * Manual: SDM 3A 2.5 (table of EM, MP, TS), 9.2.1; 3A 13.1 (table 13-1), 12.1 (table 12-1).
 * qemu: differs (pxor mm): TS goes before EM
 * qemu: differs (pxor xmm): TS goes before EM
 * qemu: differs (movaps to memory): TS goes before EM
 */
#include "rt.h"

.macro CASE name, insn:vararg
    TRY \insn
    mov x_vec, %r13
    CR_CLEAR cr0, CR0_MP | CR0_EM | CR0_TS
    EXPECT "\name", %r13, %r14
    call set_cr0
.endm

TEST64 exc_nm
    xor %r12d, %r12d
next:
    call set_cr0
    /* x87: #NM for EM or TS */
    mov $-1, %r14
    mov $NM, %eax
    test $6, %r12b
    cmovnz %rax, %r14
    CASE "fld1", fld1
    CASE "fninit", fninit
    CASE "fnstsw", fnstsw %ax
    /* WAIT: #NM for TS and MP */
    mov $-1, %r14
    mov %r12d, %ecx
    and $5, %ecx
    mov $NM, %eax
    cmp $5, %ecx
    cmove %rax, %r14
    CASE "fwait", fwait
    /* MMX and SSE: #UD for EM, else #NM for TS */
    mov $-1, %r14
    mov $NM, %eax
    test $4, %r12b
    cmovnz %rax, %r14
    mov $UD, %eax
    test $2, %r12b
    cmovnz %rax, %r14
    CASE "pxor mm", pxor %mm0, %mm0
    CASE "pxor xmm", pxor %xmm0, %xmm0
    CASE "movaps to memory", movaps %xmm0, rt_buf
    CASE "ldmxcsr", ldmxcsr mxcsr
    mov $-1, %r14
    CASE "sfence", sfence
    CASE "movnti", movnti %eax, rt_buf
    CASE "prefetcht0", prefetcht0 rt_buf
    inc %r12d
    cmp $8, %r12d
    jb next
    CR_CLEAR cr0, CR0_MP | CR0_EM | CR0_TS
    CR_SET cr0, CR0_TS
    FAULTS "fxsave with TS", NM, 0, fxsave rt_buf
    FAULTS "fxrstor with TS", NM, 0, fxrstor rt_buf
    clts
    mov %cr0, %rax
    EXPECT_BITS "clts", %rax, $CR0_TS, $0
    CR_CLEAR cr4, CR4_OSFXSR
    FAULTS "SSE without OSFXSR", UD, 0, pxor %xmm0, %xmm0
    FAULTS "ldmxcsr without OSFXSR", UD, 0, ldmxcsr mxcsr
    NOFAULT "MMX does not need OSFXSR", pxor %mm0, %mm0
    emms
    DONE

/* R12 bits 0 to 2: MP, EM, TS */
set_cr0:
    mov %cr0, %rax
    and $~(CR0_MP | CR0_EM | CR0_TS), %rax
    mov %r12d, %ecx
    shl $1, %ecx
    or %rcx, %rax
    mov %rax, %cr0
    ret

    .data
mxcsr: .long 0x1F80
