/* Flags, addresses and memory accesses of translated code (see place.h for where things are).
 *
 * One access is: the linear address in a register; a check that it stays within its page, unless it is known to; its page's
 * entry in a flat table (flat.h); and the guest's instruction with [entry + address] as its operand. Every way out of
 * this is a JRCXZ, so the guest's flags stay where they are. */
#include "engine/dbt/place.h"

#include <string.h>

/* --- flags --- */

void place_flags_load(struct emit *e)
{
    emit_rr(e, OP_W | 0x89, RAX, T2);
    emit_rm(e, 0x0fb7, RAX, RSP, FRAME_FLAGS);
    EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
    emit_rr(e, OP_W | 0x89, T2, RAX);
}

void flags_load(struct xblock *xb)
{
    if (xb->flags_host)
        return;
    place_flags_load(&xb->e);
    xb->flags_host = true;
}

/* --- short branches --- */

void place_stones(struct xblock *xb, unsigned n)
{
    struct emit *e = &xb->e;
    xb->stones = e->p;
    xb->stones_used = 0;
    xb->nstones = n < STONES_MAX ? n : STONES_MAX;
    for (unsigned k = 0; k < 5 * xb->nstones; k++)
        emit_byte(e, 0xcc);
}

/* The long branch in front of the block that the short one before e->p takes, if one is left in reach. */
static bool place_stone(struct xblock *xb, uint8_t **from)
{
    struct emit *e = &xb->e;
    uint8_t *stone = xb->stones + 5 * xb->stones_used;
    if (xb->stones_used == xb->nstones || e->p - stone > 128 || e->overflow)
        return false;
    xb->stones_used++;
    stone[0] = 0xe9;
    *from = stone + 1;
    e->p[-1] = (uint8_t)(stone - e->p);
    return true;
}

void place_jrcxz(struct xblock *xb, uint8_t **from)
{
    struct emit *e = &xb->e;
    EMIT(e, 0xe3, 0);
    if (place_stone(xb, from))
        return;
    if (xb->nshort == SHORT_MAX)
        e->overflow = true;
    else
        xb->shorts[xb->nshort++] = (struct xshort){ { e->p - 1 }, from };
}

/* Once more to p, by way of the same long branch if that is in reach. */
static void place_jrcxz_again(struct xblock *xb, struct pending *p)
{
    struct emit *e = &xb->e;
    struct xshort *last = xb->nshort ? &xb->shorts[xb->nshort - 1] : NULL;
    if (last && last->from == &p->from[0]) {
        EMIT(e, 0xe3, 0);
        last->rel8[1] = e->p - 1;
        return;
    }
    const uint8_t *stone = p->from[0] - 1;
    if (e->p + 2 - stone > 128) {
        place_jrcxz(xb, &p->from[1]);
        return;
    }
    EMIT(e, 0xe3, 0);
    e->p[-1] = (uint8_t)(stone - e->p);
}

void place_jrcxnz(struct xblock *xb, uint8_t **from)
{
    EMIT(&xb->e, 0xe3, 5); /* jrcxz over the jmp */
    *from = emit_jmp(&xb->e);
}

void place_island(struct xblock *xb, bool over)
{
    struct emit *e = &xb->e;
    if (!xb->nshort)
        return;
    if (over)
        EMIT(e, 0xeb, 5 * xb->nshort);
    for (unsigned n = 0; n < xb->nshort; n++) {
        for (unsigned k = 0; k < 2 && xb->shorts[n].rel8[k]; k++) {
            long d = e->p - (xb->shorts[n].rel8[k] + 1);
            if (d > 127)
                e->overflow = true;
            else if (!e->overflow)
                *xb->shorts[n].rel8[k] = (uint8_t)d;
        }
        *xb->shorts[n].from = emit_jmp(e);
    }
    xb->nshort = 0;
}

#define INSN_ROOM 70 /* bytes of host code for one instruction, before its own island could come */

void place_island_soon(struct xblock *xb)
{
    if (xb->nshort && xb->e.p - xb->shorts[0].rel8[0] > 127 - INSN_ROOM - 2)
        place_island(xb, true);
}

/* --- registers and addresses --- */

