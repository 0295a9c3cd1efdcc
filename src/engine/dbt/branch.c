/* Ends of blocks. Inside a guest page blocks are linked directly, once the target has code; a branch out of it likewise, but for one
 * page and epoch only; calls note where they return to. Indirect branches, and what has no such answer, look their linear target up in
 * the table of the current address space (flat.h). Whatever is not found there is done by the instruction's handler, which also raises
 * what is to be raised; control then goes back to the interpreter's loop. So nothing is committed before the lookup (but for a call's
 * push, which its handler then does again).
 *
 * Requests from outside (cpu->attention) are seen at backward branches inside the page, and at every other one, since then nothing is
 * found anywhere. */
#include <string.h>

#include "engine/dbt/place.h"
#include "ram/ram.h"

/* Where a miss goes that the handler does. */
uint8_t **branch_miss(struct xblock *xb)
{
    if (xb->nmiss == MISS_MAX) {
        xb->e.overflow = true;
        xb->nmiss--;
    }
    return &xb->miss[xb->nmiss++];
}

/* To *from if somebody wants this vCPU's attention. */
static void branch_attention(struct xblock *xb, uint8_t **from)
{
    emit_data(&xb->e, OP_W | 0x8b, T0, DATA_OFF(calm), 0);
    place_jrcxz(xb, from);
}

static struct pending *branch_pend_leave(struct xblock *xb, unsigned target, bool link)
{
    struct pending *p = place_pend(xb, PEND_LEAVE, NULL);
    p->target = (uint16_t)target;
    p->link = link;
    return p;
}

/* T1: linear target. T0 becomes 0 if it is the one that T2 + off points at. */
static void branch_compare(struct emit *e, int32_t off)
{
    emit_rm(e, OP_W | 0x8b, T0, T2, off + (int32_t)offsetof(struct flat_jump, neg));
    emit_rsib(e, OP_W | 0x8d, T0, T0, T1, 0, 0);
}

/* T1: linear target. T2 becomes the first place where it may be in the table whose address is in that word, and T0 0 if it is there. */
static void branch_first(struct emit *e, uint32_t table)
{
    place_slot_of(e, T2, T1);
    emit_data(e, OP_W | 0x8b, T0, table, 0);
    emit_rsib(e, OP_W | 0x8d, T2, T0, T2, 3, 0);
    branch_compare(e, 0);
}

/* Then T2 becomes the second one; returns the branch that is taken if it is not there either. */
static uint8_t *branch_second(struct emit *e)
{
    const int32_t next = sizeof(struct flat_jump);
    branch_compare(e, next);
    emit_rm(e, OP_W | 0x8d, T2, T2, next);
    EMIT(e, 0xe3, 5); /* jrcxz over the jmp */
    return emit_jmp(e);
}

void x_lookup(struct xblock *xb, const struct xinsn *x, uint32_t table)
{
    struct pending *p = place_pend(xb, PEND_SECOND, x);
    branch_first(&xb->e, table);
    place_jrcxnz(xb, &p->from[0]);
    p->op = xb->e.p;
}

void x_pending_second(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    emit_here(e, p->from[0]);
    uint8_t *miss = branch_second(e);
    emit_jmp_back(e, p->op);
    emit_here(e, miss);
}

void x_keep_target(struct emit *e)
{
    emit_rm(e, OP_W | 0x8b, T0, T2, offsetof(struct flat_jump, host));
    emit_rm(e, OP_W | 0x89, T0, RSP, FRAME_TARGET);
}

static void branch_lookup(struct xblock *xb, const struct xinsn *x) { x_lookup(xb, x, DATA_OFF(jumps)); }

/* The same where it seldom runs; returns the branch that is taken if there is none. */
static uint8_t *branch_lookup_here(struct emit *e)
{
    branch_first(e, DATA_OFF(jumps));
    EMIT(e, 0xe3, 0); /* jrcxz */
    uint8_t *found = e->p;
    uint8_t *miss = branch_second(e);
    if (!e->overflow)
        found[-1] = (uint8_t)(e->p - found);
    return miss;
}

