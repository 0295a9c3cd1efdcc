/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exception and interrupt entry in 16-bit real mode, 32-bit and 64-bit mode (SDM 3A 6.12, 6.14, 20.1.4).
 * A vector with a hook calls it with the frame. Any other is recorded in x_* and execution goes on where
 * ARM said; without ARM the test fails. Vectors 0x82 to 0x84 are services for ring 3 (see rt.h).
 */
#include "rt.h"

    .section .lowdata, "aw"
    .globl x_vec, x_err, x_rip, x_cs, x_flags, x_rsp, x_ss, x_cr2, x_frame, x_hflags, x_hcs, x_hss
    .globl rt_resume, rt_resume_sp, rt_resume_fl, rt_resume_cs, rt_resume_ss, rt_hooks
    .globl rt_counts, rt_log, rt_log_n
    .align 16
x_vec: .quad 0      /* -1: none yet */
x_err: .quad 0
x_rip: .quad 0
x_cs: .quad 0
x_flags: .quad 0
x_rsp: .quad 0
x_ss: .quad 0
x_cr2: .quad 0
x_frame: .quad 0    /* where the processor left the stack pointer */
x_hflags: .quad 0   /* RFLAGS, CS and SS in the handler */
x_hcs: .quad 0
x_hss: .quad 0
rt_resume: .quad 0
rt_resume_sp: .quad 0
rt_resume_fl: .quad 0
rt_resume_cs: .quad 0
rt_resume_ss: .quad 0
rt_iret_frame: .fill 5, 4, 0
rt_tmp: .quad 0
    .bss
    .align 8
rt_hooks: .skip 256 * 4
rt_counts: .skip 256 * 4
rt_log_n: .skip 8
rt_log: .skip 4096

    .text
    .globl rt_stubs64, rt_stubs32, rt_stubs16
    .set HAS_ERR, (1 << 8) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 14) | (1 << 17) \
        | (1 << 21) | (1 << 29) | (1 << 30)

.macro STUBS push, jump
    .set rt_v, 0
    .rept 256
    .align 16
    .if rt_v > 31 || !((HAS_ERR >> (rt_v & 31)) & 1)
    \push $0
    .endif
    \push $rt_v
    \jump
    .set rt_v, rt_v + 1
    .endr
.endm

    CODE64
    .align 16
rt_stubs64:
    STUBS pushq, "jmp rt_common64"
rt_common64:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    pushfq
    pop %rbx
    cld
    mov 15*8(%rsp), %eax
    mov rt_hooks(,%rax,4), %ecx
    test %ecx, %ecx
    jz 1f
    mov %rsp, %rdi
    call *%rcx
    jmp rt_ret64
1:  cmp $0x82, %eax
    jb rt_record64
    cmp $0x84, %eax
    ja rt_record64
    cmp $0x82, %eax
    jne 2f
    mov 14*8(%rsp), %rax
    call rt_out64
    jmp rt_ret64
2:  movq $KDS, 21*8(%rsp)
    cmp $0x84, %eax
    je 3f
    cmpq $UCS64, 18*8(%rsp)
    je 3f
    movq $KCS32, 18*8(%rsp)
    jmp rt_ret64
3:  movq $KCS64, 18*8(%rsp)
rt_ret64:
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq
rt_record64:
    mov %rax, x_vec
    mov 16*8(%rsp), %rcx
    mov %rcx, x_err
    mov 17*8(%rsp), %rcx
    mov %rcx, x_rip
    mov 18*8(%rsp), %rcx
    mov %rcx, x_cs
    mov 19*8(%rsp), %rcx
    mov %rcx, x_flags
    mov 20*8(%rsp), %rcx
    mov %rcx, x_rsp
    mov 21*8(%rsp), %rcx
    mov %rcx, x_ss
    mov %cr2, %rcx
    mov %rcx, x_cr2
    mov %rbx, x_hflags
    mov %cs, %ecx
    mov %rcx, x_hcs
    mov %ss, %ecx
    mov %rcx, x_hss
    lea 16*8(%rsp), %rdx    /* the error code's slot, or above it */
    mov $HAS_ERR, %ecx
    cmp $31, %eax
    ja 4f
    bt %eax, %ecx
    jc 5f
