/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses that straddle two pages which are not contiguous in memory: loads, stores, read-modify-write,
 * locked operations, push, pop, call, enter, far pointers, SSE, x87; then with the second or the first page
 * missing: CR2, and no part of the access is done.
 * Manual: SDM 3A 4.7, 8.1.1, 8.1.2; 1 4.1.1.
 * qemu: differs (add): TCG reports the read of a read-modify-write first, as a read
 * qemu: differs (lock add): TCG reports the read of a read-modify-write first, as a read
 */
#include "rt.h"

/* The two pages at TVA lie at TPA + 0x3000 and TPA in memory. */
#define LO (TPA + 0x3FF8)
#define HI TPA
#define X (TVA + 0xFF8)

.macro RESET
    mov $0x1716151413121110, %rax
    mov %rax, LO
    mov $0x2726252423222120, %rax
    mov %rax, HI
.endm
.macro KEEPS name
    mov $0x1716151413121110, %rax
    EXPECT "\name: first page is kept", LO, %rax
    mov $0x2726252423222120, %rax
    EXPECT "\name: second page is kept", HI, %rax
.endm

TEST64 mem_cross
    movl $TPA + 0x3007, rt_pt
    movl $TPA + 7, rt_pt + 8
    RESET
    movzwl X + 7, %eax
    EXPECT "word", %rax, $0x2017
    .irp n, 5, 6, 7
    mov X + \n, %ebx
    mov $0x2726252423222120, %rcx
    mov $0x1716151413121110, %rdx
    shrd $(8 * \n), %rcx, %rdx
    mov %edx, %edx
    EXPECT "dword at \n", %rbx, %rdx
    .endr
    .irp n, 1, 2, 3, 4, 5, 6, 7
    mov X + \n, %rbx
    mov $0x2726252423222120, %rcx
    mov $0x1716151413121110, %rdx
    shrd $(8 * \n), %rcx, %rdx
    EXPECT "qword at \n", %rbx, %rdx
    .endr
    movl $0xA4A3A2A1, X + 6
    mov $0xA2A1151413121110, %rax
    EXPECT "store: first", LO, %rax
    mov $0x272625242322A4A3, %rax
    EXPECT "store: second", HI, %rax
    RESET
    addl $0x01010101, X + 5
    mov $0x1817161413121110, %rax
    EXPECT "add: first", LO, %rax
    mov $0x2726252423222121, %rax
    EXPECT "add: second", HI, %rax
    RESET
    mov $0x01010101, %ecx
    lock xadd %ecx, X + 6
    EXPECT "lock xadd: old", %rcx, $0x21201716
    mov $0x1817151413121110, %rax
    EXPECT "lock xadd: first", LO, %rax
    mov $0x2726252423222221, %rax
    EXPECT "lock xadd: second", HI, %rax
    RESET
    mov $0x2322212017161514, %rax
    mov $0x8877665544332211, %rcx
    lock cmpxchg %rcx, X + 4
    EXPECT_FLAGS "lock cmpxchg: ZF", FL_ZF, FL_ZF
    mov $0x4433221113121110, %rax
    EXPECT "lock cmpxchg: first", LO, %rax
    mov $0x2726252488776655, %rax
    EXPECT "lock cmpxchg: second", HI, %rax
    RESET
    mov $0x55667788, %eax
    xchg %eax, X + 7
    EXPECT "xchg", %rax, $0x22212017
    RESET
    lock btsl $31, X + 5
    EXPECT_BITS "lock bts in the second page", HI, $0xFF, $0xA0
    /* the stack */
    mov %rsp, %rbx
    mov $X + 12, %esp
    mov $0xCAFEBABE, %ecx
    push %rcx
    pop %rdx
    mov %rsp, %rsi
    mov %rbx, %rsp
    EXPECT "push and pop", %rdx, %rcx
    EXPECT "rsp after push and pop", %rsi, $(X+12)
    mov $X + 11, %esp
    call 1f
1:  pop %rdx
    mov %rbx, %rsp
    EXPECT "call", %rdx, $1b
    movw $0x10, X + 12
    movl $0x12345678, X + 8
    movl $2f, X + 6
    movw $KCS64, X + 10
    ljmp *(X + 6)
2:  EXPECT "far jump through a pointer", $0, $0
    RESET
    movups X + 1, %xmm0
    movdqu %xmm0, rt_buf
    mov $0x2017161514131211, %rax
    EXPECT "movups: low half", rt_buf, %rax
    fninit
    RESET
    fldt X + 3
    fstpt rt_buf + 16
    mov $0x2221201716151413, %rax
    EXPECT "fld m80: mantissa", rt_buf+16, %rax
    /* the second page is missing, or read-only */
    movl $0, rt_pt + 8
    invlpg TVA + 0x1000
    RESET
    FAULTS "store", PF, 2, movl $-1, X + 6
    EXPECT "cr2: the second page", x_cr2, $(TVA+0x1000)
    FAULTS "add", PF, 2, addl $1, X + 6
    FAULTS "lock add", PF, 2, lock addl $1, X + 6
    FAULTS "load", PF, 0, mov X + 4, %rcx
    FAULTS "movups store", PF, 2, movups %xmm0, X + 1
    EXPECT "cr2 of movups", x_cr2, $(TVA+0x1000)
    FAULTS "fstp m80", PF, 2, fstpt X + 3
    FAULTS "fxsave", PF, 2, fxsave TVA + 0xF00
    FAULTS "fnsave", PF, 2, fnsave TVA + 0xFC0
    RESET
    mov $-1, %eax
    mov $-1, %edx
    IST PF, 1
    mov %rsp, %rbx
    ARM 3f
    mov $X + 12, %esp
    push %rcx
3:  RT_CHECK "push", PF, 2, 0
    EXPECT "push: rsp in the frame is the old one", x_rsp, $(X+12)
    ARM 4f
    mov $X + 11, %esp
    call 4f
4:  RT_CHECK "call", PF, 2, 0
    EXPECT "call: rsp in the frame is the old one", x_rsp, $(X+11)
    ARM 5f
    mov $X + 4, %esp
    pop %rcx
5:  RT_CHECK "pop", PF, 0, 0
    mov $7, %ebp
    ARM 6f
    mov $X + 12, %esp
    enter $16, $0
6:  RT_CHECK "enter", PF, 2, 0
    EXPECT "enter: rsp in the frame is the old one", x_rsp, $(X+12)
    EXPECT "enter: rbp is kept", %rbp, $7
    KEEPS "second page missing"
    /* the first page is missing */
    movl $0, rt_pt
    movl $TPA + 7, rt_pt + 8
    FLUSH_TLB
    FAULTS "store, first page missing", PF, 2, movl $-1, X + 6
    EXPECT "cr2: where the access begins", x_cr2, $(X+6)
    FAULTS "load, first page missing", PF, 0, mov X + 6, %eax
    KEEPS "first page missing"
    /* the second page read-only */
    CR_SET cr0, CR0_WP
    movl $TPA + 0x3007, rt_pt
    movl $TPA + 5, rt_pt + 8
    FLUSH_TLB
    FAULTS "store, second page read-only", PF, 3, movl $-1, X + 6
    EXPECT "cr2: the second page, read-only", x_cr2, $(TVA+0x1000)
    FAULTS "xchg, second page read-only", PF, 3, xchg %eax, X + 6
    FAULTS "lock xadd, second page read-only", PF, 3, lock xadd %eax, X + 6
    KEEPS "second page read-only"
    DONE
