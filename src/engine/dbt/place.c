/* Flags, addresses and memory accesses of translated code (see place.h for where things are). */
#include "engine/dbt/place.h"

#include <string.h>

/* --- flags --- */

#define FLAGS_ALL ((uint16_t)FL_ARITH)

void flags_save(struct xblock *xb)
{
    struct emit *e = &xb->e;
    if (xb->flags_mem)
        return;
    EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    emit_rm(e, OP_66 | 0x89, RAX, RSP, FRAME_FLAGS);
    xb->flags_mem = true;
}

void flags_load(struct xblock *xb)
{
    struct emit *e = &xb->e;
    if (xb->flags_host)
        return;
    emit_rm(e, 0x0fb7, RAX, RSP, FRAME_FLAGS);
    EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
    xb->flags_host = true;
}

/* What may fault or leave shows all flags. */
static bool flags_exposed(const struct xinsn *x)
{
    switch (x->kind) {
    case X_NOTHING: case X_MOV_IMM: case X_LEA: case X_EXTEND: case X_BSWAP: return false;
    case X_GENERIC: case X_MUL: case X_CMPXCHG: return x->mem != MEM_NONE;
    case X_VEC: return x->mem != MEM_NONE || x->v.need || x->v.mxcsr; /* may go to its handler */
    default: return true;
    }
}

void flags_liveness(struct xblock *xb)
{
    uint16_t live = FLAGS_ALL;
    for (unsigned n = xb->n; n-- > 0;) {
        struct xinsn *x = &xb->x[n];
        x->live = live;
        live = flags_exposed(x) ? FLAGS_ALL : (uint16_t)((live & ~x->kill) | x->use);
    }
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
        emit_data(e, OP_W | 0x8b, R15, DATA_OFF(page), 0);
        base = R15;
        disp += x->off + i->len;
    } else if (i->base != R_ZERO) {
        base = place_get(xb, i->base, R15);
    }
    if (i->index != R_ZERO)
        index = place_get(xb, i->index, R14);
    if (disp != (int32_t)disp) {
        /* Only MOV with a 64-bit address, or RIP plus nearly 2 GiB. */
        emit_mov_imm64(e, R14, (uint64_t)disp);
        if (base == NO_REG)
            emit_rr(e, OP_W | 0x89, R14, dst);
        else
            emit_rsib(e, lea, dst, base, R14, 0, 0);
        return;
    }
    emit_rsib(e, lea, dst, base, index, i->scale, (int32_t)disp);
}

void place_linear(struct xblock *xb, const struct xinsn *x)
{
    place_ea(xb, x, R15, true);
    if (x->i->seg >= SEG_FS)
        emit_cpu(&xb->e, OP_W | 0x03, R15, CPU_OFF(lin_base) + 8u * x->i->seg);
}

uint8_t *place_tlb(struct xblock *xb, unsigned size, bool write)
{
    struct emit *e = &xb->e;
    xb->flags_host = false;
    if (size == 1)
        emit_rr(e, OP_W | 0x89, R15, RAX);
    else
        emit_rm(e, OP_W | 0x8d, RAX, R15, (int32_t)size - 1);
    EMIT(e, 0x48, 0x25, 0x00, 0xf0, 0xff, 0xff); /* and rax, -4096 */
    emit_rr(e, 0x89, R15, R14);
    EMIT(e, 0x41, 0xc1, 0xee, 12 - 5); /* shr r14d: the entry's offset */
    EMIT(e, 0x41, 0x81, 0xe6);         /* and r14d */
    emit_u32(e, (TLB_SIZE - 1) * (uint32_t)sizeof(struct tlb_entry));
    emit_rm(e, OP_W | 0x03, R14, RSP, FRAME_TLB);
    emit_rm(e, OP_W | 0x3b, RAX, R14, write ? offsetof(struct tlb_entry, wr) : offsetof(struct tlb_entry, rd));
    uint8_t *miss = emit_jcc(e, 5);
    emit_rm(e, OP_W | 0x03, R15, R14, offsetof(struct tlb_entry, addend));
    return miss;
}
_Static_assert(sizeof(struct tlb_entry) == 32, "the shift above");

