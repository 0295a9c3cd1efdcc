/* Accesses that go together: one check for all accesses of a block that reach a few bytes around the same address.
 *
 * Most blocks touch the same object or stack frame several times. Where the linear addresses differ by what is known at translation
 * (the same registers, changed by constants only), the first access checks the whole range from the lowest byte to
 * the highest one, and keeps the host's address of the lowest in the frame. The others have no check: they load that, and do it.
 *
 * If the range as a whole cannot be touched directly (it crosses into another page, or the table has no entry for the strongest access
 * of the group and the TLB of mem.h does not know one either), the block goes on from that instruction in code without groups
 * (block.plain), where each access looks for itself, so that nothing is translated, faults, or is marked dirty, before the access that does
 * so comes.
 *
 * Nothing can take an address away between the check and the accesses: mappings and permissions change only in C code, and when
 * that has happened (flat.lost), it does not come back into the middle of a translation (thunk_access()). */
#include "engine/dbt/place.h"

#include <string.h>

/* --- which go together --- */

#define GROUP_SPAN  256
#define VALUE_NONE  0u /* origin of absent registers */
#define VALUE_RIP   1u

/* What a register holds, as far as translation knows: something unknown plus delta. */
struct value {
    uint32_t origin;
    int64_t delta;
};

/* A group while the block is looked through. */
struct range {
    uint32_t base, index; /* origins */
    uint8_t scale, seg, ways;
    bool open;
    int64_t lo, hi;
    unsigned first, last, count; /* accesses */
};

#define ACCESS_MAX (2 * XBLOCK_MAX)

struct scan {
    struct value r[16];
    uint32_t origins;
    unsigned nranges, naccesses;
    struct range range[ACCESS_MAX];
    struct {
        struct xref *ref;
        unsigned range;
        int64_t at;
    } access[ACCESS_MAX];
};

static struct value value_new(struct scan *s) { return (struct value){ .origin = ++s->origins }; }

static void scan_changed(struct scan *s, unsigned reg) { s->r[reg] = value_new(s); }

/* The register gets what `from` held, plus delta. */
static void scan_derived(struct scan *s, unsigned reg, unsigned from, int64_t delta)
{
    s->r[reg] = (struct value){ s->r[from].origin, s->r[from].delta + delta };
}

static struct range *scan_range(struct scan *s, const struct range *want)
{
    for (unsigned n = s->nranges; n-- > 0;) {
        struct range *g = &s->range[n];
        if (!g->open || g->base != want->base || g->index != want->index || g->scale != want->scale || g->seg != want->seg)
            continue;
        int64_t lo = want->lo < g->lo ? want->lo : g->lo, hi = want->hi > g->hi ? want->hi : g->hi;
        if (hi - lo <= GROUP_SPAN) {
            g->lo = lo, g->hi = hi;
            return g;
        }
    }
    struct range *g = &s->range[s->nranges++];
    *g = *want;
    g->open = true;
    g->first = s->naccesses;
    return g;
}

/* want: the range of this one access. */
static void scan_access(struct scan *s, struct xref *ref, const struct range *want)
{
    struct range *g = scan_range(s, want);
    g->ways |= want->ways;
    g->last = s->naccesses;
    g->count++;
    s->access[s->naccesses].ref = ref;
    s->access[s->naccesses].range = (unsigned)(g - s->range);
    s->access[s->naccesses++].at = want->lo;
}

