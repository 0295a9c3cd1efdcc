/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes to CR0 and CR4 that are #GP(0) and change nothing: PG without PE, NW without CD, bits 63:32, PG
 * off in 64-bit code, PAE off in long mode, reserved bits of CR4, PG on with LME and no PAE.
 * Manual: SDM 3A 2.5, 9.8.5; 2B MOV to control registers.
 * timeout: 10
 * qemu: differs: TCG stores most illegal values, and then goes nowhere until its time is over
 */
#include "rt.h"

TEST64 sys_cr_bad
    mov %cr0, %rbx
    mov %rbx, %rcx
    and $~CR0_PE, %rcx
    FAULTS "PG without PE", GP, 0, mov %rcx, %cr0
    mov %rbx, %rcx
    or $CR0_NW, %rcx
    FAULTS "NW without CD", GP, 0, mov %rcx, %cr0
    mov %rbx, %cr0
    mov %rbx, %rcx
    or $(CR0_NW|CR0_CD), %rcx
    NOFAULT "NW with CD", mov %rcx, %cr0
    mov %rbx, %cr0
    mov %rbx, %rcx
    bts $32, %rcx
    FAULTS "CR0 bit 32", GP, 0, mov %rcx, %cr0
    mov %rbx, %rcx
    btr $31, %rcx
    FAULTS "PG = 0 in 64-bit code", GP, 0, mov %rcx, %cr0
    mov %cr0, %rcx
    EXPECT "nothing changed", %rcx, %rbx
    mov %cr4, %r12
    .irp bit, 15, 31, 32, 33, 63
    mov %r12, %rcx
    bts $\bit, %rcx
    FAULTS "CR4, reserved bit \bit", GP, 0, mov %rcx, %cr4
    .endr
    mov %cr4, %rcx
    EXPECT "CR4 did not change", %rcx, %r12
    mov %cr4, %rcx
    and $~CR4_PAE, %rcx
    FAULTS "PAE cannot be cleared in long mode", GP, 0, mov %rcx, %cr4
    UNLONG
    xor %eax, %eax
    mov %cr0, %ebx
    mov %ebx, %ecx
    and $~CR0_PE, %ecx
    or $CR0_PG, %ecx
    FAULTS "PG without PE, 32-bit", GP, 0, mov %ecx, %cr0
    WRMSR_ MSR_EFER, $EFER_LME
    mov %ebx, %ecx
    or $CR0_PG, %ecx
    FAULTS "PG with LME without PAE", GP, 0, mov %ecx, %cr0
    WRMSR_ MSR_EFER, $0
    DONE
