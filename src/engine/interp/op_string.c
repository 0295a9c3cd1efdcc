/* String instructions: MOVS STOS LODS CMPS SCAS with REP prefixes (SDM vol. 2 and vol. 1, 7.3.9).
 *
 * Registers show the progress at every fault. MOVS and STOS move runs that lie in one page on both sides at
 * once. Between runs the instruction looks at attention, and goes back to its own start to let interrupts in.
 */
#include "engine/interp/op_int.h"
#include "ram/ram.h"
#include "x86/cpuid.h"

#define STRING_SLICE 4096 /* elements before others get a chance */

static uint64_t string_reg(const struct cpu *cpu, const struct insn *i, unsigned n)
{
    return cpu->r[n] & i->addr_mask;
}

static void string_advance(struct cpu *cpu, const struct insn *i, unsigned n, int64_t by)
{
    uint64_t old = cpu->r[n], v = old + (uint64_t)by;
    cpu->r[n] = i->asz == 8 ? v : i->asz == 4 ? (uint32_t)v : (old & ~0xffffULL) | (uint16_t)v;
}

static int64_t string_step(const struct cpu *cpu, const struct insn *i)
{
    return cpu->rflags & FL_DF ? -(int64_t)i->osz : i->osz;
}

static uint64_t string_lin(struct cpu *cpu, const struct insn *i, unsigned seg, uint64_t off, enum mmu_access acc)
{
    return insn_lin_at(cpu, i, seg, off, i->osz, acc);
}

/* --- one element --- */

static void movs_one(struct cpu *cpu, const struct insn *i)
{
    uint64_t v = mem_ld(cpu, i->seg, string_lin(cpu, i, i->seg, string_reg(cpu, i, RSI), ACC_READ), i->osz);
    mem_st(cpu, SEG_ES, string_lin(cpu, i, SEG_ES, string_reg(cpu, i, RDI), ACC_WRITE), v, i->osz);
    int64_t step = string_step(cpu, i);
    string_advance(cpu, i, RSI, step);
    string_advance(cpu, i, RDI, step);
}
static void stos_one(struct cpu *cpu, const struct insn *i)
{
    mem_st(cpu, SEG_ES, string_lin(cpu, i, SEG_ES, string_reg(cpu, i, RDI), ACC_WRITE), cpu->r[RAX], i->osz);
    string_advance(cpu, i, RDI, string_step(cpu, i));
}
static void lods_one(struct cpu *cpu, const struct insn *i)
{
    uint64_t v = mem_ld(cpu, i->seg, string_lin(cpu, i, i->seg, string_reg(cpu, i, RSI), ACC_READ), i->osz);
    reg_set(cpu, RAX * 8, v, i->osz);
    string_advance(cpu, i, RSI, string_step(cpu, i));
}

static void string_compare(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    uint32_t fl;
    unsigned shift = 64 - 8 * size; /* flags of the narrow subtraction are those of the aligned wide one, but PF and AF */
    uint64_t wide_a = a << shift, wide_b = b << shift;
    __asm__("cmpq %[b], %[a]" ASM_STORE_FLAGS : [fl] "=&a"(fl) : [a] "r"(wide_a), [b] "r"(wide_b) : "cc");
    uint8_t low = (uint8_t)(a - b);
    fl &= ~(AF_PF | AF_AF);
    fl |= __builtin_parity(low) ? 0 : AF_PF;
    fl |= ((a ^ b ^ low) & 0x10) ? AF_AF : 0;
    cpu->aflags = (uint16_t)fl;
}
/* The second operand is read first, as the processors that could be measured do. */
static void cmps_one(struct cpu *cpu, const struct insn *i)
{
    uint64_t b = mem_ld(cpu, SEG_ES, string_lin(cpu, i, SEG_ES, string_reg(cpu, i, RDI), ACC_READ), i->osz);
    uint64_t a = mem_ld(cpu, i->seg, string_lin(cpu, i, i->seg, string_reg(cpu, i, RSI), ACC_READ), i->osz);
    int64_t step = string_step(cpu, i);
    string_compare(cpu, a, b, i->osz);
    string_advance(cpu, i, RSI, step);
    string_advance(cpu, i, RDI, step);
}
static void scas_one(struct cpu *cpu, const struct insn *i)
{
    uint64_t b = mem_ld(cpu, SEG_ES, string_lin(cpu, i, SEG_ES, string_reg(cpu, i, RDI), ACC_READ), i->osz);
    string_compare(cpu, reg_get(cpu, RAX * 8, i->osz), b, i->osz);
    string_advance(cpu, i, RDI, string_step(cpu, i));
}