/* To what was found. */
static void branch_jump(struct xblock *xb) { emit_rm(&xb->e, 0xff, 4, T2, offsetof(struct flat_jump, host)); }

/* dst = linear address of offset off from the page. */
static void branch_address(struct xblock *xb, unsigned dst, int64_t off)
{
    emit_data(&xb->e, OP_W | 0x8b, dst, DATA_OFF(page), 0);
    emit_rm(&xb->e, place_word(xb, 0x8d), dst, dst, (int32_t)off);
}

/* An instruction whose end is in the next page depends on what is mapped there. */
bool x_linkable(const struct xblock *xb, int64_t off)
{
    uint8_t bytes[24] = { 0 };
    struct insn_parts s;
    if (off < 0 || off >= (int64_t)PAGE_SIZE)
        return false;
    if (off <= (int64_t)PAGE_SIZE - 15)
        return true;
    const struct block *b = cache_peek(xb->t->it, xb->code_page, (unsigned)off);
    if (b || xb->word != 8)
        return b && !b->cross;
    memcpy(bytes, xb->page + off, PAGE_SIZE - (size_t)off);
    return insn_split(bytes, &s) && off + s.head + s.disp + s.imm <= (int64_t)PAGE_SIZE;
}

/* Go to offset target in another page, straight if this branch is linked for this page and epoch. call: it was pushed, or NULL. */
static void branch_far(struct xblock *xb, const struct xinsn *call, int64_t target)
{
    struct emit *e = &xb->e;
    struct dbt *t = xb->t;
    struct pending *p = place_pend(xb, PEND_FAR, call);
    uint32_t n = t->nfars;
    if (n == DBT_FARS) {
        e->overflow = true;
        return;
    }
    t->nfars++;
    emit_data(e, OP_W | 0x8b, T1, DATA_OFF(page), 0);
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(good), 0);
    emit_rsib(e, OP_W | 0x8d, T0, T0, T1, 0, 0);
    emit_data(e, OP_W | 0x8b, T2, FAR_OFF(n, sum), 0);
    emit_rsib(e, OP_W | 0x8d, T0, T0, T2, 0, 0);
    EMIT(e, 0x4d, 0x8d, 0xbf); /* lea r15, [r15 + target] */
    emit_u32(e, (uint32_t)target);
    place_jrcxnz(xb, &p->from[0]);
    p->far = n;
    p->site = emit_jmp(e);
    t->far_site[n] = (uint32_t)(p->site - t->rw);
}

void x_pending_far(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    unsigned sp = place_of(RSP);
    emit_here(e, p->from[0]);
    emit_here(e, p->site);
    EMIT(e, 0x4c, 0x8d, 0x35, 10, 0, 0, 0); /* lea r14, behind the next two */
    emit_mov_imm32(e, T0, 2 * p->far);
    emit_jmp_rx(e, xb->t->thunk.far);
    if (p->x)
        emit_rm(e, OP_W | 0x8d, sp, sp, 8); /* the handler pushes the same once more */
}

/* Behind a lookup whose entry T2 is: T2 = where the branch whose number is in the frame keeps its own; T0 = 0 if it is linked to the same code. */
static void branch_far_same(struct emit *e)
{
    emit_rm(e, OP_W | 0x8b, T0, RSP, FRAME_SAVE2);
    emit_rm(e, OP_W | 0x8b, T2, T2, offsetof(struct flat_jump, host));
    emit_rm(e, OP_W | 0x89, T2, RSP, FRAME_TARGET);
    emit_data(e, OP_W | 0x8d, T2, FAR_OFF(0, sum), 0);
    emit_rsib(e, OP_W | 0x8d, T2, T2, T0, 3, 0);
    emit_rm(e, OP_W | 0x89, T2, RSP, FRAME_RIP);
    emit_rm(e, OP_W | 0x8b, T0, T2, offsetof(struct dbt_far, neg));
    emit_rm(e, OP_W | 0x8b, T2, RSP, FRAME_TARGET);
    emit_rsib(e, OP_W | 0x8d, T0, T0, T2, 0, 0);
}

