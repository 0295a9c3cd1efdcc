/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL and SYSRET, hot, from ring 3 to one of two entries and back to one of two places, while FMASK, STAR, LSTAR, EFER.SCE, the flags on
 * both sides and the return address change at random: hot_door.c does it. A page of the supervisor's tells whether the way to memory
 * changes with them. Then interrupts come in while all that runs is system calls, without any other branch.
 * Manual: SDM 2B SYSCALL, SYSRET; APM 3 SYSCALL, SYSRET.
 * timeout: 120
 * qemu: differs (entry: flags): TCG loses the arithmetic flags
 * qemu: may differ (vector): TCG takes VM from R11
 * qemu: may differ (return: flags): for the same reason
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_door
    call hot_door
    WRMSR_ MSR_LSTAR, $entry_again
    WRMSR_ MSR_FMASK, $(FL_IF | FL_TF | FL_DF | FL_AC | FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)
    TICKS 0x40
    mov $WARM, %r12d
1:  movl $0, hot_seen
    movl $300000, LAPIC + 0x380
    sti
    USER
again:
    syscall
seen_it: /* in ring 0, by entry_again */
    cli
    dec %r12d
    jnz 1b
    EXPECT "interrupts between system calls", hot_irqs, $WARM
    DONE

entry_again:
    mov $again, %ecx
    cmpl $0, hot_seen
    jne 1f
    sysretq
1:  mov $KDS, %eax
    mov %eax, %ss
    jmp seen_it

/* One system call by door_state; back in ring 0 whatever became of it. */
    .globl door_run, door_after, door_other, door_entry, door_entry2, door_syscall, door_sysret
    .balign 8
door_run:
    PUSH_KEPT
    USER
    ARM 4f
    mov $0x1111, %ecx
    mov $0x2222, %r11d
    pushq u_in
    popfq
door_syscall:
    syscall
door_after:
    movl $1, u_where
1:  pushfq
    popq u_flags
    mov %cs, u_cs
    mov %ss, u_ss
    cmpl $0, u_probe
    je 2f
    mov TVA, %rax                   /* ring 3 may not */
2:  DISARM
    jmp 5f
door_other:
    movl $2, u_where
    jmp 1b
4:  /* a fault or trap, in either ring */
5:  KERNEL64
    pushq $2
    popfq
    mov $KDS, %eax
    mov %eax, %ss
    POP_KEPT
    ret

door_entry:
    movl $1, k_where
1:  pushfq
    popq k_flags
    mov %rcx, k_rcx
    mov %r11, k_r11
    mov %cs, k_cs
    mov %ss, k_ss
    mov TVA, %rax
    mov %rax, k_loaded
    mov k_back, %rcx
    mov k_out, %r11
door_sysret:
    sysretq
door_entry2:
    movl $2, k_where
    jmp 1b

    .data
    .balign 8
    .globl u_in, u_where, u_flags, u_cs, u_ss, u_probe, k_where, k_flags, k_rcx, k_r11, k_cs, k_ss, k_loaded, k_back, k_out
    .irp name, u_in, u_where, u_flags, u_cs, u_ss, u_probe, k_where, k_flags, k_rcx, k_r11, k_cs, k_ss, k_loaded, k_back, k_out
\name: .quad 0
    .endr
