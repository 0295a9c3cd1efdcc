/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a changed entry and the proper flush the new translation holds: INVLPG (of any byte of the page, of
 * a large page, of a global page), MOV to CR3, changes of CR4.PGE and PSE, CR0.PG off and on. From not
 * present to present needs no flush, nor does a fault: it drops the translation that faulted.
 * Manual: SDM 3A 4.10.4.
 */
#include "rt.h"

#define PDE rt_pd+8*(TVA>>21)

.macro MAP page, flags=7
    movl $TPA + 0x1000 * \page + \flags, rt_pt
.endm
.macro SEES name, page
    EXPECT "\name", TVA, $\page
.endm

TEST64 pg_tlb
    movq $0, TPA
    movq $1, TPA + 0x1000
    movq $2, TPA + 0x2000
    movq $3, TPA + 0x3000
    TRY mov TVA, %rax
    EXPECT "not present", x_vec, $PF
    MAP 0
    SEES "present without a flush", 0
    MAP 1
    invlpg TVA
    SEES "invlpg", 1
    MAP 2
    invlpg TVA + 0xABC
    SEES "invlpg of another byte", 2
    MAP 3
    FLUSH_TLB
    SEES "mov to cr3", 3
    /* global pages */
    CR_SET cr4, CR4_PGE
    MAP 1, 0x107
    invlpg TVA
    SEES "global", 1
    MAP 2, 0x107
    invlpg TVA
    SEES "invlpg of a global page", 2
    MAP 3, 0x107
    CR_CLEAR cr4, CR4_PGE
    SEES "clearing PGE", 3
    MAP 0, 0x107
    CR_SET cr4, CR4_PGE
    SEES "setting PGE", 0
    MAP 1, 0x107
    CR_CLEAR cr4, CR4_PGE
    CR_SET cr4, CR4_PGE
    SEES "PGE off and on", 1
    MAP 2
    CR_CLEAR cr4, CR4_PGE
    SEES "not global again", 2
    /* intermediate entries */
    movl $TPA + 0x3007, rt_pages
    movl $rt_pages + 7, PDE
    invlpg TVA
    SEES "another page table, invlpg", 3
    movl $rt_pt + 7, PDE
    FLUSH_TLB
    SEES "the first table again, cr3", 2
    movl $TPA + 0x87, PDE
    invlpg TVA
    SEES "2 MiB page", 0
    EXPECT "2 MiB page, at 0x1000", TVA+0x1000, $1
    movl $TPA + 0x200087, PDE
    movq $77, TPA + 0x201000
    invlpg TVA + 0x3000
    EXPECT "invlpg of any byte of a 2 MiB page drops it all", TVA+0x1000, $77
    movl $rt_pt + 7, PDE
    FLUSH_TLB
    /* permissions */
    CR_SET cr0, CR0_WP
    MAP 1, 5
    invlpg TVA
    FAULTS "read-only", PF, 3, incl TVA
    MAP 1
    NOFAULT "more rights: at most one fault, then none", incl TVA
    SEES "incremented", 2
    MAP 1, 5
    FLUSH_TLB
    FAULTS "fewer rights after cr3", PF, 3, incl TVA
    CR_CLEAR cr0, CR0_WP
    NOFAULT "WP off", incl TVA
    CR_SET cr0, CR0_WP
    FAULTS "WP on", PF, 3, incl TVA
    MAP 1, 3
    invlpg TVA
    USER
    FAULTS "supervisor page", PF, 5, mov TVA, %rax
    KERNEL
    MAP 1
    USER
    NOFAULT "now user's", mov TVA, %rax
    KERNEL
    MAP 0, 0
    invlpg TVA
    FAULTS "gone", PF, 0, mov TVA, %rax
    mov $0x800000000000, %rcx
    NOFAULT "invlpg of a non-canonical address does nothing", invlpg (%rcx)
    USER
    FAULTS "invlpg at CPL 3", GP, 0, invlpg TVA
    KERNEL
    /* code fetches see the new page */
    movb $0xC3, TPA + 0x1000
    MAP 1
    mov $TVA, %ecx
    call *%rcx
    movl $0xC3C3FFB0, TPA + 0x2000
    MAP 2
    invlpg TVA
    xor %eax, %eax
    call *%rcx
    EXPECT "code of the new page", %rax, $0xFF
    MAP 1
    FLUSH_TLB
    xor %eax, %eax
    call *%rcx
    EXPECT "code of the old page", %rax, $0
    DONE
