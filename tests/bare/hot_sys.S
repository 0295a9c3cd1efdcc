/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kernels do at their doors, hot: SWAPGS, STAC and CLAC with loads between and behind them, RDFSBASE and its like, CLD and STD,
 * selectors and control registers as data, fences, RDTSC. While they run again and again, the ring, CR4.FSGSBASE, CR4.SMAP, CR4.TSD and the operands change at random: each is
 * allowed and refused in turn. hot_sys.c does it.
 * Manual: SDM 2B SWAPGS, STAC, CLAC, WRFSBASE, RDFSBASE, MOV; 3A 4.6.
 * cpu: host,+rdtscp
 * timeout: 120
 * qemu: differs (wrfsbase: vector): TCG does not check for canonical bases
 * qemu: differs (wrgsbase: vector): TCG does not check for canonical bases
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_sys
    NEED 7, ebx, 20, "no SMAP"
    NEED 7, ebx, 0, "no FSGSBASE"
    NEED 0x80000001, edx, 27, "no RDTSCP"
    IST PF, 1
    IST GP, 1
    IST UD, 1
    mov $1, %edi
    call hot_sys
    SUPERVISOR_ONLY
    xor %edi, %edi
    call hot_sys
    DONE

    .globl do_swapgs, do_stac, do_smap, do_wrfs, do_wrgs, do_wrfs32, do_rdfs, do_rdgs32, do_df, do_sel, do_fence, do_tsc, do_tsc_vec, do_cr
    .balign 8
do_swapgs:
    swapgs
    ret
do_stac:
    stac
    ret
do_smap: /* loads that lie together, before, between and after: their permission is not the same */
    stac
    mov (%rdi), %rax
    clac
    mov %cs, %esi /* RSI says how far it came */
    mov 8(%rdi), %rbx
    mov %rsp, %rsi
    ret
do_wrfs:
    wrfsbase %rdi
    ret
do_wrgs:
    wrgsbase %r10
    ret
do_wrfs32:
    wrfsbase %edi
    ret
do_rdfs:
    rdfsbase %r11
    ret
do_rdgs32:
    rdgsbase %eax
    ret
do_df:
    std
    pushfq
    cld
    pop %rax
    pushfq
    pop %rbx
    ret
do_sel:
    mov %ss, %eax
    mov %cs, %bx
    mov %fs, %r10
    mov %ds, %r11w
    ret
do_tsc: /* CPUID: no vector registers are in use by whoever translates */
    cpuid
    rdtsc
    mov %rax, %rsi
    mov %rdx, %rdi
    rdtscp
    ret
do_tsc_vec:
    movups %xmm0, %xmm1
    rdtsc
    mov %rax, %rsi
    mov %rdx, %rdi
    movups %xmm1, %xmm2
    rdtscp
    ret
do_cr:
    mov %cr0, %rax
    mov %cr2, %rbx
    mov %cr3, %r10
    mov %cr4, %r11
    mov %cr8, %rsi
    ret
do_fence:
    mov %r11, (%rdi)
    mfence
    mov (%rdi), %rax
    lfence
    sfence
    ret
