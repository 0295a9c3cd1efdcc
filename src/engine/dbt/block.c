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

static bool block_branches(const struct xinsn *x)
{
    return x->i->flags & INSN_END && x->kind != X_STRING && (x->i->fn == op_ud || !block_goes_on(x->i));
}

/* --- the way that is taken more often --- */

#define TRACE_BLOCKS 4 /* what may follow each other in one translation; more makes cold code longer than hot code faster */

#define TRACE_LOOP   40 /* instructions of a loop that is repeated */

static const struct block *trace_at(const struct xblock *xb, const struct block *b, int64_t off)
{
    return x_linkable(xb, off) ? cache_peek(xb->t->it, b->page, (unsigned)off) : NULL;
}

/* Of the two ways that a conditional branch may go. */
static bool trace_taken(const struct block *fall, const struct block *taken)
{
    if (!fall || !taken)
        return taken != NULL;
    return !fall->host && fall->count < taken->count / 2;
}

/* The end of a loop that begins where the translation does: another round of it, so that rounds share the checks of groups. Attention
 * is looked at after the last one, and at the end of other loops. */
static const struct block *trace_again(struct xblock *xb, struct xinsn *x, int64_t target)
{
    unsigned body = xb->round ? xb->round : xb->n;
    if (target != xb->x[0].off || body > TRACE_LOOP / 2 || xb->n + body > TRACE_LOOP)
        return NULL;
    xb->round = body;
    x->through = THROUGH_TAKEN;
    return xb->first;
}

/* The block that control goes on in behind x, the last instruction of b, as far as one translation may hold both. */
static const struct block *trace_next(struct xblock *xb, const struct block *b, struct xinsn *x)
{
    int64_t end = x->off + x->i->len, target = end + (int32_t)x->i->imm;
    if (!block_branches(x)) {
        x->through = THROUGH_FALL;
        return trace_at(xb, b, end);
    }
    switch (x->kind) {
    case X_JMP: case X_CALL_REL:
        x->through = THROUGH_TAKEN;
        return x->kind == X_JMP && target < end ? NULL : trace_at(xb, b, target);
    case X_JCC:
        if (!x_linkable(xb, target) || !x_linkable(xb, end))
            return NULL;
        if (target < end)
            return trace_again(xb, x, target);
        const struct block *fall = trace_at(xb, b, end), *taken = trace_at(xb, b, target);
        x->through = trace_taken(fall, taken) ? THROUGH_TAKEN : THROUGH_FALL;
        return x->through == THROUGH_TAKEN ? taken : fall;
    default:
        return NULL;
    }
}

static bool trace_has(const struct xblock *xb, unsigned off)
{
    for (unsigned n = 0; n < xb->n; n++)
        if (xb->x[n].off == off)
            return true;
    return false;
}

/* Classify b, and up to max - 1 blocks that follow. False: b cannot be. */
static bool trace_collect(struct xblock *xb, const struct block *b, unsigned max)
{
    const uint8_t *page = xb->page;
    xb->n = xb->round = 0;
    xb->first = b;
    if (!x_classify(xb, b, b->cross ? cross_bytes(b) : page + b->off, b->off))
        return false;
    for (unsigned k = 1; (k < max || (max > 1 && xb->round)) && !b->cross; k++) {
        struct xinsn *last = &xb->x[xb->n - 1];
        const struct block *next = trace_next(xb, b, last);
        if (!next || xb->n + next->n > XBLOCK_MAX || (!xb->round && trace_has(xb, next->off)) || !x_classify(xb, next, page + next->off, next->off)) {
            last->through = THROUGH_NOT;
            break;
        }
        b = next;
    }
    xb->x[xb->n - 1].through = THROUGH_NOT;
    return true;
}

/* --- emission --- */

static void block_body(struct xblock *xb)
{
    const struct xinsn *last = &xb->x[xb->n - 1];
    for (const struct xinsn *x = xb->x; x < last && !xb->e.overflow; x++) {
        emit_room(&xb->e);
        if (x->through != THROUGH_NOT && block_branches(x))
            x_emit_through(xb, x);
        else
            x_emit(xb, x);
    }
    emit_room(&xb->e);
    if (xb->e.overflow)
        return;
    /* Behind an STI, no interrupt may come before the next instruction: it goes there directly, or its handler does it all. */
    unsigned next = last->off + last->i->len;
    if (block_branches(last) || (last->kind == X_STI && !x_linkable(xb, next))) {
        x_emit_end(xb, last);
    } else {
        x_emit(xb, last);
        x_emit_fall(xb, next);
        xb->pending[xb->npending - 1].sti = last->kind == X_STI;
    }
    xb->hot_end = xb->e.p;
    xb->e.p = xb->t->rw + xb->t->cold;
    xb->e.end = xb->t->rw + DBT_CODE;
    x_emit_handler(xb, last);
    place_emit_pending(xb);
}

