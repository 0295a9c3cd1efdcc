/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CR4: bits of features that CPUID does not show are #GP(0), each feature's bit can be set and
 * read back; PCIDE needs long mode.
 * Manual: SDM 3A 2.5; 2B MOV to control registers.
 * qemu: differs (VME is not there: #GP): TCG stores the bit whatever CPUID says
 * qemu: differs (VME is not set): TCG stores the bit whatever CPUID says
 * qemu: differs (PVI is not there: #GP): TCG stores the bit whatever CPUID says
 * qemu: differs (PVI is not set): TCG stores the bit whatever CPUID says
 * qemu: differs (PCIDE is not there: #GP): TCG stores the bit whatever CPUID says
 * qemu: differs (PCIDE is not set): TCG stores the bit whatever CPUID says
 */
#include "rt.h"

/* bit \bit of CR4 can be set if and only if CPUID.\leaf:\reg bit \fbit */
.macro FEATURE bit, leaf, reg, fbit, name
    mov $\leaf, %eax
    call rt_cpuid
    bt $\fbit, %\reg
    sbb %r8, %r8        /* -1: has it */
    mov %r12, %rcx
    bts $\bit, %rcx
    TRY mov %rcx, %cr4
    mov %cr4, %r9
    mov %r12, %cr4
    test %r8, %r8
    jz 1f
    EXPECT "\name can be set", x_vec, $-1
    EXPECT "\name reads back", %r9, %rcx
    jmp 2f
1:  EXPECT "\name is not there: #GP", x_vec, $GP
    EXPECT "\name is not set", %r9, %r12
2:
.endm

TEST64 sys_cr4
    SUPERVISOR_ONLY
    mov %cr4, %r12
    FEATURE 0, 1, edx, 1, VME
    FEATURE 1, 1, edx, 1, PVI
    FEATURE 2, 1, edx, 4, TSD
    FEATURE 3, 1, edx, 2, DE
    FEATURE 4, 1, edx, 3, PSE
    FEATURE 6, 1, edx, 7, MCE
    FEATURE 7, 1, edx, 13, PGE
    FEATURE 11, 7, ecx, 2, UMIP
    FEATURE 16, 7, ebx, 0, FSGSBASE
    FEATURE 17, 1, ecx, 17, PCIDE
    FEATURE 18, 1, ecx, 26, OSXSAVE
    FEATURE 20, 7, ebx, 7, SMEP
    FEATURE 21, 7, ebx, 20, SMAP
    FEATURE 22, 7, ecx, 3, PKE
    mov $1, %eax
    call rt_cpuid
    bt $26, %ecx
    jnc 3f
    EXPECT_BITS "CPUID.1:ECX.OSXSAVE follows CR4", %rcx, $(1<<27), $0
    mov %r12, %rcx
    bts $18, %rcx
    mov %rcx, %cr4
    mov $1, %eax
    call rt_cpuid
    EXPECT_BITS "CPUID.1:ECX.OSXSAVE is set", %rcx, $(1<<27), $(1<<27)
    mov %r12, %cr4
3:  UNLONG
    mov $1, %eax
    call rt_cpuid
    bt $17, %ecx
    jnc 4f
    mov %cr4, %eax
    or $CR4_PCIDE, %eax
    FAULTS "PCIDE outside long mode", GP, 0, mov %eax, %cr4
4:  DONE
