/* Translating one block: classify, emit. */
#include <string.h>

#include "engine/dbt/place.h"
#include "ram/ram.h"

/* These end blocks of the interpreter, which reads its mode between blocks only; here the frame is renewed
 * after each call, and they cannot make anything due that the loop would have to look at. */
static bool block_goes_on(const struct insn *i)
{
    return i->op == ZYDIS_MNEMONIC_STAC || i->op == ZYDIS_MNEMONIC_CLAC || i->op == ZYDIS_MNEMONIC_CLI ||
           i->op == ZYDIS_MNEMONIC_STI || i->op == ZYDIS_MNEMONIC_SWAPGS;
}

/* The entry for branches from elsewhere: T1 is the linear address of the first instruction. */
static void block_prologue(struct xblock *xb, unsigned off)
{
    struct emit *e = &xb->e;
    EMIT(e, 0x4d, 0x8d, 0xbf); /* lea r15, [r15 - off] */
    emit_u32(e, 0 - off);
    emit_data(e, OP_W | 0x89, T1, DATA_OFF(page), 0);
}

static void block_body(struct xblock *xb, const struct block *b, unsigned off)
{
    const struct xinsn *last = &xb->x[xb->n - 1];
    bool ends = bind_ends_block(xb->t->it, last->i) && (last->i->fn == op_ud || !block_goes_on(last->i));
    for (unsigned n = 0; n < xb->n - ends; n++)
        x_emit(xb, &xb->x[n]);
    if (ends)
        x_emit_end(xb, last);
    else
        x_emit_fall(xb, off + b->len);
    place_emit_pending(xb);
}

static void block_begin(struct xblock *xb, struct dbt *t, struct cpu *cpu)
{
    xb->npending = xb->nmiss = xb->nshort = 0;
    xb->flags_host = true;
    xb->flags_mem = false;
    xb->vec_ok = 0;
    xb->t = t;
    xb->cpu = cpu;
    xb->e = (struct emit){ .t = t, .p = t->rw + ALIGN_UP(t->used, 16), .end = t->rw + DBT_CODE };
}

const uint8_t *dbt_translate(struct dbt *t, struct cpu *cpu, const struct block *b, uint64_t gpa, unsigned off)
{
    const uint8_t *code = ram_borrow(cpu->ram, gpa + off, b->len);
    struct xblock *xb = t->work;
    uint32_t sites = t->nsites;
    block_begin(xb, t, cpu);
    if (!code || !x_classify(xb, b, code, off))
        return NULL;
    block_prologue(xb, off);
    uint8_t *start = xb->e.p;
    block_body(xb, b, off);
    if (xb->e.overflow) {
        t->nsites = sites;
        return NULL;
    }
    t->used = (uint32_t)(xb->e.p - t->rw);
    t->stats->blocks++;
    t->stats->block_insns += xb->n;
    t->stats->block_bytes += (size_t)(xb->e.p - start);
    for (unsigned n = 0; n < xb->n; n++)
        t->stats->block_inline += xb->x[n].kind != X_CALL;
    if (unlikely(t->trace))
        dbt_trace_block(t, cpu, b, code, start);
    return emit_rx(&xb->e, start);
}

size_t dbt_work_size(void) { return sizeof(struct xblock); }