unsigned place_get(struct xblock *xb, unsigned n, unsigned temp)
{
    unsigned h = place_of(n);
    if (h != PLACE_MEMORY)
        return h;
    emit_guest(&xb->e, OP_W | 0x8b, temp, n);
    return temp;
}

static void place_ea_at(struct xblock *xb, const struct xinsn *x, unsigned dst, bool wide, int32_t shift)
{
    struct emit *e = &xb->e;
    const struct insn *i = x->i;
    uint32_t lea = 0x8d | (wide && i->asz == 8 ? OP_W : 0);
    int64_t disp = i->disp + shift;
    unsigned base = NO_REG, index = NO_REG;
    if (i->base == R_RIP) {
        emit_data(e, OP_W | 0x8b, T1, DATA_OFF(page), 0);
        base = T1;
        disp += x->off + i->len;
    } else if (i->base != R_ZERO) {
        base = place_get(xb, i->base, T1);
    }
    if (i->index != R_ZERO)
        index = place_get(xb, i->index, T0);
    if (disp != (int32_t)disp) {
        /* Only MOV with a 64-bit address, or RIP plus nearly 2 GiB. */
        emit_mov_imm64(e, T0, (uint64_t)disp);
        if (base == NO_REG)
            emit_rr(e, OP_W | 0x89, T0, dst);
        else
            emit_rsib(e, lea, dst, base, T0, 0, 0);
        return;
    }
    emit_rsib(e, lea, dst, base, index, i->scale, (int32_t)disp);
}

void place_ea(struct xblock *xb, const struct xinsn *x, unsigned dst, bool wide) { place_ea_at(xb, x, dst, wide, 0); }

void place_linear_at(struct xblock *xb, const struct xinsn *x, int32_t shift)
{
    const struct insn *i = x->i;
    place_ea_at(xb, x, T1, true, shift);
    if (i->seg >= SEG_FS) {
        emit_cpu(&xb->e, OP_W | 0x8b, T0, CPU_OFF(lin_base) + 8u * i->seg);
        emit_rsib(&xb->e, OP_W | 0x8d, T1, T1, T0, 0, 0);
    }
}

/* A host register that holds the linear address of the explicit operand. */
static unsigned place_linear(struct xblock *xb, const struct xinsn *x)
{
    const struct insn *i = x->i;
    if (i->index == R_ZERO && i->base < 16 && !i->disp && i->seg < SEG_FS && i->asz == 8 && place_of(i->base) != PLACE_MEMORY)
        return place_of(i->base);
    place_linear_at(xb, x, 0);
    return T1;
}

struct pending *place_pend(struct xblock *xb, enum pending_kind kind, const struct xinsn *x)
{
    static const unsigned last = PENDING_MAX - 1;
    struct pending *p = &xb->pending[xb->npending];
    if (xb->npending < last)
        xb->npending++;
    else
        xb->e.overflow = true;
    *p = (struct pending){ .kind = (uint8_t)kind, .x = x, .flags_host = xb->flags_host };
    return p;
}

void place_unless(struct xblock *xb, const struct xinsn *x) { place_jrcxnz(xb, &place_pend(xb, PEND_CALLOUT, x)->from[0]); }

/* dst = PEXT or PDEP(src, mask in struct dbt_data); pp: 2 or 3. */
static void place_bits(struct emit *e, unsigned pp, unsigned dst, unsigned src, uint32_t mask)
{
    EMIT(e, 0xc4, (~dst >> 3 & 1) << 7 | 0x62, 0x80 | (~src & 15) << 3 | pp, 0xf5, (dst & 7) << 3 | 5);
    intptr_t next = (intptr_t)emit_rx(e, e->p) + 4;
    emit_u32(e, (uint32_t)((intptr_t)e->t->data + (intptr_t)mask - next));
}

void place_pext(struct emit *e, unsigned dst, unsigned src, uint32_t mask) { place_bits(e, 2, dst, src, mask); }
void place_pdep(struct emit *e, unsigned dst, unsigned src, uint32_t mask) { place_bits(e, 3, dst, src, mask); }

/* The same with a mask in the table's head. */
static void place_head_bits(struct emit *e, unsigned pp, unsigned dst, unsigned src, int mask)
{
    EMIT(e, 0xc4, (~dst >> 3 & 1) << 7 | 0x42, 0x80 | (~src & 15) << 3 | pp, 0xf5, 0x40 | (dst & 7) << 3 | (TBASE & 7), (uint8_t)mask);
}

