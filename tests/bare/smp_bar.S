/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame buffer moves while the other processor stores to where it was: what that processor is told to store after the move
 * reaches nobody, what it stored before stays, and RAM beside it is not touched. smp_bar.c does it.
 * Manual: PCI Local Bus 3.0, 6.2.5.1; SDM 1 19.3 (I/O instructions complete before the next instruction).
 * cpus: 2
 * timeout: 240
 * qemu: may differ (ring 0: stores through the old place): TCG's other processors forget the old place later
 * qemu: may differ (ring 3: stores through the old place): the same
 * qemu: may differ (it has left its first place): the same
 * vitro option: --display vga
 * qemu device: VGA
 */
#include "rt.h"
#include "hot.h"

TEST64 smp_bar
    mov $bar_writer, %edi
    call rt_ap_start
    EXPECT "the second processor is up", %rax, $1
    call smp_bar
    DONE

/* The word bar_job is an address (upper half) and what to store there; each job is looked at anew. Straight code for long, so that
 * the move falls into the middle of it. */
.macro WRITE
    .rept 200
    mov bar_job, %rax
    mov %rax, %rdx
    shr $32, %rdx
    mov %eax, (%rdx)
    .endr
    lock incl bar_laps
.endm

/* The other processor: in ring 0, and in ring 3 once bar_user is not 0. */
bar_writer:
1:  WRITE
    cmpl $0, bar_user
    je 1b
    USER
2:  WRITE
    movl $1, bar_is_user
    jmp 2b

    .bss
    .globl bar_job, bar_laps, bar_user, bar_is_user
    .align 8
bar_job: .skip 8
bar_laps: .skip 8
bar_user: .skip 8
bar_is_user: .skip 8
