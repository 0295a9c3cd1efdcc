/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IRETQ: always pops SS:RSP, null SS for ring 0 to 2 targets in 64-bit mode only, bad CS and SS selectors,
 * non-canonical RIP, NT is #GP(0) in long mode, IRETD and IRETW in 64-bit code, a 32-bit SS:ESP frame to
 * compatibility mode, RF is restored, flags that ring 3 may not change.
 * Manual: SDM 2A IRET; 3A 6.14.3.
 * qemu: differs (iretq to a non-canonical RIP): the fault is at the target
 */
#include "rt.h"

.macro IRET_BAD name, cs, ss, vec, err, rip=1f
    mov $\rip, %rax
    push $(\ss)
    push %rbx
    pushfq
    push $(\cs)
    push %rax
    FAULTS "\name", \vec, \err, iretq
    mov %rbx, %rsp
.endm

TEST64 iret64
    mov %rsp, %rbx
    IRET_BAD "iretq to null", 0, UDS, GP, 0
    IRET_BAD "iretq to data", UDS, UDS, GP, 0x50
    IRET_BAD "iretq past the GDT", 0x1003, UDS, GP, 0x1000
    IRET_BAD "iretq, RPL 3, DPL 0", (KCS64|3), UDS, GP, KCS64
    IRET_BAD "iretq to ring 3, ss null", UCS64, 0, GP, 0
    IRET_BAD "iretq to ring 3, ss null with RPL 3", UCS64, 3, GP, 0
    IRET_BAD "iretq to ring 3, ss of DPL 0", UCS64, KDS, GP, KDS
    IRET_BAD "iretq to compatibility mode, ss null", UCS32, 3, GP, 0
    IRET_BAD "iretq to a non-canonical RIP", KCS64, KDS, GP, 0, 0x800000000000
    GDT_SET SEL(0), $0, $0xFFFFF, 0xC73
    push $SEL(0) | 3
    push %rbx
    pushfq
    push $UCS64
    push $1f
    TRY iretq
    mov %rbx, %rsp
    mov x_vec, %rax
    sub $NP, %rax
    shr $1, %rax
    EXPECT "iretq, ss not present: #NP (SDM) or #SS (APM)", %rax, $0
    EXPECT "iretq, ss not present: error code", x_err, $SEL(0)
    GDT_SET SEL(1), $0, $0xFFFFF, 0xA1B
    IRET_BAD "iretq, cs not present", SEL(1), KDS, NP, SEL(1)
    /* null SS for ring 0 */
    push $0
    push %rbx
    pushfq
    push $KCS64
    push $2f
    iretq
2:  mov %ss, %eax
    EXPECT "iretq with a null ss in ring 0", %rax, $0
    mov $KDS, %eax
    mov %eax, %ss
    mov %rsp, %rax
    EXPECT "rsp from the frame", %rax, %rbx
    /* NT */
    push $KDS
    push %rbx
    pushfq
    push $KCS64
    push $1f
    pushfq
    orl $FL_NT, (%rsp)
    popfq
    FAULTS "NT in long mode", GP, 0, iretq
    pushfq
    andl $~FL_NT, (%rsp)
    popfq
    mov %rbx, %rsp
    /* IRETD in 64-bit code: a 32-bit frame of five slots */
    sub $20, %rsp
    movl $3f, (%rsp)
    movl $KCS64, 4(%rsp)
    movl $0x47, 8(%rsp)
    mov %ebx, 12(%rsp)
    movl $KDS, 16(%rsp)
    iretl
3:  EXPECT_FLAGS "iretd: flags", (FL_CF|FL_PF|FL_ZF), (FL_CF|FL_PF|FL_ZF)
    mov %rsp, %rax
    EXPECT "iretd pops ss:esp too", %rax, %rbx
    /* RF: the instruction at the target is not trapped by its breakpoint */
    mov $4f, %eax
    mov %rax, %dr0
    mov $0x402, %eax
    mov %rax, %dr7
    push $KDS
    push %rbx
    push $FL_RF | 2
    push $KCS64
    push $4f
    ARM 5f
    iretq
4:  nop
    nop
    DISARM
5:  EXPECT "RF from the frame masks the breakpoint", x_vec, $-1
    mov $0x400, %eax
    mov %rax, %dr7
    /* ring 3 may not change IOPL, IF, VIF, VIP */
    USER
    mov %rsp, %rbx
    push $UDS
    push %rbx
    pushfq
    orl $0x183200, (%rsp)
    push $UCS64
    push $6f
    iretq
6:  EXPECT_FLAGS "iretq in ring 3", 0x183200, 0
    KERNEL
    DONE
1:  UNREACHED "the code behind"
    DONE