void place_page(struct emit *e, unsigned dst, unsigned src) { place_head_bits(e, 2, dst, src, HEAD_OFF(mask_page)); }

void place_above(struct emit *e, unsigned dst, unsigned src, unsigned log)
{
    place_head_bits(e, 2, dst, src, HEAD_OFF(mask_cross) + 8 * (int)log);
}

void place_slot_of(struct emit *e, unsigned dst, unsigned src) { place_head_bits(e, 3, dst, src, HEAD_OFF(mask_jump)); }
void place_return(struct emit *e, unsigned dst, unsigned src) { place_head_bits(e, 2, dst, src, HEAD_OFF(mask_return)); }

/* The page offset of the last byte, without the bits that the size covers, is zero when the access crosses into the next page, and
 * at a page's beginning; the latter is told apart out of line. Comes before place_check_entry(). */
void place_check_cross(struct xblock *xb, struct pending *p, unsigned ea, unsigned size)
{
    struct emit *e = &xb->e;
    p->cross = true;
    emit_rm(e, OP_W | 0x8d, T0, ea, (int32_t)size - 1);
    place_above(e, T0, T0, place_log2(size));
    place_jrcxz(xb, &p->from[0]);
}

void place_entry(struct xblock *xb, unsigned ea, unsigned ways)
{
    struct emit *e = &xb->e;
    unsigned table = TBASE;
    place_page(e, T0, ea);
    if (ways & MEM_WRITE)
        emit_rm(e, OP_W | 0x8b, table = T2, TBASE, HEAD_OFF(write));
    emit_rsib(e, OP_W | 0x8b, T0, table, T0, 3, 0);
}

void place_check_entry(struct xblock *xb, struct pending *p)
{
    if (p->cross)
        place_jrcxz_again(xb, p);
    else
        place_jrcxz(xb, &p->from[0]);
}

bool place_within(const struct xinsn *x, int32_t shift, unsigned size)
{
    const struct insn *i = x->i;
    uint64_t at = (uint64_t)i->disp + (uint64_t)(int64_t)shift;
    if (i->seg >= SEG_FS || i->index != R_ZERO || (i->base != R_RIP && i->base != R_ZERO))
        return false;
    if (i->base == R_RIP) /* from the page's beginning */
        at += x->off + i->len;
    return (at & 0xfff) + size <= 0x1000;
}

static struct pending *place_pend_access(struct xblock *xb, const struct xinsn *x, const struct xref *ref, unsigned size, unsigned ways)
{
    struct pending *p = place_pend(xb, PEND_MISS, x);
    p->access = DBT_ACCESS(x->off, size, ways);
    p->ref = ref->group == NO_GROUP ? NULL : ref;
    p->stack.base = NO_REG;
    return p;
}

/* An access by itself, at linear address ea + near. check: it may cross. */
static struct pending *place_single(struct xblock *xb, struct pending *p, unsigned ea, int near, bool check, struct xmem *m)
{
    unsigned size = p->access >> 20 & 255;
    p->ea = (uint8_t)ea;
    p->near = (int8_t)near;
    if (check)
        place_check_cross(xb, p, ea, (unsigned)near + size);
    place_entry(xb, ea, p->access >> 28);
    place_check_entry(xb, p);
    p->op = xb->e.p;
    *m = (struct xmem){ .ea = ea, .disp = near };
    return p;
}

struct pending *place_access(struct xblock *xb, const struct xinsn *x, unsigned ea, unsigned size, unsigned ways, struct xmem *m)
{
    struct pending *p = place_pend_access(xb, x, &x->ref[REF_OPERAND], size, ways);
    return place_single(xb, p, ea, 0, size > 1, m);
}

bool place_by_register(const struct xinsn *x)
{
    const struct insn *i = x->i;
    return i->index == R_ZERO && i->base < 16 && i->seg < SEG_FS && i->asz == 8;
}

