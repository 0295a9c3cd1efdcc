/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hot branch targets whose addresses have the same low 18 bits, or one more, so that they want the same place in a table of branch
 * targets: calls through a pointer go to one of them at random, while their code and their mappings change. hot_slot.c does that.
 * Manual: SDM 1 6.4.2 (near calls); SDM 3A 4.10, 11.6.
 * timeout: 120
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_slot
    call hot_slot
    DONE

/* u32 slot_call(fn), slot_jump(fn): EAX that it returns with */
    .globl slot_call
    .balign 8
slot_call:
    push %rbx
    call *%rdi
    pop %rbx
    ret

    .globl slot_jump
    .balign 8
slot_jump:
    jmp *%rdi
