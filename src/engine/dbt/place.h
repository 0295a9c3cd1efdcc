/* Where guest state lives while translated code runs, and the parts of translating a block that everybody needs.
 *
 * Registers: most guest registers are in the host register of the same number. Guest RAX is in R10, since LAHF and
 * SETO need the host's, and guest RSP in R11, since the host needs its stack. R10, R11, R14 and R15 of the guest are in
 * the frame. Free for the translator: RAX, R14, and R15, which holds addresses. FS is the C library's, GS points at
 * struct cpu.
 *
 * Flags: the guest's arithmetic flags are in the host's flags, or in the frame in the form of cpu->aflags, or in both (flags_host,
 * flags_mem). They are in the frame whenever something may fault, call out or end the block.
 */
#ifndef VITRO_DBT_PLACE_H
#define VITRO_DBT_PLACE_H

#include "engine/dbt/emit.h"

#define PLACE_MEMORY 0xffu
#define NO_REG       0xffu

static inline unsigned place_of(unsigned guest)
{
    static const uint8_t place[16] = { R10, RCX, RDX, RBX, R11, RBP, RSI, RDI,
                                       R8,  R9,  PLACE_MEMORY, PLACE_MEMORY, R12, R13, PLACE_MEMORY, PLACE_MEMORY };
    return place[guest];
}

/* The frame of translated code, at RSP: guest registers without a host register, and copies of two fields of struct cpu that
 * only C code changes otherwise. On the stack, because CPUs forward between accesses there best. */
enum { FRAME_R10 = 0, FRAME_R11 = 8, FRAME_R14 = 16, FRAME_R15 = 24, FRAME_FLAGS = 32, FRAME_TLB = 40, FRAME_SIZE = 64 };

static inline int place_slot(unsigned n) { return n < 12 ? FRAME_R10 + 8 * ((int)n - 10) : FRAME_R14 + 8 * ((int)n - 14); }

/* An instruction with guest register n, which has no host register, as its memory operand. */
static inline void emit_guest(struct emit *e, uint32_t op, unsigned reg, unsigned n)
{
    emit_rm(e, op, reg, RSP, place_slot(n));
}

enum xkind {
    X_CALL,    /* by its handler */
    X_NOTHING,
    X_GENERIC, /* the instruction itself, registers and memory operand renamed */
    X_MOV_IMM, /* 64-bit immediate */
    X_LEA,
    X_PUSH,    /* 64-bit, register or immediate */
    X_POP,
    X_LEAVE,
    X_BSWAP,
    X_EXTEND,  /* CBW CWDE CDQE CWD CDQ CQO */
    X_VEC,     /* what hostexec would run: vectors, BMI ... */
    X_MUL,     /* MUL, IMUL with one operand of 32 or 64 bits */
    X_CMPXCHG,
    X_JMP,     /* relative branches */
    X_JCC,
    X_CALL_REL,
    X_JMP_IND, /* register or memory */
    X_CALL_IND,
    X_RET,
};

enum { MEM_NONE = 0, MEM_READ = 1, MEM_WRITE = 2 }; /* both: read-modify-write */

enum { ENC_LEGACY, ENC_VEX, ENC_EVEX };

/* What X_VEC needs beside the rest. */
struct xvec {
    uint8_t enc, map, tail, vvvv, opcode; /* tail: VEX.W, L, pp */
    uint8_t evex[3];
    uint8_t need;  /* VEC_* */
    uint8_t align; /* mask of address bits that must be 0 */
    uint8_t width; /* of vector operands */
    bool mxcsr, masked, reg_gpr, rm_gpr, vvvv_gpr, vvvv_write;
    uint32_t in, out; /* vector registers */
    uint8_t mask_in, mask_out;
};

/* Bytes of each guest vector register that the host's holds, and how many of them are not in struct cpu. */
struct vec_state {
    uint8_t size[32], dirty[32];
};

/* One instruction of the block, classified. */
struct xinsn {
    const struct insn *i; /* the block's own */
    uint32_t op;          /* emit.h */
    uint16_t off;         /* in the page */
    uint8_t kind;
    uint8_t reg, rm;      /* guest registers of ModRM, or NO_REG; reg may be part of the opcode: */
    uint8_t ext;          /* NO_REG, or the value of ModRM.reg */
    bool reg_read, reg_write, rm_read, rm_write, lock;
    bool no_direct;       /* its register operand must not be replaced by memory */
    uint8_t mem, size;    /* access and bytes of the memory operand */
    uint8_t imm_len, imm[8];
    uint16_t use, kill, write; /* flags, in RFLAGS' layout: read, certainly set, maybe set */
    uint16_t live;        /* after it */
    struct xvec v;
};

