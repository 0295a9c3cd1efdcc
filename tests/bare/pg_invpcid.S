/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INVPCID: the four types flush what they must; type 4, reserved descriptor bits and a non-canonical address
 * (type 0) are #GP(0), as is a PCID other than 0 with CR4.PCIDE = 0; CPL 3 is #GP; a register is #UD.
 * Manual: SDM 2A INVPCID.
 */
#include "rt.h"

.macro FLUSHES name, type, page
    movl $TPA + 0x1000 * \page + 7, rt_pt
    mov $\type, %eax
    invpcid desc, %rax
    EXPECT "\name", TVA, $\page
.endm

TEST64 pg_invpcid
    NEED 7, ebx, 10, "no INVPCID"
    movq $0, TPA
    movq $1, TPA + 0x1000
    movq $2, TPA + 0x2000
    movq $3, TPA + 0x3000
    movl $TPA + 7, rt_pt
    EXPECT "mapped", TVA, $0
    FLUSHES "type 0: address", 0, 1
    FLUSHES "type 1: context", 1, 2
    FLUSHES "type 3: all but global", 3, 3
    CR_SET cr4, CR4_PGE
    movl $TPA + 0x107, rt_pt
    invlpg TVA
    EXPECT "global page", TVA, $0
    FLUSHES "type 2: all with global", 2, 1
    mov $4, %eax
    FAULTS "type 4", GP, 0, invpcid desc, %rax
    mov $-1, %rax
    FAULTS "type -1", GP, 0, invpcid desc, %rax
    mov $1, %eax
    movq $0x1000, desc
    FAULTS "reserved bit of the descriptor", GP, 0, invpcid desc, %rax
    movq $5, desc
    FAULTS "type 1, PCID 5 without PCIDE", GP, 0, invpcid desc, %rax
    mov $0, %eax
    FAULTS "type 0, PCID 5 without PCIDE", GP, 0, invpcid desc, %rax
    movq $0, desc
    mov $0x800000000000, %rcx
    mov %rcx, desc + 8
    FAULTS "type 0, non-canonical", GP, 0, invpcid desc, %rax
    mov $1, %eax
    NOFAULT "type 1 does not look at the address", invpcid desc, %rax
    FAULTS "register operand", UD, 0, .byte 0x66, 0x0F, 0x38, 0x82, 0xC0
    FAULTS "descriptor in a page not present", PF, 0, invpcid TVA + 0x4000, %rax
    USER
    FAULTS "CPL 3", GP, 0, invpcid desc, %rax
    KERNEL
    NEED 1, ecx, 17, "no PCID"
    mov %cr4, %rax
    or $CR4_PCIDE, %rax
    mov %rax, %cr4
    movq $5, desc
    mov $1, %eax
    NOFAULT "type 1, PCID 5 with PCIDE", invpcid desc, %rax
    DONE

    .data
    .align 16
desc: .quad 0, TVA