4:  add $8, %rdx
5:  mov %rdx, x_frame
    cmpl $0, rt_resume
    je rt_unexpected64
    mov $UDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov rt_resume, %eax
    movl $0, rt_resume
    mov %rax, 17*8(%rsp)
    movzwl rt_resume_cs, %eax
    mov %rax, 18*8(%rsp)
    mov rt_resume_fl, %rax
    mov %rax, 19*8(%rsp)
    mov rt_resume_sp, %rax
    mov %rax, 20*8(%rsp)
    movzwl rt_resume_ss, %eax
    mov %rax, 21*8(%rsp)
    jmp rt_ret64

    CODE32
    .align 16
rt_stubs32:
    STUBS pushl, "jmp rt_common32"
rt_common32:
    pushal
    push %ds
    push %es
    pushfl
    pop %ebx
    cld
    mov $KDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov 10*4(%esp), %eax
    mov rt_hooks(,%eax,4), %ecx
    test %ecx, %ecx
    jz 1f
    mov %esp, %edi
    call *%ecx
    jmp rt_ret32
1:  cmp $0x82, %eax
    jb rt_record32
    cmp $0x83, %eax
    ja rt_record32
    cmp $0x83, %eax
    je 2f
    mov 9*4(%esp), %eax
    call rt_out32
    jmp rt_ret32
2:  /* to ring 0 on the caller's stack */
    mov 15*4(%esp), %ebx
    sub $12, %ebx
    mov 12*4(%esp), %eax
    mov %eax, (%ebx)
    movl $KCS32, 4(%ebx)
    mov 14*4(%esp), %eax
    mov %eax, 8(%ebx)
    mov %ebx, rt_tmp
    pop %es
    pop %ds
    popal
    mov rt_tmp, %esp
    iretl
rt_ret32:
    pop %es
    pop %ds
    popal
    add $8, %esp
    iretl
rt_record32:
    mov %eax, x_vec
    mov 11*4(%esp), %ecx
    mov %ecx, x_err
    mov 12*4(%esp), %ecx
    mov %ecx, x_rip
    mov 13*4(%esp), %ecx
    mov %ecx, x_cs
    mov 14*4(%esp), %ecx
    mov %ecx, x_flags
    testl $FL_VM, 14*4(%esp)    /* SS:ESP is there only from an outer ring or virtual-8086 mode */
    jnz 6f
    testb $3, 13*4(%esp)
    jz 7f
6:  mov 15*4(%esp), %ecx
    mov %ecx, x_rsp
    mov 16*4(%esp), %ecx
    mov %ecx, x_ss
7:
    mov %cr2, %ecx
    mov %ecx, x_cr2
    mov %ebx, x_hflags
    mov %cs, %ecx
    mov %ecx, x_hcs
    mov %ss, %ecx
    mov %ecx, x_hss
    lea 11*4(%esp), %edx
    mov $HAS_ERR, %ecx
    cmp $31, %eax
    ja 3f
    bt %eax, %ecx
    jc 4f
3:  add $4, %edx
4:  mov %edx, x_frame
    cmpl $0, rt_resume
    je rt_unexpected32
    testb $3, rt_resume_cs
    jnz 8f
    /* to ring 0: the frame goes onto the stack that ARM saw */
    mov rt_resume_sp, %ebx
    sub $12, %ebx
    mov rt_resume, %eax
    mov %eax, (%ebx)
    movzwl rt_resume_cs, %eax
    mov %eax, 4(%ebx)
    mov rt_resume_fl, %eax
    mov %eax, 8(%ebx)
    mov %ebx, rt_tmp
    movl $0, rt_resume
    add $8, %esp
    mov $UDS, %eax
    mov %eax, %ds
    mov %eax, %es
    popal
    mov rt_resume_ss, %ss
    mov rt_tmp, %esp
    iretl