/* It goes on being good, for this page and epoch: no way through the loop. Not while somebody wants attention. */
static void branch_far_again(struct emit *e)
{
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(good), 0);
    EMIT(e, 0xe3, 0); /* jrcxz */
    uint8_t *from = e->p;
    emit_data(e, OP_W | 0x8b, T2, DATA_OFF(page), 0);
    emit_rsib(e, OP_W | 0x8d, T0, T0, T2, 0, 0);
    EMIT(e, 0x48, 0xf7, 0xd1); /* not rcx */
    emit_rm(e, OP_W | 0x8d, T0, T0, 1);
    emit_rm(e, OP_W | 0x8b, T2, RSP, FRAME_RIP);
    emit_rm(e, OP_W | 0x89, T0, T2, offsetof(struct dbt_far, sum));
    from[-1] = (uint8_t)(e->p - from);
    emit_rm(e, 0xff, 4, RSP, FRAME_TARGET);
}

const uint8_t *branch_thunk_far(struct emit *e, const uint8_t *leave_far)
{
    const uint8_t *at = emit_rx(e, e->p);
    emit_rm(e, OP_W | 0x89, T0, RSP, FRAME_SAVE2);
    emit_rm(e, OP_W | 0x89, T2, RSP, FRAME_SAVE);
    uint8_t *miss = branch_lookup_here(e);
    branch_far_same(e);
    EMIT(e, 0xe3, 5); /* jrcxz over the jmp */
    uint8_t *other = emit_jmp(e);
    branch_far_again(e);
    emit_here(e, other);
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(may_link), 0);
    EMIT(e, 0xe3, 0); /* jrcxz */
    uint8_t *from = e->p;
    emit_rm(e, OP_W | 0x8b, T0, RSP, FRAME_SAVE2);
    emit_rm(e, OP_W | 0x8d, T0, T0, DBT_SITE_FAR);
    emit_jmp_rx(e, leave_far);
    from[-1] = (uint8_t)(e->p - from);
    emit_rm(e, 0xff, 4, RSP, FRAME_TARGET);
    emit_here(e, miss);
    emit_rm(e, 0xff, 4, RSP, FRAME_SAVE);
    return at;
}

/* Go to offset target in another page. */
static void branch_elsewhere(struct xblock *xb, int64_t target)
{
    if (xb->word == 8) {
        branch_far(xb, NULL, target);
        return;
    }
    branch_address(xb, T1, target);
    branch_lookup(xb, NULL);
    branch_jump(xb);
}

/* Go to offset target, which may lie in another page; from: offset of the branch. */
static void branch_to(struct xblock *xb, unsigned from, int64_t target)
{
    struct emit *e = &xb->e;
    if (!x_linkable(xb, target)) {
        branch_elsewhere(xb, target);
        return;
    }
    if (target <= from)
        branch_attention(xb, &branch_pend_leave(xb, (unsigned)target, false)->from[0]);
    uint8_t **p = &branch_pend_leave(xb, (unsigned)target, true)->from[0];
    *p = emit_jmp(e);
}

static int64_t branch_target(const struct xinsn *x) { return (int64_t)x->off + x->i->len + (int32_t)x->i->imm; }

/* One of the two ways, forward and inside the page, is linked at the conditional branch itself. */
static void branch_jcc(struct xblock *xb, const struct xinsn *x)
{
    int64_t target = branch_target(x), end = x->off + x->i->len;
    bool taken = target > x->off && x_linkable(xb, target), fall = !taken && x_linkable(xb, end);
    uint8_t *rel = emit_jcc(&xb->e, x->i->cc ^ fall);
    if (taken || fall) {
        branch_pend_leave(xb, (unsigned)(taken ? target : end), true)->from[0] = rel;
        branch_to(xb, x->off, taken ? end : target);
        return;
    }
    branch_to(xb, x->off, end);
    place_island(xb, false);
    emit_here(&xb->e, rel);
    branch_to(xb, x->off, target);
}

