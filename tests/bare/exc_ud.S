/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #UD: the reserved opcodes, LOCK where it is not allowed, opcodes that 64-bit mode lost, control registers
 * that do not exist; and #GP(0) for an instruction of more than 15 bytes.
 * Manual: SDM 2A 2.3.11 and the instructions' pages; 2D UD; 3A 6.15 "Interrupt 6".
 * qemu: differs (lock mov): LOCK is ignored
 * qemu: differs (lock bt): LOCK is ignored
 * qemu: differs (group 11 /1): the reg field is ignored
 */
#include "rt.h"

.macro PREFIXED n, insn
    .fill \n, 1, 0x66
    \insn
.endm

TEST64 exc_ud
    mov $rt_buf, %ebx
    FAULTS "ud2", UD, 0, ud2
    FAULTS "ud1", UD, 0, .byte 0x0F, 0xB9, 0xC0
    FAULTS "ud0", UD, 0, .byte 0x0F, 0xFF, 0xC0
    FAULTS "rsm outside SMM", UD, 0, .byte 0x0F, 0xAA
    FAULTS "lock add with a register", UD, 0, .byte 0xF0, 0x01, 0xC0
    FAULTS "lock mov", UD, 0, .byte 0xF0, 0x89, 0x03
    FAULTS "lock cmp", UD, 0, .byte 0xF0, 0x39, 0x03
    FAULTS "lock nop", UD, 0, .byte 0xF0, 0x90
    FAULTS "lock add from memory to a register", UD, 0, .byte 0xF0, 0x03, 0x03
    FAULTS "lock bt", UD, 0, .byte 0xF0, 0x0F, 0xA3, 0x03
    NOFAULT "lock bts", .byte 0xF0, 0x0F, 0xAB, 0x03
    FAULTS "lock ud2", UD, 0, .byte 0xF0, 0x0F, 0x0B
    FAULTS "mov to cs", UD, 0, .byte 0x8E, 0xC8
    FAULTS "mov to segment register 6", UD, 0, .byte 0x8E, 0xF0
    FAULTS "mov from segment register 7", UD, 0, .byte 0x8C, 0xF8
    FAULTS "mov from cr1", UD, 0, .byte 0x0F, 0x20, 0xC8
    FAULTS "mov from cr5", UD, 0, .byte 0x0F, 0x20, 0xE8
    FAULTS "mov to cr7", UD, 0, .byte 0x0F, 0x22, 0xF8
    FAULTS "mov from cr9", UD, 0, .byte 0x44, 0x0F, 0x20, 0xC8
    FAULTS "mov from cr15", UD, 0, .byte 0x44, 0x0F, 0x20, 0xF8
    FAULTS "lea with a register", UD, 0, .byte 0x8D, 0xC0
    FAULTS "cmpxchg8b with a register", UD, 0, .byte 0x0F, 0xC7, 0xC8
    FAULTS "group 5 /7", UD, 0, .byte 0xFF, 0xFB
    FAULTS "group 4 /2", UD, 0, .byte 0xFE, 0xD0
    FAULTS "group 11 /1", UD, 0, .byte 0xC7, 0xC8, 0, 0, 0, 0
    FAULTS "far jump with a register", UD, 0, .byte 0xFF, 0xE8
    FAULTS "far call with a register", UD, 0, .byte 0xFF, 0xD8
    .irp op, 0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0xCE, 0xD6
    FAULTS "opcode \op in 64-bit mode", UD, 0, .byte \op
    .endr
    FAULTS "opcode 0x82 in 64-bit mode", UD, 0, .byte 0x82, 0xC0, 0
    FAULTS "aam in 64-bit mode", UD, 0, .byte 0xD4, 0x0A
    FAULTS "aad in 64-bit mode", UD, 0, .byte 0xD5, 0x0A
    FAULTS "far call, direct, in 64-bit mode", UD, 0, .byte 0x9A, 0, 0, 0, 0, 8, 0
    FAULTS "far jump, direct, in 64-bit mode", UD, 0, .byte 0xEA, 0, 0, 0, 0, 8, 0
    NOFAULT "15 bytes", PREFIXED 14, nop
    FAULTS "16 bytes", GP, 0, PREFIXED 15, nop
    FAULTS "16 bytes with an immediate", GP, 0, PREFIXED 14, "mov $1, %al"
    DONE
