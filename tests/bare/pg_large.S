/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 2 MiB and 1 GiB pages translate with 21 and 30 bits of offset, also at their last byte and across to the
 * next page; the PAT bit 12 is not part of the address.
 * Manual: SDM 3A 4.5.
 */
#include "rt.h"

TEST64 pg_large
    movl $0x11111111, TPA + 0x1FFFFC
    movl $0x22222222, TPA + 0x200000
    movl $0x33333333, TPA + 0x400000
    movl $TPA + 0x87, rt_pd + 8 * (TVA >> 21)
    movl $TPA + 0x400087, rt_pd + 8 * (TVA >> 21) + 8
    FLUSH_TLB
    mov TVA + 0x1FFFFC, %eax
    EXPECT "2 MiB: the last dword", %rax, $0x11111111
    mov TVA + 0x200000, %eax
    EXPECT "2 MiB: the next page", %rax, $0x33333333
    mov TVA + 0x1FFFFE, %eax
    EXPECT "2 MiB: across", %rax, $0x33331111
    movl $0xAABBCCDD, TVA + 0x1FFFFE
    EXPECT_BITS "2 MiB: across, written, first", TPA+0x1FFFFC, $0x7FFF0000, $0x4CDD0000
    mov TPA + 0x400000, %eax
    EXPECT "2 MiB: across, written, second", %rax, $0x3333AABB
    movl $TPA + 0x1087, rt_pd + 8 * (TVA >> 21)
    FLUSH_TLB
    mov TVA + 0x200000 - 4, %eax
    mov $0xCCDD1111, %ecx
    EXPECT "2 MiB: bit 12 is PAT", %rax, %rcx
    mov $0x80000001, %eax
    call rt_cpuid
    bt $26, %edx
    jnc 1f
    movq $rt_pages + 7, rt_pml4 + 8
    movq $0x87, rt_pages
    movq $0x87, rt_pages + 8
    movl $0x44444444, TPA + 0x400000
    mov $0x8000000000, %rbx
    mov TPA + 0x400000(%rbx), %eax
    EXPECT "1 GiB page", %rax, $0x44444444
    movl $0x55555555, TPA + 0x40000000(%rbx)
    EXPECT_BITS "1 GiB: the next entry, written", TPA, $0x7FFFFFFF, $0x55555555
    movb $0xC3, TPA
    lea TPA(%rbx), %rcx
    NOFAULT "1 GiB: fetch", call *%rcx
    movq $0x1087, rt_pages
    FLUSH_TLB
    mov TPA + 0x400000(%rbx), %eax
    EXPECT "1 GiB: bit 12 is PAT", %rax, $0x44444444
1:  DONE
