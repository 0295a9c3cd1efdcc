/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector registers in hot code that is interrupted: CR0.TS set again and again (#NM, whose handler does CLTS), page faults between two
 * vector instructions and in them, SIMD exceptions that MXCSR unmasks now and then (#XM), and handlers that use vector registers and
 * put them back; LDMXCSR whose operand lies across two pages; and #UD of a VEX instruction with CR4.OSXSAVE clear. Sums in XMM0, YMM1 (its upper half) and ZMM17 show each addition once.
 * Manual: SDM 3A 2.5 (TS), 6.15 (interrupts 7, 14, 19).
 * qemu: differs (as many #XM as times that it was unmasked): TCG raises no SIMD exceptions
 * timeout: 200
 */
#include "rt.h"
#include "hot.h"

#define ROUNDS 6000
#define XMMEXCPT 0x400

TEST64 hot_vec
    call hot_vec_on
    CR_SET cr4, (CR4_OSFXSR | XMMEXCPT)
    CR_CLEAR cr0, (CR0_EM | CR0_TS)
    HOOK NM, on_nm
    HOOK PF, on_pf
    HOOK XM, on_xm
    mov $ROUNDS, %edi
    call hot_count
    mov %rax, rounds
    call round_begin
    call hot_sse
    EXPECT "SSE: the sum", sum, rounds
    call check_counts
    cmpl $NEED_AVX, hot_vecs
    jb 1f
    call round_begin
    call hot_ud
    EXPECT "SSE, with #UD of what is not enabled: the sum", sum, rounds
    call round_begin
    call hot_avx
    EXPECT "AVX: the lower half", sum, rounds
    EXPECT "AVX: the upper half", sum+16, rounds
    call check_counts
    cmpl $NEED_AVX512, hot_vecs
    jb 1f
    call round_begin
    call hot_avx512
    EXPECT "AVX-512: the lowest part", sum, rounds
    EXPECT "AVX-512: the highest part", sum+48, rounds
    EXPECT "AVX-512: a mask register", sum+64, $0x5A5A
    call check_counts
1:  UNHOOK NM
    UNHOOK PF
    UNHOOK XM
    DONE

round_begin:
    movl $0, nm
    movl $0, pf
    movl $0, xm
    movl $0, nm_want
    movl $0, pf_want
    movl $0, xm_want
    mov rounds, %r12
    mov $12345, %r13d
    mov $TVA + 0x100, %edi
    movl $TPA + 7, rt_pt
    movl $TPA + 7, rt_pt + 8
    mov $1, %eax
    mov %rax, TPA + 0x100
    mov %rax, TPA + 0x110
    mov %rax, TPA + 0x130
    FLUSH_TLB
    ldmxcsr masked
    ret
check_counts:
    EXPECT "as many #NM as times that TS was set", nm, nm_want
    EXPECT "as many #PF as times that the page went", pf, pf_want
    EXPECT "as many #XM as times that it was unmasked", xm, xm_want
    ret

/* Random: TS, the page, the mask of division by zero. Clobbers RAX, RCX. */
.macro TROUBLE
    imul $1103515245, %r13d, %r13d
    add $12345, %r13d
    bt $20, %r13d
    jc 8f
    bt $21, %r13d
    jc 7f
    incl nm_want
    mov %cr0, %rax
    or $CR0_TS, %rax
    mov %rax, %cr0
    jmp 8f
7:  bt $22, %r13d
    jc 6f
    incl pf_want
    movl $0, rt_pt
    invlpg (%rdi)
    jmp 8f
6:  bt $23, %r13d
    jc 8f
    incl xm_want
    bt $24, %r13d
    jc 5f
    ldmxcsr unmasked
    jmp 8f
5:  ldmxcsr across                  /* of two pages */
8:
.endm

    .balign 8
hot_sse:
    pxor %xmm0, %xmm0
1:  TROUBLE
    movups ones, %xmm1
    divss zeros, %xmm1              /* #XM, if it is not masked */
    paddq (%rdi), %xmm0             /* #PF, if the page is gone */
    dec %r12
    jnz 1b
    movups %xmm0, sum
    ret
/* AVX is off: #UD, behind an instruction whose result is in a register. */
    .balign 8
hot_ud:
    CR_CLEAR cr4, CR4_OSXSAVE
    HOOK UD, on_ud
    pxor %xmm0, %xmm0
1:  paddq (%rdi), %xmm0
    vpaddq %xmm1, %xmm0, %xmm0
    dec %r12
    jnz 1b
    movups %xmm0, sum
    UNHOOK UD
    CR_SET cr4, CR4_OSXSAVE
    ret
    .balign 8
hot_avx:
    vpxor %xmm1, %xmm1, %xmm1
1:  TROUBLE
    vmovups ones, %xmm2
    vdivss zeros, %xmm2, %xmm2
    vpaddq (%rdi), %ymm1, %ymm1
    dec %r12
    jnz 1b
    vmovups %ymm1, sum
    ret
    .balign 8
hot_avx512:
    vpxorq %zmm17, %zmm17, %zmm17
    mov $0x5A5A, %eax
    kmovw %eax, %k3
1:  TROUBLE
    vmovups ones, %xmm18
    vdivss zeros, %xmm18, %xmm18
    vpaddq (%rdi), %zmm17, %zmm17
    dec %r12
    jnz 1b
    vmovups %zmm17, sum
    kmovw %k3, %eax
    mov %rax, sum+64
    ret

on_nm:
    incl nm
    clts
    ret
/* Uses a vector register, and TS may be set: then it is a #NM inside. */
on_pf:
    incl pf
    movups %xmm0, save
    movups ones, %xmm0
    movups save, %xmm0
    movl $TPA + 7, rt_pt
    invlpg TVA + 0x100
    ret
on_ud:
    addq $4, 17*8(%rdi)             /* behind it */
    ret
on_xm:
    incl xm
    ldmxcsr masked
    ret

    .section .rodata
    .balign 16
ones: .float 1, 1, 1, 1
zeros: .float 0, 0, 0, 0
masked: .long 0x1F80
unmasked: .long 0x1F80 & ~0x200 /* ZM */
    .data
    .balign 4096
    .skip 4094
across: .long 0x1F80 & ~0x200
    .bss
    .balign 64
sum: .skip 128
save: .skip 16
rounds: .skip 8
nm: .skip 8
pf: .skip 8
xm: .skip 8
nm_want: .skip 8
pf_want: .skip 8
xm_want: .skip 8