/* --- runs inside one page --- */

/* Elements, at most n, that can be done at once from off in seg: 0 when it has to go one by one (address wrap, page end). */
static uint64_t string_run(const struct cpu *cpu, const struct insn *i, unsigned seg, uint64_t off, uint64_t n)
{
    uint64_t lin = cpu->lin_base[seg] + off;
    unsigned in_page = PAGE_OFFSET(lin), after = PAGE_REST(lin);
    if (i->flags & INSN_LEGACY) {
        const struct seg *s = &cpu->seg[seg];
        if (s->base || s->limit != 0xffffffff || i->asz == 2)
            return 0;
    }
    if (cpu->rflags & FL_DF) {
        if (after < i->osz || off < in_page || off + i->osz - 1 > i->addr_mask)
            return 0;
        uint64_t room = in_page / i->osz + 1;
        return n < room ? n : room;
    }
    uint64_t room = after / i->osz;
    if (off + room * i->osz - 1 > i->addr_mask)
        return 0;
    return n < room ? n : room;
}

static uint8_t *string_fast(struct cpu *cpu, uint64_t lin, enum mmu_access acc)
{
    return acc == ACC_WRITE ? mem_fast_wr(cpu, lin, 1) : mem_fast_rd(cpu, lin, 1);
}

/* The lowest byte of n elements from off in seg, if they may be touched directly; raises what access to the first one raises. It stays good for this
 * instruction, though the TLB may lose it again: the other operand often lies so that both want the same place there. */
static uint8_t *string_at(struct cpu *cpu, const struct insn *i, unsigned seg, uint64_t off, uint64_t n, enum mmu_access acc)
{
    uint64_t first = cpu->lin_base[seg] + off, lowest = cpu->rflags & FL_DF ? first - (n - 1) * i->osz : first;
    uint8_t *p = string_fast(cpu, lowest, acc);
    if (likely(p != NULL))
        return p;
    mem_probe(cpu, seg, first, i->osz, acc);
    return string_fast(cpu, lowest, acc);
}

static void string_advance_by(struct cpu *cpu, const struct insn *i, unsigned reg, uint64_t n)
{
    string_advance(cpu, i, reg, (int64_t)n * string_step(cpu, i));
}

static uint64_t stos_run(struct cpu *cpu, const struct insn *i, uint64_t n)
{
    n = string_run(cpu, i, SEG_ES, string_reg(cpu, i, RDI), n);
    void *p = n ? string_at(cpu, i, SEG_ES, string_reg(cpu, i, RDI), n, ACC_WRITE) : NULL;
    if (!p)
        return 0;
    uint64_t v = cpu->r[RAX];
    switch (i->osz) {
    case 1: memset(p, (int)v, n); break;
    case 2:
        for (uint64_t k = 0; k < n; k++)
            ((op_u16 *)p)[k] = (uint16_t)v;
        break;
    case 4:
        for (uint64_t k = 0; k < n; k++)
            ((op_u32 *)p)[k] = (uint32_t)v;
        break;
    default:
        for (uint64_t k = 0; k < n; k++)
            ((op_u64 *)p)[k] = v;
    }
    string_advance_by(cpu, i, RDI, n);
    return n;
}

static uint64_t movs_run(struct cpu *cpu, const struct insn *i, uint64_t n)
{
    uint64_t from = string_reg(cpu, i, RSI), to = string_reg(cpu, i, RDI);
    n = string_run(cpu, i, i->seg, from, n);
    n = n ? string_run(cpu, i, SEG_ES, to, n) : 0;
    const uint8_t *s = n ? string_at(cpu, i, i->seg, from, n, ACC_READ) : NULL;
    uint8_t *d = s ? string_at(cpu, i, SEG_ES, to, n, ACC_WRITE) : NULL;
    uint64_t len = n * i->osz;
    if (!d || (cpu->rflags & FL_DF ? s > d && s < d + len : d > s && d < s + len)) /* overlap that repeats a pattern: element by element */
        return 0;
    memmove(d, s, len);
    string_advance_by(cpu, i, RSI, n);
    string_advance_by(cpu, i, RDI, n);
    return n;
}

