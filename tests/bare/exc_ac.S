/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #AC(0): data alignment with CR0.AM, EFLAGS.AC and CPL 3, and only with all three.
 * Manual: SDM 3A 6.15 "Interrupt 17" (table 6-7).
 * qemu: differs (word read): TCG has no alignment check
 * qemu: differs (dword read): TCG has no alignment check
 * qemu: differs (qword read): TCG has no alignment check
 * qemu: differs (dword write): TCG has no alignment check
 * qemu: differs (read and write): TCG has no alignment check
 * qemu: differs (locked): TCG has no alignment check
 * qemu: differs (fld m64): TCG has no alignment check
 * qemu: differs (page-crossing): TCG has no alignment check
 * qemu: differs (push): TCG has no alignment check
 */
#include "rt.h"

TEST64 exc_ac
    mov $rt_buf, %ebx
    pushfq
    orl $FL_AC, (%rsp)
    popfq
    CR_SET cr0, CR0_AM
    NOFAULT "CPL 0", mov 1(%rbx), %eax
    CR_CLEAR cr0, CR0_AM
    USER
    NOFAULT "AM = 0", mov 1(%rbx), %eax
    KERNEL
    CR_SET cr0, CR0_AM
    USER
    NOFAULT "aligned dword", mov 4(%rbx), %eax
    NOFAULT "byte", mov 1(%rbx), %al
    NOFAULT "aligned word", mov 2(%rbx), %ax
    FAULTS "word read", AC, 0, mov 1(%rbx), %ax
    FAULTS "dword read", AC, 0, mov 2(%rbx), %eax
    FAULTS "qword read", AC, 0, mov 4(%rbx), %rax
    FAULTS "dword write", AC, 0, mov %eax, 1(%rbx)
    FAULTS "read and write", AC, 0, addl $1, 3(%rbx)
    FAULTS "locked", AC, 0, lock addl $1, 3(%rbx)
    FAULTS "fld m64", AC, 0, fldl 4(%rbx)
    FAULTS "page-crossing", AC, 0, mov 0xFFE(%rbx), %eax
    lea 2(%rsp), %r9
    mov %rsp, %r8
    ARM 1f
    mov %r9, %rsp
2:  push %rax
1:  RT_CHECK "push", AC, 0, 2b
    pushfq
    andl $~FL_AC, (%rsp)
    popfq
    NOFAULT "AC = 0", mov 1(%rbx), %eax
    KERNEL
    DONE
