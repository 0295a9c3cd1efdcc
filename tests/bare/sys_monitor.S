/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MONITOR and MWAIT: #UD where CPUID does not show them and at CPL 3; MONITOR's extensions other than 0 are
 * #GP(0), its address is checked like a load; MWAIT ends by an interrupt, by a store of another processor
 * to the line, and at once when the store came between; without MONITOR it does not wait for ever.
 * cpus: 2
 * Manual: SDM 2B MONITOR, MWAIT; 3A 8.10.
 * qemu: differs (monitor of a page not present): TCG does not look at the address
 * qemu: differs (monitor, non-canonical): TCG does not look at the address
 */
#include "rt.h"

TEST64 sys_monitor
    mov $1, %eax
    call rt_cpuid
    bt $3, %ecx
    mov $rt_buf, %eax
    jc have
    mov $0, %ecx
    mov $0, %edx
    FAULTS "monitor is not shown", UD, 0, monitor
    FAULTS "mwait is not shown", UD, 0, mwait
    DONE
have:
    xor %ecx, %ecx
    xor %edx, %edx
    NOFAULT "monitor", monitor
    inc %ecx
    FAULTS "monitor with ECX", GP, 0, monitor
    xor %ecx, %ecx
    mov $TVA, %eax
    FAULTS "monitor of a page not present", PF, 0, monitor
    mov $0x800000000000, %rax
    FAULTS "monitor, non-canonical", GP, 0, monitor
    mov $rt_buf, %eax
    mov $8, %ecx
    FAULTS "mwait with unknown extensions", GP, 0, mwait
    USER
    xor %ecx, %ecx
    FAULTS "monitor at CPL 3", UD, 0, monitor
    FAULTS "mwait at CPL 3", UD, 0, mwait
    KERNEL
    /* an interrupt ends it */
    call rt_lapic_on
    HOOK 0x40, rt_count_apic
    movl $0x0B, LAPIC + 0x3E0
    movl $0x40, LAPIC + 0x320
    mov $rt_buf, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    monitor
    movl $5000000, LAPIC + 0x380
    xor %eax, %eax
    sti
    mwait
    cli
    mov $0x40, %edi
    mov $1, %esi
    call rt_wait                /* MWAIT may end early, the interrupt still comes */
    EXPECT "the interrupt came", %rax, $1
    /* a store by the other processor */
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    movl $50, rounds
1:  mov flag, %ebx
    movl $1, go
2:  mov $flag, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    monitor
    cmp flag, %ebx
    jne 3f
    xor %eax, %eax
    mwait
    cmp flag, %ebx
    je 2b
3:  decl rounds
    jnz 1b
    EXPECT "fifty stores of the other processor were seen", flag, $50
    DONE
ap:
    mov $1, %edi
1:  cmpl $0, go
    je 1b
    movl $0, go
    call rt_delay_ms
    incl flag
    jmp 1b
    .bss
    .align 64
flag: .skip 64
go: .skip 64
rounds: .skip 64
