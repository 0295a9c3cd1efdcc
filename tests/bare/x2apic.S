/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x2APIC mode: transitions (the illegal ones #GP), registers by MSR, 32-bit ID, no MMIO, #GP for missing
 * registers, reserved bits and EOI other than 0, SELF IPI, ICR in one write, LDR derived from the ID, timer
 * and TPR.
 * Manual: SDM 3A 10.12.
 */
#include "rt.h"

#define V 0x41
#define X(reg) (0x800+((reg)>>4))

TEST64 x2apic
    NEED 1, ecx, 21, "no x2APIC"
    call rt_lapic_on
    mov $X(0x20), %ecx
    FAULTS "x2APIC MSRs in xAPIC mode", GP, 0, rdmsr
    mov LAPIC + 0x20, %ebx
    shr $24, %ebx
    mov %ebx, %r13d
    mov $MSR_APIC_BASE, %ecx
    rdmsr
    mov %eax, %r12d
    and $~0x800, %eax
    or $0x400, %eax
    FAULTS "EXTD without EN", GP, 0, wrmsr
    mov %r12d, %eax
    or $0x400, %eax
    NOFAULT "xAPIC to x2APIC", wrmsr
    mov %r12d, %eax
    FAULTS "x2APIC to xAPIC", GP, 0, wrmsr
    RDMSR_ X(0x20)
    EXPECT "ID", %rax, %rbx
    RDMSR_ X(0x30)
    EXPECT_BITS "version: integrated", %rax, $0xF0, $0x10
    RDMSR_ X(0xD0)
    mov %ebx, %ecx
    mov $1, %edx
    and $15, %ecx
    shl %cl, %edx
    mov %ebx, %esi
    shr $4, %esi
    shl $16, %esi
    or %esi, %edx
    EXPECT "LDR from the ID", %rax, %rdx
    .irp reg, 0xE0, 0x310, 0x90, 0x40, 0x3F0
    mov $X(\reg), %ecx
    FAULTS "register \reg is not there", GP, 0, rdmsr
    .endr
    xor %eax, %eax
    xor %edx, %edx
    mov $X(0x20), %ecx
    FAULTS "ID is read-only", GP, 0, wrmsr
    mov $X(0xB0), %ecx
    inc %eax
    FAULTS "EOI with 1", GP, 0, wrmsr
    mov $X(0x80), %ecx
    mov $0x100, %eax
    FAULTS "TPR, reserved bit", GP, 0, wrmsr
    mov $X(0xB0), %ecx
    FAULTS "EOI cannot be read", GP, 0, rdmsr
    mov $X(0x3F0), %ecx
    FAULTS "SELF IPI cannot be read", GP, 0, rdmsr
    /* interrupts */
    HOOK V, on_irq
    WRMSR_ X(0x3F0), $V
    sti
    nop
    nop
    cli
    EXPECT "SELF IPI", rt_counts+4*V, $1
    WRMSR_ X(0x300), $(0x40000|V)
    sti
    nop
    nop
    cli
    EXPECT "ICR, self", rt_counts+4*V, $2
    mov $X(0x300), %ecx
    mov $V, %eax
    mov %ebx, %edx
    wrmsr
    sti
    nop
    nop
    cli
    EXPECT "ICR, my ID", rt_counts+4*V, $3
    WRMSR_ X(0x80), $0x50
    mov %cr8, %rax
    EXPECT "TPR and CR8", %rax, $5
    WRMSR_ X(0x80), $0
    WRMSR_ X(0x3E0), $0xB
    WRMSR_ X(0x320), $V
    WRMSR_ X(0x380), $1000000
    mov $V, %edi
    mov $4, %esi
    call rt_wait
    EXPECT "the timer", %rax, $4
    /* off, then xAPIC again */
    mov $MSR_APIC_BASE, %ecx
    mov %r12d, %eax
    and $~0xC00, %eax
    xor %edx, %edx
    NOFAULT "x2APIC to disabled", wrmsr
    mov $1, %eax
    call rt_cpuid
    EXPECT_BITS "CPUID.APIC is clear while disabled", %rdx, $0x200, $0
    mov $MSR_APIC_BASE, %ecx
    mov %r12d, %eax
    xor %edx, %edx
    NOFAULT "disabled to xAPIC", wrmsr
    mov LAPIC + 0x20, %eax
    shr $24, %eax
    EXPECT "the ID by MMIO again", %rax, %r13
    mov LAPIC + 0xF0, %eax
    EXPECT_BITS "as after reset: SVR", %rax, $0x1FF, $0xFF
    DONE
on_irq:
    call rt_count
    WRMSR_ X(0xB0), $0
    ret
