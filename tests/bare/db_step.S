/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single step: #DB is a trap after each instruction that begins with TF set (DR6.BS), once per iteration of
 * REP, not after POPF that sets TF but after the next, not between MOV SS and its successor, not in the
 * handler of INT n; POPF and IRET; the instruction that clears TF traps no more; SYSCALL with FMASK; faults
 * push TF.
 * Manual: SDM 3B 17.3.1.4, 3A 6.8.3; 2B SYSCALL.
 */
#include "rt.h"

#define LOGGED(n) (log+8*(n))

/* The hook logs the RIP of each #DB and goes on; at the instruction stop_at it clears TF. */
.macro STEP
    movl $0, steps
    pushfq
    orl $FL_TF, (%rsp)
    popfq
.endm
.macro STOP /* the last logged step is that of POPFQ itself */
    pushfq
    andl $~FL_TF, (%rsp)
    popfq
.endm

TEST64 db_step
    HOOK DB, on_db
    mov $0xFFFF0FF0, %eax
    mov %rax, %dr6
    STEP
1:  nop
2:  nop
3:  STOP
4:  EXPECT "steps: two nops, pushf, and, popf", steps, $5
    EXPECT "after the first nop", LOGGED(0), $2b
    EXPECT "after the second nop", LOGGED(1), $3b
    EXPECT "after popf", LOGGED(4), $4b
    EXPECT_BITS "DR6.BS", last_dr6, $0x400F, $0x4000
    EXPECT_BITS "TF is in the frame", first_flags, $FL_TF, $FL_TF
    EXPECT_BITS "TF is clear in the handler", handler_flags, $FL_TF, $0
    /* REP: a step per iteration, RIP at the instruction until the last */
    mov $rt_buf, %edi
    mov $3, %ecx
    STEP
5:  rep stosb
6:  STOP
    EXPECT "rep stosb of 3: steps", steps, $6
    EXPECT "rep: first", LOGGED(0), $5b
    EXPECT "rep: second", LOGGED(1), $5b
    EXPECT "rep: third", LOGGED(2), $6b
    /* MOV SS */
    mov $KDS, %eax
    STEP
    mov %eax, %ss
    nop
7:  STOP
    EXPECT "mov ss: no step after it", steps, $4
    EXPECT "mov ss: the first is after its successor", LOGGED(0), $7b
    /* INT n: the handler is not stepped, the step after it is lost */
    HOOK 0x30, on_int
    movl $0, int_flags
    STEP
    int $0x30
8:  nop
9:  STOP
    EXPECT "int n: steps", steps, $4
    EXPECT "int n: the first is after the nop behind it", LOGGED(0), $9b
    EXPECT_BITS "int n: TF is in its frame", int_flags, $FL_TF, $FL_TF
    /* a fault */
    UNHOOK DB
    ARM 1f
    pushfq
    orl $FL_TF, (%rsp)
    popfq
    ud2
1:  EXPECT "ud2 with TF: #UD", x_vec, $UD
    EXPECT_BITS "TF in its frame", x_flags, $FL_TF, $FL_TF
    HOOK DB, on_db
    /* jumps, calls and writes to memory */
    STEP
    call 2f
2:  add $8, %rsp
    jmp 3f
    nop
3:  STOP
    EXPECT "call, add, jmp", steps, $6
    EXPECT "into the call", LOGGED(0), $2b
    EXPECT "behind the jump", LOGGED(2), $3b
    /* DR6.BS stays until it is cleared */
    xor %eax, %eax
    mov %rax, %dr6
    STEP
    STOP
    mov %dr6, %rax
    EXPECT_BITS "DR6: BS is set, reserved bits are ones", %rax, $0xC00F, $0x4000
    /* SYSCALL with TF in FMASK does not trap; SYSRET that restores TF does */
    RDMSR_ MSR_EFER
    or $EFER_SCE, %eax
    wrmsr
    WRMSR_ MSR_STAR, $0, (KCS64 | UCS32 << 16)
    WRMSR_ MSR_LSTAR, $entry
    WRMSR_ MSR_FMASK, $FL_TF
    USER
    STEP
    syscall
4:  nop
5:  STOP
    EXPECT "syscall with FMASK.TF: the kernel is not stepped, sysret with TF traps at once", LOGGED(0), $4b
    EXPECT "then the next instruction", LOGGED(1), $5b
    KERNEL
    DONE

entry:
    nop
    nop
    sysretq
on_db:
    mov steps, %eax
    cmp $60, %eax
    jae 1f
    mov 17*8(%rdi), %rcx
    mov %rcx, log(,%rax,8)
    incl steps
1:  cmpl $1, steps
    jne 2f
    mov 19*8(%rdi), %rcx
    mov %rcx, first_flags
2:  mov %rbx, handler_flags
    mov %dr6, %rax
    mov %rax, last_dr6
    ret
on_int:
    mov 19*8(%rdi), %rcx
    mov %rcx, int_flags
    ret

    .bss
    .align 8
steps: .skip 8
first_flags: .skip 8
handler_flags: .skip 8
last_dr6: .skip 8
int_flags: .skip 8
log: .skip 512
