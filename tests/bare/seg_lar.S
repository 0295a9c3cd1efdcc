/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LAR, LSL, VERR, VERW over every descriptor type, DPL and RPL, and ARPL: ZF tells, a bad selector gives ZF
 * = 0 and leaves the register; LSL scales by G.
 * Manual: SDM 2A LAR, LSL, ARPL; 2B VERR (tables of valid types).
 */
#include "rt.h"

TEST32 seg_lar
    /* all 32 types (S and type), P = 1, DPL 0, limit 0x12345, G = 1 */
    xor %ebx, %ebx
next:
    mov %ebx, %eax
    or $0xC80, %eax
    push %eax
    push $0x12345
    push $0
    push $SEL(0)
    call rt_gdt_set32
    mov $SEL(0), %ecx
    mov $0x5A5A5A5A, %edx
    lar %ecx, %edx
    setz %al
    movzbl %al, %eax
    xor %esi, %esi
    bt %ebx, lar_ok
    adc $0, %esi
    EXPECT "lar: ZF by type", %eax, %esi
    test %esi, %esi
    jz 1f
    mov %ebx, %eax
    mov rt_gdt + SEL(0) + 4, %eax
    and $0x00F0FF00, %eax
    EXPECT_BITS "lar: the access rights", %edx, $0x00F0FF00, %eax
    jmp 2f
1:  EXPECT "lar: the register is kept", %edx, $0x5A5A5A5A
2:  mov $0x5A5A5A5A, %edx
    lsl %ecx, %edx
    setz %al
    movzbl %al, %eax
    xor %esi, %esi
    bt %ebx, lsl_ok
    adc $0, %esi
    EXPECT "lsl: ZF by type", %eax, %esi
    test %esi, %esi
    jz 3f
    EXPECT "lsl: the limit in bytes", %edx, $0x12345FFF
    jmp 4f
3:  EXPECT "lsl: the register is kept", %edx, $0x5A5A5A5A
4:  verr %cx
    setz %al
    movzbl %al, %eax
    xor %esi, %esi
    bt %ebx, verr_ok
    adc $0, %esi
    EXPECT "verr: ZF by type", %eax, %esi
    verw %cx
    setz %al
    movzbl %al, %eax
    xor %esi, %esi
    bt %ebx, verw_ok
    adc $0, %esi
    EXPECT "verw: ZF by type", %eax, %esi
    inc %ebx
    cmp $32, %ebx
    jb next
    /* privilege: data of DPL d, selector with RPL r, CPL 0: visible when r <= d */
    GDT_SET SEL(0), $0, $0x12345, 0x493
    GDT_SET SEL(1), $0, $0x12345, 0x4B3
    GDT_SET SEL(2), $0, $0x12345, 0x4D3
    GDT_SET SEL(3), $0, $0x12345, 0x4F3
    xor %ebx, %ebx      /* DPL << 2 | RPL */
5:  mov %ebx, %ecx
    mov %ebx, %eax
    shr $2, %ecx
    and $3, %eax
    cmp %eax, %ecx
    setae %dl
    movzbl %dl, %esi
    lea SEL(0)(%eax,%ecx,8), %ecx
    lar %ecx, %edx
    setz %al
    movzbl %al, %eax
    EXPECT "lar: DPL against RPL", %eax, %esi
    lsl %ecx, %edx
    setz %al
    movzbl %al, %eax
    EXPECT "lsl: DPL against RPL", %eax, %esi
    verr %cx
    setz %al
    movzbl %al, %eax
    EXPECT "verr: DPL against RPL", %eax, %esi
    verw %cx
    setz %al
    movzbl %al, %eax
    EXPECT "verw: DPL against RPL", %eax, %esi
    inc %ebx
    cmp $16, %ebx
    jb 5b
    lsl %ecx, %edx
    EXPECT "lsl: byte granularity", %edx, $0x12345
    .irp sel, 0, 3, 0x800, 0xFFF8, 0x14
    mov $\sel, %ecx
    lar %ecx, %edx
    EXPECT_FLAGS "lar of \sel", FL_ZF, 0
    lsl %ecx, %edx
    EXPECT_FLAGS "lsl of \sel", FL_ZF, 0
    verr %cx
    EXPECT_FLAGS "verr of \sel", FL_ZF, 0
    verw %cx
    EXPECT_FLAGS "verw of \sel", FL_ZF, 0
    .endr
    /* ARPL */
    mov $0x1230, %eax
    mov $0x0003, %ecx
    arpl %cx, %ax
    EXPECT_FLAGS "arpl raises: ZF", FL_ZF, FL_ZF
    EXPECT "arpl raises", %eax, $0x1233
    mov $0x0001, %ecx
    arpl %cx, %ax
    EXPECT_FLAGS "arpl leaves: ZF", FL_ZF, 0
    EXPECT "arpl leaves", %eax, $0x1233
    DONE

    .data
/* Bit n: type n is valid (bit 4: S). */
lar_ok: .long 0xFFFF1A3E  /* 1 2 3 4 5 9 B C */
lsl_ok: .long 0xFFFF0A0E       /* 1 2 3 9 B */
verr_ok: .long 0xCCFF0000      /* data, and readable code */
verw_ok: .long 0x00CC0000      /* writable data */
