/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit task switches by JMP, CALL, IRET and through a task gate in the GDT: the saved and loaded state,
 * the busy bits, the back link, NT, CR0.TS, CR3 and LDTR of the new task, EFLAGS.
 * Manual: SDM 3A 7.2, 7.3, 7.4 (table 7-2).
 */
#include "rt.h"

#define BUSY(sel) (rt_gdt+(sel)+5)
#define T2 SEL(0)

TEST32 task_switch
    call rt_pg32_on
    GDT_SET SEL(0), $tss2, $103, A_TSS32
    GDT_SET SEL(1), $rt_pages, $15, A_LDT
    CALLGATE_SET SEL(2), T2, $0, G_TASK
    movl $0x0000FFFF, rt_pages + 8
    movl $0x00CF9300, rt_pages + 12
    mov %cr3, %eax
    mov %eax, rt_tss32 + 28
    /* the second task has page tables of its own: TVA is another page */
    mov $rt_pd32, %esi
    mov $rt_pages + 0x1000, %edi
    mov $1024, %ecx
    rep movsl
    movl $rt_pages + 0x2007, rt_pages + 0x1000 + 4 * (TVA >> 22)
    movl $TPA + 7, rt_pt32
    movl $TPA + 0x1007, rt_pages + 0x2000
    movl $111, TPA
    movl $222, TPA + 0x1000
    movl $rt_pages + 0x1000, tss2 + 28
    EXPECT "page of the first task", TVA, $111
    /* JMP */
    movl $by_jump, tss2 + 32
    mov $0x1001, %eax
    mov $0x1002, %ecx
    mov $0x1003, %edx
    mov $0x1004, %ebx
    mov $0x1005, %ebp
    mov $0x1006, %esi
    mov $0x1007, %edi
    stc
    clts
    ljmp $T2, $0x12345678
jumped_back:
    EXPECT "first task's eax is back", %eax, $0x1001
    EXPECT "edi", %edi, $0x1007
    EXPECT_FLAGS "flags are back", (FL_CF|FL_NT), FL_CF
    EXPECT "the first task's page again", TVA, $111
    EXPECT_BITS "busy: first", BUSY(TSS32), $0xFF, $0x8B
    EXPECT_BITS "not busy: second", BUSY(T2), $0xFF, $0x89
    EXPECT "a jump writes no link", tss2, $0x77
    EXPECT "eip saved in the second TSS", tss2+32, $resume2
    EXPECT "eax saved in the second TSS", tss2+40, $0x2222
    str %eax
    EXPECT "str", %eax, $TSS32
    /* CALL, IRET */
    movl $by_call, tss2 + 32
    movl $2, tss2 + 36
    mov $0x3001, %eax
    lcall $T2, $0
    EXPECT "called and back", %eax, $0x3001
    EXPECT_FLAGS "NT is clear", FL_NT, 0
    EXPECT_BITS "iret: second is not busy", BUSY(T2), $0xFF, $0x89
    EXPECT_BITS "iret: first is busy", BUSY(TSS32), $0xFF, $0x8B
    EXPECT_BITS "iret clears NT in the image of the task it leaves", tss2+36, $FL_NT, $0
    /* again: the task goes on behind its IRET */
    lcall $T2, $0
    EXPECT "the second call went on behind the first iret", rt_buf, $0x5555
    /* through a task gate */
    movl $by_gate, tss2 + 32
    lcall $SEL(2), $0
    EXPECT "through a gate", rt_buf+4, $T2
    /* the gate's DPL counts, not the TSS's */
    mov $KDS, %eax
    mov %eax, %fs
    USER
    FAULTS "a TSS of DPL 0 from ring 3", GP, T2, lcall $T2, $0
    FAULTS "a gate of DPL 0 from ring 3", GP, SEL(2), lcall $SEL(2), $0
    KERNEL
    CALLGATE_SET SEL(2), T2, $0, (G_TASK|A_DPL3)
    movl $by_gate, tss2 + 32
    movl $0, rt_buf + 4
    USER
    lcall $SEL(2), $0
    EXPECT "a gate of DPL 3 from ring 3", rt_buf+4, $T2
    mov %cs, %eax
    EXPECT "back in ring 3", %eax, $UCS32
    KERNEL
    DONE

/* ---- the second task ---- */
by_jump:
    EXPECT "eax from the TSS", %eax, $0x2001
    EXPECT "ecx from the TSS", %ecx, $0x2002
    EXPECT "edi from the TSS", %edi, $0x2008
    EXPECT_FLAGS "eflags from the TSS", (FL_CF|FL_ZF|FL_SF|FL_NT), (FL_ZF|FL_SF)
    mov %cr0, %eax
    EXPECT_BITS "CR0.TS", %eax, $CR0_TS, $CR0_TS
    EXPECT "page of the second task", TVA, $222
    mov %cr3, %eax
    EXPECT "CR3", %eax, $(rt_pages+0x1000)
    sldt %eax
    EXPECT "LDTR", %eax, $SEL(1)
    mov %gs, %eax
    EXPECT "gs from the LDT", %eax, $0xC
    mov %gs:rt_pages + 8, %eax
    EXPECT "which works", %eax, $0x0000FFFF
    str %eax
    EXPECT "TR", %eax, $T2
    EXPECT_BITS "busy: second", BUSY(T2), $0xFF, $0x8B
    EXPECT_BITS "not busy: first", BUSY(TSS32), $0xFF, $0x89
    EXPECT "saved eax", rt_tss32+40, $0x1001
    EXPECT "saved ecx", rt_tss32+44, $0x1002
    EXPECT "saved edx", rt_tss32+48, $0x1003
    EXPECT "saved ebx", rt_tss32+52, $0x1004
    EXPECT "saved ebp", rt_tss32+60, $0x1005
    EXPECT "saved esi", rt_tss32+64, $0x1006
    EXPECT "saved edi", rt_tss32+68, $0x1007
    EXPECT "saved eip", rt_tss32+32, $jumped_back
    EXPECT_BITS "saved cs", rt_tss32+76, $0xFFFF, $KCS32
    EXPECT_BITS "saved ss", rt_tss32+80, $0xFFFF, $KDS
    EXPECT_BITS "saved flags", rt_tss32+36, $(FL_CF|FL_NT), $FL_CF
    mov $0x2222, %eax
    ljmp $TSS32, $0
resume2:
    UNREACHED "behind the jump"
by_call:
    EXPECT_FLAGS "call: NT", FL_NT, FL_NT
    EXPECT_BITS "call: link", tss2, $0xFFFF, $TSS32
    EXPECT_BITS "call: both are busy, first", BUSY(TSS32), $0xFF, $0x8B
    EXPECT_BITS "call: both are busy, second", BUSY(T2), $0xFF, $0x8B
    mov $0x4444, %eax
    iretl
    movl $0x5555, rt_buf
    iretl
by_gate:
    str %eax
    mov %eax, rt_buf + 4
    iretl
    jmp by_gate

    .data
    .align 16
tss2: .long 0x77, 0, 0, 0, 0, 0, 0, 0, by_jump, FL_ZF | FL_SF | 2
    .long 0x2001, 0x2002, 0x2003, 0x2004, stack2_top, 0x2006, 0x2007, 0x2008
    .long UDS & ~3, KCS32, KDS, KDS, KDS, 0xC, SEL(1)
    .word 0, 104
    .bss
    .skip 1024
stack2_top: .skip 16
