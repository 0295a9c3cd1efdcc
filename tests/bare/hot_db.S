/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug exceptions that come and go while code is hot: instruction breakpoints on each instruction of a function that runs all the time,
 * data breakpoints (writes, accesses; any length) on what it touches and beside it, single step, in ring 0 and 3, through
 * each of DR0 to DR3, local and global; and a hot loop that is stepped: as many traps as instructions, each where it belongs.
 * hot_db.c does it.
 * Manual: SDM 3B 17.2, 17.3.
 * timeout: 200
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_db
    IST DB, 1
    call hot_db
    DONE

    .globl do_db, do_db_at, do_loop, do_loop_end, hook_step, step_count, step_wrong
/* RDI: a word that is written, RSI: one that is read. */
    .balign 8
do_db:
.Ldb0: inc %rax
.Ldb1: mov %r10, (%rdi)
.Ldb2: inc %rax
.Ldb3: mov (%rsi), %r11
.Ldb4: lea 1(%rax,%rdx), %rdx
.Ldb5: inc %rax
.Ldb6: ret
/* RCX rounds of three instructions. */
    .balign 8
do_loop:
    add $2, %rax
    dec %rcx
    jnz do_loop
do_loop_end:
    ret

/* Counts steps inside do_loop; a RIP that does not follow the one before is wrong. */
hook_step:
    mov 17*8(%rdi), %rax
    cmp $do_loop, %rax
    jb 2f
    cmp $do_loop_end, %rax
    ja 2f
    incl step_count
    mov step_next, %ecx
    movl $do_loop + 4, step_next
    cmp $do_loop, %eax
    je 1f
    movl $do_loop + 7, step_next
    cmp $do_loop + 4, %eax
    je 1f
    movl $do_loop, step_next
    movl $do_loop, %ecx             /* from the branch: either way */
    cmp $do_loop_end, %eax
    je 2f
    mov %eax, %ecx
1:  cmp %ecx, %eax
    je 2f
    incl step_wrong
2:  ret

    .section .rodata
    .balign 8
do_db_at: .quad .Ldb0, .Ldb1, .Ldb2, .Ldb3, .Ldb4, .Ldb5, .Ldb6
    .data
    .balign 4
step_next: .long do_loop
    .bss
step_count: .skip 4
step_wrong: .skip 4