/* --- repetition --- */

typedef void string_one(struct cpu *, const struct insn *);
typedef uint64_t string_many(struct cpu *, const struct insn *, uint64_t n);

static bool string_again(const struct cpu *cpu, const struct insn *i, bool compares)
{
    if (!compares)
        return true;
    bool zf = cpu->aflags & AF_ZF;
    return i->flags & INSN_REP ? zf : !zf;
}

static void string_rep(struct cpu *cpu, const struct insn *i, string_one *one, string_many *many, bool compares)
{
    if (!(i->flags & (INSN_REP | INSN_REPNE))) {
        one(cpu, i);
        return;
    }
    bool single = cpu->step || cpu->data_bp || (cpu->rflags & FL_TF);
    bool restore = compares && cpu->cpuid->vendor == VENDOR_INTEL; /* a fault finds the flags of the beginning (SDM vol. 2, REP) */
    uint32_t before = cpu->aflags;
    for (uint64_t done = 0;;) {
        uint64_t count = string_reg(cpu, i, RCX), n = 0;
        if (!count)
            return;
        if (many && !single)
            n = many(cpu, i, count);
        if (!n) {
            if (restore)
                cpu->aflags = before;
            one(cpu, i);
            n = 1;
        }
        string_advance(cpu, i, RCX, -(int64_t)n);
        done += n;
        if (count == n || !string_again(cpu, i, compares))
            return;
        if (single || done >= STRING_SLICE || atomic_load_explicit(&cpu->attention, memory_order_relaxed)) {
            cpu->r[R_RIP] = cpu->start_rip;
            return;
        }
    }
}

static void op_movs(struct cpu *cpu, const struct insn *i) { string_rep(cpu, i, movs_one, movs_run, false); }
static void op_stos(struct cpu *cpu, const struct insn *i) { string_rep(cpu, i, stos_one, stos_run, false); }
static void op_lods(struct cpu *cpu, const struct insn *i) { string_rep(cpu, i, lods_one, NULL, false); }
static void op_cmps(struct cpu *cpu, const struct insn *i) { string_rep(cpu, i, cmps_one, NULL, true); }
static void op_scas(struct cpu *cpu, const struct insn *i) { string_rep(cpu, i, scas_one, NULL, true); }

/* The element size is in the mnemonic. MOVSD and CMPSD are also SSE2 instructions: those have explicit operands, and
 * go to the host. */
static insn_fn *string_select(struct insn *i, const struct decoded *d, unsigned size, insn_fn *fn)
{
    if (d->z.meta.category != ZYDIS_CATEGORY_STRINGOP)
        return NULL;
    i->osz = (uint8_t)size;
    if (i->flags & (INSN_REP | INSN_REPNE))
        i->flags |= INSN_END; /* it may be interrupted and restarted */
    return fn;
}
#define STRING_SELECT(name, fn)                                                                          \
    static insn_fn *select_##name##b(struct insn *i, const struct decoded *d) { return string_select(i, d, 1, fn); } \
    static insn_fn *select_##name##w(struct insn *i, const struct decoded *d) { return string_select(i, d, 2, fn); } \
    static insn_fn *select_##name##d(struct insn *i, const struct decoded *d) { return string_select(i, d, 4, fn); } \
    static insn_fn *select_##name##q(struct insn *i, const struct decoded *d) { return string_select(i, d, 8, fn); }
STRING_SELECT(movs, op_movs)
STRING_SELECT(stos, op_stos)
STRING_SELECT(lods, op_lods)
STRING_SELECT(cmps, op_cmps)
STRING_SELECT(scas, op_scas)

#define STRING_ROW(NAME, name)                                                                           \
    { ZYDIS_MNEMONIC_##NAME##B, 0, NULL, select_##name##b }, { ZYDIS_MNEMONIC_##NAME##W, 0, NULL, select_##name##w }, \
    { ZYDIS_MNEMONIC_##NAME##D, 0, NULL, select_##name##d }, { ZYDIS_MNEMONIC_##NAME##Q, 0, NULL, select_##name##q }

const struct op_entry ops_string[] = {
    STRING_ROW(MOVS, movs), STRING_ROW(STOS, stos), STRING_ROW(LODS, lods), STRING_ROW(CMPS, cmps),
    STRING_ROW(SCAS, scas), { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
