/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCIDs: CR4.PCIDE needs long mode and CR3[11:0] = 0; MOV to CR3 with bit 63 clear drops the PCID's
 * translations, bit 63 is not stored; translations of one PCID are not used by another; with PCIDE = 1 CR0.PG
 * cannot be cleared.
 * Manual: SDM 3A 4.10.1, 4.10.4.1, 2.5; 2B MOV to control registers.
 */
#include "rt.h"

TEST64 pg_pcid
    NEED 1, ecx, 17, "no PCID"
    movq $111, TPA
    movq $222, TPA + 0x1000
    mov $rt_pml4 + 1, %ebx
    mov %rbx, %cr3
    mov %cr4, %rcx
    or $CR4_PCIDE, %rcx
    FAULTS "PCIDE with CR3[11:0] = 1", GP, 0, mov %rcx, %cr4
    mov $rt_pml4, %ebx
    mov %rbx, %cr3
    NOFAULT "PCIDE", mov %rcx, %cr4
    mov %cr0, %rax
    and $~CR0_PG, %eax
    FAULTS "CR0.PG = 0 with PCIDE", GP, 0, mov %rax, %cr0
    /* PCID 1 has its own tables */
    mov $rt_pml4, %esi
    mov $rt_pages, %edi
    mov $1024, %ecx
    rep movsl
    mov $rt_pdpt, %esi
    mov $1024, %ecx
    rep movsl
    mov $rt_pd + 4096, %esi
    mov $1024, %ecx
    rep movsl
    movl $rt_pages + 0x1007, rt_pages
    movl $rt_pages + 0x2007, rt_pages + 0x1008
    movl $rt_pages + 0x3007, rt_pages + 0x2000
    movl $TPA + 0x1007, rt_pages + 0x3000
    movl $TPA + 7, rt_pt
    EXPECT "PCID 0", TVA, $111
    mov $rt_pages + 1, %ebx
    mov %rbx, %cr3
    EXPECT "PCID 1", TVA, $222
    mov $1, %edx
    ror $1, %rdx
    mov $rt_pml4, %ecx
    or %rdx, %rcx
    mov %rcx, %cr3
    EXPECT "PCID 0, kept", TVA, $111
    mov %cr3, %rax
    EXPECT "bit 63 is not stored", %rax, $rt_pml4
    or %rdx, %rbx
    mov %rbx, %cr3
    EXPECT "PCID 1, kept", TVA, $222
    mov %cr3, %rax
    EXPECT "the PCID is in CR3", %rax, $(rt_pages+1)
    movl $TPA + 7, rt_pages + 0x3000
    mov $rt_pages + 1, %ebx
    mov %rbx, %cr3
    EXPECT "bit 63 clear: PCID 1 is flushed", TVA, $111
    movl $TPA + 0x1007, rt_pages + 0x3000
    invlpg TVA
    EXPECT "invlpg in the current PCID", TVA, $222
    movl $TPA + 7, rt_pages + 0x3000
    mov %cr4, %rax
    and $~CR4_PCIDE, %rax
    mov %rax, %cr4
    EXPECT "clearing PCIDE flushes all", TVA, $111
    mov $rt_pml4, %eax
    mov %rax, %cr3
    mov %cr4, %rax
    bts $17, %rax
    mov %rax, %rcx
    mov $1, %edx
    ror $1, %rdx
    btr $17, %rax
    mov %rax, %cr4
    mov $rt_pml4, %ebx
    or %rdx, %rbx
    FAULTS "bit 63 of CR3 without PCIDE", GP, 0, mov %rbx, %cr3
    DONE
