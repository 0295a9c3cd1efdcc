/* Where guest state lives while translated code runs, and the parts of translating a block that everybody needs.
 *
 * Registers: most guest registers are in the host register of the same number. Guest RCX is in R10, since the host's is the
 * translator's (JRCXZ is the one conditional branch that looks at no flags), and guest RSP in R11, since the host needs its stack.
 * R10, R11, R13, R14 and R15 of the guest are in the frame. T0 (RCX), T1 (R15) and T2 (R14) are free between
 * instructions; TBASE (R13) is the read table. FS is the C library's, GS points at struct cpu.
 *
 * Flags: the guest's arithmetic flags are in the host's, in the frame in the form of cpu->aflags, or in both (flags_host,
 * flags_mem). Between blocks they are in the host's. What is emitted around guest instructions leaves flags alone, so
 * that they need not be saved anywhere on the way: no ADD, CMP or TEST, but LEA, PEXT and JRCXZ.
 */
#ifndef VITRO_DBT_PLACE_H
#define VITRO_DBT_PLACE_H

#include "engine/dbt/emit.h"

#define PLACE_MEMORY 0xffu
#define NO_REG       0xffu

#define T0    RCX
#define T1    R15
#define T2    R14
#define TBASE R13

static inline unsigned place_of(unsigned guest)
{
    static const uint8_t place[16] = { RAX, R10, RDX, RBX, R11, RBP, RSI, RDI,
                                       R8,  R9,  PLACE_MEMORY, PLACE_MEMORY, R12, PLACE_MEMORY, PLACE_MEMORY, PLACE_MEMORY };
    return place[guest];
}

/* The frame of translated code, at RSP: guest registers without a host register, flags, the target of an indirect call ... On the
 * stack, because CPUs forward between accesses there best. */
#define GROUP_SLOTS 6
enum {
    FRAME_R10 = 0, FRAME_R11 = 8, FRAME_R13 = 16, FRAME_FLAGS = 40, FRAME_TARGET = 48, FRAME_RIP = 56,
    FRAME_SAVE = 64, FRAME_SAVE2 = 72, /* for thunk.single and thunk.far */
    FRAME_GROUP = 80, /* host addresses of groups (group.c) */
    FRAME_SIZE = FRAME_GROUP + 8 * GROUP_SLOTS
};

/* Displacement of a field of the table's head from TBASE. */
#define HEAD_OFF(field) ((int)offsetof(struct flat_head, field) - (int)sizeof(struct flat_head))
_Static_assert(sizeof(struct flat_head) <= 128, "displacements are one byte");
/* And of one of struct flat_returns. */
#define RETURN_OFF(field) ((int)offsetof(struct flat_returns, field) - (int)sizeof(struct flat_returns) - (int)sizeof(struct flat_head))

static inline int place_slot(unsigned n) { return n < 12 ? FRAME_R10 + 8 * ((int)n - 10) : FRAME_R13 + 8 * ((int)n - 13); }

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
    X_PREFETCH,
    X_PUSH,    /* of a whole stack slot */
    X_POP,
    X_LEAVE,
    X_BSWAP,
    X_EXTEND,  /* CBW CWDE CDQE CWD CDQ CQO */
    X_VEC,     /* what hostexec would run: vectors, MMX, BMI ... */
    X_X87,
    X_X87_CONTROL, /* of control and status word, FWAIT and EMMS */
    X_MUL,     /* MUL, IMUL with one operand; DIV, IDIV */
    X_CMPXCHG,
    X_CMPXCHG16,
    X_BIT,     /* a bit string in memory, its number in a register */
    X_STRING,  /* REP MOVS, REP STOS */
    X_VZERO,
    X_HIGH,    /* AH, CH, DH or BH: encoded without REX, the host's RCX standing in for the guest's */
    X_CLI,
    X_STI,
    X_FENCE,   /* LFENCE, MFENCE, SFENCE */
    X_SET_DF,  /* CLD, STD */
    X_SET_AC,  /* CLAC, STAC */
    X_SWAPGS,
    X_SEG_BASE, /* RDFSBASE and its like */
    X_FROM_CR,  /* MOV from a control register */
    X_SELECTOR, /* MOV from a segment register to a general one */
    X_TSC,     /* RDTSC, RDTSCP */
    X_PUSHF,   /* 64-bit */
    X_MXCSR,   /* LDMXCSR, STMXCSR */
    X_JMP,     /* relative branches */
    X_JCC,
    X_JRCXZ,   /* 64-bit */
    X_CALL_REL,
    X_JMP_IND, /* register or memory */
    X_CALL_IND,
    X_RET,
    X_SYSCALL,
    X_SYSRET,  /* to 64-bit code */
};

