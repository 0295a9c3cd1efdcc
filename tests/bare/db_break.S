/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breakpoint registers: execution (a fault before the instruction, DR6.Bn, RF lets it pass), data writes
 * and accesses (traps after it) of 1, 2, 4 and 8 bytes with alignment by length, page-crossing and string
 * accesses, I/O with CR4.DE, L and G enables, several at once, disabled ones.
 * Manual: SDM 3B 17.2, 17.3.1.
 * qemu: differs (4 bytes, unaligned address: it is aligned down): TCG does not align the address
 * qemu: differs (4 bytes, unaligned address: not beyond): TCG does not align the address
 * qemu: differs (two: DR6): TCG reports one of them
 * qemu: differs (mov ss from a watched word: after its successor): TCG does not delay it
 */
#include "rt.h"

.macro BREAK n, addr, rwlen
    mov \addr, %eax
    mov %rax, %dr\n
    mov $((\rwlen) << (16 + 4 * \n) | 2 << (2 * \n) | 0x400), %eax
    mov %rax, %dr7
    mov $0xFFFF0FF0, %eax
    mov %rax, %dr6
.endm
.macro NO_BREAK
    mov $0x400, %eax
    mov %rax, %dr7
.endm
.macro DR6_IS name, bits
    mov %dr6, %rax
    EXPECT_BITS "\name: DR6", %rax, $0xE00F, $\bits
.endm

TEST64 db_break
    /* execution */
    BREAK 0, $target, 0
    ARM 1f
target:
    nop
    DISARM
1:  RT_CHECK "execution breakpoint: a fault", DB, 0, target
    EXPECT_BITS "an instruction breakpoint pushes RF = 0", x_flags, $FL_RF, $0
    DR6_IS "execution", 1
    HOOK DB, pass_rf
    movl $0, count
    call target2_setup
target2:
    nop
    EXPECT "with RF set in the frame the instruction runs: one #DB", count, $1
    UNHOOK DB
    NO_BREAK
    /* data: rw 1 = writes, 3 = accesses; len 0, 1, 3, 2 for 1, 2, 4, 8 bytes */
    BREAK 1, $rt_buf+4, 0x1
    NOFAULT "write, 1 byte: read", mov rt_buf+4, %al
    TRAPS "write, 1 byte", DB, 0, mov %al, rt_buf+4
    DR6_IS "write", 2
    NOFAULT "write, 1 byte: next to it", mov %al, rt_buf+5
    TRAPS "write, 1 byte: a qword over it", DB, 0, mov %rax, rt_buf
    TRAPS "write, 1 byte: add", DB, 0, incl rt_buf+2
    EXPECT_BITS "no RF in a trap's frame", x_flags, $FL_RF, $0
    BREAK 2, $rt_buf+8, 0x7
    TRAPS "access, 2 bytes: read", DB, 0, mov rt_buf+9, %al
    DR6_IS "access", 4
    NOFAULT "access, 2 bytes: behind", mov rt_buf+10, %al
    NOFAULT "access, 2 bytes: before", mov rt_buf+4, %eax
    TRAPS "access, 2 bytes: across its start", DB, 0, mov rt_buf+5, %eax
    BREAK 3, $rt_buf+16, 0xB
    TRAPS "access, 8 bytes: last byte", DB, 0, mov rt_buf+23, %al
    DR6_IS "access, 8 bytes", 8
    NOFAULT "access, 8 bytes: behind", mov rt_buf+24, %al
    BREAK 3, $rt_buf+18, 0xF
    TRAPS "4 bytes, unaligned address: it is aligned down", DB, 0, mov rt_buf+16, %al
    NOFAULT "4 bytes, unaligned address: not beyond", mov rt_buf+20, %al
    TRAPS "push from memory", DB, 0, pushq rt_buf+16
    add $8, %rsp
    BREAK 0, $rt_buf+0x1000, 0x1
    TRAPS "a page-crossing write", DB, 0, movl $0, rt_buf+0xFFD
    mov %rsp, %rbx
    BREAK 0, $rt_buf+0x7F8, 0xD
    ARM 1f
    mov $rt_buf+0x800, %esp
    push %rax
2:  DISARM
1:  EXPECT "push", x_vec, $DB
    EXPECT "push: rip", x_rip, $2b
    mov %rbx, %rsp
    NO_BREAK
    NOFAULT "disabled", mov %al, rt_buf+0x1000
    /* string: after the iteration that touches it */
    BREAK 0, $rt_buf+3, 0x1
    mov $rt_buf, %edi
    mov $8, %ecx
    ARM 1f
3:  rep stosb
    DISARM
1:  EXPECT "rep stosb", x_vec, $DB
    EXPECT "rep stosb: rcx after the iteration", %rcx, $4
    EXPECT "rep stosb: rip is still at it", x_rip, $3b
    NO_BREAK
    /* two at once; a disabled one's bit may be set too, these two must be */
    mov $rt_buf, %eax
    mov %rax, %dr0
    mov %rax, %dr1
    mov $0x00110405, %eax       /* L0, L1 writes */
    mov %rax, %dr7
    mov $0xFFFF0FF0, %eax
    mov %rax, %dr6
    TRAPS "two breakpoints", DB, 0, movb $0, rt_buf
    DR6_IS "two", 3
    NO_BREAK
    /* with single step: BS and B0 in one #DB */
    BREAK 0, $rt_buf, 1
    ARM 1f
    pushfq
    orl $FL_TF, (%rsp)
    popfq
    movb $0, rt_buf
1:  EXPECT "data breakpoint with TF", x_vec, $DB
    DR6_IS "data breakpoint with TF", 0x4001
    /* MOV SS delays a data breakpoint on it to after the next instruction */
    NO_BREAK
    movw $KDS, rt_buf
    BREAK 0, $rt_buf, 7
    ARM 1f
    mov rt_buf, %ss
    nop
4:  nop
1:  EXPECT "mov ss from a watched word: after its successor", x_rip, $4b
    /* I/O */
    CR_SET cr4, CR4_DE
    BREAK 0, $0x80, 2
    TRAPS "port 0x80", DB, 0, out %al, $0x80
    DR6_IS "port", 1
    NOFAULT "port 0x81", out %al, $0x81
    TRAPS "in from port 0x80", DB, 0, in $0x80, %al
    TRAPS "a word at port 0x7F", DB, 0, in $0x7F, %ax
    NO_BREAK
    CR_CLEAR cr4, CR4_DE
    DONE

target2_setup:
    BREAK 0, $target2, 0
    ret
pass_rf:
    incl count
    orl $FL_RF, 19*8(%rdi)
    ret
    .bss
count: .skip 8
