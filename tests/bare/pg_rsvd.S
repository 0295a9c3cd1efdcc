/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reserved bits in each kind of paging entry: #PF with RSVD and P; they do not matter in an entry that is
 * not present; XD is reserved with EFER.NXE = 0; PS is reserved in a PML4 entry, and in a PDPT entry without
 * 1 GiB pages; address bits above MAXPHYADDR are reserved.
 * Manual: SDM 3A 4.5 (tables 4-14 to 4-20), 4.7.
 * qemu: differs (PTE, address bit): the P bit is missing with RSVD
 * qemu: differs (PTE, address bit, write): the P bit is missing with RSVD
 * qemu: differs (PDE, address bit): the P bit is missing with RSVD
 * qemu: differs (PDPTE, address bit): the P bit is missing with RSVD
 * qemu: differs (PML4E, address bit): the P bit is missing with RSVD
 * qemu: differs (PML4E, PS): the P bit is missing with RSVD
 * qemu: differs (PDE of 2 MiB, bit 13): the P bit is missing with RSVD
 * qemu: differs (PDE of 2 MiB, bit 20): the P bit is missing with RSVD
 * qemu: differs (PDPTE of 1 GiB, bit 13): the P bit is missing with RSVD
 * qemu: differs (PDPTE of 1 GiB, bit 29): the P bit is missing with RSVD
 * qemu: differs (NX with NXE = 0): the P bit is missing with RSVD
 * qemu: differs (NX with NXE = 0, fetch: no I bit): the P bit is missing with RSVD
 * qemu: differs (PDE, NX with NXE = 0): the P bit is missing with RSVD
 * qemu: differs (PDE, NX with NXE = 0, write): the P bit is missing with RSVD
 */
#include "rt.h"

#define PDE rt_pd+8*(TVA>>21)
#define PDPTE2 rt_pages         /* a PDPT of its own under PML4 entry 1 */
#define VA2 0x8000000000

.macro RSVD name, err, insn:vararg
    FLUSH_TLB
    FAULTS "\name", PF, \err, \insn
.endm

TEST64 pg_rsvd
    mov $0x80000008, %eax
    call rt_cpuid
    movzbl %al, %ebx
    mov $1, %r8d
    mov %ebx, %ecx
    shl %cl, %r8        /* the lowest reserved address bit */
    EXPECT_BITS "MAXPHYADDR is sane", %rbx, $~0x3F, $0
    movl $TPA + 7, rt_pt
    mov %rbx, %rax
    cmp $52, %eax
    jae 1f
    or %r8, rt_pt
    RSVD "PTE, address bit", 9, mov TVA, %al
    RSVD "PTE, address bit, write", 11, mov %al, TVA
    movl $TPA + 6, rt_pt
    RSVD "PTE not present: no RSVD", 0, mov TVA, %al
    movq $TPA + 7, rt_pt
    or %r8, PDE
    RSVD "PDE, address bit", 9, mov TVA, %al
    xor %r8, PDE
    or %r8, rt_pdpt + 8
    RSVD "PDPTE, address bit", 9, mov TVA, %al
    xor %r8, rt_pdpt + 8
    movq $rt_pages + 7, rt_pml4 + 8
    or %r8, rt_pml4 + 8
    mov $VA2, %rcx
    RSVD "PML4E, address bit", 9, mov (%rcx), %al
1:  movq $rt_pages + 0x87, rt_pml4 + 8
    mov $VA2, %rcx
    RSVD "PML4E, PS", 9, mov (%rcx), %al
    movq $rt_pages + 6, rt_pml4 + 8
    RSVD "PML4E not present", 0, mov (%rcx), %al
    movq $rt_pages + 7, rt_pml4 + 8
    RSVD "PDPTE not present", 0, mov (%rcx), %al
    movq $TPA + 0x2087, PDE
    RSVD "PDE of 2 MiB, bit 13", 9, mov TVA, %al
    movq $TPA + 0x100087, PDE
    RSVD "PDE of 2 MiB, bit 20", 9, mov TVA, %al
    movq $rt_pt + 7, PDE
    mov $0x80000001, %eax
    call rt_cpuid
    bt $26, %edx
    mov $VA2, %rcx
    jc 2f
    movq $0x87, PDPTE2
    RSVD "PDPTE, PS without 1 GiB pages", 9, mov (%rcx), %al
    jmp 3f
2:  movq $0x2087, PDPTE2
    RSVD "PDPTE of 1 GiB, bit 13", 9, mov (%rcx), %al
    movq $0x20000087, PDPTE2
    RSVD "PDPTE of 1 GiB, bit 29", 9, mov (%rcx), %al
3:  bt $20, %edx
    jnc 4f
    mov $1, %r8
    ror $1, %r8
    movq $TPA + 7, rt_pt
    or %r8, rt_pt
    FLUSH_TLB
    NOFAULT "NX with NXE = 1: a read", mov TVA, %al
    RDMSR_ MSR_EFER
    and $~EFER_NXE, %eax
    wrmsr
    RSVD "NX with NXE = 0", 9, mov TVA, %al
    mov $TVA, %ecx
    FLUSH_TLB
    FAULTS_AT "NX with NXE = 0, fetch: no I bit", PF, 9, TVA, jmp *%rcx
    movq $TPA + 7, rt_pt
    or %r8, PDE
    RSVD "PDE, NX with NXE = 0", 9, mov TVA, %al
    RSVD "PDE, NX with NXE = 0, write", 11, mov %al, TVA
4:  DONE
