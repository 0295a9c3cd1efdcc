/* Guest instructions executed by the host CPU itself: what the parts of this mechanism share.
 *
 * A stub is a small piece of host code for one guest instruction: it loads exactly the guest registers that
 * the instruction names from struct cpu, executes the instruction with its memory operand rewritten to
 * [scratch register], stores what it wrote, and returns. stub_allow.c says which instructions may be executed
 * so, stub_encode.c rewrites and verifies the bytes, stubgen.c makes the code, hostexec.c keeps the stubs and
 * catches the host's signals, hostexec_run.c has the handlers that call them.
 *
 * Thread: a struct hostexec belongs to one vCPU's thread.
 */
#ifndef VITRO_INTERP_HOSTEXEC_H
#define VITRO_INTERP_HOSTEXEC_H

#include <stddef.h>

#include "engine/interp/ops.h"
#include "x86/cpuid.h"

#define HX_BYTES   (4u << 20) /* stub memory a vCPU */
#define HX_HASH    8192u
#define HX_MXCSR   0x1f80u /* the host's own MXCSR and FCW while C code runs (psABI) */
#define HX_FCW     0x37fu
#define HX_FSW_ES  0x80u
#define HX_NO_REG  0xff
#define HX_KEY_MAX 20

enum hx_flags {
    HX_MMX = 1,       /* has an MMX operand: enters MMX state (TOP=0, all tags valid) */
    HX_X87 = 2,       /* runs on the x87 image */
    HX_MXCSR_USE = 4, /* reads and writes MXCSR; may raise #XM */
    HX_VZERO = 8,     /* leaves dirty upper halves in the host */
    HX_X87_STORE = 16,
};

/* What must hold in the guest before an instruction of a class may run, and how it touches memory. */
struct hx_class {
    uint32_t cr0_mask, cr0_want; /* CR0 & mask must equal want */
    uint32_t cr4_need;
    uint32_t rflags_bad; /* VM: VEX does not exist in virtual-8086 mode */
    uint32_t xcr0_need;
    uint8_t flags;
    uint8_t align;    /* mask of low linear-address bits that must be 0, else #GP(0) */
    uint8_t mem_size; /* bytes; 0: no memory operand */
    bool mem_write;
    bool nm_on_em; /* CR0.EM gives #NM (x87), not #UD */
    /* Masked memory operand with fault suppression: */
    uint8_t mask_reg;          /* k1..k7, 0: not masked */
    uint8_t mask_bits;         /* elements that the mask covers */
    uint8_t el_size, el_count; /* of the memory operand */
    bool whole;  /* a store that writes masked elements, but faults for all of them (VEXTRACTF32X8 ...) */
    bool packed; /* VPEXPAND, VPCOMPRESS: as many elements as mask bits are set, contiguous */
};

/* In stub memory, followed by its code. The executable view is what everybody points to. */
struct stub {
    struct hx_class c;
    insn_fn *fn;   /* handler */
    uint32_t next; /* offset of the next stub in the hash chain; 0: last */
    uint16_t pc_insn, pc_end,
        pc_fault; /* offsets from the code: the instruction, the epilogue, the fault exit */
    uint8_t key_len, rename;
    uint8_t key[HX_KEY_MAX]; /* the host instruction's bytes */
    uint8_t code[] __attribute__((aligned(16)));
};

struct hostexec {
    uint8_t *rw, *rx; /* the same memory twice */
    uint32_t used;
    uint32_t hash[HX_HASH]; /* offsets; 0: empty */
};

enum hx_result { HX_OK, HX_FP_FAULT, HX_ILLEGAL, HX_BAD_ACCESS };

/* The rewritten instruction. */
struct hx_code {
    uint8_t bytes[HX_KEY_MAX];
    uint8_t len;
    uint8_t mem_reg;   /* host register that holds the memory operand's address */
    uint8_t cpu_reg;   /* host register that holds struct cpu */
    uint8_t rename;    /* host register that stands for the guest's RSP; HX_NO_REG: not used */
    uint32_t gpr_used; /* host registers that the instruction names (after renaming) */
};

/* stub_allow.c: may this be executed by the host for this guest? Fills what must hold. The list is closed:
 * what it does not name is refused. */
bool hx_allow(const struct cpuid_table *t, const struct decoded *d, struct hx_class *c);
/* Does the guest's CPUID show everything that instruction set needs? False also for sets not on the list. */
bool hx_has_isa(const struct cpuid_table *t, ZydisISASet set);

/* stub_encode.c: rewrite for 64-bit host code; decodes the result again and compares it with d operand by
 * operand. False: cannot be expressed. */
bool hx_encode(const struct decoded *d, struct hx_code *out);
/* Encoding number of the 64-bit register that r is part of. */
unsigned hx_gpr(ZydisRegister r);

/* stubgen.c: emit code at out (room bytes), fill s's pcs. vec_width: 16, 32 or 64, the widest vector register
 * that this guest's XCR0 can enable. 0: does not fit. */
unsigned hx_generate(struct stub *s, const struct decoded *d, const struct hx_code *hc, unsigned vec_width,
                     uint8_t *out, unsigned room);

/* hostexec_run.c: the handler for a class. */
insn_fn *hx_handler(const struct hx_class *c);

/* hostexec.c */
/* Install the process's signal handlers (SIGFPE, SIGILL, SIGSEGV, SIGBUS) unless they are there; those that
 * were there before are called for what is not ours. hostexec_create() does it. Any thread. */
void hostexec_init_signals(void);
/* A translator's own host code may fault: fn tells for a program counter of this thread where to go on, or NULL: not its. It is
 * called in a signal handler. fn NULL: no more. */
void hostexec_fault_to(const uint8_t *(*fn)(const void *opaque, uintptr_t pc), const void *opaque);
/* Run s with mem as its memory operand. The guest's registers are unchanged unless HX_OK. */
enum hx_result hx_call(struct cpu *cpu, const struct stub *s, void *mem);

/* Shared by all vector code in C. */
/* Pending x87 exception: raises #MF, or with CR0.NE=0 signals FERR# and waits at this instruction. */
_Noreturn void hx_x87_error(struct cpu *cpu);
/* Enter MMX state: ST(i) becomes physical register i, TOP=0, all tags valid. */
void hx_mmx_enter(struct cpu *cpu);
/* Raise #UD or #NM as c demands. Returns if all is well. */
void hx_check(struct cpu *cpu, const struct hx_class *c);
/* The class of VEX/EVEX vector instructions written in C: needs AVX or AVX-512 state enabled. */
void hx_need_avx(struct cpu *cpu, bool evex);
/* The same for legacy SSE instructions on XMM registers or MXCSR. */
void hx_need_sse(struct cpu *cpu);
/* x87 instructions: #NM by EM and TS, and #MF if an error is pending and `waiting`. */
void hx_need_x87(struct cpu *cpu, bool waiting);
/* Linear address of size bytes at offset off from the memory operand. */
uint64_t hx_elem_lin(struct cpu *cpu, const struct insn *i, uint64_t off, unsigned size, enum mmu_access acc);

/* Does the guest have a vector register wider than 16 (32) bytes: 16, 32 or 64. */
static inline unsigned hx_vec_width(const struct cpuid_table *t)
{
    return (t->xcr0_mask & XCR0_AVX512) == XCR0_AVX512 ? 64 : t->xcr0_mask & XCR0_AVX ? 32 : 16;
}

#endif
