/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual-8086 mode: entry by IRETD, segments are selector * 16, the frame holds ES, DS, FS, GS and they
 * are null in the handler; with IOPL < 3 CLI, STI, PUSHF, POPF, INT n and IRET are #GP(0), INT3 and INTO
 * are not; IN and OUT go by the bitmap only; CPL is 3 (HLT, MOV to CR0, LGDT are #GP); protected-mode
 * instructions are #UD; exceptions.
 * Manual: SDM 3A 20.2, 20.3.
 */
#include "rt.h"

/* Runs one instruction in virtual-8086 mode with IOPL \iopl and records the exception that ends it. */
.macro V86 name, iopl, vec, err, i1, i2=nop, i3=nop, i4=nop
    ARM .Lv\@
    mov $(FL_VM | 2 | \iopl << 12), %eax
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

TEST_LOW v86_basic
    orb $0x60, rt_idt32 + 8 * BP + 5
    orb $0x60, rt_idt32 + 8 * OF + 5
    V86 "it runs", 0, BP, 0, nop
    EXPECT_BITS "VM in the frame", x_flags, $FL_VM, $FL_VM
    EXPECT "cs in the frame", x_cs, $0
    mov x_frame, %esi
    EXPECT "ss in the frame", x_ss, $0x0123
    EXPECT "esp in the frame", x_rsp, $0x0800
    EXPECT_BITS "es", "20(%esi)", $0xFFFF, $0x0200
    EXPECT_BITS "ds", "24(%esi)", $0xFFFF, $0x0300
    EXPECT_BITS "fs", "28(%esi)", $0xFFFF, $0x0400
    EXPECT_BITS "gs", "32(%esi)", $0xFFFF, $0x0500
    mov %fs, %eax
    EXPECT "fs is null in the handler", %eax, $0
    mov %gs, %eax
    EXPECT "gs is null in the handler", %eax, $0
    EXPECT_BITS "VM is clear in the handler", x_hflags, $FL_VM, $0
    /* segments */
    movb $0x77, 0x4010
    V86 "fs:0x10 is 0x4010", 0, BP, 0, "mov %fs:0x10, %dl"
    EXPECT_BITS "the byte", %edx, $0xFF, $0x77
    V86 "a segment register takes any value", 0, BP, 0, "mov $0x0401, %dx", "mov %dx, %fs", "mov %fs:0, %dl"
    EXPECT_BITS "the byte again", %edx, $0xFF, $0x77
    V86 "push", 0, BP, 0, "pushw $0x4321"
    EXPECT "esp after a push", x_rsp, $0x07FE
    EXPECT_BITS "pushed at ss * 16 + sp", 0x1230+0x7FE, $0xFFFF, $0x4321
    /* IOPL-sensitive */
    V86 "cli, IOPL 0", 0, GP, 0, cli
    V86 "sti, IOPL 0", 0, GP, 0, sti
    V86 "pushf, IOPL 0", 0, GP, 0, pushfw
    V86 "popf, IOPL 0", 0, GP, 0, popfw
    V86 "int 0x81, IOPL 0", 0, GP, 0, "int $0x81"
    V86 "iret, IOPL 0", 0, GP, 0, iretw
    V86 "cli, IOPL 2", 2, GP, 0, cli
    V86 "int3 needs no IOPL", 0, BP, 0, int3
    V86 "into needs no IOPL", 0, OF, 0, "mov $0x7F, %al", "inc %al", into
    V86 "hlt", 3, GP, 0, hlt
    V86 "mov to cr0", 3, GP, 0, "mov %eax, %cr0"
    V86 "lgdt", 3, GP, 0, "lgdtl 0"
    V86 "clts", 3, GP, 0, clts
    V86 "rdmsr", 3, GP, 0, rdmsr
    V86 "sldt", 3, UD, 0, "sldt %ax"
    V86 "ltr", 3, UD, 0, "ltr %ax"
    V86 "verr", 3, UD, 0, "verr %ax"
    V86 "arpl", 3, UD, 0, ".byte 0x63, 0xC0"
    V86 "div by zero", 0, DE, 0, "xor %cx, %cx", "div %cx"
    V86 "ud2", 0, UD, 0, ud2
    /* ports: the bitmap is past the limit, so none, whatever IOPL is */
    V86 "in, no bitmap, IOPL 0", 0, GP, 0, "in $0x80, %al"
    V86 "in, no bitmap, IOPL 3", 3, GP, 0, "in $0x80, %al"
    /* IOPL 3 */
    V86 "cli and sti, IOPL 3", 3, BP, 0, cli, sti, cli
    V86 "int 0x81, IOPL 3, DPL 3", 3, 0x81, 0, "int $0x81"
    V86 "int 0x30, IOPL 3, DPL 0: #GP with the gate", 3, GP, (0x30*8+2), "int $0x30"
    V86 "pushf, IOPL 3", 3, BP, 0, pushfw, "pop %dx"
    EXPECT_BITS "pushf: IOPL 3", %edx, $0x3000, $0x3000
    V86 "popf cannot change IOPL or VM", 3, BP, 0, "pushl $0", popfl, pushfl, "pop %edx"
    EXPECT_BITS "IOPL after popf", %edx, $0x3000, $0x3000
    EXPECT_BITS "VM after popf", x_flags, $FL_VM, $FL_VM
    /* a gate to a conforming or outer code segment is #GP from virtual-8086 mode */
    GDT_SET SEL(0), $0, $0xFFFFF, 0xC9F
    movw $SEL(0), rt_idt32 + 8 * 0x81 + 2
    V86 "a gate to a conforming segment", 3, GP, SEL(0), "int $0x81"
    DONE

enter:
    push $0x0500
    push $0x0400
    push $0x0300
    push $0x0200
    push $0x0123
    push $0x0800
    push %eax
    push $0
    push %ebx
    iretl