static void scan_operand(struct scan *s, struct xinsn *x)
{
    const struct insn *i = x->i;
    struct range want = { .seg = i->seg >= SEG_FS ? i->seg : 0, .ways = x->mem, .scale = i->scale };
    struct value base = { VALUE_NONE, 0 }, index = { VALUE_NONE, 0 };
    if (!x->mem || i->asz != 8 || (x->kind == X_VEC && x->v.quiet) || i->disp != (int32_t)i->disp || !x->size || x->size > 64 ||
        (x->size & (x->size - 1) && x->kind != X_X87)) /* of ten bytes */
        return;
    if (i->base == R_RIP)
        base = (struct value){ VALUE_RIP, x->off + i->len };
    else if (i->base < 16)
        base = s->r[i->base];
    if (i->index < 16)
        index = s->r[i->index];
    else
        want.scale = 0;
    want.base = base.origin, want.index = index.origin;
    want.lo = base.delta + (int64_t)((uint64_t)index.delta << want.scale) + i->disp;
    want.hi = want.lo + x->size;
    scan_access(s, &x->ref[REF_OPERAND], &want);
}

static void scan_stack(struct scan *s, struct xinsn *x, unsigned reg, int disp, unsigned ways)
{
    struct range want = { .base = s->r[reg].origin, .ways = (uint8_t)ways, .lo = s->r[reg].delta + disp };
    want.hi = want.lo + 8;
    scan_access(s, &x->ref[REF_STACK], &want);
}

/* ADD, SUB, INC, DEC with a constant, MOV between registers. False: something else. */
static bool scan_known(struct scan *s, const struct xinsn *x)
{
    const struct insn *i = x->i;
    if (i->osz != 8 || x->rm == NO_REG || x->mem)
        return false;
    switch (i->op) {
    case ZYDIS_MNEMONIC_MOV:
        if (i->form != FORM_RR)
            return false;
        scan_derived(s, i->r0 / 8, i->r1 / 8, 0);
        return true;
    case ZYDIS_MNEMONIC_ADD: case ZYDIS_MNEMONIC_SUB:
        if (i->form != FORM_RI)
            return false;
        scan_derived(s, x->rm, x->rm, i->op == ZYDIS_MNEMONIC_ADD ? (int64_t)i->imm : -(int64_t)i->imm);
        return true;
    case ZYDIS_MNEMONIC_INC: case ZYDIS_MNEMONIC_DEC:
        scan_derived(s, x->rm, x->rm, i->op == ZYDIS_MNEMONIC_INC ? 1 : -1);
        return true;
    default:
        return false;
    }
}

static void scan_lea(struct scan *s, const struct xinsn *x)
{
    const struct insn *i = x->i;
    if (i->osz == 8 && i->asz == 8 && i->base < 16 && i->index == R_ZERO)
        scan_derived(s, x->reg, i->base, i->disp);
    else
        scan_changed(s, x->reg);
}

static void scan_written(struct scan *s, const struct xinsn *x)
{
    if (x->ext == NO_REG && x->reg != NO_REG && x->reg_write)
        scan_changed(s, x->reg);
    if (!x->mem && x->rm != NO_REG && x->rm_write)
        scan_changed(s, x->rm);
}

static void scan_vec(struct scan *s, const struct xinsn *x)
{
    const struct xvec *v = &x->v;
    if (v->reg_gpr && x->reg_write)
        scan_changed(s, x->reg);
    if (v->rm_gpr && x->rm_write)
        scan_changed(s, x->rm);
    if (v->vvvv_gpr && v->vvvv_write)
        scan_changed(s, v->vvvv);
    if (v->rcx_out)
        scan_changed(s, RCX);
}

/* C code runs here: no address is good behind it, and no register known. */
static void scan_barrier(struct scan *s)
{
    for (unsigned n = 0; n < s->nranges; n++)
        s->range[n].open = false;
    for (unsigned n = 0; n < 16; n++)
        scan_changed(s, n);
}