/* Both of the former: read-modify-write. As ACC_READ and ACC_WRITE. QUIET: what is masked out does not fault; ALIGNED: must be, or faults. */
enum { MEM_NONE = 0, MEM_READ = 1, MEM_WRITE = 2, MEM_QUIET = 4, MEM_ALIGNED = 8 };

enum { ENC_LEGACY, ENC_VEX, ENC_EVEX };

/* What X_VEC needs beside the rest. */
struct xvec {
    uint8_t enc, map, tail, vvvv, opcode; /* tail: VEX.W, L, pp */
    uint8_t evex[3];
    uint8_t need;  /* VEC_* */
    bool x87;      /* and VEC_X87 */
    uint8_t mmx;   /* MMX registers that it names */
    bool align; /* to its size */
    bool reg_gpr, rm_gpr, vvvv_gpr, vvvv_write;
    bool rcx_out; /* writes RCX, which no field names */
    bool quiet;   /* its handler must see each access that might fault: under a mask (what is masked out does not), and stores of MMX registers */
    uint32_t regs; /* vector registers that it names */
};

/* An access that belongs to a group. */
struct xref {
    uint8_t group; /* or NO_GROUP */
    bool head;     /* the first one */
    int16_t rel;   /* bytes from the group's lowest */
};
enum { REF_OPERAND, REF_STACK, REFS };

enum { THROUGH_NOT, THROUGH_FALL, THROUGH_TAKEN };

/* One instruction of the block, classified. */
struct xinsn {
    const struct insn *i; /* the block's own */
    struct xref ref[REFS]; /* group.c */
    uint8_t through;      /* the last of a block inside the translation: which way goes on in it */
    uint32_t op;          /* emit.h */
    uint16_t off;         /* in the page */
    uint8_t kind;
    uint8_t reg, rm;      /* guest registers of ModRM, or NO_REG; reg may be part of the opcode: */
    uint8_t ext;          /* NO_REG, or the value of ModRM.reg */
    bool reg_read, reg_write, rm_read, rm_write, lock;
    bool no_direct;       /* its register operand must not be replaced by memory */
    bool by_cl;           /* a shift by CL: needs the host's RCX */
    bool divides;
    uint8_t mem, size;    /* access and bytes of the memory operand */
    uint8_t imm_len, imm[8];
    uint16_t use, kill, write; /* flags, in RFLAGS' layout: read, certainly set, maybe set */
    struct xvec v;
};

/* Where the memory operand is: [T0 + ea + disp], or, ea being NO_REG, [host + disp]. */
struct xmem {
    unsigned ea, host;
    int32_t disp;
};

/* An access of a stack instruction: 8 bytes at guest register base + disp. base: NO_REG: none. */
struct xstack {
    uint8_t base;
    int8_t disp;
};

/* Accesses with one check (group.c). */
struct xgroup {
    uint8_t slot, ways; /* all accesses' */
    uint16_t span;      /* bytes */
};
#define NO_GROUP  0xffu
#define GROUP_MAX 32

/* Code to be written behind the block's body. */
enum pending_kind { PEND_MISS, PEND_LEAVE, PEND_LEAVE_AT, PEND_SECOND, PEND_CALLOUT, PEND_VEC, PEND_RETURN, PEND_FAR };
struct pending {
    uint8_t kind;
    uint8_t ea;               /* PEND_MISS: host register with the linear address less near */
    uint8_t need;             /* PEND_VEC: VEC_* */
    bool leaves;              /* the handler ends the block */
    bool flags_host, end_host; /* where flags are here, and at `end` */
    bool link, sti;
    bool cross;               /* PEND_MISS: there is a check for page crossing */
    bool faults;              /* a fault of the host there is for the handler: alignment */
    int8_t near;              /* PEND_MISS: the access (a group's lowest byte) is at ea + this, and shares ea's check */
    struct xstack stack;
    uint16_t target;          /* PEND_LEAVE: offset of RIP */
    uint32_t access;
    uint8_t *from[2];         /* rel32s that come here; the second one, if the first was out of reach */
    uint8_t *op, *end;        /* where to go on: with the addend; behind the instruction */
    const struct xinsn *x;
    const struct xref *ref; /* PEND_MISS of a group, or NULL */
    union {
        uint8_t *found; /* PEND_MISS of a group's first: where to go on with its addend */
        uint8_t *site;  /* PEND_FAR: displacement of the branch, whose number is */
    };
    uint32_t far;
};

