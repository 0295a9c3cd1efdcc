/* Flags, addresses and memory accesses of translated code (see place.h for where things are).
 *
 * One access is: the linear address in a register; a check that it stays within its page, unless it is known to; its page's
 * entry in a flat table (flat.h); and the guest's instruction with [entry + address] as its operand. Every way out of
 * this is a JRCXZ, so the guest's flags stay where they are. */
#include "engine/dbt/place.h"

#include <string.h>

/* --- flags --- */

static void flags_to_frame(struct emit *e, int frame)
{
    emit_rr(e, OP_W | 0x89, RAX, T2);
    EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    emit_rm(e, OP_66 | 0x89, RAX, RSP, frame);
    emit_rr(e, OP_W | 0x89, T2, RAX);
}

void flags_save(struct xblock *xb)
{
    if (xb->flags_mem)
        return;
    flags_to_frame(&xb->e, FRAME_FLAGS);
    xb->flags_mem = true;
}

static void flags_from_frame(struct emit *e)
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
    flags_from_frame(&xb->e);
    xb->flags_host = true;
}

/* --- short branches --- */

void place_jrcxz(struct xblock *xb, uint8_t **from)
{
    struct emit *e = &xb->e;
    EMIT(e, 0xe3, 0);
    if (xb->nshort == SHORT_MAX)
        e->overflow = true;
    else
        xb->shorts[xb->nshort++] = (struct xshort){ e->p - 1, from };
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
        long d = e->p - (xb->shorts[n].rel8 + 1);
        if (d > 127)
            e->overflow = true;
        else if (!e->overflow)
            *xb->shorts[n].rel8 = (uint8_t)d;
        *xb->shorts[n].from = emit_jmp(e);
    }
    xb->nshort = 0;
}

#define INSN_ROOM 60 /* bytes of host code for one instruction, before its own island could come */

