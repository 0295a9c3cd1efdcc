/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every bare-metal test includes: constants and macros of the shared runtime (see README.md).
 *
 * A test is `TEST64 name` (or TEST32, TEST_LOW), instructions, and `DONE`. The macros below work in 64-bit,
 * 32-bit and 16-bit code: CODE16/CODE32/CODE64 tell them which one they are in. EXPECT compares two
 * operands; FAULTS runs one instruction and checks vector, error code and saved instruction pointer.
 * All of them keep every general register and, but for FAULTS and friends (whose instruction may change
 * them), the flags.
 */
#ifndef RT_H
#define RT_H

/* Vectors (SDM 3A 6.3.1). */
#define DE 0
#define DB 1
#define NMI 2
#define BP 3
#define OF 4
#define BR 5
#define UD 6
#define NM 7
#define DF 8
#define TS 10
#define NP 11
#define SSF 12
#define GP 13
#define PF 14
#define MF 16
#define AC 17
#define XM 19
#define NONE -1

/* Selectors of the runtime's GDT (rt/desc.S). Their order serves SYSENTER, SYSEXIT, SYSCALL and SYSRET. */
#define KCS32 0x08
#define KDS 0x10
#define UCS32A 0x1B
#define UDSA 0x23
#define KCS64 0x38
#define KDS2 0x40
#define UCS32 0x4B
#define UDS 0x53
#define UCS64 0x5B
#define UDS2 0x63
#define CS16 0x68
#define DS16 0x70
#define TSS64 0x78
#define TSS32 0x88
#define SEL(n) (0x90 + 8 * (n)) /* free for tests: n = 0..100 */

/* Attributes for GDT_SET: access byte | flags nibble << 8. */
#define A_CODE 0x9B
#define A_DATA 0x93
#define A_DPL3 0x60
#define A_4G 0xC00
#define A_32 0x400
#define A_L 0x200
#define A_LDT 0x82
#define A_TSS32 0x89
#define A_TSS16 0x81

/* Gate types for IDT_SET (type and P; add DPL << 5). */
#define G_INT32 0x8E
#define G_TRAP32 0x8F
#define G_INT16 0x86
#define G_TRAP16 0x87
#define G_TASK 0x85
#define G_CALL32 0x8C
#define G_CALL16 0x84
#define G_CALL64 0x8C

/* Flags, control registers, MSRs. */
#define FL_CF 0x1
#define FL_PF 0x4
#define FL_AF 0x10
#define FL_ZF 0x40
#define FL_SF 0x80
#define FL_TF 0x100
#define FL_IF 0x200
#define FL_DF 0x400
#define FL_OF 0x800
#define FL_NT 0x4000
#define FL_RF 0x10000
#define FL_VM 0x20000
#define FL_AC 0x40000
#define FL_VIF 0x80000
#define FL_VIP 0x100000
#define CR0_PE 0x1
#define CR0_MP 0x2
#define CR0_EM 0x4
#define CR0_TS 0x8
#define CR0_NE 0x20
#define CR0_WP 0x10000
#define CR0_AM 0x40000
#define CR0_NW 0x20000000
#define CR0_CD 0x40000000
#define CR0_PG 0x80000000
#define CR4_VME 0x1
#define CR4_PVI 0x2
#define CR4_TSD 0x4
#define CR4_DE 0x8
#define CR4_PSE 0x10
#define CR4_PAE 0x20
#define CR4_PGE 0x80
#define CR4_PCE 0x100
#define CR4_OSFXSR 0x200
#define CR4_OSXMM 0x400
#define CR4_UMIP 0x800
#define CR4_LA57 0x1000
#define CR4_FSGSBASE 0x10000
#define CR4_PCIDE 0x20000
#define CR4_OSXSAVE 0x40000
#define CR4_SMEP 0x100000
#define CR4_SMAP 0x200000
#define MSR_APIC_BASE 0x1B
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176
#define MSR_PAT 0x277
#define MSR_TSC_DEADLINE 0x6E0
#define MSR_EFER 0xC0000080
#define MSR_STAR 0xC0000081
#define MSR_LSTAR 0xC0000082
#define MSR_CSTAR 0xC0000083
#define MSR_FMASK 0xC0000084
#define MSR_FS_BASE 0xC0000100
#define MSR_GS_BASE 0xC0000101
#define MSR_KERNEL_GS_BASE 0xC0000102
#define EFER_SCE 0x1
#define EFER_LME 0x100
#define EFER_LMA 0x400
#define EFER_NXE 0x800

