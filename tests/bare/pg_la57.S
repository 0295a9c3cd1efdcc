/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 5-level paging: a 57-bit address translates, CR4.LA57 cannot be changed in IA-32e mode (#GP), a 48-bit
 * non-canonical address is canonical now, and PML5 entries have an A bit.
 * Manual: SDM 3A 4.5, 4.1.1; "5-Level Paging and 5-Level EPT" white paper.
 * cpu: host,+la57
 * qemu: differs (PML5E, PS is reserved): the P bit is missing with RSVD
 */
#include "rt.h"

TEST32 pg_la57
    mov $7, %eax
    call rt_cpuid
    bt $16, %ecx
    jc 1f
    SKIP "no LA57"
1:  LONG
    mov %cr4, %rbx
    or $CR4_LA57, %rbx
    FAULTS "LA57 cannot be set in long mode", GP, 0, mov %rbx, %cr4
    UNLONG
    movl $rt_pml4 + 7, rt_pages
    movl $rt_pml4 + 7, rt_pages + 8     /* 1 << 48: the same tables */
    mov $rt_pages, %eax
    mov %eax, %cr3
    mov $CR4_OSFXSR | CR4_OSXMM | CR4_PAE | CR4_LA57, %eax
    mov %eax, %cr4
    WRMSR_ MSR_EFER, $(EFER_LME | EFER_NXE)
    CR_SET cr0, CR0_PG
    lidtl rt_idtr64
    ljmp $KCS64, $2f
    CODE64
2:  lidt rt_idtr64
    mov %cr4, %rax
    EXPECT_BITS "CR4.LA57", %rax, $CR4_LA57, $CR4_LA57
    EXPECT_BITS "PML5E has A", rt_pages, $0x20, $0x20
    mov $0x1000000000000 + TPA, %rcx
    movl $0x13579BDF, TPA
    mov (%rcx), %eax
    EXPECT "a 49-bit address", %rax, $0x13579BDF
    EXPECT_BITS "its PML5E has A", rt_pages+8, $0x20, $0x20
    mov $0x0000800000000000, %rcx
    FAULTS "bit 47 alone is canonical: #PF", PF, 0, mov (%rcx), %al
    EXPECT "its CR2", x_cr2, %rcx
    mov $0x0100000000000000, %rcx
    FAULTS "bit 56 alone is not", GP, 0, mov (%rcx), %al
    mov $0x0002000000000000, %rcx
    FAULTS "PML5E not present", PF, 0, mov (%rcx), %al
    mov %cr4, %rbx
    and $~CR4_LA57, %rbx
    FAULTS "LA57 cannot be cleared in long mode", GP, 0, mov %rbx, %cr4
    movq $rt_pml4 + 0x87, rt_pages + 8
    FLUSH_TLB
    mov $0x1000000000000 + TPA, %rcx
    FAULTS "PML5E, PS is reserved", PF, 9, mov (%rcx), %al
    DONE
