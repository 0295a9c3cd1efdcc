/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One processor writes to code without any agreement while the other runs it, by way of code in another page that nobody writes
 * to: that page's code goes on running, and what comes back is one of the values that were written.
 * cpus: 2
 * timeout: 150
 * Manual: SDM 3A 8.1.3 (one byte of an immediate is written, so that any mixture of old and new is old or new).
 */
#include "rt.h"

#define ROUNDS 8000

TEST64 smp_patch
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    xor %r15d, %r15d
    mov $1, %r14d
1:  call written                /* is code again, so that the other one's write takes all of the page's code away */
    and $~0x7F, %eax
    cmp $0x11223300, %eax
    setne %al
    movzbl %al, %eax
    add %eax, %r15d
    mov %r14d, round
    mov %r14d, %ecx
    and $31, %ecx
2:  dec %ecx                    /* a little later each time */
    jns 2b
    call way                    /* to another place of that page, which is looked for just while the other one writes */
3:  pause
    cmp %r14d, done
    jne 3b
    inc %r14d
    cmp $ROUNDS, %r14d
    jb 1b
    EXPECT "values that nobody wrote", %r15, $0
    DONE

    .balign 4096
way:
    xor %eax, %eax
    jmp beside
    .balign 4096
written:
    mov $0x11223300, %eax
    ret
    .balign 128
beside:
    jmp written
    .balign 4096
ap:
    xor %r14d, %r14d
1:  pause
    cmp round, %r14d
    je 1b
    mov round, %r14d
    mov %r14d, %eax
    shr $5, %eax
    mov %eax, %ecx
    and $31, %ecx
2:  dec %ecx
    jns 2b
    and $0x7F, %eax
    mov %al, written + 1
    mov %r14d, done
    jmp 1b
    .bss
    .align 64
round: .skip 64
done: .skip 64
