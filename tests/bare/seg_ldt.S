/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LDT: LLDT's checks (GDT only, type, present, null means none), its limit, segments and gates in it,
 * TI bit in error codes, SLDT; code in an LDT segment; 64-bit LDT descriptors take 16 bytes.
 * Manual: SDM 3A 3.5.1; 2A LLDT.
 * qemu: differs (ltr of null): TCG accepts it
 * qemu: differs (64-bit lldt with a non-canonical base): TCG does not check
 */
#include "rt.h"

TEST32 seg_ldt
    GDT_SET SEL(0), $rt_pages, $(4*8-1), A_LDT
    mov rt_gdt + KCS32, %eax
    mov %eax, rt_pages + 8
    mov rt_gdt + KCS32 + 4, %eax
    mov %eax, rt_pages + 12
    movl $0x5000FFFF, rt_pages + 16     /* data, base 0x5000 */
    movl $0x00CF9300, rt_pages + 20
    mov $0x8000000, %eax
    mov $SEL(0), %ecx
    NOFAULT "lldt", lldt %cx
    sldt %eax
    EXPECT "sldt", %eax, $SEL(0)
    mov $0x14, %ecx
    NOFAULT "a segment of the LDT", mov %ecx, %fs
    movl $0x31415926, 0x6000
    EXPECT "its base", %fs:0x1000, $0x31415926
    mov $0x24, %ecx
    FAULTS "past the LDT's limit", GP, 0x24, mov %ecx, %fs
    mov $0x1C, %ecx
    FAULTS "an empty descriptor of the LDT: error code with TI", GP, 0x1C, mov %ecx, %fs
    mov $0x4, %ecx
    FAULTS "entry 0 of the LDT is no null selector", GP, 0x4, mov %ecx, %fs
    ljmp $0xC, $1f
1:  mov %cs, %eax
    EXPECT "code in the LDT", %eax, $0xC
    FAULTS "an exception from there", UD, 0, ud2
    EXPECT "its CS", x_cs, $0xC
    ljmp $KCS32, $2f
2:  mov $0xC, %ecx
    FAULTS "lldt of an LDT selector", GP, 0xC, lldt %cx
    mov $KDS, %ecx
    FAULTS "lldt of data", GP, KDS, lldt %cx
    mov $0x800, %ecx
    FAULTS "lldt past the GDT", GP, 0x800, lldt %cx
    mov $0xC, %ecx
    FAULTS "ltr of an LDT selector", GP, 0xC, ltr %cx
    mov $KDS, %ecx
    FAULTS "ltr of data", GP, KDS, ltr %cx
    xor %ecx, %ecx
    FAULTS "ltr of null", GP, 0, ltr %cx
    mov $TSS32, %ecx
    FAULTS "ltr of a busy TSS", GP, TSS32, ltr %cx
    xor %ecx, %ecx
    NOFAULT "lldt of null", lldt %cx
    mov $0x14, %ecx
    FAULTS "no LDT any more", GP, 0x14, mov %ecx, %gs
    EXPECT "fs, loaded before, still works", %fs:0x1000, $0x31415926
    LONG
    mov $0x7F, %eax
    movl $rt_pages, rt_buf
    GDT_SET SEL(0), $rt_pages, $(4*8-1), A_LDT
    movq $0, rt_gdt + SEL(1)
    mov $SEL(0), %ecx
    NOFAULT "64-bit lldt", lldt %cx
    mov $0x14, %ecx
    NOFAULT "64-bit: a segment of the LDT", mov %ecx, %fs
    mov %fs:0x1000, %eax
    EXPECT "64-bit: its base", %rax, $0x31415926
    movl $0x8000, rt_gdt + SEL(1)
    mov $SEL(0), %ecx
    FAULTS "64-bit lldt with a non-canonical base", GP, SEL(0), lldt %cx
    movq $0, rt_gdt + SEL(1)
    movl $0x1F00, rt_gdt + SEL(1) + 4
    cmpl $0, rt_amd
    jne 3f
    FAULTS "64-bit lldt, type of the upper half", GP, SEL(0), lldt %cx
3:  movq $0, rt_gdt + SEL(1)
    xor %ecx, %ecx
    lldt %cx
    DONE
