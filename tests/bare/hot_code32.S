/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit protected mode without paging, hot: arithmetic, the stack, calls and jumps of each kind; then the same functions when ES has a limit, a base,
 * no right to write, or is null, when CS has a base, and when everything is flat again.
 * Manual: SDM 3A 3.2.1, 5.3, 5.5.
 * qemu: differs (es has a limit): TCG does not check segment limits
 * qemu: differs (es is read-only: a store): nor rights
 * qemu: differs (es is null): nor whether there is one
 */
#include "rt.h"

#define ROUNDS 300

.macro HOT fn
    mov $100, %edi
.Lh\@:
    mov $rt_buf, %esi
    call \fn
    dec %edi
    jnz .Lh\@
    mov $rt_buf, %esi
.endm
.macro SET_ES sel
    mov $\sel, %ecx
    mov %ecx, %es
.endm

TEST32 hot_code32
    /* each round in one of four ways; the value is found by another way */
    mov $1, %ebx
1:  mov %ebx, %eax
    mov $work, %esi
    mov %ebx, %ecx
    and $3, %ecx
    jmp *ways(,%ecx,4)
way0:
    call work
    jmp 2f
way1:
    call *%esi
    jmp 2f
way2:
    call *work_pointer
    jmp 2f
way3:
    push $2f
    jmp *%esi
2:  lea 1(%ebx), %ecx
    lea 2(%ebx), %edx
    imul %edx, %ecx
    shr %ecx
    lea (%ecx,%ebx,8), %ecx
    cmp %ecx, %eax
    jne 3f
    inc %ebx
    cmp $ROUNDS, %ebx
    jne 1b
3:  EXPECT "work: rounds", %ebx, $ROUNDS

    movl $0x11111111, rt_buf
    movl $0x22222222, rt_buf + 0x1000
    HOT es_load
    HOT es_store
    movl $0x11111111, rt_buf
    GDT_SET SEL(0), $rt_buf, $0xFFF, 0x493
    SET_ES SEL(0)
    mov $0x1000, %esi
    FAULTS_AT "es has a limit", GP, 0, es_load, call es_load
    SET_ES SEL(0)
    xor %esi, %esi
    call es_load
    EXPECT "es has a base", %eax, $0x11111111
    GDT_SET SEL(1), $0x1000, $0xFFFFF, 0xC93
    SET_ES SEL(1)
    mov $rt_buf, %esi
    call es_load
    EXPECT "es has a base of 4096", %eax, $0x22222222
    call es_store
    EXPECT "a store there", rt_buf + 0x1000, $0x33333333
    GDT_SET SEL(2), $0, $0xFFFFF, 0xC91
    SET_ES SEL(2)
    mov $rt_buf, %esi
    NOFAULT "es is read-only: a load", call es_load
    FAULTS_AT "es is read-only: a store", GP, 0, es_store, call es_store
    movl $0x11111111, rt_buf
    SET_ES 0
    FAULTS_AT "es is null", GP, 0, es_load, call es_load
    SET_ES KDS
    call es_load
    EXPECT "es is flat again", %eax, $0x11111111

    mov $100, %edi
1:  lcall $KCS32, $where
    dec %edi
    jnz 1b
    EXPECT "where", %eax, $where_is
    GDT_SET SEL(3), $0x1000, $0xFFFFF, 0xC9B
    mov $100, %edi
2:  lcall $SEL(3), $where - 0x1000
    cmp $where_is - 0x1000, %eax
    jne 3f
    lcall $KCS32, $where
    cmp $where_is, %eax
    jne 3f
    dec %edi
    jnz 2b
3:  EXPECT "where, with a base and without", %edi, $0
    DONE

/* EAX: n. Comes back with the sum of 1 to n + 1, and 8 n. */
work:
    push %ebp
    mov %esp, %ebp
    sub $8, %esp
    mov %eax, -4(%ebp)
    mov %eax, rt_buf
    inc %eax
    xor %ecx, %ecx
1:  add %eax, %ecx
    dec %eax
    jnz 1b
    push %ecx
    push $7
    pushl -4(%ebp)
    pop %edx
    pop %eax
    pop %ecx
    imul %edx, %eax
    add %eax, %ecx
    mov rt_buf, %eax
    add %ecx, %eax
    movb $5, %ch
    leave
    ret
es_load:
    mov %es:(%esi), %eax
    ret
es_store:
    movl $0x33333333, %es:(%esi)
    ret
where:
    call where_is
where_is:
    pop %eax
    lret

    .data
    .balign 4
ways: .long way0, way1, way2, way3
work_pointer: .long work