#define XBLOCK_MAX  80 /* instructions */
#define PENDING_MAX 256
#define MISS_MAX    16
#define SHORT_MAX   32

/* JRCXZ reaches 127 bytes only: a long branch for each lies in front of the block, or else on the way. */
#define STONES_MAX 6
struct xshort {
    uint8_t *rel8[2]; /* in one place or two, */
    uint8_t **from;   /* to what belongs to it */
};

/* A branch inside the page that will be linked: offset of its rel32 in code memory, of its target in the page. */
struct xlink {
    uint32_t site;
    uint16_t target;
};
#define XLINK_MAX 16

struct xblock {
    struct emit e; /* into the hot part, then into the cold one */
    uint8_t *start, *entry, *hot_end; /* of the hot part: long branches in front, where it is entered */
    struct dbt *t;
    struct cpu *cpu;
    const struct code_page *code_page;
    const uint8_t *page; /* its bytes */
    unsigned word; /* bytes of a stack slot and of RIP: 8, or 4 in 32-bit code */
    unsigned n;
    struct xinsn x[XBLOCK_MAX];
    const struct block *first;
    bool plain; /* no groups */
    unsigned round; /* instructions of the loop that is repeated, or 0 */
    unsigned naccesses, ngroups;
    struct xgroup group[GROUP_MAX];
    bool flags_host, flags_mem;
    uint8_t vec_ok;  /* VEC_* that were checked */
    bool x87_page;   /* dbt_data.x87_page is this page */
    unsigned npending;
    struct pending pending[PENDING_MAX];
    uint8_t *stones;  /* long branches in front of the block, for its first short ones */
    unsigned nstones, stones_used;
    unsigned nshort;
    struct xshort shorts[SHORT_MAX];
    uint8_t *miss[MISS_MAX]; /* rel32s that the last instruction's handler must do */
    unsigned nmiss;
    struct xlink link[XLINK_MAX]; /* as many as there is room for; the others are linked when they are first taken */
    unsigned nlinks;
};

/* Bytes of host code in both parts, once it is complete. */
static inline size_t xblock_bytes(const struct xblock *xb)
{
    return (size_t)(xb->hot_end - xb->start) + (size_t)(xb->e.p - (xb->t->rw + xb->t->cold));
}

/* decode.c: classify, behind what is there already; false when code and decoded block disagree (somebody is writing to it). */
bool x_classify(struct xblock *xb, const struct block *b, const uint8_t *code, unsigned off);

/* place.c */
void flags_load(struct xblock *xb); /* make the host's flags right */
/* Host register that holds guest register n: its own, or temp after loading it. */
unsigned place_get(struct xblock *xb, unsigned n, unsigned temp);
/* dst = effective address (no segment) of i's memory operand; destroys T0, T1. wide: 64-bit result. */
void place_ea(struct xblock *xb, const struct xinsn *x, unsigned dst, bool wide);
/* T1 = linear address of the explicit operand + shift; destroys T0. */
void place_linear_at(struct xblock *xb, const struct xinsn *x, int32_t shift);
/* Make x's explicit memory operand accessible, whatever checks that takes. The returned struct pending wants its `end`: call place_done()
 * behind the instruction. T2 is free after. */
struct pending *place_mem(struct xblock *xb, const struct xinsn *x, struct xmem *m);
/* The same for the access of a stack instruction: xb->word bytes at guest register base (which has a host register) + disp. T1 and T2 are free after. */
struct pending *place_stack(struct xblock *xb, const struct xinsn *x, unsigned base, int disp, unsigned ways, struct xmem *m);
/* op with the operand size of a stack slot. */
static inline uint32_t place_word(const struct xblock *xb, uint32_t op) { return xb->word == 8 ? OP_W | op : op; }
/* An access of its own at the linear address in ea, which may be T1 or a register that is not changed. Else as place_mem(). */
struct pending *place_access(struct xblock *xb, const struct xinsn *x, unsigned ea, unsigned size, unsigned ways, struct xmem *m);
/* dst = PEXT(src, mask in struct dbt_data at that offset). */
void place_pext(struct emit *e, unsigned dst, unsigned src, uint32_t mask);
void place_pdep(struct emit *e, unsigned dst, unsigned src, uint32_t mask);
/* dst = of the linear address src: the index in the tables; the bits of its page offset above 1 << log; twice the slot of a branch target
 * (an entry is 16 bytes). */
