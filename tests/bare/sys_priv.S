/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Privileged instructions at CPL 3 are #GP(0): each of them, in 64-bit and in 32-bit user code;
 * IOPL-sensitive ones with IOPL 0 and 3; POPF at CPL 3 changes neither IF (IOPL 0) nor IOPL, without a
 * fault.
 * Manual: SDM 3A 5.9; 2B POPF, CLI, STI, IN, OUT.
 */
#include "rt.h"

.macro PRIVILEGED
    FAULTS "hlt", GP, 0, hlt
    FAULTS "invd", GP, 0, invd
    FAULTS "wbinvd", GP, 0, wbinvd
    FAULTS "lgdt", GP, 0, lgdt rt_buf
    FAULTS "lidt", GP, 0, lidt rt_buf
    FAULTS "lldt", GP, 0, lldt %ax
    FAULTS "ltr", GP, 0, ltr %ax
    FAULTS "lmsw", GP, 0, lmsw %ax
    FAULTS "clts", GP, 0, clts
    FAULTS "invlpg", GP, 0, invlpg rt_buf
    FAULTS "rdmsr", GP, 0, rdmsr
    FAULTS "wrmsr", GP, 0, wrmsr
    FAULTS "cli with IOPL 0", GP, 0, cli
    FAULTS "sti with IOPL 0", GP, 0, sti
    FAULTS "in with IOPL 0", GP, 0, in $0x80, %al
    FAULTS "out with IOPL 0", GP, 0, out %al, $0x80
    FAULTS "insb with IOPL 0", GP, 0, insb
    FAULTS "outsb with IOPL 0", GP, 0, outsb
.endm

TEST64 sys_priv
    USER
    PRIVILEGED
    FAULTS "swapgs", GP, 0, swapgs
    FAULTS "mov from dr0", GP, 0, mov %dr0, %rax
    FAULTS "mov to dr7", GP, 0, mov %rax, %dr7
    pushfq
    orl $0x3200, (%rsp)
    NOFAULT "popf", popfq
    pushfq
    pop %rax
    EXPECT_BITS "popf: neither IF nor IOPL", %rax, $0x3200, $0
    KERNEL
    pushfq
    orl $0x3000, (%rsp)
    popfq
    USER
    NOFAULT "cli with IOPL 3", cli
    NOFAULT "in with IOPL 3", in $0x80, %al
    NOFAULT "out with IOPL 3", out %al, $0x80
    pushfq
    andl $~0x3000, (%rsp)
    popfq
    pushfq
    pop %rax
    EXPECT_BITS "popf with IOPL 3: IOPL stays", %rax, $0x3000, $0x3000
    KERNEL
    pushfq
    andl $~0x3200, (%rsp)
    popfq
    USER32
    PRIVILEGED
    KERNEL64
    DONE