/*
 * Memory. TVA is 2 MiB (4 MiB with 2-level paging) of linear addresses mapped by rt_pt (rt_pt32 with 2-level
 * paging), whose entries the test writes; TPA is free RAM for it. All else below 4 GiB is mapped to itself,
 * read, write, user. The chips at 0xFEC00000 also appear at their address minus 2 GiB, where a signed 32-bit
 * displacement reaches them.
 */
#define TVA 0x40000000
#define TPA 0x02000000
#define RT_PATIENCE 60000   /* milliseconds after which a wait gives up; the host may be very busy */
#define IOAPIC 0x7EC00000
#define HPET 0x7ED00000
#define LAPIC 0x7EE00000

#define PT_P 1
#define PT_W 2
#define PT_U 4
#define PT_A 0x20
#define PT_D 0x40
#define PT_PS 0x80
#define PT_G 0x100

#ifdef __ASSEMBLER__

.macro CODE16
    .code16
    .set rt_bits, 16
.endm
.macro CODE32
    .code32
    .set rt_bits, 32
.endm
.macro CODE64
    .code64
    .set rt_bits, 64
.endm

/* Beginning and end of a test. */
.macro TEST_HEAD name, bits
    .pushsection .lowdata, "aw"
    .globl rt_test_name, rt_test_bits
rt_test_name: .asciz "\name"
rt_test_bits: .byte \bits
    .popsection
    .globl test_main
.endm
.macro TEST64 name
    TEST_HEAD \name, 64
    .text
    CODE64
test_main:
.endm
.macro TEST32 name
    TEST_HEAD \name, 32
    .text
    CODE32
test_main:
.endm
/* Like TEST32, but the code lies below 64 KiB so that it can use REAL and 16-bit segments. */
.macro TEST_LOW name
    TEST_HEAD \name, 32
    .section .low, "awx"
    CODE32
test_main:
.endm
.macro DONE
    .if rt_bits == 64
    jmp rt_done64
    .elseif rt_bits == 32
    jmp rt_done32
    .else
    .byte 0x66, 0xE9
    .long rt_done16 - . - 4
    .endif
.endm
/* End here with "skip: REASON". */
.macro SKIP reason
    RT_PUSH_STR "\reason"
    RT_CALL rt_skip
.endm

/* Pushes the address of a string: below 64 KiB when the code is 16-bit. */
.macro RT_PUSH_STR text
    .if rt_bits == 16
    .pushsection .lowdata, "aw"
    .else
    .pushsection .rodata
    .endif
.Lstr\@: .asciz "\text"
    .popsection
    .if rt_bits == 64
    pushq $.Lstr\@
    .else
    pushl $.Lstr\@
    .endif
.endm
.macro RT_PUSH op:vararg
    .if rt_bits == 64
    pushq \op
    .else
    pushl \op
    .endif
.endm
.macro RT_CALL fn
    .if rt_bits == 64
    call \fn\()64
    .elseif rt_bits == 32
    call \fn\()32
    .else
    calll \fn\()16
    .endif
.endm

/* EXPECT "name", got, want: registers, memory or immediates, but nothing relative to the stack pointer. */
.macro EXPECT name, got, want
    RT_PUSH \want
    RT_PUSH \got
    RT_PUSH_STR "\name"
    RT_CALL rt_expect
.endm
/* EXPECT_FLAGS "name", mask, want: the bits of RFLAGS now. */
.macro EXPECT_FLAGS name, mask, want
    RT_PUSH $(\want)
    RT_PUSH $(\mask)
    RT_PUSH_STR "\name"
    RT_CALL rt_expect_flags
.endm
/* EXPECT_BITS "name", got, mask, want: got & mask == want. */
.macro EXPECT_BITS name, got, mask, want
    RT_PUSH \want
    RT_PUSH \mask
    RT_PUSH \got
    RT_PUSH_STR "\name"
    RT_CALL rt_expect_bits
.endm
/* The code must not come here. */
.macro UNREACHED name
    EXPECT "\name", $1, $0
.endm

