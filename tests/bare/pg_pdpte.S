/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PAE: MOV to CR3, and to CR0 or CR4 when they turn paging or PAE on, load the four PDPTEs: a reserved bit in
 * a present one is #GP(0) and changes nothing; one that is not present gives a #PF on use; a PDPTE changed in
 * memory holds only after CR3 is loaded (the registers are not part of the TLB: INVLPG does not load them).
 * Manual: SDM 3A 4.4.1.
 * qemu: differs (a changed PDPTE is not used before CR3 is loaded): TCG walks the PDPTEs in memory
 * qemu: differs (invlpg does not load PDPTEs): TCG walks the PDPTEs in memory
 * qemu: differs (PDPTE, reserved bit 0x2): TCG does not load or check PDPTEs
 * qemu: differs (PDPTE, reserved bit 0x4): TCG does not load or check PDPTEs
 * qemu: differs (PDPTE, reserved bit 0x20): TCG does not load or check PDPTEs
 * qemu: differs (PDPTE, reserved bit 0x40): TCG does not load or check PDPTEs
 * qemu: differs (PDPTE, reserved bit 0x80): TCG does not load or check PDPTEs
 * qemu: differs (PDPTE, reserved bit 0x100): TCG does not load or check PDPTEs
 * qemu: differs (PDPTE, bit 63): TCG does not load or check PDPTEs
 * qemu: differs (CR0.PG = 1 with a bad PDPTE): TCG does not load or check PDPTEs
 * qemu: differs (PG is still 0): TCG does not load or check PDPTEs
 */
#include "rt.h"

TEST32 pg_pdpte
    call rt_pae_on
    movl $TPA + 7, rt_pt
    movl $42, TPA
    EXPECT "PAE translates", TVA, $42
    mov %cr3, %ebx
    .irp bit, 0x2, 0x4, 0x20, 0x40, 0x80, 0x100
    orl $\bit, rt_pdpt_pae + 16
    FAULTS "PDPTE, reserved bit \bit", GP, 0, mov %ebx, %cr3
    andl $~\bit, rt_pdpt_pae + 16
    .endr
    orl $0x80000000, rt_pdpt_pae + 20
    FAULTS "PDPTE, bit 63", GP, 0, mov %ebx, %cr3
    andl $0, rt_pdpt_pae + 20
    mov rt_pdpt_pae + 16, %esi
    movl $0x1E6, rt_pdpt_pae + 16
    NOFAULT "reserved bits of an entry not present do not matter", mov %ebx, %cr3
    FAULTS "PDPTE not present", PF, 0, mov 0x80000000, %eax
    mov %esi, rt_pdpt_pae + 16
    mov %ebx, %cr3
    /* the registers */
    mov rt_pdpt_pae + 8, %esi
    movl $0, rt_pdpt_pae + 8
    NOFAULT "a changed PDPTE is not used before CR3 is loaded", mov TVA + 0x200000, %eax
    invlpg TVA
    NOFAULT "invlpg does not load PDPTEs", mov TVA, %eax
    mov %ebx, %cr3
    FAULTS "after mov to cr3 it is", PF, 0, mov TVA, %eax
    mov %esi, rt_pdpt_pae + 8
    mov %ebx, %cr3
    /* paging on with a bad entry */
    mov %cr0, %edi
    mov %edi, %eax
    and $~CR0_PG, %eax
    mov %eax, %cr0
    orl $2, rt_pdpt_pae + 24
    FAULTS "CR0.PG = 1 with a bad PDPTE", GP, 0, mov %edi, %cr0
    mov %cr0, %eax
    EXPECT_BITS "PG is still 0", %eax, $CR0_PG, $0
    NOFAULT "CR3 with paging off loads nothing", mov %ebx, %cr3
    andl $~2, rt_pdpt_pae + 24
    NOFAULT "CR0.PG = 1", mov %edi, %cr0
    /* low bits of CR3 are ignored, the table is 32-byte aligned */
    mov $rt_pdpt_pae, %esi
    mov $rt_pages + 0x20, %edi
    mov $8, %ecx
    rep movsl
    movl $TPA + 0x1007, rt_pt
    movl $43, TPA + 0x1000
    mov $rt_pages + 0x20 + 0x18, %eax
    mov %eax, %cr3
    EXPECT "a table at a multiple of 32", TVA, $43
    DONE
