/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UMIP: SGDT, SIDT, SLDT, SMSW and STR are #GP(0) at CPL 3 and work at CPL 0; without UMIP they work
 * everywhere. Sizes: SGDT stores 10 bytes in 64-bit mode and 6 in 32-bit; SLDT and STR zero-extend into a
 * 64-bit register.
 * Manual: SDM 3A 2.5; 2B SGDT, SIDT, SLDT, STR.
 */
#include "rt.h"

TEST64 sys_umip
    movq $-1, rt_buf
    movq $-1, rt_buf + 8
    sgdt rt_buf
    mov rt_buf, %rax
    mov $rt_gdt, %ecx
    shl $16, %rcx
    mov $0x7FF, %cx
    EXPECT "sgdt: limit and base", %rax, %rcx
    mov rt_buf + 8, %rax
    mov $-0x10000, %rcx
    EXPECT "sgdt: ten bytes", %rax, %rcx
    sidt rt_buf
    movzwl rt_buf, %eax
    EXPECT "sidt: limit", %rax, $0xFFF
    mov $-1, %rax
    str %rax
    EXPECT "str r64", %rax, $TSS64
    mov $-1, %rax
    str %ax
    EXPECT "str r16", %rax, $(TSS64-0x10000)
    mov $-1, %rax
    sldt %eax
    EXPECT "sldt r32", %rax, $0
    movl $-1, rt_buf
    str rt_buf
    mov rt_buf, %eax
    mov $0xFFFF0000 + TSS64, %ecx
    EXPECT "str to memory: 16 bits", %rax, %rcx
    USER
    NOFAULT "sgdt at CPL 3", sgdt rt_buf
    NOFAULT "str at CPL 3", str %eax
    KERNEL
    COMPAT
    movl $-1, rt_buf + 4
    sgdt rt_buf
    EXPECT_BITS "sgdt in compatibility mode: six bytes", rt_buf+4, $0xFFFF0000, $0xFFFF0000
    COMPAT_END
    NEED 7, ecx, 2, "no UMIP (the rest passed)"
    CR_SET cr4, CR4_UMIP
    NOFAULT "sgdt at CPL 0 with UMIP", sgdt rt_buf
    NOFAULT "smsw at CPL 0 with UMIP", smsw %eax
    USER
    FAULTS "sgdt with UMIP", GP, 0, sgdt rt_buf
    FAULTS "sidt with UMIP", GP, 0, sidt rt_buf
    FAULTS "sldt with UMIP", GP, 0, sldt %eax
    FAULTS "sldt to memory with UMIP", GP, 0, sldt rt_buf
    FAULTS "str with UMIP", GP, 0, str %eax
    FAULTS "smsw with UMIP", GP, 0, smsw %eax
    NOFAULT "verr is not UMIP's", verr %ax
    KERNEL
    DONE
