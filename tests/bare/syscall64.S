/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL and SYSRET in 64-bit mode: RCX, R11, selectors from STAR, FMASK, RF cleared, #UD with SCE = 0,
 * SYSRET #GP at CPL 3; SYSRETL to compatibility mode; cached segments are flat whatever the GDT says;
 * SYSRET to a non-canonical address (Intel: #GP in ring 0, AMD: in ring 3); SYSCALL at CPL 0.
 * Manual: SDM 2B SYSCALL, SYSRET; APM 3 SYSCALL, SYSRET.
 * qemu: differs (entry: the others are kept): TCG loses the arithmetic flags
 */
#include "rt.h"

#define USER_FL (FL_DF|FL_AC|FL_CF|FL_ZF)

TEST64 syscall64
    FAULTS "syscall with SCE = 0", UD, 0, syscall
    FAULTS "sysret with SCE = 0", UD, 0, sysretq
    RDMSR_ MSR_EFER
    or $EFER_SCE, %eax
    wrmsr
    WRMSR_ MSR_STAR, $0, (KCS64 | UCS32 << 16)
    WRMSR_ MSR_LSTAR, $entry
    WRMSR_ MSR_FMASK, $(FL_TF | FL_IF | FL_DF | FL_AC | FL_ZF)
    mov %rsp, %rbx
    USER
    pushfq
    orl $FL_DF | FL_AC | FL_CF | FL_ZF, (%rsp)
    popfq
    mov $0x1111, %ecx
    mov $0x2222, %r11d
    syscall
after:
    pushfq
    pop %r8
    mov %rsp, %r9
    mov %cs, %r10d
    mov %ss, %edi
    cld
    EXPECT "entry: cs", %rdx, $KCS64
    EXPECT "entry: ss", %rsi, $KDS2
    EXPECT "entry: rcx is the return address", %r12, $after
    EXPECT_BITS "entry: r11 holds the flags", %r13, $(USER_FL|FL_RF), $USER_FL
    EXPECT_BITS "entry: FMASK cleared these", %r14, $(FL_TF|FL_IF|FL_DF|FL_AC|FL_ZF|FL_RF), $0
    EXPECT_BITS "entry: the others are kept", %r14, $FL_CF, $FL_CF
    EXPECT "entry: rsp is the user's", %r15, %rbx
    EXPECT "return: cs", %r10, $UCS64
    EXPECT "return: ss", %rdi, $UDS
    EXPECT_BITS "return: flags from r11", %r8, $USER_FL, $USER_FL
    pushfq
    andl $~FL_AC, (%rsp)
    popfq
    FAULTS "sysret at CPL 3", GP, 0, sysretq
    FAULTS "still CPL 3", GP, 0, hlt
    KERNEL
    /* SYSRETL to compatibility mode; R11 with IOPL and reserved bits */
    mov $compat, %ecx
    mov $0x3002 | FL_RF | FL_VM, %r11d
    sysretl
    CODE32
compat:
    mov $5, %eax
    .byte 0x48
    EXPECT "sysretl: compatibility mode", %eax, $4
    mov %cs, %eax
    EXPECT "sysretl: cs", %eax, $UCS32
    mov %ss, %eax
    EXPECT "sysretl: ss", %eax, $UDS
    EXPECT_FLAGS "sysretl: IOPL from r11", 0x3000, 0x3000
    KERNEL64
    pushq $2
    popfq
    /* ring 3 by SYSRET although the descriptors of STAR are not there */
    WRMSR_ MSR_STAR, $0, (KCS64 | (SEL(20) | 3) << 16)
    mov $cached, %ecx
    mov $2, %r11d
    sysretq
cached:
    mov %cs, %eax
    EXPECT "cs is STAR's, whatever the GDT holds there", %rax, $((SEL(20)|3)+16)
    EXPECT "and the segment works", $1, $1
    KERNEL64
    WRMSR_ MSR_STAR, $0, (KCS64 | UCS32 << 16)
    /* SYSCALL at CPL 0 */
    mov %rsp, %rbx
    movl $1, no_return
    syscall
1:  EXPECT "syscall at CPL 0 enters all the same", %rdx, $KCS64
    EXPECT "its return address", %r12, $1b
    /* SYSRET to a non-canonical RCX */
    mov $0x800000000000, %rcx
    mov $2, %r11d
    mov %rsp, %rbx
    ARM 3f
2:  sysretq
3:  EXPECT "non-canonical return: #GP", x_vec, $GP
    cmpl $0, rt_amd
    jne 4f
    EXPECT "Intel: in ring 0", x_cs, $KCS64
    EXPECT "Intel: at the SYSRET", x_rip, $2b
    jmp 5f
4:  EXPECT "AMD: in ring 3", x_cs, $UCS64
    EXPECT "AMD: at the target", x_rip, %rcx
5:  DONE

entry:
    mov %rcx, %r12
    mov %r11, %r13
    pushfq
    pop %r14
    mov %rsp, %r15
    mov %cs, %edx
    mov %ss, %esi
    cmpl $0, no_return
    jne 1f
    sysretq
1:  jmp *%rcx

    .data
no_return: .long 0