void place_page(struct emit *e, unsigned dst, unsigned src);
void place_above(struct emit *e, unsigned dst, unsigned src, unsigned log);
void place_slot_of(struct emit *e, unsigned dst, unsigned src);
/* dst = the number in struct flat_returns for a stack pointer. */
void place_return(struct emit *e, unsigned dst, unsigned src);
/* Parts of an access at the linear address in ea: to p when size bytes may cross into another page; T0 = the table's entry; to p
 * when there is none. */
void place_check_cross(struct xblock *xb, struct pending *p, unsigned ea, unsigned size);
void place_entry(struct xblock *xb, unsigned ea, unsigned ways);
void place_check_entry(struct xblock *xb, struct pending *p);
/* Is x's memory operand at a register plus displacement? */
bool place_by_register(const struct xinsn *x);
/* Is it known now that size bytes at x's memory operand + shift lie in one page? */
bool place_within(const struct xinsn *x, int32_t shift, unsigned size);
/* Do size bytes at disp above a register, and the register, make one check worth it? */
static inline bool place_is_near(int64_t disp, unsigned size) { return disp >= 0 && disp + size <= 128; }
/* T1 = the linear address of p's access; and T1 as it was before, where that is different. */
void place_pending_address(struct xblock *xb, const struct pending *p);
void place_pending_restore(struct xblock *xb, const struct pending *p);
/* T2 = i. */
void place_insn(struct xblock *xb, const struct insn *i);
void place_pending_here(struct xblock *xb, const struct pending *p);
/* The host's flags from the frame's. */
void place_flags_load(struct emit *e);
/* Behind the call of a thunk that did the instruction: go on behind it, or leave. */
void place_handled(struct xblock *xb, const struct pending *p);
/* The smallest k with 1 << k >= size. */
static inline unsigned place_log2(unsigned size) { return size <= 1 ? 0 : 32 - (unsigned)__builtin_clz(size - 1); }
void place_done(struct xblock *xb, struct pending *p);
/* An instruction with that operand. imm: bytes of immediate that will follow. */
void place_emit(struct xblock *xb, uint32_t op, unsigned reg, const struct xmem *m);
/* temp (T0 or T2) = host address of the operand, so that the others are free. */
void place_host(struct xblock *xb, struct xmem *m, unsigned temp);
/* The host's fault in the instruction that begins here is for x's handler; then the block is left. */
void place_fault_to_handler(struct xblock *xb, const struct xinsn *x);
/* Leave room for the long branches of about n accesses, in front of the block. */
void place_stones(struct xblock *xb, unsigned n);
/* Branch to what belongs to *from if T0 is zero. */
void place_jrcxz(struct xblock *xb, uint8_t **from);
/* Branch over it all when T0 is zero; else, to what belongs to *from. */
void place_jrcxnz(struct xblock *xb, uint8_t **from);
/* x's handler does it unless T0 is zero. */
void place_unless(struct xblock *xb, const struct xinsn *x);
/* Long branches for all short ones so far; over: control comes by here. */
void place_island(struct xblock *xb, bool over);
/* The same if they would get out of reach before long. */
void place_island_soon(struct xblock *xb);
struct pending *place_pend(struct xblock *xb, enum pending_kind kind, const struct xinsn *x);
void place_emit_pending(struct xblock *xb);

/* group.c */
void group_find(struct xblock *xb); /* fill in xb->group and each ref */
/* The access of p, whose ref is set. */
struct pending *group_access(struct xblock *xb, struct pending *p, struct xmem *m);
void group_pending(struct xblock *xb, const struct pending *p); /* of the first one */

/* insn.c: any instruction that does not end a block. */
void x_emit(struct xblock *xb, const struct xinsn *x);
/* Call its handler and come back. */
void x_callout(struct xblock *xb, const struct xinsn *x);

/* The host's flags must hold what x reads, and what it may leave alone; and what it leaves. */
void x_flags_before(struct xblock *xb, const struct xinsn *x);
void x_flags_after(struct xblock *xb, const struct xinsn *x);

