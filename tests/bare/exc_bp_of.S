/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #BP and #OF are traps; INT3, INTO and INT n check the gate's DPL at CPL 3 and the IDT's limit: #GP with
 * vector * 8 + 2 (IDT bit).
 * Manual: SDM 2A INT n/INTO/INT3/INT1; 3A 6.13 (error code), 6.15.
 * qemu: differs (int 0x50 past the limit, 64-bit): the error code holds the vector times 16
 */
#include "rt.h"

TEST32 exc_bp_of
    TRAPS "int3", BP, 0, int3
    EXPECT "cs of the frame", x_cs, $KCS32
    TRAPS "int 3, two bytes", BP, 0, .byte 0xCD, 3
    mov $0x7F, %al
    add $1, %al
    TRAPS "into with OF", OF, 0, into
    EXPECT_BITS "OF in the frame", x_flags, $FL_OF, $FL_OF
    xor %al, %al
    NOFAULT "into without OF", into
    TRAPS "int 0x21", 0x21, 0, int $0x21
    USER
    FAULTS "int3 at CPL 3, DPL 0", GP, (BP * 8 + 2), int3
    FAULTS "int 0x21 at CPL 3, DPL 0", GP, (0x21 * 8 + 2), int $0x21
    mov $0x7F, %al
    add $1, %al
    FAULTS "into at CPL 3, DPL 0", GP, (OF * 8 + 2), into
    FAULTS "ud2 needs no DPL", UD, 0, ud2
    KERNEL
    orb $0x60, rt_idt32 + 8 * BP + 5
    orb $0x60, rt_idt32 + 8 * OF + 5
    USER
    TRAPS "int3 at CPL 3, DPL 3", BP, 0, int3
    EXPECT "cs of the frame from ring 3", x_cs, $UCS32
    EXPECT "ss of the frame from ring 3", x_ss, $UDS
    mov $0x7F, %al
    add $1, %al
    TRAPS "into at CPL 3, DPL 3", OF, 0, into
    TRAPS "int 0x81 at CPL 3, DPL 3", 0x81, 0, int $0x81
    KERNEL
    movw $0x50 * 8 + 6, rt_idtr32
    lidtl rt_idtr32
    TRAPS "the last byte inside the limit decides: 0x4F", 0x4F, 0, int $0x4F
    FAULTS "int 0x50 past the limit", GP, (0x50 * 8 + 2), int $0x50
    FAULTS "int 0xFF past the limit", GP, (0xFF * 8 + 2), int $0xFF
    LONG
    FAULTS "into does not exist in 64-bit mode", UD, 0, .byte 0xCE
    TRAPS "int3 in 64-bit mode", BP, 0, int3
    movw $0x50 * 16 + 14, rt_idtr64
    lidt rt_idtr64
    FAULTS "int 0x50 past the limit, 64-bit", GP, (0x50 * 8 + 2), int $0x50
    DONE