/* Alignment is checked by the host, whose fault is then for the handler. */
struct pending *place_mem(struct xblock *xb, const struct xinsn *x, struct xmem *m)
{
    bool aligned = x->v.align, quiet = x->kind == X_VEC && x->v.quiet;
    unsigned ways = x->mem | (quiet ? MEM_QUIET : 0) | (aligned ? MEM_ALIGNED : 0);
    struct pending *p = place_pend_access(xb, x, &x->ref[REF_OPERAND], x->size, ways);
    p->faults = p->ref || aligned;
    if (p->ref)
        return group_access(xb, p, m);
    bool check = x->size > 1 && !aligned && !place_within(x, 0, x->size);
    /* Where the operand is a few bytes above a register, its page is looked up by the register alone, if both are in the same one: that is
     * an instruction less, and one less that the data has to wait for. */
    if (check && place_by_register(x) && place_is_near(x->i->disp, x->size))
        return place_single(xb, p, place_get(xb, x->i->base, T1), (int)x->i->disp, true, m);
    return place_single(xb, p, place_linear(xb, x), 0, check, m);
}

struct pending *place_stack(struct xblock *xb, const struct xinsn *x, unsigned base, int disp, unsigned ways, struct xmem *m)
{
    struct pending *p = place_pend_access(xb, x, &x->ref[REF_STACK], xb->word, ways);
    p->stack = (struct xstack){ (uint8_t)base, (int8_t)disp };
    p->faults = p->ref != NULL;
    if (p->ref)
        return group_access(xb, p, m);
    bool direct = !disp && xb->word == 8; /* else the upper half must go */
    if (!direct)
        emit_rm(&xb->e, place_word(xb, 0x8d), T1, place_of(base), disp);
    return place_single(xb, p, direct ? place_of(base) : T1, 0, true, m);
}

void place_fault_to_handler(struct xblock *xb, const struct xinsn *x)
{
    struct pending *p = place_pend(xb, PEND_CALLOUT, x);
    p->op = xb->e.p;
    p->flags_host = true;
}

void place_done(struct xblock *xb, struct pending *p)
{
    p->end = xb->e.p;
    p->end_host = xb->flags_host;
}

void place_emit(struct xblock *xb, uint32_t op, unsigned reg, const struct xmem *m)
{
    if (m->ea == NO_REG)
        emit_rm(&xb->e, op, reg, m->host, m->disp);
    else
        emit_rsib(&xb->e, op, reg, T0, m->ea, 0, m->disp);
}

void place_host(struct xblock *xb, struct xmem *m, unsigned temp)
{
    if (m->ea == NO_REG)
        emit_rm(&xb->e, OP_W | 0x8d, temp, m->host, m->disp);
    else
        emit_rsib(&xb->e, OP_W | 0x8d, temp, T0, m->ea, 0, m->disp);
    *m = (struct xmem){ .ea = NO_REG, .host = temp };
}

/* --- behind the body --- */

void place_insn(struct xblock *xb, const struct insn *i)
{
    struct emit *e = &xb->e;
    int64_t d = (intptr_t)i - ((intptr_t)emit_rx(e, e->p) + 7);
    if (d != (int32_t)d) {
        emit_mov_imm64(e, T2, (uintptr_t)i);
        return;
    }
    EMIT(e, 0x48 | (T2 >> 3) << 2, 0x8d, (T2 & 7) << 3 | 5); /* lea r14, [rip + d] */
    emit_u32(e, (uint32_t)d);
}

void place_pending_here(struct xblock *xb, const struct pending *p)
{
    emit_here(&xb->e, p->from[0]);
    if (p->from[1])
        emit_here(&xb->e, p->from[1]);
}

void place_pending_address(struct xblock *xb, const struct pending *p)
{
    if (p->near)
        emit_rm(&xb->e, OP_W | 0x8d, T1, p->ea, p->near);
    else if (p->ea != T1)
        emit_rr(&xb->e, OP_W | 0x89, p->ea, T1);
}

void place_pending_restore(struct xblock *xb, const struct pending *p)
{
    if (p->near && p->ea == T1)
        emit_rm(&xb->e, OP_W | 0x8d, T1, T1, -p->near);
}

/* A fault of the host at [at, end) goes on here. */
static void place_site(struct xblock *xb, const uint8_t *at, const uint8_t *end)
{
    const uint8_t *rw = xb->t->rw;
    if (!xb->e.overflow && !dbt_code_site(xb->t, (uint32_t)(at - rw), (uint32_t)(end - rw), (uint32_t)(xb->e.p - rw)))
        xb->e.overflow = true;
}

