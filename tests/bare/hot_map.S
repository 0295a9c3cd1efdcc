/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings that change at random under hot loads, stores, page-crossing loads and calls: three PCIDs with tables of their own,
 * 4 KiB and 2 MiB pages, global ones, absent ones, several addresses of one page, code that changes; and every way to
 * drop translations: MOV to CR3 with and without bit 63, INVLPG, INVPCID types 0 to 3, CR4.PGE. A model knows which page each
 * access may reach: the one in the tables, or one that was there since the last flush that covers it. hot_map.c does it.
 * Without PCIDs (QEMU 7.2) each change of CR3 drops all that is not global.
 * Manual: SDM 3A 4.10 (4.10.2.4 global pages, 4.10.4.1 what each instruction drops, 4.10.4.3); 11.6.
 * timeout: 300
 * qemu: may differ (a call): TCG sometimes runs code through what a 2 MiB region held before the flush
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_map
    IST PF, 1
    CR_SET cr4, CR4_PGE
    call hot_map
    DONE

    .globl do_load, do_store, do_xadd, do_call
    .balign 8
do_load:
    mov (%rdi), %rax
    ret
do_store:
    mov %r11, (%rdi)
    ret
do_xadd:
    lock xadd %r10, (%rdi)
    ret
do_call:
    call *%rdi
    ret