static void block_begin(struct xblock *xb, struct dbt *t, struct cpu *cpu, const struct block *b)
{
    xb->code_page = b->page;
    xb->word = b->page->code_size;
    xb->npending = xb->nmiss = xb->nshort = xb->nlinks = 0;
    xb->flags_host = true;
    xb->flags_mem = false;
    xb->vec_ok = 0;
    xb->x87_page = false;
    xb->t = t;
    xb->cpu = cpu;
    xb->e = (struct emit){ .t = t, .p = t->rw + ALIGN_UP(t->used, 16), .end = t->rw + DBT_HOT };
}

/* Where it begins, or NULL. */
static uint8_t *block_emit(struct xblock *xb, unsigned off)
{
    uint32_t sites = xb->t->nsites, fars = xb->t->nfars;
    uint8_t *first = xb->e.p;
    group_find(xb);
    place_stones(xb, xb->naccesses + 1);
    block_prologue(xb, off);
    uint8_t *start = xb->e.p;
    block_body(xb);
    xb->start = first;
    xb->entry = start;
    if (!xb->e.overflow)
        return start;
    xb->t->nsites = sites;
    xb->t->nfars = fars;
    return NULL;
}

static void block_count(const struct xblock *xb)
{
    struct engine_stats *stats = xb->t->stats;
    stats->blocks++;
    stats->block_insns += xb->n;
    stats->block_bytes += xblock_bytes(xb);
    for (unsigned n = 0; n < xb->n; n++)
        stats->block_inline += xb->x[n].kind != X_CALL;
}

const uint8_t *dbt_translate(struct dbt *t, struct cpu *cpu, const struct block *b, bool plain)
{
    struct xblock *xb = t->work;
    uint8_t *start = NULL;
    dbt_code_ahead(t);
    xb->page = ram_borrow(cpu->ram, b->page->gpa, PAGE_SIZE);
    for (unsigned max = plain ? 1 : TRACE_BLOCKS; xb->page && max && !start; max = max == 1 ? 0 : 1) { /* too much for one? */
        block_begin(xb, t, cpu, b);
        xb->plain = plain || b->cross;
        if (!trace_collect(xb, b, max))
            return NULL;
        start = block_emit(xb, b->off);
    }
    if (!start)
        return NULL;
    block_count(xb);
    if (unlikely(t->trace))
        dbt_trace_block(t, cpu, b);
    t->used = (uint32_t)(xb->hot_end - t->rw);
    t->cold = (uint32_t)(xb->e.p - t->rw);
    return emit_rx(&xb->e, start);
}

/* --- what is translated along --- */

#define ALONG_MAX   8  /* blocks */
#define ALONG_LINKS 32 /* branches to link */

struct along {
    unsigned n;
    struct {
        struct block *to;
        uint32_t site;
    } link[ALONG_LINKS];
};

/* Of the branches of what was translated last, those to blocks that have code, or have run nearly often enough. */
static void along_links(struct along *a, const struct dbt *t, const struct code_page *page)
{
    const struct xblock *xb = t->work;
    for (unsigned n = 0; n < xb->nlinks && a->n < ALONG_LINKS; n++) {
        struct block *to = cache_peek(t->it, page, xb->link[n].target);
        if (!to || to->cross || (!to->host && (to->count == DBT_NEVER || to->count < (t->threshold + 1) / 2)))
            continue;
        a->link[a->n].to = to;
        a->link[a->n++].site = xb->link[n].site;
    }
}

void dbt_translate_along(struct dbt *t, struct cpu *cpu, const struct block *b)
{
    struct along a = { .n = 0 };
    unsigned made = 0;
    along_links(&a, t, b->page);
    for (unsigned n = 0; n < a.n; n++) {
        struct block *to = a.link[n].to;
        if (!to->host && made < ALONG_MAX && dbt_code_room(t)) {
            made++;
            to->host = dbt_translate(t, cpu, to, false);
            to->count = to->host ? to->count : DBT_NEVER;
            if (to->host)
                along_links(&a, t, b->page);
        }
        if (to->host)
            dbt_code_link(t, a.link[n].site, to->host);
    }
}

size_t dbt_work_size(void) { return sizeof(struct xblock); }
