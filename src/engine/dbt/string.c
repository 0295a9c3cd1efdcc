/* Inline, where it is easy: REP MOVS and STOS, bit strings in memory, CMPXCHG16B.
 *
 * A repeated string instruction runs as the host's own if it goes forward and each of its operands stays in one page: then nothing can
 * interrupt it, and it faults at its first element or not at all. Everything else about it is the handler's. None of it
 * touches the guest's flags. */
#include "engine/dbt/place.h"

/* --- REP MOVS, REP STOS --- */

uint8_t x_classify_string(struct xinsn *x, const struct decoded *d)
{
    const struct insn *i = x->i;
    bool far = i->seg >= SEG_FS && d->z.opcode < 0xaa;
    if (d->z.meta.category != ZYDIS_CATEGORY_STRINGOP || !(i->flags & INSN_REP) || i->flags & INSN_REPNE || i->asz != 8 || far)
        return X_CALL;
    x->op = d->z.opcode | (i->osz == 8 ? OP_W : i->osz == 2 ? OP_66 : 0);
    return X_STRING;
}

static bool string_moves(const struct xinsn *x) { return (x->op & 0xff) < 0xaa; }

/* to += bytes from the page's beginning to the end of the operand at guest register reg (RSI, RDI). */
static void string_reach(struct xblock *xb, const struct xinsn *x, unsigned reg, unsigned to)
{
    place_pext(&xb->e, to, reg, DATA_OFF(mask_offset));
    emit_rsib(&xb->e, OP_W | 0x8d, to, to, place_of(RCX), place_log2(x->i->osz), -1);
    place_pext(&xb->e, to, to, DATA_OFF(mask_beyond));
}

/* Backward, more than 4,096 elements, or past the end of a page: the handler. */
static void string_check(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    emit_cpu(e, 0x8b, T0, CPU_OFF(rflags));
    place_pext(e, T0, T0, DATA_OFF(mask_df));
    emit_rm(e, OP_W | 0x8d, T2, place_of(RCX), -1);
    place_pext(e, T2, T2, DATA_OFF(mask_beyond));
    emit_rsib(e, OP_W | 0x8d, T0, T0, T2, 0, 0);
    place_unless(xb, x);
    string_reach(xb, x, RDI, T0);
    if (string_moves(x)) {
        string_reach(xb, x, RSI, T2);
        emit_rsib(e, OP_W | 0x8d, T0, T0, T2, 0, 0);
    }
    place_unless(xb, x);
}

/* T2 = the host's address of the operand at reg. A byte of it is read, so that what faults (an address that is not canonical) does so
 * before anything has changed. */
static void string_operand(struct xblock *xb, const struct xinsn *x, unsigned reg, unsigned ways)
{
    struct xmem m;
    struct pending *p = place_access(xb, x, reg, 1, ways, &m);
    p->leaves = true; /* its handler does it all, or is not done yet */
    place_host(xb, &m, T2);
    emit_rm(&xb->e, 0x8a, T0, T2, 0);
    place_done(xb, p);
}

/* Guest register reg += the bytes that were done. */
static void string_advance(struct xblock *xb, const struct xinsn *x, unsigned reg, unsigned old)
{
    emit_rsib(&xb->e, OP_W | 0x8d, reg, old, place_of(RCX), place_log2(x->i->osz), 0);
}

static void string_run(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    bool moves = string_moves(x);
    emit_rr(e, OP_W | 0x89, RDI, T1);
    emit_rr(e, OP_W | 0x89, T2, RDI);
    if (moves) {
        emit_rm(e, OP_W | 0x89, RSI, RSP, FRAME_RIP);
        emit_rm(e, OP_W | 0x8b, RSI, RSP, FRAME_TARGET);
    }
    emit_rr(e, OP_W | 0x89, place_of(RCX), RCX);
    if (x->op & OP_66)
        emit_byte(e, 0x66);
    emit_byte(e, 0xf3);
    if (x->op & OP_W)
        emit_byte(e, 0x48);
    emit_byte(e, x->op & 0xff);
    string_advance(xb, x, RDI, T1);
    if (moves) {
        emit_rm(e, OP_W | 0x8b, RSI, RSP, FRAME_RIP);
        string_advance(xb, x, RSI, RSI);
    }
    emit_mov_imm32(e, place_of(RCX), 0);
}

void x_string(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    place_island(xb, true);
    emit_rr(e, OP_W | 0x89, place_of(RCX), RCX);
    EMIT(e, 0xe3, 2, 0xeb, 5); /* jrcxz over the jmp over the jmp: nothing to do */
    uint8_t *none = emit_jmp(e);
    string_check(xb, x);
    if (string_moves(x)) {
        string_operand(xb, x, RSI, MEM_READ);
        emit_rm(e, OP_W | 0x89, T2, RSP, FRAME_TARGET);
    }
    string_operand(xb, x, RDI, MEM_WRITE);
    string_run(xb, x);
    place_island(xb, true);
    emit_here(e, none);
}

/* --- BT, BTS, BTR, BTC with a bit string in memory --- */

/* dst = src >> count, signed: no flags. */
static void bit_sarx(struct emit *e, unsigned dst, unsigned src, unsigned count)
{
    EMIT(e, 0xc4, (~dst >> 3 & 1) << 7 | 0x42 | (~src >> 3 & 1) << 5, 0x80 | (~count & 15) << 3 | 2, 0xf7,
         0xc0 | (dst & 7) << 3 | (src & 7));
}

void x_bit(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    unsigned log = x->i->osz == 8 ? 6 : 5;
    place_linear_at(xb, x, 0);
    unsigned bit = place_get(xb, x->reg, T2);
    if (log == 5) {
        emit_rr(e, OP_W | 0x63, T2, bit); /* movsxd */
        bit = T2;
    }
    emit_mov_imm32(e, T0, log);
    bit_sarx(e, T2, bit, T0);
    emit_rsib(e, OP_W | 0x8d, T1, T1, T2, log - 3, 0);
    struct pending *p = place_access(xb, x, T1, x->size, x->mem, &m);
    x_flags_before(xb, x);
    place_pext(e, T2, place_get(xb, x->reg, T2), DATA_OFF(mask_low) + 8 * log);
    if (x->mem == MEM_READ) {
        uint32_t wide = x->op & OP_W;
        place_emit(xb, wide | 0x8b, T0, &m);
        emit_rr(e, wide | 0x0fa3, T2, T0);
    } else {
        if (x->lock)
            emit_byte(e, 0xf0);
        place_emit(xb, x->op, T2, &m);
    }
    x_flags_after(xb, x);
    place_done(xb, p);
}

/* --- CMPXCHG16B --- */

void x_cmpxchg16(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    struct pending *p = place_mem(xb, x, &m);
    x_flags_before(xb, x);
    place_host(xb, &m, T2);
    emit_rr(e, OP_W | 0x89, place_of(RCX), RCX);
    emit_byte(e, 0xf0);
    place_emit(xb, x->op, 1, &m);
    x_flags_after(xb, x);
    place_done(xb, p);
}