/* The next exception is recorded in x_* and execution goes on at the label, with this stack, CS and flags. */
.macro ARM label
    .if rt_bits == 64
    movq $\label, rt_resume
    mov %rsp, rt_resume_sp
    pushfq
    popq rt_resume_fl
    movw %cs, rt_resume_cs
    movw %ss, rt_resume_ss
    movq $-1, x_vec
    .elseif rt_bits == 32
    movl $\label, rt_resume
    mov %esp, rt_resume_sp
    pushfl
    popl rt_resume_fl
    movw %cs, rt_resume_cs
    movw %ss, rt_resume_ss
    movl $-1, x_vec
    .else
    movl $\label, rt_resume
    mov %esp, rt_resume_sp
    pushfl
    popl rt_resume_fl
    movw %cs, rt_resume_cs
    movw %ss, rt_resume_ss
    movl $-1, x_vec
    .endif
.endm
.macro DISARM
    movl $0, rt_resume
.endm
.macro RT_CHECK name, vec, err, rip
    RT_PUSH $\rip
    RT_PUSH $\err
    RT_PUSH $\vec
    RT_PUSH_STR "\name"
    RT_CALL rt_faults
.endm
/* FAULTS "name", vector, error code (-1: any), instruction: the saved RIP is that of the instruction. */
.macro FAULTS name, vec, err, insn:vararg
    ARM .Lr\@
.Li\@:
    \insn
    DISARM
.Lr\@:
    RT_CHECK "\name", \vec, \err, .Li\@
.endm
/* The same for a trap: the saved RIP is that after the instruction. */
.macro TRAPS name, vec, err, insn:vararg
    ARM .Lr\@
    \insn
.Li\@:
    DISARM
.Lr\@:
    RT_CHECK "\name", \vec, \err, .Li\@
.endm
/* The saved RIP is that of a label. */
.macro FAULTS_AT name, vec, err, label, insn:vararg
    ARM .Lr\@
    \insn
    DISARM
.Lr\@:
    RT_CHECK "\name", \vec, \err, \label
.endm
.macro NOFAULT name, insn:vararg
    ARM .Lr\@
    \insn
    DISARM
.Lr\@:
    RT_CHECK "\name", -1, -1, 0
.endm

/* Runs an instruction; x_vec is -1 or the vector of its exception. */
.macro TRY insn:vararg
    ARM .Lr\@
    \insn
    DISARM
.Lr\@:
.endm
/* The rest of the test must end in a triple fault: prints the verdict first. Clobbers registers. */
.macro SHUTDOWN_NEXT insn:vararg
    EXPECT "shutdown is next", $0, $0
    RT_CALL rt_verdict
    \insn
    UNREACHED "no shutdown"
    DONE
.endm

/* In-line changes of mode. They clobber RAX (and RCX for REAL and PM32). */
.macro USER /* to ring 3, same stack, flat user segments */
    .if rt_bits == 64
    mov %rsp, %rax
    pushq $UDS
    push %rax
    pushfq
    pushq $UCS64
    pushq $.Lu\@
    iretq
    .else
    mov %esp, %eax
    pushl $UDS
    push %eax
    pushfl
    pushl $UCS32
    pushl $.Lu\@
    mov $UDS, %ax
    mov %ax, %ds
    mov %ax, %es
    iretl
    .endif
.Lu\@:
.endm
.macro USER32 /* from 64-bit ring 0 to ring 3 in compatibility mode */
    mov %rsp, %rax
    pushq $UDS
    push %rax
    pushfq
    pushq $UCS32
    pushq $.Lu\@
    mov $UDS, %ax
    mov %ax, %ds
    mov %ax, %es
    iretq
    CODE32
.Lu\@:
.endm
.macro KERNEL /* back to ring 0, same stack, same width */
    int $0x83
.endm
.macro KERNEL64 /* from ring 3 of any width to 64-bit ring 0 */
    int $0x84
    CODE64
.endm
.macro COMPAT /* 64-bit ring 0 to compatibility mode ring 0 */
    pushq $KCS32
    pushq $.Lc\@
    mov $KDS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    lretq
    CODE32
.Lc\@:
.endm
.macro COMPAT_END
    ljmp $KCS64, $.Lc\@
    CODE64
.Lc\@:
.endm
.macro REAL /* 32-bit flat to real mode (in .low only): CS = DS = SS = 0, SP = 0x7000 */
    mov $.Lm\@, %eax
    jmp rt_to_real
    CODE16
.Lm\@:
.endm
.macro PM32 /* real mode back to 32-bit flat without paging */
    mov $.Lm\@, %eax
    .byte 0x66, 0xE9
    .long rt_to_pm32 - . - 4
    CODE32
