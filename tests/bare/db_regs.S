/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug registers as registers: fixed bits of DR6 and DR7, upper halves (#GP), DR4 and DR5 (aliases, or #UD
 * with CR4.DE), general detect (#DB with DR6.BD and cleared GD), DR8 and up, MOV ignores mod; ICEBP (F1) is
 * a trap through vector 1 without DR6 bits and without a DPL check.
 * Manual: SDM 3B 17.2; 2B MOV to debug registers; 3A 6.15 "Interrupt 1".
 * qemu: differs (DR7: bits 12, 14, 15 are 0): TCG does not force these bits
 * qemu: differs (general detect: mov from dr0): TCG has no general detect
 * qemu: differs (GD is clear in the handler): TCG has no general detect
 * qemu: differs (DR6.BD): TCG has no general detect
 * qemu: differs (icebp): TCG has no ICEBP
 * qemu: differs (icebp at CPL 3: no check of DPL): TCG has no ICEBP
 * qemu: differs (int 1 at CPL 3: DPL): 64-bit error codes of INT n hold the vector times 16
 */
#include "rt.h"

TEST64 db_regs
    xor %eax, %eax
    mov %rax, %dr6
    mov %dr6, %rcx
    EXPECT_BITS "DR6: bits 4 to 11 are 1, 12 is 0", %rcx, $0x1FF0, $0xFF0
    shr $32, %rcx
    EXPECT "DR6: the upper half is 0", %rcx, $0
    mov %rax, %dr7
    mov %dr7, %rcx
    EXPECT "DR7: bit 10 is 1", %rcx, $0x400
    mov $0x0000D800, %eax
    mov %rax, %dr7
    mov %dr7, %rcx
    EXPECT_BITS "DR7: bits 12, 14, 15 are 0", %rcx, $0xD400, $0x400
    mov $0x400, %eax
    mov %rax, %dr7
    mov $1, %eax
    shl $32, %rax
    FAULTS "DR7, upper half", GP, 0, mov %rax, %dr7
    FAULTS "DR6, upper half", GP, 0, mov %rax, %dr6
    mov $0x123456789ABCDEF0, %rax
    mov %rax, %dr0
    mov %dr0, %rcx
    EXPECT "DR0 holds 64 bits", %rcx, %rax
    xor %eax, %eax
    mov %rax, %dr0
    mov $0x0F, %eax
    mov %rax, %dr6
    mov %db4, %rcx
    mov %dr6, %rdx
    EXPECT "DR4 is DR6", %rcx, %rdx
    mov %db5, %rcx
    EXPECT "DR5 is DR7", %rcx, $0x400
    CR_SET cr4, CR4_DE
    FAULTS "DR4 with DE", UD, 0, mov %db4, %rcx
    FAULTS "DR5 with DE", UD, 0, mov %rcx, %db5
    CR_CLEAR cr4, CR4_DE
    FAULTS "DR8", UD, 0, .byte 0x44, 0x0F, 0x21, 0xC0
    NOFAULT "mod is ignored", .byte 0x0F, 0x21, 0x38
    /* general detect */
    mov $0x2400, %ecx
    mov $0xFFFF0FF0, %eax
    mov %rax, %dr6
    mov %rcx, %dr7
    FAULTS "general detect: mov from dr0", DB, 0, mov %dr0, %rax
    mov %dr7, %rcx
    EXPECT "GD is clear in the handler", %rcx, $0x400
    mov %dr6, %rcx
    EXPECT_BITS "DR6.BD", %rcx, $0x2000, $0x2000
    /* ICEBP */
    mov $0xFFFF0FF0, %eax
    mov %rax, %dr6
    TRAPS "icebp", DB, 0, .byte 0xF1
    mov %dr6, %rcx
    EXPECT_BITS "icebp: no bit of DR6", %rcx, $0xE00F, $0
    USER
    TRAPS "icebp at CPL 3: no check of DPL", DB, 0, .byte 0xF1
    FAULTS "int 1 at CPL 3: DPL", GP, (8+2), int $1
    FAULTS "mov from dr7 at CPL 3", GP, 0, mov %dr7, %rax
    KERNEL
    DONE