static void scan_registers(struct scan *s, struct xinsn *x)
{
    switch (x->kind) {
    case X_NOTHING: case X_PREFETCH: case X_CLI: case X_STI: case X_SET_DF: case X_FENCE: case X_MXCSR: case X_BIT: case X_VZERO: case X_JCC: case X_JRCXZ: case X_JMP: case X_JMP_IND:
        break;
    case X_GENERIC:
        if (!scan_known(s, x))
            scan_written(s, x);
        break;
    case X_LEA: scan_lea(s, x); break;
    case X_MOV_IMM: case X_BSWAP: case X_SELECTOR: scan_changed(s, x->rm); break;
    case X_VEC: scan_vec(s, x); break;
    case X_X87: case X_X87_CONTROL:
        if (x->reg_write) /* FNSTSW AX */
            scan_changed(s, RAX);
        break;
    case X_CMPXCHG: scan_changed(s, RAX); break;
    case X_MUL: case X_EXTEND: case X_CMPXCHG16:
        scan_changed(s, RAX);
        scan_changed(s, RDX);
        break;
    case X_PUSH: case X_PUSHF: case X_CALL_REL: case X_CALL_IND:
        scan_stack(s, x, RSP, -8, MEM_WRITE);
        scan_derived(s, RSP, RSP, -8);
        break;
    case X_POP:
        scan_stack(s, x, RSP, 0, MEM_READ);
        scan_derived(s, RSP, RSP, 8);
        scan_changed(s, x->rm);
        break;
    case X_RET: scan_stack(s, x, RSP, 0, MEM_READ); break;
    case X_LEAVE:
        scan_stack(s, x, RBP, 0, MEM_READ);
        scan_derived(s, RSP, RBP, 8);
        scan_changed(s, RBP);
        break;
    default: scan_barrier(s); break; /* X_CALL; X_HIGH is rare */
    }
}

/* Slots of the frame for the groups that are worth it. */
static void scan_assign(struct scan *s, struct xblock *xb)
{
    unsigned busy[GROUP_SLOTS] = { 0 }; /* 1 + the last access that uses it */
    NO_INIT uint8_t group[ACCESS_MAX];
    xb->naccesses = s->naccesses;
    xb->ngroups = 0;
    for (unsigned n = 0; n < s->nranges; n++) {
        const struct range *g = &s->range[n];
        unsigned slot = 0;
        while (slot < GROUP_SLOTS && busy[slot] > g->first)
            slot++;
        group[n] = NO_GROUP;
        if (xb->plain || xb->word != 8 || g->count < 2 || slot == GROUP_SLOTS || xb->ngroups == GROUP_MAX)
            continue;
        busy[slot] = g->last + 1;
        group[n] = (uint8_t)xb->ngroups;
        xb->group[xb->ngroups++] = (struct xgroup){ (uint8_t)slot, g->ways, (uint16_t)(g->hi - g->lo) };
    }
    for (unsigned n = 0; n < s->naccesses; n++) {
        const struct range *g = &s->range[s->access[n].range];
        struct xref *ref = s->access[n].ref;
        ref->group = group[s->access[n].range];
        ref->head = g->first == n;
        ref->rel = (int16_t)(s->access[n].at - g->lo);
    }
}

void group_find(struct xblock *xb)
{
    NO_INIT struct scan s;
    s.origins = VALUE_RIP;
    s.nranges = s.naccesses = 0;
    for (unsigned n = 0; n < 16; n++)
        scan_changed(&s, n);
    for (unsigned n = 0; n < xb->n; n++) {
        struct xinsn *x = &xb->x[n];
        x->ref[REF_OPERAND].group = x->ref[REF_STACK].group = NO_GROUP;
        if (x->kind != X_CALL && x->kind != X_HIGH && x->kind != X_BIT)
            scan_operand(&s, x);
        scan_registers(&s, x);
    }
    scan_assign(&s, xb);
}

/* --- emission --- */

#define SLOT(g) (FRAME_GROUP + 8 * (int)(g)->slot)

