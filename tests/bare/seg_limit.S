/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segment limits: byte and page granularity, the last byte of an access counts, expand-down segments with B
 * = 0 and 1, limit 0, limit 4 GiB, code past CS's limit, each kind of access (read, write, RMW, string,
 * push to memory).
 * Manual: SDM 3A 5.3.
 * qemu: differs: TCG does not check segment limits
 */
#include "rt.h"

TEST_LOW seg_limit
    GDT_SET SEL(0), $rt_buf, $0xFF, 0x493       /* 256 bytes */
    mov $SEL(0), %ecx
    mov %ecx, %fs
    NOFAULT "byte at 0xFF", mov %fs:0xFF, %al
    FAULTS "byte at 0x100", GP, 0, mov %fs:0x100, %al
    NOFAULT "dword at 0xFC", mov %fs:0xFC, %eax
    FAULTS "dword at 0xFD", GP, 0, mov %fs:0xFD, %eax
    FAULTS "dword at 0xFFFFFFFE wraps", GP, 0, mov %fs:0xFFFFFFFE, %eax
    FAULTS "write at 0x100", GP, 0, mov %al, %fs:0x100
    FAULTS "add at 0xFE", GP, 0, addl $1, %fs:0xFE
    FAULTS "push from 0xFE", GP, 0, pushl %fs:0xFE
    FAULTS "movups at 0xF1", GP, 0, movups %fs:0xF1, %xmm0
    NOFAULT "movups at 0xF0", movups %fs:0xF0, %xmm0
    FAULTS "fld m80 at 0xF7", GP, 0, fldt %fs:0xF7
    FAULTS "bts", GP, 0, btsl $1, %fs:0xFE
    mov $0xFE, %esi
    mov $rt_buf + 0x200, %edi
    mov $4, %ecx
    ARM 1f
2:  .byte 0x64
    rep movsb
1:  RT_CHECK "rep movsb", GP, 0, 2b
    EXPECT "rep movsb: ecx", %ecx, $2
    EXPECT "rep movsb: esi", %esi, $0x100
    GDT_SET SEL(0), $rt_buf, $0, 0x493
    mov $SEL(0), %ecx
    mov %ecx, %fs
    NOFAULT "limit 0: byte at 0", mov %fs:0, %al
    FAULTS "limit 0: byte at 1", GP, 0, mov %fs:1, %al
    FAULTS "limit 0: word at 0", GP, 0, mov %fs:0, %ax
    GDT_SET SEL(0), $rt_buf, $0, 0xC93          /* one page */
    mov $SEL(0), %ecx
    mov %ecx, %fs
    NOFAULT "limit 0 with G: byte at 0xFFF", mov %fs:0xFFF, %al
    FAULTS "limit 0 with G: word at 0xFFF", GP, 0, mov %fs:0xFFF, %ax
    /* expand-down */
    movl $(TPA >> 12), rt_buf
    GDT_SET SEL(1), $0, rt_buf, 0xC97           /* pages: above TPA + 0xFFF */
    mov $SEL(1), %ecx
    mov %ecx, %gs
    FAULTS "expand-down: at the limit", GP, 0, mov %gs:TPA+0xFFF, %al
    NOFAULT "expand-down: above the limit", mov %gs:TPA+0x1000, %al
    FAULTS "expand-down: a word across the limit", GP, 0, mov %gs:TPA+0xFFF, %ax
    FAULTS "expand-down: 0", GP, 0, mov %gs:0, %al
    NOFAULT "expand-down: the last byte of 4 GiB", mov %gs:0xFFFFFFFF, %al
    FAULTS "expand-down: a word across 4 GiB", GP, 0, mov %gs:0xFFFFFFFF, %ax
    GDT_SET SEL(1), $rt_buf, $0x7FF, 0x097      /* B = 0: 0x800 to 0xFFFF */
    mov $SEL(1), %ecx
    mov %ecx, %gs
    FAULTS "expand-down, B = 0: 0x7FF", GP, 0, mov %gs:0x7FF, %al
    NOFAULT "expand-down, B = 0: 0x800", mov %gs:0x800, %al
    NOFAULT "expand-down, B = 0: 0xFFFF", mov %gs:0xFFFF, %al
    FAULTS "expand-down, B = 0: 0x10000", GP, 0, mov %gs:0x10000, %al
    FAULTS "expand-down, B = 0: a word at 0xFFFF", GP, 0, mov %gs:0xFFFF, %ax
    /* code: a segment that ends after the ret */
    GDT_SET SEL(2), $0, $(0), 0x49B
    mov $code_end - 1, %eax
    mov %ax, rt_gdt + SEL(2)
    shr $16, %eax
    or $0x40, %al
    mov %al, rt_gdt + SEL(2) + 6
    NOFAULT "code inside its limit", lcall $SEL(2), $code
    ARM 3f
    ljmp $SEL(2), $code_end
3:  RT_CHECK "a jump past the limit faults before", GP, 0, 0
    EXPECT "in the old CS", x_cs, $KCS32
    ARM 4f
    ljmp $SEL(2), $code_nop
4:  RT_CHECK "running past the limit", GP, 0, code_end
    EXPECT "in the new CS", x_cs, $SEL(2)
    ARM 5f
    ljmp $SEL(2), $code_near
5:  RT_CHECK "a near jump past the limit faults at the jump", GP, 0, code_near
    DONE
    .align 16
code_near:
    jmp far_away
code:
    lret
code_nop:
    nop
code_end:
    nop
    .skip 300, 0x90
far_away:
    nop
