/* Translating one block: classify, find out which flags are needed, emit. */
#include <string.h>

#include "engine/dbt/place.h"
#include "ram/ram.h"

/* These end blocks of the interpreter, which reads its mode between blocks only; here the frame is renewed
 * after each call, and they cannot make anything due that the loop would have to look at. */
static bool block_goes_on(const struct insn *i)
{
    return i->op == ZYDIS_MNEMONIC_STAC || i->op == ZYDIS_MNEMONIC_CLAC || i->op == ZYDIS_MNEMONIC_CLI;
}

static void block_insns(struct xblock *xb, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        x_emit(xb, &xb->x[n]);
}

static void block_loop(struct xblock *xb, const struct xinsn *last)
{
    x_emit_turn(xb, last, NULL);
    struct xturn turn = { .start = xb->e.p, .vec = xb->vec, .fp_on = xb->fp_on, .vec_ok = xb->vec_ok };
    block_insns(xb, xb->n - 1);
    x_emit_turn(xb, last, &turn);
}

static void block_body(struct xblock *xb, const struct block *b, unsigned off)
{
    const struct xinsn *last = &xb->x[xb->n - 1];
    bool ends = bind_ends_block(xb->t->it, last->i) && (last->i->fn == op_ud || !block_goes_on(last->i));
    block_insns(xb, xb->n - ends);
    if (ends && x_is_loop(xb, last))
        block_loop(xb, last);
    else if (ends)
        x_emit_end(xb, last);
    else
        x_emit_fall(xb, off + b->len);
    place_emit_pending(xb);
}

const uint8_t *dbt_translate(struct dbt *t, struct cpu *cpu, const struct block *b, uint64_t gpa, unsigned off)
{
    const uint8_t *code = ram_borrow(cpu->ram, gpa + off, b->len);
    struct xblock *xb = t->work;
    xb->npending = xb->nmiss = 0;
    xb->flags_host = false;
    xb->flags_mem = true;
    xb->fp_on = false;
    xb->vec_ok = 0;
    memset(&xb->vec, 0, sizeof(xb->vec));
    xb->t = t;
    xb->cpu = cpu;
    xb->e = (struct emit){ .t = t, .p = t->rw + ALIGN_UP(t->used, 16), .end = t->rw + DBT_CODE };
    uint8_t *start = xb->e.p;
    if (!code || !x_classify(xb, b, code, off))
        return NULL;
    flags_liveness(xb);
    block_body(xb, b, off);
    if (xb->e.overflow)
        return NULL;
    t->used = (uint32_t)(xb->e.p - t->rw);
    t->stat_blocks++;
    t->stat_insns += xb->n;
    for (unsigned n = 0; n < xb->n; n++)
        t->stat_inline += xb->x[n].kind != X_CALL;
    return emit_rx(&xb->e, start);
}

size_t dbt_work_size(void) { return sizeof(struct xblock); }
