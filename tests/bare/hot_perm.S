/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rights of a page that change at random under the same hot load, store, LOCK XADD, PUSH and call: P, W, U, NX in
 * the page's entry and in the directory's, CR0.WP, ring 0 and 3; then SMEP, SMAP and EFLAGS.AC in ring 0. Most steps change only
 * what needs no flush (ring, AC) or nothing, so that the same instruction is allowed and refused in turn. Accessed and
 * dirty bits are exact. hot_perm.c does it.
 * Manual: SDM 3A 4.6, 4.7, 4.8.
 * timeout: 300
 * qemu: differs (a read-modify-write reports a write): TCG reads first
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_perm
    IST PF, 1
    mov $1, %edi
    call hot_perm
    SUPERVISOR_ONLY
    NEED 7, ebx, 20, "no SMAP"
    NEED 7, ebx, 7, "no SMEP"
    xor %edi, %edi
    call hot_perm
    DONE

    .globl do_load, do_store, do_xadd, do_push, do_call
    .balign 8
do_load:
    mov (%rdi), %rax
    ret
do_store:
    mov %r11, (%rdi)
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
do_call:
    call *%rdi
    ret