/* Code to be written behind the block's body. */
enum pending_kind { PEND_READ, PEND_STORE, PEND_LEAVE, PEND_CALLOUT, PEND_FP };
struct pending {
    uint8_t kind;
    uint8_t *from;      /* rel32 that comes here */
    uint8_t *op, *end;  /* PEND_READ: op is where it goes on. PEND_STORE: the instruction's code after the check */
    uint32_t access;
    bool rmw, save_flags, load_flags;
    uint16_t target;    /* PEND_LEAVE: offset of RIP */
    bool link;
    const struct xinsn *x; /* PEND_CALLOUT, PEND_FP: its handler does it, then the block is left */
    struct vec_state vec, vec_end; /* where it branches off, and at the end of a store */
};

#define PENDING_MAX 192
#define MISS_MAX    16

struct xblock {
    struct emit e;
    struct dbt *t;
    struct cpu *cpu;
    unsigned n;
    struct xinsn x[BLOCK_MAX];
    bool flags_host, flags_mem;
    bool fp_on;      /* MXCSR is the guest's here */
    uint8_t vec_ok;  /* VEC_* that were checked */
    struct vec_state vec;
    unsigned npending;
    struct pending pending[PENDING_MAX];
    uint8_t *miss[MISS_MAX]; /* branches that the last instruction's handler must do */
    unsigned nmiss;
};

/* decode.c: classify; false when code and decoded block disagree (somebody is writing to it). */
bool x_classify(struct xblock *xb, const struct block *b, const uint8_t *code, unsigned off);

/* place.c */
void flags_save(struct xblock *xb); /* make the frame's right; host flags survive */
void flags_load(struct xblock *xb); /* make the host's flags right */
/* Backward liveness over the block. */
void flags_liveness(struct xblock *xb);
/* Host register that holds guest register n: its own, or temp after loading it. */
unsigned place_get(struct xblock *xb, unsigned n, unsigned temp);
/* dst = effective address (no segment) of i's memory operand; destroys R14, R15. wide: 64-bit result. */
void place_ea(struct xblock *xb, const struct xinsn *x, unsigned dst, bool wide);
/* R15 = linear address of the memory operand. Flags are gone. */
void place_linear(struct xblock *xb, const struct xinsn *x);
/* R15: linear to host address if the TLB has it; returns the branch that is taken when not. Destroys RAX, R14, flags. */
uint8_t *place_tlb(struct xblock *xb, unsigned size, bool write);
/* The same with its slow path; x's memory access. For stores call place_store_done() at the instruction's end. */
void place_read(struct xblock *xb, const struct xinsn *x, unsigned seg, unsigned size);
struct pending *place_write(struct xblock *xb, const struct xinsn *x, unsigned seg, unsigned size, bool rmw);
void place_store_done(struct xblock *xb, struct pending *p);
/* The handler does x and the block is left; fp: but first try to load MXCSR and go on. */
void place_pend_callout(struct xblock *xb, uint8_t *from, const struct xinsn *x, bool fp);
void place_emit_pending(struct xblock *xb);

/* insn.c: any instruction that does not end a block. */
void x_emit(struct xblock *xb, const struct xinsn *x);
/* Call its handler and come back. */
void x_callout(struct xblock *xb, const struct xinsn *x);

/* The host's flags must hold what x reads, and what is live and it does not set; and what it leaves. */
void x_flags_before(struct xblock *xb, const struct xinsn *x);
void x_flags_after(struct xblock *xb, const struct xinsn *x);

/* vec.c */
bool x_classify_vec(struct xinsn *x, const struct decoded *d);
void x_vec(struct xblock *xb, const struct xinsn *x);
void vec_flush(struct xblock *xb); /* all to struct cpu, none in host registers */
void vec_store_dirty(struct xblock *xb, const struct vec_state *s);
void vec_load_again(struct xblock *xb, const struct vec_state *s);

/* branch.c: the block's last instruction, if it ends it; else where control goes on. */
void x_emit_end(struct xblock *xb, const struct xinsn *x);
/* A block that branches to its own beginning and has vector registers in use is emitted twice: the second time it begins
 * with the state that the first one ends with, and stays in it. */
struct xturn {
    const uint8_t *start;
    struct vec_state vec;
    bool fp_on;
    uint8_t vec_ok;
};
bool x_is_loop(const struct xblock *xb, const struct xinsn *x);
/* The branch of such a block; turn: NULL the first time. */
void x_emit_turn(struct xblock *xb, const struct xinsn *x, const struct xturn *turn);
void x_emit_fall(struct xblock *xb, unsigned next);

#endif
