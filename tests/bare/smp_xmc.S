/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cross-modifying code on two processors by the manual's protocol: the writer changes the code, sets a
 * flag; the runner sees the flag, serialises, runs the new code. Writer through the same and through
 * another linear address; code that the runner has run thousands of times; and a runner that never
 * serialises but returns to the code by IRET, a serialising instruction too.
 * cpus: 2
 * timeout: 150
 * Manual: SDM 3A 8.1.3.
 * qemu: may differ (stale code runs): TCG drops its translation before the store is done
 */
#include "rt.h"

#define N 1000
#define FN_PA (TPA+0x100)

TEST64 smp_xmc
    movl $TPA + 7, rt_pt
    movb $0xB8, FN_PA
    movl $0, FN_PA + 1
    movb $0xC3, FN_PA + 5
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    xor %r15d, %r15d
    mov $1, %r14d
1:  test $1, %r14d
    jz 2f
    mov %r14d, FN_PA + 1            /* through the runner's address */
    jmp 3f
2:  mov %r14d, TVA + 0x101          /* through another */
3:  mov %r14d, flag
4:  mov seen, %eax
    cmp %r14d, %eax
    jne 5f
    mov got, %eax
    cmp %r14d, %eax
    je 6f
    inc %r15d
    jmp 6f
5:  pause
    jmp 4b
6:  inc %r14d
    cmp $N, %r14d
    jb 1b
    EXPECT "stale code runs", %r15, $0
    mov runs, %rax
    cmp $N, %rax
    setae %al
    movzbl %al, %eax
    EXPECT "it ran all the time", %rax, $1
    DONE

ap:
    xor %r12d, %r12d
1:  mov $FN_PA, %ebp
    call *%rbp                      /* keeps the old code hot */
    incq runs
    mov flag, %eax
    cmp %r12d, %eax
    je 1b
    mov %eax, %r12d
    test $2, %r12d
    jz 2f
    xor %eax, %eax
    cpuid
    mov $FN_PA, %ebp
    call *%rbp
    jmp 3f
2:  mov %rsp, %rax                  /* IRET straight into it */
    mov $FN_PA, %ebp
    push $3f
    mov %rsp, %rax
    push $KDS
    push %rax
    pushfq
    push $KCS64
    push %rbp
    iretq
3:  mov %eax, got
    mov %r12d, seen
    jmp 1b
    .bss
    .align 64
flag: .skip 64
seen: .skip 64
got: .skip 64
runs: .skip 64
