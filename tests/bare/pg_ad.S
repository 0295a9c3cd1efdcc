/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accessed and dirty bits: A in every entry of a walk that translates, D in the last on a write only; not by
 * a walk that faults on the last entry; a write through a translation that was loaded by a read sets D.
 * Locked, string and stack writes, 2 MiB pages, descriptor loads and the page walk of another ring too.
 * Manual: SDM 3A 4.8.
 */
#include "rt.h"

#define PTE(n) rt_pt+8*(n)
#define PDE rt_pd+8*(TVA>>21)
#define AD (PT_A | PT_D)

.macro CLEAN pte=0
    movl $TPA + 7, PTE(\pte)
    andl $~AD, PDE
    FLUSH_TLB
.endm

TEST64 pg_ad
    andl $~PT_A, rt_pml4
    andl $~PT_A, rt_pdpt + 8
    CLEAN
    mov TVA, %al
    EXPECT_BITS "read: PTE has A", PTE(0), $AD, $PT_A
    EXPECT_BITS "read: PDE has A, not D", PDE, $AD, $PT_A
    EXPECT_BITS "read: PDPTE has A", rt_pdpt+8, $PT_A, $PT_A
    EXPECT_BITS "read: PML4E has A", rt_pml4, $PT_A, $PT_A
    mov %al, TVA
    EXPECT_BITS "write after read: PTE has D", PTE(0), $AD, $AD
    EXPECT_BITS "write: PDE has no D", PDE, $AD, $PT_A
    CLEAN
    movb $0xC3, TVA
    EXPECT_BITS "write: PTE has A, D", PTE(0), $AD, $AD
    CLEAN
    mov $TVA, %ecx
    call *%rcx
    EXPECT_BITS "fetch: PTE has A", PTE(0), $AD, $PT_A
    CLEAN
    xor %eax, %eax
    movl $5, TPA + 8
    lock cmpxchg %ecx, TVA + 8
    EXPECT_BITS "a locked cmpxchg that fails still writes", PTE(0), $AD, $AD
    CLEAN
    prefetcht0 TVA
    EXPECT_BITS "a prefetch sets no D", PTE(0), $PT_D, $0
    CLEAN
    cmpb $0, TVA
    EXPECT_BITS "cmp sets no D", PTE(0), $AD, $PT_A
    CLEAN
    mov $TVA, %edi
    mov $8, %ecx
    rep stosb
    EXPECT_BITS "rep stosb", PTE(0), $AD, $AD
    CLEAN
    mov $TVA, %edi
    xor %ecx, %ecx
    rep stosb
    EXPECT_BITS "rep stosb of nothing", PTE(0), $AD, $0
    CLEAN
    mov %rsp, %rbx
    mov $TVA + 0x800, %esp
    push %rax
    mov %rbx, %rsp
    EXPECT_BITS "push", PTE(0), $AD, $AD

    /* faults */
    CR_SET cr0, CR0_WP
    movl $TPA + 5, PTE(0)
    andl $~AD, PDE
    FLUSH_TLB
    FAULTS "write to a read-only page", PF, 3, movb $0, TVA
    EXPECT_BITS "no D after a fault", PTE(0), $PT_D, $0
    movl $0, PTE(0)
    FLUSH_TLB
    andl $~AD, PDE
    FAULTS "not present", PF, 0, mov TVA, %al
    EXPECT "nothing is set in an entry not present", PTE(0), $0

    /* across two pages */
    CLEAN 0
    CLEAN 1
    movl $0x11223344, TVA + 0xFFE
    EXPECT_BITS "crossing write: first page", PTE(0), $AD, $AD
    EXPECT_BITS "crossing write: second page", PTE(1), $AD, $AD
    CLEAN 0
    movl $0, PTE(1)
    FLUSH_TLB
    FAULTS "crossing write whose second page is missing", PF, 2, movl $0x55667788, TVA + 0xFFE
    EXPECT_BITS "nothing was written to the first page", TPA+0xFFC, $0x7FFF0000, $0x33440000

    /* 2 MiB page */
    movl $TPA + 0x87, PDE
    FLUSH_TLB
    mov TVA + 0x5000, %al
    EXPECT_BITS "2 MiB page, read", PDE, $AD, $PT_A
    mov %al, TVA + 0x5000
    EXPECT_BITS "2 MiB page, write", PDE, $AD, $AD
    movl $rt_pt + 7, PDE

    /* by ring 3 */
    CLEAN 0
    USER
    mov %al, TVA
    KERNEL
    EXPECT_BITS "user write", PTE(0), $AD, $AD

    /* the processor's own accesses: a descriptor's accessed bit is a write to its page */
    movl $TPA + 0x3007, PTE(3)
    mov $rt_gdt, %esi
    mov $TPA + 0x3000, %edi
    mov $512, %ecx
    rep movsl
    movb $0x92, TPA + 0x3000 + SEL(0) + 5
    movl $0x0000FFFF, TPA + 0x3000 + SEL(0)
    FLUSH_TLB
    lgdt far_gdtr
    EXPECT_BITS "LGDT reads no descriptor", PTE(3), $AD, $0
    mov $KDS, %ecx
    mov %ecx, %fs
    EXPECT_BITS "loading an accessed descriptor", PTE(3), $AD, $PT_A
    mov $SEL(0), %ecx
    mov %ecx, %fs
    EXPECT_BITS "loading a descriptor that is not accessed", PTE(3), $AD, $AD
    EXPECT_BITS "the descriptor is accessed now", TPA+0x3000+SEL(0)+4, $0xFF00, $0x9300
    DONE

    .data
far_gdtr: .word 0x7FF
    .quad TVA + 0x3000
