/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 2-level paging: 4 MiB pages with CR4.PSE, PS ignored without it, PSE-36 (address bits 32 to 39 in bits 13
 * to 20), bit 21 reserved, A and D, and 4 KiB pages beside.
 * Manual: SDM 3A 4.3.
 * qemu: differs (bit 21 is reserved): the P bit is missing with RSVD
 */
#include "rt.h"

#define PDE rt_pd32+4*(TVA>>22)

TEST32 pg_pse
    NEED 1, edx, 3, "no PSE"
    call rt_pg32_on
    movl $0x12345678, TPA + 0x3FFFFC
    movl $TPA + 0x87, PDE
    FLUSH_TLB
    mov TVA + 0x3FFFFC, %eax
    EXPECT "4 MiB page, last dword", %eax, $0x12345678
    EXPECT_BITS "A, not D", PDE, $0x60, $0x20
    movl $0x9ABCDEF0, TVA + 0x3FFFFC
    EXPECT "written", TPA+0x3FFFFC, $0x9ABCDEF0
    EXPECT_BITS "A and D", PDE, $0x60, $0x60
    movl $TPA + 0x1087, PDE
    FLUSH_TLB
    EXPECT "bit 12 is PAT", TVA+0x3FFFFC, $0x9ABCDEF0
    movl $TPA + 0x200087, PDE
    FLUSH_TLB
    FAULTS "bit 21 is reserved", PF, 9, mov TVA, %eax
    /* 4 KiB */
    movl $rt_pt32 + 7, PDE
    movl $TPA + 0x3FF007, rt_pt32 + 4 * 5
    FLUSH_TLB
    EXPECT "4 KiB page", TVA+0x5FFC, $0x9ABCDEF0
    EXPECT_BITS "4 KiB page: A", rt_pt32+4*5, $0x60, $0x20
    EXPECT_BITS "its PDE: A", PDE, $0x20, $0x20
    /* without PSE the bit is ignored: the entry points to a page table */
    mov $0x400, %ecx
    mov $3, %eax
1:  mov %eax, rt_pages - 4(,%ecx,4)
    dec %ecx
    jnz 1b
    /* page tables for the first 4 MiB (the image) and for TPA */
    mov $7, %eax
2:  mov %eax, rt_pages(,%ecx,4)
    add $4096, %eax
    inc %ecx
    cmp $1024, %ecx
    jb 2b
    xor %ecx, %ecx
    mov $TPA + 7, %eax
3:  mov %eax, rt_pages + 4096(,%ecx,4)
    add $4096, %eax
    inc %ecx
    cmp $1024, %ecx
    jb 3b
    movl $rt_pages + 7, rt_pd32
    movl $rt_pages + 4096 + 7, rt_pd32 + 4 * (TPA >> 22)
    movl $rt_pt32 + 0x87, PDE
    CR_CLEAR cr4, CR4_PSE
    FLUSH_TLB
    EXPECT "PSE = 0: PS is ignored", TVA+0x5FFC, $0x9ABCDEF0
    DONE