void place_island_soon(struct xblock *xb)
{
    if (xb->nshort && xb->e.p - xb->shorts[0].rel8 > 127 - INSN_ROOM - 2)
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

void place_ea(struct xblock *xb, const struct xinsn *x, unsigned dst, bool wide)
{
    struct emit *e = &xb->e;
    const struct insn *i = x->i;
    uint32_t lea = 0x8d | (wide && i->asz == 8 ? OP_W : 0);
    int64_t disp = i->disp;
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

/* A host register that holds the linear address of the explicit operand. */
static unsigned place_linear(struct xblock *xb, const struct xinsn *x)
{
    const struct insn *i = x->i;
    if (i->index == R_ZERO && i->base < 16 && !i->disp && i->seg < SEG_FS && i->asz == 8 && place_of(i->base) != PLACE_MEMORY)
        return place_of(i->base);
    place_ea(xb, x, T1, true);
    if (i->seg >= SEG_FS) {
        emit_cpu(&xb->e, OP_W | 0x8b, T0, CPU_OFF(lin_base) + 8u * i->seg);
        emit_rsib(&xb->e, OP_W | 0x8d, T1, T1, T0, 0, 0);
    }
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
    *p = (struct pending){ .kind = (uint8_t)kind, .x = x, .flags_host = xb->flags_host, .cross = NO_REG };
    return p;
}

/* dst = PEXT or PDEP(src, mask in struct dbt_data); pp: 2 or 3. */
static void place_bits(struct emit *e, unsigned pp, unsigned dst, unsigned src, uint32_t mask)
{
    EMIT(e, 0xc4, (~dst >> 3 & 1) << 7 | 0x62, 0x80 | (~src & 15) << 3 | pp, 0xf5, (dst & 7) << 3 | 5);
    intptr_t next = (intptr_t)emit_rx(e, e->p) + 4;
    emit_u32(e, (uint32_t)((intptr_t)e->t->data + (intptr_t)mask - next));
}

void place_pext(struct emit *e, unsigned dst, unsigned src, uint32_t mask) { place_bits(e, 2, dst, src, mask); }
void place_pdep(struct emit *e, unsigned dst, unsigned src, uint32_t mask) { place_bits(e, 3, dst, src, mask); }

#define MASK_CROSS(log) (DATA_OFF(mask_cross) + 8u * (log))
#define MASK_LOW(log)   (DATA_OFF(mask_low) + 8u * (log))

/* The smallest k with 1 << k >= size. */
static unsigned place_log2(unsigned size) { return size <= 1 ? 0 : 32 - (unsigned)__builtin_clz(size - 1); }

/* The page offset of the last byte, without the bits that the size covers, is zero when the access crosses into the next page, and
 * at a page's beginning; the latter is told apart out of line. */
static void place_check_cross(struct xblock *xb, struct pending *p, unsigned ea, unsigned size)
{
    struct emit *e = &xb->e;
    p->cross = (uint8_t)place_log2(size);
    emit_rm(e, OP_W | 0x8d, T0, ea, (int32_t)size - 1);
    place_pext(e, T0, T0, MASK_CROSS(p->cross));
    place_jrcxz(xb, &p->from[1]);
    p->checked = e->p;
}

struct pending *place_access(struct xblock *xb, const struct xinsn *x, unsigned ea, unsigned seg, unsigned size, unsigned ways,
                             bool aligned, struct xmem *m)
{
    struct emit *e = &xb->e;
    struct pending *p = place_pend(xb, PEND_MISS, x);
    p->ea = (uint8_t)ea;
    p->access = DBT_ACCESS(x->off, seg, size, ways);
    if (size > 1 && !aligned)
        place_check_cross(xb, p, ea, size);
    place_pext(e, T0, ea, DATA_OFF(mask_page));
    unsigned table = TBASE;
    if (ways & MEM_WRITE)
        emit_data(e, OP_W | 0x8b, table = T2, DATA_OFF(write), 0);
    emit_rsib(e, OP_W | 0x8b, T0, table, T0, 3, 0);
    place_jrcxz(xb, &p->from[0]);
    p->op = e->p;
    m->ea = ea;
    return p;
}

struct pending *place_mem(struct xblock *xb, const struct xinsn *x, struct xmem *m)
{
    unsigned ea = place_linear(xb, x);
    bool aligned = false;
    if (x->kind == X_VEC && x->v.align) {
        unsigned log = place_log2(x->v.align + 1u);
        place_pext(&xb->e, T0, ea, MASK_LOW(log));
        struct pending *p = place_pend(xb, PEND_CALLOUT, x);
        place_jrcxnz(xb, &p->from[0]);
        aligned = x->v.align + 1u >= x->size;
    }
    return place_access(xb, x, ea, x->i->seg, x->size, x->mem | (x->kind == X_VEC && x->v.quiet ? MEM_QUIET : 0), aligned, m);
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
        emit_rm(&xb->e, op, reg, m->host, 0);
    else
        emit_rsib(&xb->e, op, reg, T0, m->ea, 0, 0);
}

void place_host(struct xblock *xb, struct xmem *m, unsigned temp)
{
    emit_rsib(&xb->e, OP_W | 0x8d, temp, T0, m->ea, 0, 0);
    m->ea = NO_REG;
    m->host = temp;
}

/* --- behind the body --- */

static void place_call_insn(struct xblock *xb, const struct pending *p)
{
    emit_mov_imm64(&xb->e, T2, (uintptr_t)p->x->i);
}

/* A fault of the host at [at, end) goes on here. */
static void place_site(struct xblock *xb, const uint8_t *at, const uint8_t *end)
{
    const uint8_t *rw = xb->t->rw;
    if (!xb->e.overflow && !dbt_code_site(xb->t, (uint32_t)(at - rw), (uint32_t)(end - rw), (uint32_t)(xb->e.p - rw)))
        xb->e.overflow = true;
}

static void place_pending_miss(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    uint8_t *aligned = NULL;
    if (p->from[1]) { /* maybe nothing but the beginning of a page */
        emit_here(e, p->from[1]);
        place_pext(e, T0, p->ea, MASK_LOW(p->cross));
        EMIT(e, 0xe3, 0);
        aligned = e->p;
    }
    emit_here(e, p->from[0]);
    place_site(xb, p->op, p->end);
    if (p->ea != T1)
        emit_rr(e, OP_W | 0x89, p->ea, T1);
    place_call_insn(xb, p);
    emit_mov_imm32(e, T0, p->access);
    emit_call_rx(e, xb->t->thunk.miss[p->flags_host]);
    emit_jmp_back(e, p->op);
    if (p->leaves) {
        emit_jmp_rx(e, xb->t->thunk.leave);
    } else {
        if (p->end_host && !p->flags_host)
            flags_from_frame(e);
        emit_jmp_back(e, p->end);
    }
    if (!aligned)
        return;
    if (e->p - aligned > 127)
        e->overflow = true;
    else if (!e->overflow)
        aligned[-1] = (uint8_t)(e->p - aligned);
    emit_jmp_back(e, p->checked);
}

static void place_pending_leave(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    emit_here(e, p->from[0]);
    emit_mov_imm32(e, T1, p->target);
    emit_mov_imm32(e, T0, p->link ? (uint32_t)(p->from[0] - xb->t->rw) : 0);
    emit_jmp_rx(e, xb->t->thunk.leave_to);
}

/* Try to bring the vector registers in; if that is not allowed now, the handler raises what is to be raised. */
static void place_pending_vec(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    emit_here(e, p->from[0]);
    emit_call_rx(e, xb->t->thunk.vec_enter[p->flags_host]);
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(vec_ok) + 8u * p->x->v.need, 0);
    EMIT(e, 0xe3, 5);
    emit_jmp_back(e, p->op);
    place_call_insn(xb, p);
    emit_mov_imm32(e, T0, p->x->off);
    emit_jmp_rx(e, xb->t->thunk.callout_end[p->flags_host]);
}

static void place_pending_callout(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    if (p->from[0])
        emit_here(e, p->from[0]);
    else
        place_site(xb, p->op, p->op + 1);
    place_call_insn(xb, p);
    emit_mov_imm32(e, T0, p->x->off);
    emit_jmp_rx(e, xb->t->thunk.callout_end[p->flags_host]);
}

void place_emit_pending(struct xblock *xb)
{
    struct emit *e = &xb->e;
    place_island(xb, false);
    for (unsigned n = 0; n < xb->npending && !e->overflow; n++) {
        const struct pending *p = &xb->pending[n];
        switch (p->kind) {
        case PEND_MISS: place_pending_miss(xb, p); break;
        case PEND_LEAVE: place_pending_leave(xb, p); break;
        case PEND_LEAVE_AT:
            emit_here(e, p->from[0]);
            emit_jmp_rx(e, xb->t->thunk.leave_at);
            break;
        case PEND_VEC: place_pending_vec(xb, p); break;
        default: place_pending_callout(xb, p); break;
        }
    }
}