/* JRCXZ: to its target if guest RCX is zero. */
static void branch_jrcxz(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    int64_t end = x->off + x->i->len;
    if (!x_linkable(xb, end)) {
        *branch_miss(xb) = emit_jmp(e);
        return;
    }
    emit_rr(e, OP_W | 0x89, place_of(RCX), T0);
    place_jrcxnz(xb, &branch_pend_leave(xb, (unsigned)end, true)->from[0]);
    branch_to(xb, x->off, branch_target(x));
}

/* Push the return address, or let the handler do it all. */
static void branch_push(struct xblock *xb, const struct xinsn *x)
{
    struct xmem m;
    unsigned sp = place_of(RSP);
    struct pending *p = place_stack(xb, x, RSP, -(int)xb->word, MEM_WRITE, &m);
    p->leaves = true;
    branch_address(xb, T2, x->off + x->i->len);
    place_emit(xb, place_word(xb, 0x89), T2, &m);
    emit_rm(&xb->e, place_word(xb, 0x8d), sp, sp, -(int)xb->word);
    place_done(xb, p);
}

/* Note where the host goes on when the call x returns, whose return address was pushed and is in T2: a call of the host's, so that it
 * predicts the return; its own return address is taken off the stack at once. Control comes back with T1 = the return address. */
static void branch_note(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    int64_t end = x->off + x->i->len;
    if (!x_linkable(xb, end) || xb->word != 8)
        return;
    place_return(e, T1, place_of(RSP));
    EMIT(e, 0x49, 0xf7, 0xd6); /* not r14 */
    emit_rsib(e, OP_W | 0x89, T2, TBASE, T1, 3, RETURN_OFF(neg));
    uint8_t *call = emit_call(e);
    emit_rm(e, OP_W | 0x8d, T1, T1, -(int32_t)end);
    emit_data(e, OP_W | 0x89, T1, DATA_OFF(page), 0);
    uint8_t **p = &branch_pend_leave(xb, (unsigned)end, true)->from[0];
    *p = emit_jmp(e);
    place_island(xb, false);
    emit_here(e, call);
    EMIT(e, 0x41, 0x5e); /* pop r14 */
    emit_rsib(e, OP_W | 0x89, T2, TBASE, T1, 3, RETURN_OFF(host));
}

/* Look T1 up, push, go there. */
static void branch_call_far(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    branch_lookup(xb, x);
    x_keep_target(e);
    emit_rm(e, OP_W | 0x89, T1, RSP, FRAME_RIP);
    branch_push(xb, x);
    branch_note(xb, x);
    emit_rm(e, OP_W | 0x8b, T1, RSP, FRAME_RIP);
    emit_rm(e, 0xff, 4, RSP, FRAME_TARGET);
}

static void branch_call_rel(struct xblock *xb, const struct xinsn *x)
{
    int64_t target = branch_target(x);
    bool far = !x_linkable(xb, target);
    if (far && xb->word != 8) {
        branch_address(xb, T1, target);
        branch_call_far(xb, x);
        return;
    }
    branch_push(xb, x);
    branch_note(xb, x);
    if (far)
        branch_far(xb, x, target);
    else
        branch_to(xb, x->off, target);
}

/* T1 = the target of an indirect branch. */
static void branch_operand(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    if (!x->mem) {
        unsigned h = place_get(xb, x->rm, T1);
        if (h != T1)
            emit_rr(e, place_word(xb, 0x89), h, T1);
        return;
    }
    struct xmem m;
    struct pending *p = place_mem(xb, x, &m);
    p->leaves = true;
    place_emit(xb, place_word(xb, 0x8b), T1, &m);
    place_done(xb, p);
    place_island(xb, true);
}

/* To what is at T2 + off, by a return of the host's, whose prediction counts on one for each call that was noted. */
static void branch_return(struct xblock *xb, int32_t off)
{
    emit_rm(&xb->e, 0xff, 6, T2, off); /* push */
    emit_byte(&xb->e, 0xc3);
}

