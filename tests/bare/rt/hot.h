/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests hot_*: functions of one instruction, called so often that a translator has taken them over, and then
 * in situations that their translation did not expect. C where there is much to compare; hot.S has the calls.
 */
#ifndef HOT_H
#define HOT_H

#define WARM 64 /* calls until everybody who translates has done so */

/* enum for assembly too */
#define HOT_READ 1
#define HOT_WRITE 2
#define HOT_RMW 3
#define NEED_SSE 0
#define NEED_AVX 1
#define NEED_AVX512 2

#ifdef __ASSEMBLER__

/* Offsets in struct hot_state. */
#define HS_R 0
#define HS_FLAGS 128
#define HS_FN 136
#define HS_VEC 192

/* What C's callers keep. */
.macro PUSH_KEPT
    .irp r, rbx, rbp, r12, r13, r14, r15
    push %\r
    .endr
.endm
.macro POP_KEPT
    .irp r, r15, r14, r13, r12, rbp, rbx
    pop %\r
    .endr
.endm

/* From now on the local APIC's timer raises vector v once after each write to its initial count. Each time counts in hot_irqs and hot_seen. */
.macro TICKS v
    call rt_lapic_on
    HOOK \v, hot_tick
    movl $0xB, LAPIC + 0x3E0        /* divide by 1 */
    movl $\v, LAPIC + 0x320
.endm

/* FORM "name", kind, size, number of the register with the address, what it needs, instruction: a function of it in .text and
 * its struct hot_form in subsection 2 of .data. */
.macro FORM name, kind, size, base, need, insn:vararg
    .pushsection .text
    .balign 8
.Lfn\@:
    \insn
    ret
    .popsection
    FORM_ROW "\name", \kind, \size, \base, \need, .Lfn\@, .Lfn\@, 0
.endm
/* The same with a value in memory that the instruction finds there. */
.macro FORM_FILL name, kind, size, base, fill, insn:vararg
    .pushsection .text
    .balign 8
.Lfn\@:
    \insn
    ret
    .popsection
    FORM_ROW "\name", \kind, \size, \base, NEED_SSE, .Lfn\@, .Lfn\@, \fill
.endm
/* The same on a stack at RBX; R11 is RSP afterwards. fill: what is at the address before (0: anything). */
.macro FORM_SP name, kind, size, fill, insn:vararg
    .pushsection .text
    .balign 8
.Lfn\@:
    mov %rsp, hot_sp
    mov %rbx, %rsp
.Lin\@:
    \insn
.Lend\@:
    mov %rsp, %r11
    mov hot_sp, %rsp
    ret
    .popsection
    .ifc "\fill","end"
    FORM_ROW "\name", \kind, \size, 3, NEED_SSE, .Lfn\@, .Lin\@, .Lend\@, 1
    .else
    FORM_ROW "\name", \kind, \size, 3, NEED_SSE, .Lfn\@, .Lin\@, \fill, 1
    .endif
.endm
.macro FORM_ROW name, kind, size, base, need, fn, in, fill, stack=0
    .pushsection .rodata
.Lname\@: .asciz "\name"
    .popsection
    .pushsection .data, 2
    .quad .Lname\@, \fn, \in, \fill
    .word \size
    .byte \kind, \base, \need, \stack, 0, 0
    .popsection
.endm

#else

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
_Static_assert(sizeof(u64) == 8, "64-bit code");

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11 };

struct hot_state {
    u64 r[16]; /* RSP is not loaded */
    u64 flags;
    void (*fn)(void);
    u64 pad[6];
    u8 vec[3][64]; /* xmm, ymm or zmm 0 to 2 */
};

struct hot_form {
    const char *name;
    void (*fn)(void);
    void (*insn)(void);
    u64 fill;
    u16 size;
    u8 kind, base, need, stack;
    u8 pad[2];
};

/* Runs s->fn with all registers as in s, and leaves all as they are afterwards in s; x_vec is -1, or the fault's vector (then
 * s has the state at the fault, but for flags: x_flags). Ring: hot_user. */
void hot_call(struct hot_state *s);

void hot_expect(const char *name, u64 got, u64 want);
void hot_ring3(void); /* to ring 3 and back, on the same stack */
void hot_ring0(void);
int hot_has(u32 leaf, u32 reg, u32 bit); /* CPUID; reg: 0 EAX .. 3 EDX */
u64 hot_random(void);
/* How often to do something: n times, less often in QEMU TCG, which is only asked whether it sees the same. */
u64 hot_count(u64 n);
/* "a: b" in a buffer of its own. */
const char *hot_name(const char *a, const char *b);
void hot_copy(void *to, const void *from, u64 n);
u64 hot_differ(const void *a, const void *b, u64 n); /* 0: equal; else 1 + where */

extern u64 x_vec, x_err, x_rip, x_flags, x_rsp, x_cr2;
extern u64 hot_user, hot_vecs; /* hot_vecs: NEED_* that this processor has, and that is switched on */
extern volatile u64 rt_pml4[], rt_pdpt[], rt_pd[], rt_pt[], rt_pages[];
extern u8 rt_buf[];
extern const u32 rt_amd;

static inline void invlpg(u64 a) { __asm__ volatile("invlpg (%0)" ::"r"(a) : "memory"); }
static inline u64 read_cr3(void)
{
    u64 v;
    __asm__ volatile("mov %%cr3, %0" : "=r"(v));
    return v;
}
static inline void write_cr3(u64 v) { __asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory"); }
static inline u64 read_cr4(void)
{
    u64 v;
    __asm__ volatile("mov %%cr4, %0" : "=r"(v));
    return v;
}
static inline void write_cr4(u64 v) { __asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory"); }
static inline void wrmsr(u32 n, u64 v) { __asm__ volatile("wrmsr" ::"c"(n), "a"((u32)v), "d"((u32)(v >> 32))); }
static inline u64 rdmsr(u32 n)
{
    u32 a, d;
    __asm__ volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(n));
    return (u64)d << 32 | a;
}
static inline u64 read_cr0(void)
{
    u64 v;
    __asm__ volatile("mov %%cr0, %0" : "=r"(v));
    return v;
}
static inline void write_cr0(u64 v) { __asm__ volatile("mov %0, %%cr0" ::"r"(v) : "memory"); }
static inline void invpcid(u64 type, u64 pcid, u64 lin)
{
    u64 d[2] = { pcid, lin };
    __asm__ volatile("invpcid %1, %0" ::"r"(type), "m"(d) : "memory");
}

#endif
#endif