/* A register with the linear address of the group's lowest byte, less p->near. */
static unsigned group_address(struct xblock *xb, struct pending *p, const struct xgroup *g)
{
    const struct xstack *s = &p->stack;
    bool stack = s->base != NO_REG;
    int64_t low = (stack ? s->disp : p->x->i->disp) - p->ref->rel;
    if ((stack || place_by_register(p->x)) && place_is_near(low, g->span)) {
        p->near = (int8_t)low;
        return stack ? place_of(s->base) : place_get(xb, p->x->i->base, T1);
    }
    if (stack)
        emit_rm(&xb->e, OP_W | 0x8d, T1, place_of(s->base), (int32_t)low);
    else
        place_linear_at(xb, p->x, -p->ref->rel);
    return T1;
}

/* The first one: T0 = the table's entry; the host's address of the lowest byte is kept. Returns the register of group_address(). */
static unsigned group_head(struct xblock *xb, struct pending *p, const struct xgroup *g)
{
    struct emit *e = &xb->e;
    unsigned ea = group_address(xb, p, g);
    p->ea = (uint8_t)ea;
    if (p->stack.base != NO_REG || !place_within(p->x, -p->ref->rel, g->span))
        place_check_cross(xb, p, ea, (unsigned)p->near + g->span);
    place_entry(xb, ea, g->ways);
    place_check_entry(xb, p);
    p->found = e->p;
    emit_rsib(e, OP_W | 0x8d, T2, T0, ea, 0, p->near);
    emit_rm(e, OP_W | 0x89, T2, RSP, SLOT(g));
    return ea;
}

struct pending *group_access(struct xblock *xb, struct pending *p, struct xmem *m)
{
    const struct xgroup *g = &xb->group[p->ref->group];
    if (p->ref->head) {
        unsigned ea = group_head(xb, p, g);
        *m = (struct xmem){ .ea = ea, .disp = p->near + p->ref->rel };
    } else {
        emit_rm(&xb->e, OP_W | 0x8b, T0, RSP, SLOT(g));
        *m = (struct xmem){ .ea = NO_REG, .host = T0, .disp = p->ref->rel };
    }
    p->op = xb->e.p;
    return p;
}

/* The range in T1 seems to cross into another page. Returns the branch that is taken if it does. */
static uint8_t *group_pending_cross(struct xblock *xb, const struct xgroup *g)
{
    struct emit *e = &xb->e;
    uint8_t *cross;
    place_page(e, T0, T1);
    EMIT(e, 0x48, 0xf7, 0xd1); /* not rcx */
    emit_rm(e, OP_W | 0x8d, T2, T1, g->span - 1);
    place_page(e, T2, T2);
    emit_rsib(e, OP_W | 0x8d, T0, T0, T2, 0, 1);
    place_jrcxnz(xb, &cross);
    return cross;
}

/* To code without groups, from this instruction on: linked when it is there. */
static void group_leave(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    if (!p->flags_host)
        place_flags_load(e);
    uint8_t *site = emit_jmp(e);
    emit_here(e, site);
    emit_mov_imm32(e, T1, p->x->off);
    emit_mov_imm32(e, T0, (uint32_t)(site - xb->t->rw) | DBT_SITE_PLAIN);
    emit_jmp_rx(e, xb->t->thunk.leave_to);
}

void group_pending(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    const struct xgroup *g = &xb->group[p->ref->group];
    place_pending_here(xb, p);
    place_pending_address(xb, p);
    uint8_t *cross = p->cross ? group_pending_cross(xb, g) : NULL;
    place_entry(xb, T1, g->ways);
    EMIT(e, 0xe3, 0);
    uint8_t *missing = e->p, *back = e->p;
    place_pending_restore(xb, p);
    emit_jmp_back(e, p->found);
    if (!e->overflow)
        missing[-1] = (uint8_t)(e->p - missing);
    place_insn(xb, p->x->i);
    emit_mov_imm32(e, T0, DBT_ACCESS(p->x->off, 0, g->ways) | DBT_ACCESS_GROUP);
    emit_call_rx(e, xb->t->thunk.miss[p->flags_host]);
    emit_jmp_back(e, back);
    if (cross)
        emit_here(e, cross);
    group_leave(xb, p);
}
