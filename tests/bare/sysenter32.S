/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSENTER and SYSEXIT in 32-bit mode: CS, ESP, EIP from the MSRs, IF and VM cleared, SYSEXIT to ECX:EDX in
 * ring 3; a null SYSENTER_CS is #GP(0); SYSEXIT at CPL 3 is #GP(0); the segments are flat whatever the GDT
 * says.
 * Manual: SDM 2B SYSENTER, SYSEXIT.
 */
#include "rt.h"

TEST32 sysenter32
    NEED 1, edx, 11, "no SEP"
    WRMSR_ MSR_SYSENTER_CS, $0
    FAULTS "sysenter with a null CS", GP, 0, sysenter
    FAULTS "sysexit with a null CS", GP, 0, sysexit
    WRMSR_ MSR_SYSENTER_CS, $KCS32
    WRMSR_ MSR_SYSENTER_ESP, $stack_top
    WRMSR_ MSR_SYSENTER_EIP, $entry
    rdmsr
    EXPECT "the MSR reads back", %eax, $entry
    pushfl
    orl $0x3000, (%esp)
    popfl
    USER
    sti
    stc
    mov %esp, %ebx
    sysenter
back:
    mov %cs, %eax
    EXPECT "entry: cs", %esi, $KCS32
    EXPECT "entry: ss", %edi, $KDS
    EXPECT "entry: esp", %ebp, $stack_top
    EXPECT_BITS "entry: IF is clear, CF is kept", entry_flags, $(FL_IF|FL_CF), $FL_CF
    EXPECT "exit: cs", %eax, $UCS32A
    mov %ss, %eax
    EXPECT "exit: ss", %eax, $UDSA
    mov %esp, %eax
    EXPECT "exit: esp", %eax, %ebx
    FAULTS "sysexit at CPL 3", GP, 0, sysexit
    KERNEL
    cli
    DONE
entry:
    mov %cs, %esi
    mov %ss, %edi
    mov %esp, %ebp
    pushfl
    popl entry_flags
    mov $back, %edx
    mov %ebx, %ecx
    sysexit
    .data
entry_flags: .long 0
    .bss
    .skip 256
stack_top: .skip 16
