/* SPDX-License-Identifier: Apache-2.0 */
/* hot.h's calls between C, the functions under test, and the runtime. 64-bit only. */
#include "rt.h"
#include "hot.h"

    .text
    CODE64
    .globl hot_call, hot_expect, hot_ring3, hot_ring0, hot_has, hot_sp, hot_user, hot_vecs, hot_vec_on, hot_tick, hot_irqs, hot_seen

hot_call:
    PUSH_KEPT
    mov %rdi, hot_state
    cmpl $0, hot_user
    je 1f
    USER
1:  mov hot_state, %rdi
    call hot_load_vec
    ARM 2f
    mov hot_state, %rdi
    pushq HS_FLAGS(%rdi)
    mov HS_R+8*0(%rdi), %rax
    mov HS_R+8*1(%rdi), %rcx
    mov HS_R+8*2(%rdi), %rdx
    mov HS_R+8*3(%rdi), %rbx
    mov HS_R+8*5(%rdi), %rbp
    mov HS_R+8*6(%rdi), %rsi
    mov HS_R+8*8(%rdi), %r8
    mov HS_R+8*9(%rdi), %r9
    mov HS_R+8*10(%rdi), %r10
    mov HS_R+8*11(%rdi), %r11
    mov HS_R+8*12(%rdi), %r12
    mov HS_R+8*13(%rdi), %r13
    mov HS_R+8*14(%rdi), %r14
    mov HS_R+8*15(%rdi), %r15
    mov HS_R+8*7(%rdi), %rdi
    popfq
    call *hot_fn_of_state
    pushfq
    popq hot_flags
    DISARM
    jmp 3f
2:  push x_flags
    popq hot_flags
3:  mov %rax, hot_rax
    mov hot_state, %rax
    mov %rcx, HS_R+8*1(%rax)
    mov %rdx, HS_R+8*2(%rax)
    mov %rbx, HS_R+8*3(%rax)
    mov %rbp, HS_R+8*5(%rax)
    mov %rsi, HS_R+8*6(%rax)
    mov %rdi, HS_R+8*7(%rax)
    mov %r8, HS_R+8*8(%rax)
    mov %r9, HS_R+8*9(%rax)
    mov %r10, HS_R+8*10(%rax)
    mov %r11, HS_R+8*11(%rax)
    mov %r12, HS_R+8*12(%rax)
    mov %r13, HS_R+8*13(%rax)
    mov %r14, HS_R+8*14(%rax)
    mov %r15, HS_R+8*15(%rax)
    mov hot_rax, %rcx
    mov %rcx, HS_R(%rax)
    mov hot_flags, %rcx
    mov %rcx, HS_FLAGS(%rax)
    mov %rax, %rdi
    call hot_save_vec
    pushq $0x202 & ~FL_IF
    popfq
    cmpl $0, hot_user
    je 4f
    KERNEL
4:  POP_KEPT
    ret

/* RDI: state */
hot_load_vec:
    mov HS_FN(%rdi), %rax
    mov %rax, hot_fn_of_state
    cmpl $NEED_AVX, hot_vecs
    ja 2f
    je 1f
    .irp n, 0, 1, 2
    movups HS_VEC+64*\n(%rdi), %xmm\n
    .endr
    ret
1:  .irp n, 0, 1, 2
    vmovups HS_VEC+64*\n(%rdi), %ymm\n
    .endr
    ret
2:  .irp n, 0, 1, 2
    vmovups HS_VEC+64*\n(%rdi), %zmm\n
    .endr
    mov $0xAAAA, %eax
    kmovw %eax, %k1
    ret
hot_save_vec:
    cmpl $NEED_AVX, hot_vecs
    ja 2f
    je 1f
    .irp n, 0, 1, 2
    movups %xmm\n, HS_VEC+64*\n(%rdi)
    .endr
    ret
1:  .irp n, 0, 1, 2
    vmovups %ymm\n, HS_VEC+64*\n(%rdi)
    .endr
    ret
2:  .irp n, 0, 1, 2
    vmovups %zmm\n, HS_VEC+64*\n(%rdi)
    .endr
    ret

/* Switches on what vector state there is, and sets hot_vecs. */
hot_vec_on:
    push %rbx
    mov $1, %eax
    call rt_cpuid
    bt $28, %ecx
    jnc 2f
    mov %cr4, %rax
    or $CR4_OSXSAVE, %rax
    mov %rax, %cr4
    mov $7, %ebx
    mov $7, %eax
    push %rbx
    call rt_cpuid
    mov %ebx, %ecx
    pop %rbx
    movl $NEED_AVX, hot_vecs
    bt $16, %ecx
    jnc 1f
    mov $0xE7, %ebx
    movl $NEED_AVX512, hot_vecs
1:  xor %ecx, %ecx
    xor %edx, %edx
    mov %ebx, %eax
    xsetbv
2:  pop %rbx
    ret

/* (name, got, want) */
hot_expect:
    push %rdx
    push %rsi
    push %rdi
    call rt_expect64
    ret

hot_ring3:
    USER
    ret
hot_ring0:
    KERNEL
    ret

/* (leaf, register, bit) */
hot_has:
    push %rbx
    push %rdx
    push %rsi
    mov %edi, %eax
    call rt_cpuid
    mov %eax, hot_flags
    mov %ebx, hot_flags + 4
    mov %ecx, hot_flags + 8
    mov %edx, hot_flags + 12
    pop %rsi
    pop %rcx
    pop %rbx
    mov hot_flags(,%rsi,4), %eax
    shr %cl, %eax
    and $1, %eax
    ret

hot_tick:
    incl hot_seen
    incq hot_irqs
    movl $0, LAPIC + 0xB0
    ret

    .bss
    .align 8
hot_irqs: .skip 8
hot_seen: .skip 8
hot_state: .skip 8
hot_fn_of_state: .skip 8
hot_rax: .skip 8
hot_sp: .skip 8
hot_flags: .skip 16
hot_user: .skip 8
hot_vecs: .skip 8
