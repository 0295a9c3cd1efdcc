/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which second exception, raised while a first is delivered, becomes a double fault, and which is delivered
 * by itself: contributory on contributory, contributory on #PF and #PF on #PF are double faults; #PF on
 * contributory and contributory on benign are not. The EXT bit is set in an error code that arises from
 * the delivery of an earlier exception, not from that of INT n.
 * Manual: SDM 3A 6.13, 6.15 "Interrupt 8" (tables 6-4 and 6-5).
 * qemu: differs (#UD, its gate not present: #NP): the EXT bit is missing in the error code
 * qemu: differs (#UD, its gate's code segment not present: #NP): the EXT bit is missing in the error code
 */
#include "rt.h"

#define GATE(v) (rt_idt32 + 8 * (v))

TEST32 exc_df
    movb $0x0E, GATE(GP) + 5
    mov $0xFFF8, %ecx
    ARM 1f
    mov %ecx, %fs
1:  RT_CHECK "#GP, its gate not present: #DF", DF, 0, 0
    movb $0x8E, GATE(GP) + 5
    movb $0x0E, GATE(DE) + 5
    xor %ecx, %ecx
    ARM 2f
    div %ecx
2:  RT_CHECK "#DE, its gate not present: #DF", DF, 0, 0
    movb $0x8E, GATE(DE) + 5
    movb $0x0E, GATE(NP) + 5
    ARM 3f
    int $0x30
3:  RT_CHECK "int 0x30 is there", 0x30, 0, 0
    movb $0x0E, GATE(0x30) + 5
    ARM 4f
    int $0x30
4:  RT_CHECK "#NP, its gate not present: #DF", DF, 0, 0
    movb $0x8E, GATE(NP) + 5
    FAULTS "int n, its gate not present: #NP, EXT = 0", NP, (0x30 * 8 + 2), int $0x30
    movb $0x0E, GATE(UD) + 5
    FAULTS "#UD, its gate not present: #NP", NP, (UD * 8 + 3), ud2
    movb $0x8E, GATE(UD) + 5
    GDT_SET SEL(0), $0, $0xFFFFF, 0xC1B
    movw $SEL(0), GATE(UD) + 2
    FAULTS "#UD, its gate's code segment not present: #NP", NP, (SEL(0) + 1), ud2
    movw $KCS32, GATE(UD) + 2
    movw $SEL(0), GATE(0x31) + 2
    FAULTS "int n, its gate's code segment not present: #NP", NP, SEL(0), int $0x31
    movw $0, GATE(0x31) + 2
    FAULTS "int n, its gate's selector null: #GP(0)", GP, 0, int $0x31
    movw $KDS, GATE(0x31) + 2
    FAULTS "int n, its gate's selector data: #GP", GP, KDS, int $0x31

    /* An IDT whose gates up to 13 are in one page and from 14 on in the next. */
    mov $rt_idt32, %esi
    mov $TPA + 4096 - 8 * PF, %edi
    mov $512, %ecx
    rep movsl
    call rt_pg32_on
    movl $TPA + 3, rt_pt32
    movl $TPA + 0x1003, rt_pt32 + 4
    lidtl split_idtr
    FAULTS "#PF by the moved table", PF, 0, mov TVA + 0x5000, %eax
    movl $0, rt_pt32 + 4
    invlpg TVA + 0x1000
    ARM 5f
    mov TVA + 0x5000, %eax
5:  RT_CHECK "#PF whose delivery is #PF: #DF", DF, 0, 0
    movl $TPA + 0x1003, rt_pt32 + 4
    movl $0, rt_pt32
    invlpg TVA
    ARM 6f
    mov $0xFFF8, %ecx
7:  mov %ecx, %fs
6:  RT_CHECK "#GP whose delivery is #PF: #PF", PF, 0, 7b
    EXPECT "CR2 is the gate's address", x_cr2, $(TVA + 4096 - 8)
    FAULTS "#UD whose delivery is #PF: #PF", PF, 0, ud2
    EXPECT "CR2 is the gate's address", x_cr2, $(TVA + 4096 - 8 * PF + 8 * UD)
    movl $TPA + 3, rt_pt32
    movb $0x0E, TVA + 0x1000 + 5
    ARM 8f
    mov TVA + 0x5000, %eax
8:  RT_CHECK "#PF, its gate not present: #DF", DF, 0, 0
    DONE

    .data
    .align 4
    .word 0
split_idtr: .word 256 * 8 - 1
    .long TVA + 4096 - 8 * PF
