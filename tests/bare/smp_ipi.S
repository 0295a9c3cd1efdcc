/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IPIs between two processors: fixed by physical ID, by logical ID (flat and cluster), to all with and
 * without self, lowest priority, NMI, physical broadcast; wake from HLT; TPR of the target holds them; an
 * IPI to nobody.
 * cpus: 2
 * Manual: SDM 3A 10.6.
 */
#include "rt.h"

.macro SEND dest, icr
    movl $\dest, LAPIC + 0x310
    movl $(\icr), LAPIC + 0x300
.endm
/* Counts of processor 0 and 1 reach these within a minute, and stay. */
.macro COUNTS name, n0, n1
    mov $\n0, %edi
    mov $\n1, %esi
    call settle
    EXPECT "\name: processor 0", counts, $\n0
    EXPECT "\name: processor 1", counts+8, $\n1
    movq $0, counts
    movq $0, counts + 8
.endm

TEST64 smp_ipi
    HOOK 0x40, on_ipi
    HOOK NMI, on_nmi
    mov $ap, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    mov $ready, %edi
    mov $1, %esi
    call rt_ap_wait
    SEND 0x01000000, 0x4040
    COUNTS "physical, to 1", 0, 1
    SEND 0x00000000, 0x4040
    COUNTS "physical, to 0", 1, 0
    SEND 0, 0x84040
    COUNTS "all with self", 1, 1
    SEND 0, 0xC4040
    COUNTS "all but self", 0, 1
    SEND 0, 0x44040
    COUNTS "self", 1, 0
    SEND 0xFF000000, 0x4040
    COUNTS "physical broadcast", 1, 1
    SEND 0x07000000, 0x4040
    COUNTS "to nobody", 0, 0
    /* logical, flat: 0 is bit 0, 1 is bit 1 */
    movl $0xFFFFFFFF, LAPIC + 0xE0
    movl $0x01000000, LAPIC + 0xD0
    SEND 0x02000000, 0x4840
    COUNTS "flat, to 1", 0, 1
    SEND 0x01000000, 0x4840
    COUNTS "flat, to 0", 1, 0
    SEND 0x03000000, 0x4840
    COUNTS "flat, to both", 1, 1
    SEND 0x0C000000, 0x4840
    COUNTS "flat, to neither", 0, 0
    /* lowest priority: one of them gets it; processor 0 is busy with a high TPR */
    movl $0xE0, LAPIC + 0x80
    SEND 0x02000000, 0x4940
    COUNTS "lowest priority among one", 0, 1
    movl $0, LAPIC + 0x80
    /* cluster model */
    movl $0x0FFFFFFF, LAPIC + 0xE0
    movl $2, ap_command
    call ap_ack
    movl $0x21000000, LAPIC + 0xD0
    SEND 0x22000000, 0x4840
    COUNTS "cluster 2, member 2", 0, 1
    SEND 0x23000000, 0x4840
    COUNTS "cluster 2, members 1 and 2", 1, 1
    SEND 0x33000000, 0x4840
    COUNTS "cluster 3", 0, 0
    /* the target's TPR */
    movl $3, ap_command         /* TPR = 0x50 */
    call ap_ack
    SEND 0x01000000, 0x4040
    COUNTS "held by the target's TPR", 0, 0
    movl $4, ap_command         /* TPR = 0 */
    call ap_ack
    COUNTS "let in", 0, 1
    /* NMI reaches a processor with interrupts off */
    movl $5, ap_command         /* CLI; HLT */
    call ap_ack
    SEND 0x01000000, 0x4040
    COUNTS "fixed, interrupts off", 0, 0
    mov $(RT_PATIENCE / 10), %ebx
1:  SEND 0x01000000, 0x4400     /* again: the first may come before the HLT */
    mov $10, %edi
    call rt_delay_ms
    cmpl $0, woken
    jne 2f
    dec %ebx
    jnz 1b
2:  EXPECT "NMI wakes processor 1", woken, $1
    COUNTS "the fixed one comes with STI", 0, 1
    DONE

/* EDI, ESI: counts awaited */
settle:
    sti
    mov $RT_PATIENCE, %ecx
1:  cmp %edi, counts
    jne 2f
    cmp %esi, counts + 8
    je 3f
2:  push %rdi
    mov $1, %edi
    call rt_delay_ms
    pop %rdi
    dec %ecx
    jnz 1b
3:  mov $5, %edi
    call rt_delay_ms
    cli
    ret
ap_ack:
    mov $ap_command, %edi
    xor %esi, %esi
    jmp rt_ap_wait

on_ipi:
    mov LAPIC + 0x20, %eax
    shr $24, %eax
    lock incq counts(,%rax,8)
    movl $0, LAPIC + 0xB0
    ret
on_nmi:
    lock incl nmis
    ret

ap:
    movl $0x1FF, LAPIC + 0xF0
    movl $0, LAPIC + 0x80
    movl $0xFFFFFFFF, LAPIC + 0xE0
    movl $0x02000000, LAPIC + 0xD0
    movl $1, ready
1:  sti
    mov ap_command, %eax
    cmp $2, %eax
    jne 2f
    cli
    movl $0x0FFFFFFF, LAPIC + 0xE0
    movl $0x22000000, LAPIC + 0xD0
    jmp 9f
2:  cmp $3, %eax
    jne 3f
    movl $0x50, LAPIC + 0x80
    jmp 9f
3:  cmp $4, %eax
    jne 4f
    movl $0, LAPIC + 0x80
    jmp 9f
4:  cmp $5, %eax
    jne 1b
    cli
    movl $0, ap_command
5:  hlt
    cmpl $0, nmis
    je 5b
    movl $1, woken
    jmp 1b
9:  movl $0, ap_command
    jmp 1b
    .bss
    .align 8
counts: .skip 16
ready: .skip 8
ap_command: .skip 8
nmis: .skip 8
woken: .skip 8
