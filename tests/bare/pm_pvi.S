/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protected-mode virtual interrupts: with CR4.PVI, CPL 3 and IOPL < 3, CLI and STI change VIF only; STI
 * with VIP is #GP(0); PUSHF and POPF do not look at VIF.
 * Manual: SDM 3A 20.4.
 */
#include "rt.h"

TEST32 pm_pvi
    NEED 1, edx, 1, "no VME/PVI"
    CR_SET cr4, CR4_PVI
    USER
    ARM 1f
    sti
    int $0x81
1:  RT_CHECK "sti", 0x81, 0, 0
    EXPECT_BITS "sti sets VIF, not IF", x_flags, $(FL_VIF|FL_IF), $FL_VIF
    ARM 2f
    sti
    cli
    int $0x81
2:  RT_CHECK "cli", 0x81, 0, 0
    EXPECT_BITS "cli clears VIF", x_flags, $(FL_VIF|FL_IF), $0
    pushfl
    andl $~FL_IF, (%esp)
    NOFAULT "popf does not care", popfl
    KERNEL
    /* VIP */
    ARM 3f
    mov %esp, %eax
    push $UDS
    push %eax
    push $FL_VIP | 2
    push $UCS32
    push $4f
    iretl
4:  sti
3:  RT_CHECK "sti with VIP", GP, 0, 4b
    CR_CLEAR cr4, CR4_PVI
    USER
    FAULTS "sti without PVI", GP, 0, sti
    KERNEL
    DONE
