/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Far jumps and calls to code segments, without gates: nonconforming needs CPL = DPL and RPL <= CPL,
 * conforming CPL >= DPL and keeps CPL; data, null, system and out-of-range selectors are #GP; RETF to an
 * outer ring loads SS:ESP and nulls data segments that the outer ring may not use; RETF checks; RETF n.
 * Manual: SDM 3A 5.8.1; 2A/2B JMP, CALL, RET.
 * qemu: differs (code is accessed now): TCG does not set the accessed bit of code segments on a far jump
 */
#include "rt.h"

TEST32 seg_code
    GDT_SET SEL(0), $0, $0xFFFFF, 0xC9F     /* conforming, DPL 0 */
    GDT_SET SEL(1), $0, $0xFFFFF, 0xCFB     /* nonconforming, DPL 3 */
    GDT_SET SEL(2), $0, $0xFFFFF, 0xCFF     /* conforming, DPL 3 */
    GDT_SET SEL(3), $0, $0xFFFFF, 0xC9A     /* code, not accessed */
    FAULTS "jump to null", GP, 0, ljmp $0, $1f
    FAULTS "jump to data", GP, KDS, ljmp $KDS, $1f
    FAULTS "jump past the GDT", GP, 0x800, ljmp $0x800, $1f
    FAULTS "jump to an LDT selector without an LDT", GP, 0xC, ljmp $0xC, $1f
    FAULTS "jump outwards", GP, SEL(1), ljmp $SEL(1), $1f
    FAULTS "jump outwards, RPL 3", GP, SEL(1), ljmp $(SEL(1)|3), $1f
    FAULTS "jump to conforming DPL 3 from CPL 0", GP, SEL(2), ljmp $SEL(2), $1f
    FAULTS "RPL 3 at CPL 0", GP, KCS32, ljmp $(KCS32|3), $1f
    ljmp $SEL(3), $2f
2:  mov %cs, %eax
    EXPECT "jump", %eax, $SEL(3)
    EXPECT_BITS "code is accessed now", rt_gdt+SEL(3)+4, $0xFF00, $0x9B00
    ljmp $SEL(0), $3f
3:  mov %cs, %eax
    EXPECT "conforming at CPL 0", %eax, $SEL(0)
    ljmp $KCS32, $4f
4:  USER
    lcall $SEL(0), $conforming
    EXPECT "conforming code from CPL 3: RPL of CS is 3", %eax, $(SEL(0)|3)
    FAULTS "hlt after the return: still CPL 3", GP, 0, hlt
    FAULTS "jump to CPL 0 from CPL 3", GP, KCS32, ljmp $KCS32, $1f
    FAULTS "call to CPL 0 from CPL 3", GP, KCS32, lcall $KCS32, $1f
    ljmp $SEL(1), $5f
5:  mov %cs, %eax
    EXPECT "RPL of CS becomes CPL", %eax, $(SEL(1)|3)
    KERNEL
    /* RETF to ring 3 */
    GDT_SET SEL(4), $0, $0xFFFFF, 0xC93
    mov $SEL(4), %ecx
    mov %ecx, %fs
    mov $UDS, %ecx
    mov %ecx, %gs
    mov $SEL(0), %ecx
    mov %ecx, %es
    mov %esp, %ebx
    push $UDS
    lea -64(%ebx), %eax
    push %eax
    push $77        /* parameters of RETF n */
    push $78
    push $UCS32
    push $6f
    lret $8
6:  mov %esp, %edi
    mov %cs, %eax
    mov %ss, %ecx
    mov %fs, %edx
    mov %gs, %esi
    mov %es, %ebp
    EXPECT "retf outwards: cs", %eax, $UCS32
    EXPECT "ss", %ecx, $UDS
    lea -56(%ebx), %eax
    EXPECT "esp: RETF n adds n to the outer stack too", %edi, %eax
    EXPECT "fs of DPL 0 is null now", %edx, $0
    EXPECT "gs of DPL 3 is kept", %esi, $UDS
    EXPECT "a conforming code segment in es is kept", %ebp, $SEL(0)
    KERNEL
    mov %ebx, %esp
    mov $KDS, %ecx
    mov %ecx, %es
    .macro RETF_BAD name, cs, ss, vec, err
    push $(\ss)
    push %ebx
    push $(\cs)
    push $1f
    FAULTS "\name", \vec, \err, lret
    mov %ebx, %esp
    .endm
    RETF_BAD "retf to null", 0, UDS, GP, 0
    RETF_BAD "retf to data", UDS, UDS, GP, 0x50
    RETF_BAD "retf, RPL 3 to a segment of DPL 0", (KCS32|3), UDS, GP, KCS32
    RETF_BAD "retf outwards, ss null", UCS32, 0, GP, 0
    RETF_BAD "retf outwards, ss of DPL 0", UCS32, KDS, GP, KDS
    RETF_BAD "retf outwards, RPL of ss is 0", UCS32, 0x50, GP, 0x50
    RETF_BAD "retf outwards, ss past the limit", UCS32, 0x803, GP, 0x800
    USER
    push $KCS32
    push $1f
    FAULTS "retf inwards", GP, KCS32, lret
    add $8, %esp
    KERNEL
    DONE
1:  UNREACHED "the code behind"
    DONE
conforming:
    mov %cs, %eax
    lret
