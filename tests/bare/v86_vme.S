/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual-8086 mode extensions: with CR4.VME and IOPL < 3 CLI, STI and PUSHF, POPF work on VIF (PUSHF shows
 * IF = VIF and IOPL 3); STI with VIP set is #GP(0); INT n is redirected to the 8086 program's own IVT when
 * its bit in the TSS's map is clear, else #GP (IOPL < 3) or the IDT (IOPL 3).
 * Manual: SDM 3A 20.3.3.
 */
#include "rt.h"

#define TSS rt_pages
.macro V86 name, flags, vec, err, i1, i2=nop, i3=nop, i4=nop
    ARM .Lv\@
    mov $(FL_VM | 2 | (\flags)), %eax
    mov $.Li\@, %ebx
    jmp enter
    CODE16
.Li\@: \i1
    \i2
    \i3
    \i4
    int3
    CODE32
.Lv\@:
    RT_CHECK "\name", \vec, \err, 0
.endm

TEST_LOW v86_vme
    NEED 1, edx, 1, "no VME"
    orb $0x60, rt_idt32 + 8 * BP + 5
    CR_SET cr4, CR4_VME
    /* a TSS with the redirection map (32 bytes) before an I/O map that denies all */
    mov $rt_tss32, %esi
    mov $TSS, %edi
    mov $104, %ecx
    rep movsb
    xor %eax, %eax
    mov $32, %ecx
    rep stosb
    dec %eax
    mov $64, %ecx
    rep stosb
    movw $136, TSS + 102
    movb $0x02, TSS + 104 + 0x41 / 8    /* 0x41 is not redirected */
    GDT_SET SEL(0), $TSS, $(136+63), A_TSS32
    mov $SEL(0), %ecx
    ltr %cx
    movw $int40, 0x40 * 4
    movw $0, 0x40 * 4 + 2
    V86 "cli", FL_VIF, BP, 0, cli
    EXPECT_BITS "cli clears VIF", x_flags, $(FL_VIF|FL_IF), $0
    V86 "sti", 0, BP, 0, sti
    EXPECT_BITS "sti sets VIF, not IF", x_flags, $(FL_VIF|FL_IF), $FL_VIF
    V86 "sti with VIP", FL_VIP, GP, 0, sti
    V86 "pushf", FL_VIF, BP, 0, pushfw, "pop %dx"
    EXPECT_BITS "pushf: IF is VIF, IOPL is 3", %edx, $0x3200, $0x3200
    V86 "pushf, VIF clear", 0, BP, 0, pushfw, "pop %dx"
    EXPECT_BITS "pushf: IF is VIF, IOPL is 3", %edx, $0x3200, $0x3000
    V86 "popf", 0, BP, 0, "pushw $0x202", popfw
    EXPECT_BITS "popf: IF goes to VIF", x_flags, $(FL_VIF|FL_IF), $FL_VIF
    V86 "popf with VIP", FL_VIP, GP, 0, "pushw $0x202", popfw
    V86 "popf with TF", 0, GP, 0, "pushw $0x102", popfw
    V86 "32-bit pushf", 0, GP, 0, pushfl
    V86 "32-bit popf", 0, GP, 0, popfl
    mov $0, %edx
    V86 "int 0x40 is redirected, IOPL 0", FL_VIF, BP, 0, "int $0x40"
    EXPECT_BITS "its handler ran", %edx, $0xFFFF, $0x4040
    EXPECT_BITS "IF of the pushed flags is VIF, IOPL 3", %ecx, $0x3200, $0x3200
    EXPECT_BITS "VIF was clear in the handler and is back", x_flags, $FL_VIF, $FL_VIF
    V86 "int 0x41 is not redirected, IOPL 0", 0, GP, 0, "int $0x41"
    V86 "int 0x41 is not redirected, IOPL 3", 0x3000, GP, (0x41*8+2), "int $0x41"
    mov $0, %edx
    V86 "int 0x40 is redirected, IOPL 3", 0x3000, BP, 0, "int $0x40"
    EXPECT_BITS "its handler ran, IOPL 3", %edx, $0xFFFF, $0x4040
    DONE

enter:
    push $0
    push $0
    push $0
    push $0
    push $0
    push $0x7000
    push %eax
    push $0
    push %ebx
    iretl
    CODE16
int40:
    mov $0x4040, %dx
    mov %sp, %bp
    mov 4(%bp), %cx
    iretw
