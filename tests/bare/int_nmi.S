/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NMI by the local APIC: it comes with IF = 0, a second one waits until IRET, one only is kept, an exception
 * inside the handler and its IRET end the blocking.
 * Manual: SDM 3A 6.7, 6.7.1, 10.6.1.
 */
#include "rt.h"

TEST64 int_nmi
    call rt_lapic_on
    mov LAPIC + 0x20, %eax
    and $0xFF000000, %eax
    mov %eax, my_id
    HOOK NMI, on_nmi
    call send_nmi
    mov $1, %esi
    call wait_nmi
    EXPECT "NMI with IF = 0", nmis, $1
    /* nested: sent twice within the handler, one comes after its IRET */
    movl $1, resend
    call send_nmi
    mov $3, %esi
    call wait_nmi
    mov $20, %edi
    call rt_delay_ms
    EXPECT "nested NMI waits for IRET", nmis, $3
    EXPECT "none came inside the handler", inside, $0
    EXPECT "depth never passed one", max_depth, $1
    /* the IRET of an exception inside the handler ends the blocking */
    movl $1, fault_inside
    call send_nmi
    mov $5, %esi
    call wait_nmi
    EXPECT "an exception's IRET ends the blocking", nmis, $5
    EXPECT "so the next came inside", max_depth, $2
    DONE

send_nmi:
    mov my_id, %eax
    mov %eax, LAPIC + 0x310
    movl $0x4400, LAPIC + 0x300
    ret
wait_nmi:
    mov $RT_PATIENCE, %ecx
1:  cmp %esi, nmis
    jae 2f
    mov $1, %edi
    call rt_delay_ms
    dec %ecx
    jnz 1b
2:  ret
on_nmi:
    incl depth
    mov depth, %eax
    cmp max_depth, %eax
    jbe 1f
    mov %eax, max_depth
1:  incl nmis
    cmpl $0, resend
    je 2f
    movl $0, resend
    mov nmis, %ebx
    call send_nmi
    call send_nmi
    mov $5, %edi
    call rt_delay_ms
    sub nmis, %ebx
    mov %ebx, inside
2:  cmpl $0, fault_inside
    je 3f
    movl $0, fault_inside
    call send_nmi
    TRY ud2
    mov $5, %edi
    call rt_delay_ms
3:  decl depth
    ret
    .bss
    .align 8
nmis: .skip 8
depth: .skip 8
max_depth: .skip 8
inside: .skip 8
resend: .skip 8
my_id: .skip 8
fault_inside: .skip 8
