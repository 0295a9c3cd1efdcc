/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #PF: the error code's bits (P, W, U, RSVD, I), CR2, and what the frame keeps. CR2 is the address of the
 * first byte that faults, also in a page-crossing access.
 * Manual: SDM 3A 4.7, 6.15 "Interrupt 14".
 * qemu: differs (read and write, not present): TCG reports the read of a read-modify-write first, as a read
 * qemu: differs (cmpxchg counts as a write): TCG reports the read of a read-modify-write first, as a read
 * qemu: differs (xchg): TCG reports the read of a read-modify-write first, as a read
 * qemu: differs (bts): TCG reports the read of a read-modify-write first, as a read
 * qemu: differs (reserved bit, read): the P bit is missing with RSVD
 * qemu: differs (reserved bit, write): the P bit is missing with RSVD
 * qemu: differs (reserved bit, fetch): the P bit is missing with RSVD
 * qemu: differs (reserved bit, user read): the P bit is missing with RSVD
 */
#include "rt.h"

TEST64 exc_pf
    FAULTS "read, not present", PF, 0, mov TVA + 0x123, %al
    EXPECT "cr2 of a read", x_cr2, $(TVA + 0x123)
    FAULTS "write, not present", PF, 2, mov %al, TVA + 0x456
    EXPECT "cr2 of a write", x_cr2, $(TVA + 0x456)
    FAULTS "read and write, not present", PF, 2, incl TVA + 8
    FAULTS "cmp only reads", PF, 0, cmpl $0, TVA + 8
    FAULTS "cmpxchg counts as a write", PF, 2, cmpxchg %eax, TVA + 8
    FAULTS "xchg", PF, 2, xchg %eax, TVA + 8
    FAULTS "bts", PF, 2, btsl $1, TVA + 8
    FAULTS "setz", PF, 2, setz TVA + 8
    mov $TVA + 0x777, %ecx
    FAULTS_AT "fetch, not present", PF, 0x10, TVA + 0x777, jmp *%rcx
    EXPECT "cr2 of a fetch", x_cr2, $(TVA + 0x777)
    movl $TPA + 7, rt_pt
    FAULTS "read across into a page not present", PF, 0, mov TVA + 0xFFD, %eax
    EXPECT "cr2 is the second page", x_cr2, $(TVA + 0x1000)
    FAULTS "write across into a page not present", PF, 2, movq $0, TVA + 0xFFE
    EXPECT "cr2 is the second page", x_cr2, $(TVA + 0x1000)
    movl $TPA + 1, rt_pt
    invlpg TVA
    NOFAULT "supervisor writes a read-only page, WP = 0", mov %al, TVA
    CR_SET cr0, CR0_WP
    FAULTS "supervisor writes a read-only page, WP = 1", PF, 3, mov %al, TVA
    USER
    FAULTS "user reads a supervisor page", PF, 5, mov TVA, %al
    FAULTS "user writes a supervisor page", PF, 7, mov %al, TVA
    FAULTS "user, not present", PF, 4, mov TVA + 0x1000, %al
    FAULTS "user write, not present", PF, 6, mov %al, TVA + 0x1000
    mov $TVA + 0x1000, %ecx
    FAULTS_AT "user fetch, not present", PF, 0x14, TVA + 0x1000, jmp *%rcx
    mov $TVA, %ecx
    FAULTS_AT "user fetch of a supervisor page", PF, 0x15, TVA, jmp *%rcx
    KERNEL
    movl $TPA + 7, rt_pt
    movl $0x80000000, rt_pt + 4
    invlpg TVA
    FAULTS_AT "fetch of an NX page", PF, 0x11, TVA, jmp *%rcx
    USER
    FAULTS_AT "user fetch of an NX page", PF, 0x15, TVA, jmp *%rcx
    KERNEL
    movl $0, rt_pt + 4
    movl $TPA + 0x2087, rt_pd + 8 * (TVA >> 21)    /* bit 13 of a 2 MiB page */
    invlpg TVA
    FAULTS "reserved bit, read", PF, 9, mov TVA, %al
    FAULTS "reserved bit, write", PF, 11, mov %al, TVA
    FAULTS_AT "reserved bit, fetch", PF, 0x19, TVA, jmp *%rcx
    USER
    FAULTS "reserved bit, user read", PF, 13, mov TVA, %al
    KERNEL
    movl $rt_pt + 7, rt_pd + 8 * (TVA >> 21)
    invlpg TVA
    /* a descriptor table in a page not present is read as supervisor, whoever caused it */
    mov $rt_gdt, %esi
    mov $TPA + 0x3000, %edi
    mov $512, %ecx
    rep movsl
    movl $TPA + 0x3007, rt_pt + 8 * 3
    lgdt far_gdtr
    USER
    movl $SEL(0) + 0x1000, %ecx
    FAULTS "user loads a segment from a GDT page not present", PF, 0, mov %ecx, %fs
    EXPECT "cr2 is the descriptor", x_cr2, $(TVA + 0x4000 + SEL(0))
    KERNEL
    DONE

    .data
far_gdtr: .word 0xFFFF
    .quad TVA + 0x3000
