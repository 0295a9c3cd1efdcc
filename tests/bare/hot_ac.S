/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #AC while code is hot: the same load, store, LOCK XADD, PUSH, POP, CALL and RET, with aligned and unaligned addresses, while
 * CR0.AM, EFLAGS.AC and the ring change at random, and the page comes and goes. Only AM and AC and ring 3 together check; the check
 * comes before the page is looked for. hot_ac.c does it.
 * Manual: SDM 3A 6.15 (interrupt 17), 2.5 (AM).
 * timeout: 200
 * qemu: differs (an unaligned access): TCG has no alignment check
 * qemu: differs (a read-modify-write reports a write): TCG reads first
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_ac
    IST PF, 1
    IST AC, 1
    call hot_ac
    DONE

    .globl do_load, do_word, do_store, do_xadd, do_push, do_pop, do_call, do_ret
    .balign 8
do_load:
    mov (%rdi), %rax
    ret
do_word:
    mov (%rdi), %ax
    ret
do_store:
    mov %r11d, (%rdi)
    ret
do_xadd:
    lock xadd %r10, (%rdi)
    ret
do_push:
    mov %rsp, %rbp
    lea 8(%rdi), %rsp
    push %r11
    mov %rbp, %rsp
    ret
do_pop:
    mov %rsp, %rbp
    mov %rdi, %rsp
    pop %rax
    mov %rbp, %rsp
    ret
do_call:
    mov %rsp, %rbp
    lea 8(%rdi), %rsp
    call 1f
1:  mov %rbp, %rsp
    ret
do_ret:
    mov %rsp, %rbp
    mov %rdi, %rsp
    ret
    .globl do_ret_back
do_ret_back:
    mov %rbp, %rsp
    ret