/* system.c: the kinds that it has; 0xff: not one of them. */
uint8_t x_classify_system(struct xinsn *x, const struct decoded *d);
void x_set_if(struct xblock *xb, const struct xinsn *x);
void x_set_df(struct xblock *xb, const struct xinsn *x);
void x_set_ac(struct xblock *xb, const struct xinsn *x);
void x_fence(struct xblock *xb, const struct xinsn *x);
void x_tsc(struct xblock *xb, const struct xinsn *x);
void x_swapgs(struct xblock *xb, const struct xinsn *x);
void x_seg_base(struct xblock *xb, const struct xinsn *x);
void x_from_cr(struct xblock *xb, const struct xinsn *x);
void x_selector(struct xblock *xb, const struct xinsn *x);

/* door.c: ends of blocks. */
void x_syscall(struct xblock *xb, const struct xinsn *x);
void x_sysret(struct xblock *xb, const struct xinsn *x);

/* string.c */
uint8_t x_classify_string(struct xinsn *x, const struct decoded *d);
void x_string(struct xblock *xb, const struct xinsn *x);
void x_bit(struct xblock *xb, const struct xinsn *x);
void x_cmpxchg16(struct xblock *xb, const struct xinsn *x);

/* vec.c */
/* All vector registers of a VEC_* level and MXCSR from struct cpu to the host's, and back. General registers survive. */
void dbt_vec_emit_load(struct emit *e, unsigned level);
void dbt_vec_emit_save(struct emit *e, unsigned level);
/* Of registers 0 to 15 the lower 128 bits, the rest becoming zero; and what only AVX-512 has. */
void dbt_vec_emit_load_low(struct emit *e);
void dbt_vec_emit_load_rest(struct emit *e);
bool x_classify_vec(struct xinsn *x, const struct decoded *d);
/* The registers of need, one of VEC_*, are in the host's, and x may use them: else that is arranged out of line, or x's handler runs. */
void vec_check(struct xblock *xb, const struct xinsn *x, unsigned need);
/* Is what was written at p, with operand m, the same instruction as x? */
bool vec_verify(const struct xinsn *x, const uint8_t *p, unsigned len, const struct xmem *m);
void x_vec(struct xblock *xb, const struct xinsn *x);
void x_vzero(struct xblock *xb, const struct xinsn *x);
void x_mxcsr(struct xblock *xb, const struct xinsn *x);

/* x87.c */
/* x->kind, or X_CALL: not one of its. */
uint8_t x_classify_x87(struct xinsn *x, const struct decoded *d);
uint8_t x_classify_x87_control(struct xinsn *x, const struct decoded *d);
void x_x87(struct xblock *xb, const struct xinsn *x);
void x_x87_control(struct xblock *xb, const struct xinsn *x);

/* branch.c */
/* May a branch to offset off from the page go straight to the code that is there, whatever the linear address? */
bool x_linkable(const struct xblock *xb, int64_t off);
/* The block's last instruction, if it ends it; else where control goes on. */
void x_emit_end(struct xblock *xb, const struct xinsn *x);
void x_emit_fall(struct xblock *xb, unsigned next);
/* A rel32 of the last instruction that its handler is to be behind. */
uint8_t **branch_miss(struct xblock *xb);
/* Where branches of x that found nothing go: its handler, then the loop. */
void x_emit_handler(struct xblock *xb, const struct xinsn *x);
/* T1: linear target. T2 becomes its entry in the table of branch targets whose address is in struct dbt_data at that offset. If there is
 * none, x's handler does it all; x NULL: code is left. */
void x_lookup(struct xblock *xb, const struct xinsn *x, uint32_t table);
/* FRAME_TARGET = where the entry T2 goes on. T0 is destroyed. */
void x_keep_target(struct emit *e);
/* A branch target that is not in its first place; p->x: whose it is, or NULL. */
void x_pending_second(struct xblock *xb, const struct pending *p);
/* A return whose call was not noted: look its address up. */
void x_pending_return(struct xblock *xb, const struct pending *p);
/* A branch into another page that is not linked for where it is now; p->x: the call, or NULL. */
void x_pending_far(struct xblock *xb, const struct pending *p);
/* What that goes by way of: the piece that all of them share. */
const uint8_t *branch_thunk_far(struct emit *e, const uint8_t *leave_far);
/* A branch behind which the translation goes on: x->through. */
void x_emit_through(struct xblock *xb, const struct xinsn *x);

#endif
