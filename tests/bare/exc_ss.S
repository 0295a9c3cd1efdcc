/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #SS(0): the stack segment's limit in 32-bit code, by push, pop, leave and EBP-based operands. The same
 * offset through FS is #GP(0).
 * Manual: SDM 3A 5.3, 6.15 "Interrupt 12".
 * qemu: differs: TCG does not check segment limits
 */
#include "rt.h"

/* 32-bit instructions that run on a stack segment of SEL(0); EDI keeps the flat stack pointer. */
.macro ON_STACK name, esp, vec, insn:vararg
    mov %esp, %edi
    ARM 88f
    mov %edx, %ss
    mov $\esp, %esp
77: \insn
    mov %ebx, %ss
    mov %edi, %esp
    DISARM
88: EXPECT "\name: vector", x_vec, $\vec
.endm

TEST32 exc_ss
    /* base of rt_buf, 32-bit, limit 0xFFF: the handler's pushes need room, so faults come below the top */
    GDT_SET SEL(0), $rt_buf, $0xFFF, 0x493
    mov $SEL(0), %edx
    mov $KDS, %ebx
    ON_STACK "push at 0x1000", 0x1000, NONE, push %eax
    EXPECT "what it pushed", rt_buf + 0xFFC, %eax
    ON_STACK "pop at 0xFFC", 0xFFC, NONE, pop %eax
    ON_STACK "pop at 0xFFD", 0xFFD, SSF, pop %eax
    EXPECT "pop at 0xFFD: error code", x_err, $0
    ON_STACK "pop at 0x1000", 0x1000, SSF, pop %eax
    ON_STACK "load 0xFFC(%esp)", 0x800, NONE, mov 0x7FC(%esp), %eax
    ON_STACK "load 0xFFD(%esp)", 0x800, SSF, mov 0x7FD(%esp), %eax
    mov $0xFFD, %ebp
    ON_STACK "load (%ebp)", 0x800, SSF, mov (%ebp), %eax
    ON_STACK "byte load (%ebp)", 0x800, NONE, mov 2(%ebp), %al
    ON_STACK "store past the end (%ebp)", 0x800, SSF, mov %al, 3(%ebp)
    ON_STACK "leave", 0x800, SSF, leave
    ON_STACK "ret", 0x1000, SSF, ret
    ON_STACK "popf", 0x1000, SSF, popf
    ON_STACK "popa", 0xFFE, SSF, popal /* one that faults later leaves what it loaded */
    mov $0xFFD, %ebp
    ON_STACK "ss: prefix", 0x800, SSF, mov %ss:0xFFE, %eax
    mov %edx, %fs
    FAULTS "fs: through the same segment", GP, 0, mov %fs:0xFFE, %eax
    FAULTS "fs:(%ebp)", GP, 0, mov %fs:(%ebp), %eax
    DONE