void place_handled(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    if (p->leaves) {
        emit_jmp_rx(e, xb->t->thunk.leave);
        return;
    }
    if (p->end_host && !p->flags_host)
        place_flags_load(e);
    emit_jmp_back(e, p->end);
}

static void place_to_handler(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    place_insn(xb, p->x->i);
    emit_mov_imm32(e, T0, p->x->off);
    emit_jmp_rx(e, xb->t->thunk.callout_end[p->flags_host]);
}

/* The target of a branch is not in the table. */
static void place_not_found(struct xblock *xb, const struct pending *p)
{
    if (p->x)
        place_to_handler(xb, p);
    else
        emit_jmp_rx(&xb->e, xb->t->thunk.leave_at);
}

/* This access by itself: it may be nothing but the beginning of a page, or the page of the register below it that is another one. */
static void place_pending_single(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    const struct dbt_thunks *k = &xb->t->thunk;
    unsigned log = place_log2(p->access >> 20 & 255), write = (p->access >> 28 & MEM_WRITE) != 0;
    place_pending_here(xb, p);
    if (!p->faults)
        place_site(xb, p->op, p->end); /* a non-canonical address: never in the table */
    place_pending_address(xb, p);
    place_insn(xb, p->x->i);
    emit_mov_imm32(e, T0, p->access);
    emit_call_rx(e, p->cross ? k->single[p->flags_host][write][log] : k->miss[p->flags_host]);
    uint8_t *direct = emit_jmp(e);
    place_handled(xb, p);
    if (p->near && p->ea == T1) {
        emit_here(e, direct);
        place_pending_restore(xb, p);
        emit_jmp_back(e, p->op);
    } else {
        emit_to(e, direct, p->op);
    }
}

static void place_pending_miss(struct xblock *xb, const struct pending *p)
{
    if (p->ref) {
        if (p->ref->head)
            group_pending(xb, p);
    } else {
        place_pending_single(xb, p);
    }
    if (p->faults) {
        place_site(xb, p->op, p->end);
        place_to_handler(xb, p);
    }
}

static void place_pending_leave(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    emit_here(e, p->from[0]);
    emit_mov_imm32(e, T1, p->target);
    uint32_t site = (uint32_t)(p->from[0] - xb->t->rw);
    if (p->link && !p->sti && xb->nlinks < XLINK_MAX)
        xb->link[xb->nlinks++] = (struct xlink){ .site = site, .target = p->target };
    emit_mov_imm32(e, T0, p->link ? site | (p->sti ? DBT_SITE_STI : 0) : 0);
    emit_jmp_rx(e, xb->t->thunk.leave_to);
}

/* Try to bring the vector registers in; if that is not allowed now, the handler raises what is to be raised. */
static void place_pending_vec(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    emit_here(e, p->from[0]);
    emit_call_rx(e, xb->t->thunk.vec_enter[p->need == VEC_X87][p->flags_host]);
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(vec_ok) + 8u * p->need, 0);
    EMIT(e, 0xe3, 5);
    emit_jmp_back(e, p->op);
    place_to_handler(xb, p);
}

static void place_pending_callout(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    if (p->from[0])
        emit_here(e, p->from[0]);
    else
        place_site(xb, p->op, p->op + 1);
    place_to_handler(xb, p);
}

void place_emit_pending(struct xblock *xb)
{
    struct emit *e = &xb->e;
    place_island(xb, false);
    for (unsigned n = 0; n < xb->npending && !e->overflow; n++) {
        const struct pending *p = &xb->pending[n];
        emit_room(e);
        switch (p->kind) {
        case PEND_MISS: place_pending_miss(xb, p); break;
        case PEND_LEAVE: place_pending_leave(xb, p); break;
        case PEND_LEAVE_AT:
            emit_here(e, p->from[0]);
            emit_jmp_rx(e, xb->t->thunk.leave_at);
            break;
        case PEND_SECOND:
            x_pending_second(xb, p);
            place_not_found(xb, p);
            break;
        case PEND_FAR:
            x_pending_far(xb, p);
            place_not_found(xb, p);
            break;
        case PEND_VEC: place_pending_vec(xb, p); break;
        case PEND_RETURN:
            x_pending_return(xb, p);
            place_to_handler(xb, p);
            break;
        default: place_pending_callout(xb, p); break;
        }
    }
}