static struct pending *place_pend(struct xblock *xb, uint8_t *from, enum pending_kind kind)
{
    static const unsigned last = PENDING_MAX - 1;
    struct pending *p = &xb->pending[xb->npending];
    if (xb->npending < last)
        xb->npending++;
    else
        xb->e.overflow = true;
    *p = (struct pending){ .kind = (uint8_t)kind, .from = from, .vec = xb->vec };
    return p;
}

void place_read(struct xblock *xb, const struct xinsn *x, unsigned seg, unsigned size)
{
    uint8_t *miss = place_tlb(xb, size, false);
    struct pending *p = place_pend(xb, miss, PEND_READ);
    p->op = xb->e.p;
    p->access = DBT_ACCESS(x->off, x->i->len, seg, size, 0);
}

struct pending *place_write(struct xblock *xb, const struct xinsn *x, unsigned seg, unsigned size, bool rmw)
{
    uint8_t *miss = place_tlb(xb, size, true);
    struct pending *p = place_pend(xb, miss, PEND_STORE);
    p->op = xb->e.p;
    p->rmw = rmw;
    p->access = DBT_ACCESS(x->off, x->i->len, seg, size, x->lock);
    return p;
}

void place_pend_callout(struct xblock *xb, uint8_t *from, const struct xinsn *x, bool fp)
{
    struct pending *p = place_pend(xb, from, fp ? PEND_FP : PEND_CALLOUT);
    p->x = x;
    p->op = xb->e.p;
}

void place_store_done(struct xblock *xb, struct pending *p)
{
    p->end = xb->e.p;
    p->save_flags = !xb->flags_mem;
    p->load_flags = xb->flags_host;
    p->vec_end = xb->vec;
}

/* --- behind the body --- */

static void place_pending_store(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    vec_store_dirty(xb, &p->vec);
    emit_mov_imm32(e, RAX, p->access);
    emit_call_rx(e, xb->t->thunk.open[p->rmw ? DBT_OPEN_RMW : DBT_OPEN_W]);
    vec_load_again(xb, &p->vec);
    emit_bytes(e, p->op, (unsigned)(p->end - p->op));
    vec_store_dirty(xb, &p->vec_end);
    xb->flags_mem = !p->save_flags;
    flags_save(xb);
    emit_call_rx(e, xb->t->thunk.commit);
    emit_data(e, 0x80, 7, DATA_OFF(stale), 1);
    emit_byte(e, 0);
    uint8_t *stale = emit_jcc(e, 5);
    emit_to(e, stale, xb->t->rw + (xb->t->thunk.leave - xb->t->rx));
    vec_load_again(xb, &p->vec_end);
    xb->flags_host = !p->load_flags;
    flags_load(xb);
    emit_jmp_back(e, p->end);
}

static void place_pending_leave(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    vec_store_dirty(xb, &p->vec);
    emit_mov_imm32(e, R14, p->target);
    emit_mov_imm32(e, RAX, p->link ? (uint32_t)(p->from - xb->t->rw) : 0);
    emit_jmp_rx(e, xb->t->thunk.leave_to);
}

static void place_pending_callout(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    if (p->kind == PEND_FP) {
        emit_call_rx(e, xb->t->thunk.fp_enter);
        uint8_t *on = emit_jcc(e, 4);
        emit_to(e, on, p->op);
    }
    vec_store_dirty(xb, &p->vec);
    emit_mov_imm64(e, R14, (uintptr_t)p->x->i);
    emit_mov_imm32(e, RAX, p->x->off);
    emit_jmp_rx(e, xb->t->thunk.callout_end);
}

void place_emit_pending(struct xblock *xb)
{
    struct emit *e = &xb->e;
    for (unsigned n = 0; n < xb->npending && !e->overflow; n++) {
        const struct pending *p = &xb->pending[n];
        emit_here(e, p->from);
        if (p->kind == PEND_STORE) {
            place_pending_store(xb, p);
        } else if (p->kind == PEND_CALLOUT || p->kind == PEND_FP) {
            place_pending_callout(xb, p);
        } else if (p->kind == PEND_LEAVE) {
            place_pending_leave(xb, p);
        } else {
            vec_store_dirty(xb, &p->vec);
            emit_mov_imm32(e, RAX, p->access);
            emit_call_rx(e, xb->t->thunk.open[DBT_OPEN_R]);
            vec_load_again(xb, &p->vec);
            emit_jmp_back(e, p->op);
        }
    }
}