.Lm\@:
.endm
.macro LONG /* 32-bit flat to 64-bit */
    mov $.Lm\@, %eax
    jmp rt_to_long
    CODE64
.Lm\@:
.endm
.macro UNLONG /* 64-bit to 32-bit flat without paging */
    mov $.Lm\@, %eax
    jmp rt_to_prot
    CODE32
.Lm\@:
.endm

/* GDT_SET selector, base, limit, attributes: operands as for a push; limit in units of the G bit. */
.macro GDT_SET sel, base, limit, attr
    RT_PUSH $(\attr)
    RT_PUSH \limit
    RT_PUSH \base
    RT_PUSH $(\sel)
    RT_CALL rt_gdt_set
.endm
/* IDT_SET vector, selector, offset, type (P, DPL, type): a gate of the running mode's IDT. */
.macro IDT_SET vec, sel, off, type
    RT_PUSH $(\type)
    RT_PUSH \off
    RT_PUSH $(\sel)
    RT_PUSH $(\vec)
    RT_CALL rt_idt_set
.endm
/* CALLGATE_SET selector, target selector, offset, type, parameters (32-bit; 64-bit gates take two slots). */
.macro CALLGATE_SET sel, tsel, off, type, params=0
    RT_PUSH $((\type) | (\params) << 8)
    RT_PUSH \off
    RT_PUSH $(\tsel)
    RT_PUSH $(\sel)
    RT_CALL rt_callgate_set
.endm
.macro IST vec, n
    movb $\n, rt_idt64 + 16 * (\vec) + 4
.endm
/* Calls fn (EDI: the frame) for each arrival of vec; it returns with `ret`; then the runtime does IRET. */
.macro HOOK vec, fn
    movl $\fn, rt_hooks + 4 * (\vec)
.endm
.macro UNHOOK vec
    movl $0, rt_hooks + 4 * (\vec)
.endm

/* Registers. They clobber EAX, WRMSR_ also ECX and EDX. */
.macro CR_SET cr, bits
    .if rt_bits == 64
    mov %\cr, %rax
    or $(\bits), %rax
    mov %rax, %\cr
    .else
    mov %\cr, %eax
    or $(\bits), %eax
    mov %eax, %\cr
    .endif
.endm
.macro CR_CLEAR cr, bits
    .if rt_bits == 64
    mov %\cr, %rax
    and $~(\bits), %rax
    mov %rax, %\cr
    .else
    mov %\cr, %eax
    and $~(\bits), %eax
    mov %eax, %\cr
    .endif
.endm
.macro WRMSR_ msr, lo, hi=0
    mov $(\msr), %ecx
    mov \lo, %eax
    mov $(\hi), %edx
    wrmsr
.endm
.macro RDMSR_ msr
    mov $(\msr), %ecx
    rdmsr
.endm
.macro FLUSH_TLB
    .if rt_bits == 64
    mov %cr3, %rax
    mov %rax, %cr3
    .else
    mov %cr3, %eax
    mov %eax, %cr3
    .endif
.endm
/* Takes U from the identity map (64-bit and PAE), for SMEP and SMAP. Clobbers RAX, RCX. */
.macro SUPERVISOR_ONLY
    mov $2048, %ecx
.Ls\@:
    .if rt_bits == 64
    andl $~PT_U, rt_pd - 8(,%rcx,8)
    .else
    andl $~PT_U, rt_pd - 8(,%ecx,8)
    .endif
    dec %ecx
    jnz .Ls\@
    FLUSH_TLB
.endm
/* NEED leaf, reg, bit, "reason": skip unless CPUID.leaf(0):reg has the bit. Clobbers RAX to RDX. */
.macro NEED leaf, reg, bit, reason
    mov $(\leaf), %eax
    call rt_cpuid
    bt $\bit, %\reg
    jc .Ln\@
    RT_PUSH_STR "\reason"
    RT_CALL rt_skip
.Ln\@:
.endm
.macro OUTB port, val
    .if \port > 255
    mov $\port, %edx
    mov \val, %al
    out %al, %dx
    .else
    mov \val, %al
    out %al, $\port
    .endif
.endm
.macro INB port
    .if \port > 255
    mov $\port, %edx
    in %dx, %al
    .else
    in $\port, %al
    .endif
.endm

#endif
#endif
