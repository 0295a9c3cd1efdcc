/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading segment registers in 32-bit mode: null, type, DPL and RPL against CPL, table limit, system
 * descriptors; SS's own rules; the accessed bit is set; the shadow stays when a load fails; use of a null
 * segment; loads by MOV, POP and LxS.
 * Manual: SDM 2B MOV; 3A 5.4, 5.5, 5.6.
 * qemu: differs (use of a null segment): TCG does not check
 * qemu: differs (write to read-only data): TCG does not check the type on use
 * qemu: differs (write to a code segment): TCG does not check the type on use
 */
#include "rt.h"

.macro LOADS name, sel, reg=fs
    mov $(\sel), %ecx
    NOFAULT "\name", mov %ecx, %\reg
.endm
.macro REFUSED name, sel, reg=fs, vec=GP, err=-1
    mov $(\sel), %ecx
    .if \err == -1
    FAULTS "\name", \vec, ((\sel)&0xFFFC), mov %ecx, %\reg
    .else
    FAULTS "\name", \vec, \err, mov %ecx, %\reg
    .endif
.endm

TEST32 seg_load
    GDT_SET SEL(0), $0, $0xFFFFF, 0xC92     /* data, writable, not accessed */
    GDT_SET SEL(1), $0, $0xFFFFF, 0xC91     /* data, read-only */
    GDT_SET SEL(2), $0, $0xFFFFF, 0xC99     /* code, execute-only */
    GDT_SET SEL(3), $0, $0xFFFFF, 0xC9B     /* code, readable */
    GDT_SET SEL(4), $0, $0xFFFFF, 0xC9D     /* code, conforming, execute-only */
    GDT_SET SEL(5), $0, $0xFFFFF, 0xC9F     /* code, conforming, readable */
    GDT_SET SEL(6), $0, $0xFFFFF, 0xCF3     /* data, DPL 3 */
    GDT_SET SEL(7), $0, $0xFFFFF, 0xCD3     /* data, DPL 2 */
    GDT_SET SEL(8), $0, $0xFFFFF, 0x089     /* a TSS */
    GDT_SET SEL(9), $0, $0xFFFFF, 0x08C     /* a call gate */
    /* data segment registers at CPL 0 */
    LOADS "null", 0
    LOADS "null, RPL 3", 3
    FAULTS "use of a null segment", GP, 0, mov %fs:0, %al
    LOADS "data", SEL(0)
    EXPECT_BITS "the accessed bit is set", rt_gdt+SEL(0)+4, $0xFF00, $0x9300
    NOFAULT "use", mov %fs:0, %al
    LOADS "read-only data", SEL(1)
    FAULTS "write to read-only data", GP, 0, mov %al, %fs:0
    NOFAULT "read of read-only data", mov %fs:0, %al
    REFUSED "execute-only code", SEL(2)
    NOFAULT "the old segment is still there", mov %fs:0, %al
    LOADS "readable code", SEL(3)
    FAULTS "write to a code segment", GP, 0, mov %al, %fs:0
    NOFAULT "read of a code segment", mov %fs:0, %al
    REFUSED "conforming execute-only code", SEL(4)
    LOADS "conforming readable code", SEL(5)
    LOADS "DPL 3", SEL(6)
    LOADS "DPL 3, RPL 3", (SEL(6) | 3)
    REFUSED "DPL 0, RPL 3", (SEL(0) | 3)
    REFUSED "DPL 0, RPL 1", (SEL(0) | 1)
    REFUSED "DPL 2, RPL 3", (SEL(7) | 3)
    LOADS "DPL 2, RPL 2", (SEL(7) | 2)
    LOADS "a conforming code segment does not look at RPL", (SEL(5) | 3)
    REFUSED "a TSS", SEL(8)
    REFUSED "a call gate", SEL(9)
    REFUSED "past the limit of the GDT", 0x800
    REFUSED "the last selector", 0xFFF8
    REFUSED "LDT selector without an LDT", 0xC
    mov $SEL(0) | 3, %ecx
    push %ecx
    FAULTS "pop fs", GP, SEL(0), popl %fs
    add $4, %esp
    movl $0x1000, rt_buf
    movw $SEL(2), rt_buf + 4
    mov $5, %eax
    FAULTS "les", GP, SEL(2), les rt_buf, %eax
    EXPECT "les: eax is kept", %eax, $5
    movw $SEL(0), rt_buf + 4
    NOFAULT "lgs", lgs rt_buf, %eax
    EXPECT "lgs: offset", %eax, $0x1000
    /* the limit of the GDT: all eight bytes of the descriptor must be inside */
    movw $SEL(0) + 6, rt_gdtr
    lgdtl rt_gdtr
    REFUSED "the descriptor's last byte is past the limit", SEL(0)
    movw $SEL(0) + 7, rt_gdtr
    lgdtl rt_gdtr
    LOADS "the descriptor just fits", SEL(0)
    movw $0x7FF, rt_gdtr
    lgdtl rt_gdtr
    /* SS at CPL 0 */
    REFUSED "ss: null", 0, ss, GP, 0
    REFUSED "ss: null with RPL", 3, ss, GP, 0
    REFUSED "ss: read-only", SEL(1), ss
    REFUSED "ss: code", SEL(3), ss
    REFUSED "ss: DPL 3", SEL(6), ss
    REFUSED "ss: DPL 3, RPL 3", (SEL(6) | 3), ss
    REFUSED "ss: RPL 3", (SEL(0) | 3), ss
    REFUSED "ss: past the limit", 0x1000, ss
    LOADS "ss: data", SEL(0), ss
    mov $KDS, %ecx
    mov %ecx, %ss
    mov $0x12340000 + SEL(0), %ecx
    NOFAULT "only 16 bits of the source count", mov %ecx, %fs
    mov $-1, %ecx
    mov %fs, %ecx
    EXPECT "mov from a segment register clears the upper half", %ecx, $SEL(0)
    movl $-1, rt_buf
    mov %fs, rt_buf
    EXPECT "but stores 16 bits", rt_buf, $(0xFFFF0000+SEL(0))
    push %fs
    pop %eax
    EXPECT_BITS "push fs", %eax, $0xFFFF, $SEL(0)
    /* at CPL 3 */
    USER
    LOADS "CPL 3: DPL 3, RPL 3", (SEL(6) | 3)
    LOADS "CPL 3: DPL 3, RPL 0", SEL(6)
    REFUSED "CPL 3: DPL 0", SEL(0)
    REFUSED "CPL 3: DPL 2", SEL(7)
    LOADS "CPL 3: conforming code of DPL 0", SEL(5)
    REFUSED "CPL 3: readable code of DPL 0", SEL(3)
    REFUSED "CPL 3, ss: RPL 0", SEL(6), ss
    REFUSED "CPL 3, ss: null", 0, ss, GP, 0
    LOADS "CPL 3, ss: DPL 3, RPL 3", (SEL(6) | 3), ss
    KERNEL
    DONE
