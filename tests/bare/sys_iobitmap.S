/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I/O permission bitmap: single bits, accesses of 2 and 4 bytes need all their bits, two bytes of the
 * map are read (a limit one short is #GP), the map may begin outside the limit (no port allowed); in 64-bit
 * and 32-bit code; ring 0 and IOPL do not look at it.
 * Manual: SDM 1 19.5.2; 3A 7.2.
 */
#include "rt.h"

#define MAP (rt_pages + 104)

TEST64 sys_iobitmap
    mov $rt_tss64, %esi
    mov $rt_pages, %edi
    mov $104, %ecx
    rep movsb
    mov $0x20, %ecx
    mov $0xFF, %al
    rep stosb
    movw $104, rt_pages + 102
    movb $0xFE, MAP + 0x80 / 8  /* port 0x80 is allowed: bit 0 */
    movb $0x7C, MAP + 0x88 / 8  /* ports 0x88, 0x89, 0x8F */
    movb $0xFE, MAP + 0x90 / 8  /* port 0x90 */
    GDT_SET SEL(0), $rt_pages, $(104+0x90/8+1), A_TSS32
    movq $0, rt_gdt + SEL(1)
    mov $SEL(0), %ecx
    ltr %cx
    NOFAULT "ring 0 does not look", in $0x71, %al
    USER
    NOFAULT "port 0x80", in $0x80, %al
    NOFAULT "out to port 0x80", out %al, $0x80
    FAULTS "port 0x81", GP, 0, in $0x81, %al
    FAULTS "a word at port 0x80", GP, 0, in $0x80, %ax
    NOFAULT "a word at port 0x88", in $0x88, %ax
    FAULTS "a dword at port 0x88", GP, 0, in $0x88, %eax
    FAULTS "a word at port 0x89", GP, 0, in $0x89, %ax
    NOFAULT "a word at port 0x8F, across two bytes of the map", in $0x8F, %ax
    FAULTS "a dword at port 0x8F", GP, 0, in $0x8F, %eax
    mov $0x80, %edx
    NOFAULT "through dx", in %dx, %al
    mov $0x10080, %edx
    NOFAULT "only dx counts", in %dx, %al
    mov $rt_buf, %edi
    mov $2, %ecx
    mov $0x80, %edx
    NOFAULT "rep insb", rep insb
    mov $1, %ecx
    mov $0x81, %edx
    FAULTS "rep insb, port 0x81", GP, 0, rep insb
    xor %ecx, %ecx
    mov $0x3FD, %edx
    FAULTS "a port past the limit", GP, 0, in %dx, %al
    KERNEL
    /* the second byte of the pair is needed: limit ends with the byte of port 0x90 */
    GDT_SET SEL(0), $rt_pages, $(104+0x90/8), A_TSS32
    mov $SEL(0), %ecx
    ltr %cx
    USER
    FAULTS "the byte behind is past the limit", GP, 0, in $0x90, %al
    NOFAULT "port 0x80 still", in $0x80, %al
    KERNEL
    movw $0x200, rt_pages + 102
    USER
    FAULTS "a map outside the limit", GP, 0, in $0x80, %al
    KERNEL
    UNLONG
    mov $rt_tss32, %esi
    mov $rt_pages, %edi
    mov $104, %ecx
    rep movsb
    movw $104, rt_pages + 102
    GDT_SET SEL(0), $rt_pages, $(104+0x90/8+1), A_TSS32
    mov $SEL(0), %ecx
    ltr %cx
    USER
    NOFAULT "32-bit: port 0x80", in $0x80, %al
    FAULTS "32-bit: port 0x81", GP, 0, in $0x81, %al
    NOFAULT "32-bit: a word at port 0x8F", in $0x8F, %ax
    KERNEL
    DONE