8:  mov rt_resume, %eax
    mov %eax, rt_iret_frame
    movzwl rt_resume_cs, %eax
    mov %eax, rt_iret_frame + 4
    mov rt_resume_fl, %eax
    mov %eax, rt_iret_frame + 8
    mov rt_resume_sp, %eax
    mov %eax, rt_iret_frame + 12
    movzwl rt_resume_ss, %eax
    mov %eax, rt_iret_frame + 16
    movl $0, rt_resume
    add $8, %esp
    mov $UDS, %eax
    mov %eax, %ds
    mov %eax, %es
    popal
    mov $rt_iret_frame, %esp
    iretl

    .section .low, "awx"
    CODE16
    .align 16
rt_stubs16:
    .set rt_v, 0
    .rept 256
    .align 16
    pushl $rt_v
    .byte 0xE9
    .word rt_common16 - . - 2
    .set rt_v, rt_v + 1
    .endr
rt_common16:    /* frame: vector (4), IP, CS, FLAGS */
    pushal
    push %ds
    push %es
    pushfl
    pop %ebx
    cld
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    movzwl %sp, %ebp
    mov 36(%bp), %eax
    mov $rt_low_hooks, %ecx
    mov (%ecx,%eax,4), %ecx
    jecxz rt_record16
    mov %ebp, %edi
    call *%cx
    pop %es
    pop %ds
    popal
    add $4, %sp
    iretw
rt_record16:
    xor %edx, %edx
    mov %eax, x_vec
    mov %edx, x_err
    mov %edx, x_cr2
    movzwl 40(%bp), %ecx
    mov %ecx, x_rip
    movzwl 42(%bp), %ecx
    mov %ecx, x_cs
    movzwl 44(%bp), %ecx
    mov %ecx, x_flags
    lea 46(%bp), %ecx
    mov %ecx, x_rsp
    lea 40(%bp), %ecx
    mov %ecx, x_frame
    mov %ss, %cx
    mov %cx, x_ss
    mov %ebx, x_hflags
    cmpl $0, rt_resume
    je rt_unexpected16
    movl rt_resume, %eax
    mov %ax, rt_iret_frame
    mov rt_resume_cs, %ax
    mov %ax, rt_iret_frame + 2
    mov rt_resume_fl, %ax
    mov %ax, rt_iret_frame + 4
    movl $0, rt_resume
    add $4, %sp
    popal
    mov rt_resume_ss, %ss
    mov rt_resume_sp, %esp
    pushw rt_iret_frame + 4
    pushw rt_iret_frame + 2
    pushw rt_iret_frame
    iretw
rt_unexpected16:
    calll rt_fatal16

    .section .lowdata, "aw"
    .globl rt_low_hooks
rt_low_hooks: .fill 256, 4, 0   /* for real mode */

    .text
    CODE64
rt_unexpected64:
    call rt_fatal64
    CODE32
rt_unexpected32:
    call rt_fatal32

/* Ready hooks for 64-bit mode: count in rt_counts, append to rt_log, and end the interrupt at the chip. */
    CODE64
    .globl rt_count, rt_count_apic, rt_count_pic
rt_count:
    mov 15*8(%rdi), %eax
    lock incl rt_counts(,%rax,4)
    mov rt_log_n, %ecx
    and $4095, %ecx
    mov %al, rt_log(%rcx)
    incl rt_log_n
    ret
rt_count_apic:
    call rt_count
    movl $0, LAPIC + 0xB0
    ret
rt_count_pic:
    call rt_count
    cmp $0x28, %eax
    mov $0x20, %al
    jb 1f
    out %al, $0xA0
1:  out %al, $0x20
    ret
