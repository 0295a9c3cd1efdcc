/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 64-bit exception frames: RSP is aligned to 16 before the pushes, SS:RSP is pushed always, SS becomes null
 * only when CPL changes, TF, NT, RF and (interrupt gate) IF are clear in the handler, trap gates keep IF;
 * IST switches the stack also without a change of ring.
 * Manual: SDM 3A 6.14.1 to 6.14.5.
 * qemu: differs (a fault pushes RF = 1): TCG does not set RF in a fault's frame
 * qemu: differs (SS does not change with IST): TCG nulls SS on every switch of stack
 */
#include "rt.h"

TEST64 exc_frame64
    mov %rsp, %rbx
    .irp skew, 0, 1, 3, 8, 9, 15
    lea -\skew(%rbx), %rdx
    mov %rdx, %r8
    and $-16, %r8
    ARM 1f
    mov %rdx, %rsp
    ud2
1:  EXPECT "RSP is pushed as it was", x_rsp, %rdx
    sub $40, %r8
    EXPECT "aligned frame without error code", x_frame, %r8
    mov %rdx, %r8
    and $-16, %r8
    ARM 2f
    mov %rdx, %rsp
    mov $0xFFF8, %ecx
    mov %ecx, %fs
2:  sub $48, %r8
    EXPECT "aligned frame with error code", x_frame, %r8
    .endr
    EXPECT "SS in the frame", x_ss, $KDS
    EXPECT "SS in the handler: the same", x_hss, $KDS
    EXPECT "CS in the frame", x_cs, $KCS64
    /* flags */
    pushfq
    orl $FL_NT | FL_AC | FL_DF | FL_CF, (%rsp)
    popfq
    FAULTS "ud2 with NT, AC, DF", UD, 0, ud2
    EXPECT_BITS "frame: NT, AC, DF, CF", x_flags, $(FL_NT|FL_AC|FL_DF|FL_CF), $(FL_NT|FL_AC|FL_DF|FL_CF)
    EXPECT_BITS "a fault pushes RF = 1", x_flags, $FL_RF, $FL_RF
    EXPECT_BITS "handler: no NT, TF, RF", x_hflags, $(FL_NT|FL_TF|FL_RF), $0
    EXPECT_BITS "handler: AC, DF, CF are kept", x_hflags, $(FL_AC|FL_DF|FL_CF), $(FL_AC|FL_DF|FL_CF)
    pushfq
    andl $~(FL_NT | FL_AC | FL_DF), (%rsp)
    orl $FL_IF, (%rsp)
    popfq
    FAULTS "interrupt gate", UD, 0, ud2
    EXPECT_BITS "interrupt gate clears IF", x_hflags, $FL_IF, $0
    EXPECT_BITS "frame has IF", x_flags, $FL_IF, $FL_IF
    movb $0x8F, rt_idt64 + 16 * UD + 5
    FAULTS "trap gate", UD, 0, ud2
    EXPECT_BITS "trap gate keeps IF", x_hflags, $FL_IF, $FL_IF
    cli
    TRAPS "int n", 0x30, 0, int $0x30
    EXPECT_BITS "a software interrupt pushes RF = 0", x_flags, $FL_RF, $0
    /* IST and rings */
    IST UD, 2
    FAULTS "with IST", UD, 0, ud2
    EXPECT "the frame is on IST2", x_frame, $(rt_ist2_top-40)
    EXPECT "SS does not change with IST", x_hss, $KDS
    USER
    FAULTS "from ring 3 with IST", UD, 0, ud2
    EXPECT "the frame is on IST2, from ring 3", x_frame, $(rt_ist2_top-40)
    EXPECT "SS is null", x_hss, $0
    EXPECT "user SS in the frame", x_ss, $UDS
    EXPECT "user CS in the frame", x_cs, $UCS64
    FAULTS "from ring 3 without IST", GP, 0, hlt
    EXPECT "the frame is on RSP0's stack", x_frame, $(rt_stack0_top-48)
    EXPECT "SS is null without IST", x_hss, $0
    KERNEL
    /* a non-canonical IST pointer: the push is #SS or #GP; here the delivery ends in #DF */
    movl $0x00008000, rt_tss64 + 48
    ARM 3f
    .byte 0x0F, 0x0B
3:  EXPECT "non-canonical IST pointer: another exception", x_vec, $SSF
    DONE