static void branch_ret(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    unsigned sp = place_of(RSP);
    struct pending *p = place_stack(xb, x, RSP, 0, MEM_READ, &m);
    p->leaves = true;
    place_emit(xb, place_word(xb, 0x8b), T1, &m);
    place_done(xb, p);
    if (xb->word != 8) {
        branch_lookup(xb, x);
        emit_rm(e, place_word(xb, 0x8d), sp, sp, (int)xb->word + (uint16_t)x->i->imm);
        branch_jump(xb);
        return;
    }
    place_return(e, T2, sp);
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(returns), 0);
    emit_rsib(e, OP_W | 0x8d, T2, T0, T2, 3, 0);
    emit_rm(e, OP_W | 0x8b, T0, T2, offsetof(struct flat_returns, neg));
    emit_rsib(e, OP_W | 0x8d, T0, T0, T1, 0, 1);
    place_jrcxnz(xb, &place_pend(xb, PEND_RETURN, x)->from[0]);
    emit_rm(e, OP_W | 0x8d, sp, sp, 8 + (uint16_t)x->i->imm);
    branch_return(xb, offsetof(struct flat_returns, host));
}

void x_pending_return(struct xblock *xb, const struct pending *p)
{
    struct emit *e = &xb->e;
    unsigned sp = place_of(RSP);
    emit_here(e, p->from[0]);
    uint8_t *miss = branch_lookup_here(e);
    emit_rm(e, OP_W | 0x8d, sp, sp, 8 + (uint16_t)p->x->i->imm);
    branch_return(xb, offsetof(struct flat_jump, host));
    emit_here(e, miss);
}

void x_emit_handler(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    if (!xb->nmiss)
        return;
    for (unsigned n = 0; n < xb->nmiss; n++)
        emit_here(e, xb->miss[n]);
    place_insn(xb, x->i);
    emit_mov_imm32(e, T0, x->off);
    emit_jmp_rx(e, xb->t->thunk.callout_end[1]);
}

void x_emit_end(struct xblock *xb, const struct xinsn *x)
{
    place_island(xb, true); /* all its room for the branch */
    flags_load(xb);
    switch (x->kind) {
    case X_JMP: branch_to(xb, x->off, branch_target(x)); break;
    case X_JCC: branch_jcc(xb, x); break;
    case X_JRCXZ: branch_jrcxz(xb, x); break;
    case X_CALL_REL: branch_call_rel(xb, x); break;
    case X_CALL_IND:
        branch_operand(xb, x);
        branch_call_far(xb, x);
        break;
    case X_JMP_IND:
        branch_operand(xb, x);
        branch_lookup(xb, x);
        branch_jump(xb);
        break;
    case X_RET: branch_ret(xb, x); break;
    case X_SYSCALL: x_syscall(xb, x); break;
    case X_SYSRET: x_sysret(xb, x); break;
    default: *branch_miss(xb) = emit_jmp(&xb->e); break;
    }
    place_island(xb, false);
}

void x_emit_through(struct xblock *xb, const struct xinsn *x)
{
    int64_t target = branch_target(x), end = x->off + x->i->len;
    place_island_soon(xb);
    flags_load(xb);
    if (x->kind == X_CALL_REL) {
        branch_push(xb, x);
        branch_note(xb, x);
        if (target <= x->off)
            branch_attention(xb, &branch_pend_leave(xb, (unsigned)target, false)->from[0]);
    } else if (x->kind == X_JCC) {
        bool taken = x->through == THROUGH_TAKEN;
        uint8_t *other = emit_jcc(&xb->e, x->i->cc ^ taken);
        branch_pend_leave(xb, (unsigned)(taken ? end : target), true)->from[0] = other;
    }
    place_island_soon(xb);
}

/* The block ends without a branch: at the page's end, at its maximal length, or before something strange. */
void x_emit_fall(struct xblock *xb, unsigned next)
{
    flags_load(xb);
    branch_to(xb, 0, next);
    place_island(xb, false);
}
