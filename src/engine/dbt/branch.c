/* Ends of blocks. Inside a guest page blocks are linked directly, once the target has code; a branch out of it, and every
 * indirect one, looks its linear target up in a small table that is void as soon as linear mappings change. Whatever is
 * not found there is done by the instruction's handler, which also raises what is to be raised; control then
 * goes back to the interpreter's loop. So nothing is committed before the lookup.
 *
 * Requests from outside (cpu->attention) are seen at backward branches inside the page and at every lookup. */
#include <string.h>

#include "engine/dbt/place.h"
#include "ram/ram.h"

static void branch_miss(struct xblock *xb, uint8_t *rel)
{
    if (xb->nmiss < MISS_MAX)
        xb->miss[xb->nmiss++] = rel;
    else
        xb->e.overflow = true;
}

static uint8_t *branch_attention(struct xblock *xb)
{
    emit_cpu(&xb->e, 0x83, 7, CPU_OFF(attention));
    emit_byte(&xb->e, 0);
    return emit_jcc(&xb->e, 5);
}

static void branch_pend_leave(struct xblock *xb, uint8_t *from, unsigned target, bool link)
{
    if (xb->npending == PENDING_MAX) {
        xb->e.overflow = true;
        return;
    }
    xb->pending[xb->npending++] =
        (struct pending){ .kind = PEND_LEAVE, .from = from, .target = (uint16_t)target, .link = link, .vec = xb->vec };
}

/* RAX: linear target. R14 becomes its table entry, or the handler takes over. */
static void branch_lookup(struct xblock *xb)
{
    struct emit *e = &xb->e;
    emit_rr(e, 0x89, RAX, R14);
    EMIT(e, 0x41, 0xc1, 0xee, 12); /* shr r14d */
    emit_rr(e, 0x31, RAX, R14);
    EMIT(e, 0x41, 0x81, 0xe6); /* and r14d */
    emit_u32(e, DBT_JUMPS - 1);
    EMIT(e, 0x41, 0xc1, 0xe6, 5); /* shl r14d */
    emit_data(e, OP_W | 0x8d, R15, DATA_OFF(jump), 0);
    emit_rr(e, OP_W | 0x01, R15, R14);
    emit_rm(e, OP_W | 0x3b, RAX, R14, offsetof(struct dbt_jump, rip));
    branch_miss(xb, emit_jcc(e, 5));
    emit_data(e, OP_W | 0x8b, R15, DATA_OFF(mode), 0);
    emit_rm(e, OP_W | 0x3b, R15, R14, offsetof(struct dbt_jump, mode));
    branch_miss(xb, emit_jcc(e, 5));
    branch_miss(xb, branch_attention(xb));
}
_Static_assert(sizeof(struct dbt_jump) == 32, "the shift above");

/* To entry R14 for linear address RAX. */
static void branch_jump(struct xblock *xb)
{
    struct emit *e = &xb->e;
    EMIT(e, 0x48, 0x25, 0x00, 0xf0, 0xff, 0xff); /* and rax, -4096 */
    emit_data(e, OP_W | 0x89, RAX, DATA_OFF(page), 0);
    emit_rm(e, 0xff, 4, R14, offsetof(struct dbt_jump, host));
}

/* RAX = linear address of offset off from the page. */
static void branch_address(struct xblock *xb, int64_t off)
{
    emit_data(&xb->e, OP_W | 0x8b, RAX, DATA_OFF(page), 0);
    emit_rm(&xb->e, OP_W | 0x8d, RAX, RAX, (int32_t)off);
}

/* Go to offset target, which may lie in another page; from: offset of the branch. */
static void branch_to(struct xblock *xb, unsigned from, int64_t target)
{
    struct emit *e = &xb->e;
    if (target < 0 || target >= (int64_t)PAGE_SIZE) {
        branch_address(xb, target);
        branch_lookup(xb);
        branch_jump(xb);
        return;
    }
    if (target <= from)
        branch_pend_leave(xb, branch_attention(xb), (unsigned)target, false);
    branch_pend_leave(xb, emit_jmp(e), (unsigned)target, true);
}

static int64_t branch_target(const struct xinsn *x) { return (int64_t)x->off + x->i->len + (int64_t)x->i->imm; }

static void branch_jcc(struct xblock *xb, const struct xinsn *x)
{
    flags_load(xb);
    uint8_t *taken = emit_jcc(&xb->e, x->i->cc);
    int64_t target = branch_target(x);
    branch_to(xb, x->off, x->off + x->i->len);
    if (target > x->off && target < (int64_t)PAGE_SIZE) {
        branch_pend_leave(xb, taken, (unsigned)target, true); /* the branch itself is linked */
        return;
    }
    emit_here(&xb->e, taken);
    branch_to(xb, x->off, target);
}

/* Push the return address, or let the handler do it all. R14 and RAX are gone. */
static void branch_push(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned sp = place_of(RSP);
    emit_rm(e, OP_W | 0x8d, R15, sp, -8);
    branch_miss(xb, place_tlb(xb, 8, true));
    branch_address(xb, x->off + x->i->len);
    emit_rm(e, OP_W | 0x89, RAX, R15, 0);
    emit_rm(e, OP_W | 0x8d, sp, sp, -8);
}

/* Look RAX up, push, go there. */
static void branch_call_far(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    branch_lookup(xb);
    emit_rm(e, OP_W | 0x8b, R14, R14, offsetof(struct dbt_jump, host));
    emit_data(e, OP_W | 0x89, RAX, DATA_OFF(target_rip), 0);
    emit_data(e, OP_W | 0x89, R14, DATA_OFF(target_host), 0);
    branch_push(xb, x);
    emit_data(e, OP_W | 0x8b, RAX, DATA_OFF(target_rip), 0);
    EMIT(e, 0x48, 0x25, 0x00, 0xf0, 0xff, 0xff);
    emit_data(e, OP_W | 0x89, RAX, DATA_OFF(page), 0);
    emit_data(e, 0xff, 4, DATA_OFF(target_host), 0);
}

static void branch_call_rel(struct xblock *xb, const struct xinsn *x)
{
    int64_t target = branch_target(x);
    if (target < 0 || target >= (int64_t)PAGE_SIZE) {
        branch_address(xb, target);
        branch_call_far(xb, x);
        return;
    }
    branch_push(xb, x);
    branch_to(xb, x->off, target);
}

/* RAX = the target of an indirect branch. */
static void branch_operand(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    if (!x->mem) {
        if (place_of(x->rm) == PLACE_MEMORY)
            emit_guest(e, OP_W | 0x8b, RAX, x->rm);
        else
            emit_rr(e, OP_W | 0x89, place_of(x->rm), RAX);
        return;
    }
    place_linear(xb, x);
    branch_miss(xb, place_tlb(xb, 8, false));
    emit_rm(e, OP_W | 0x8b, RAX, R15, 0);
}

static void branch_ret(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned sp = place_of(RSP);
    emit_rr(e, OP_W | 0x89, sp, R15);
    branch_miss(xb, place_tlb(xb, 8, false));
    emit_rm(e, OP_W | 0x8b, RAX, R15, 0);
    branch_lookup(xb);
    emit_rm(e, OP_W | 0x8d, sp, sp, 8 + (uint16_t)x->i->imm);
    branch_jump(xb);
}

/* Where the misses go: the handler, then the loop. */
static void branch_handler(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    for (unsigned n = 0; n < xb->nmiss; n++)
        emit_here(e, xb->miss[n]);
    emit_mov_imm64(e, R14, (uintptr_t)x->i);
    emit_mov_imm32(e, RAX, x->off);
    emit_jmp_rx(e, xb->t->thunk.callout_end);
}

void x_emit_end(struct xblock *xb, const struct xinsn *x)
{
    flags_save(xb);
    vec_flush(xb);
    switch (x->kind) {
    case X_JMP: branch_to(xb, x->off, branch_target(x)); break;
    case X_JCC: branch_jcc(xb, x); break;
    case X_CALL_REL: branch_call_rel(xb, x); break;
    case X_CALL_IND:
        branch_operand(xb, x);
        branch_call_far(xb, x);
        break;
    case X_JMP_IND:
        branch_operand(xb, x);
        branch_lookup(xb);
        branch_jump(xb);
        break;
    case X_RET: branch_ret(xb, x); break;
    default: break;
    }
    branch_handler(xb, x);
}

#define LOOP_MAX 24 /* instructions */

bool x_is_loop(const struct xblock *xb, const struct xinsn *x)
{
    static const struct vec_state none;
    bool back = (x->kind == X_JCC || x->kind == X_JMP) && branch_target(x) == xb->x[0].off;
    return back && xb->n <= LOOP_MAX && memcmp(&xb->vec, &none, sizeof(none)) != 0;
}

void x_emit_turn(struct xblock *xb, const struct xinsn *x, const struct xturn *turn)
{
    struct emit *e = &xb->e;
    flags_save(xb);
    if (x->kind == X_JCC) {
        struct vec_state inside = xb->vec;
        flags_load(xb);
        uint8_t *taken = emit_jcc(e, x->i->cc);
        vec_flush(xb);
        branch_to(xb, x->off, x->off + x->i->len);
        emit_here(e, taken);
        xb->vec = inside;
    }
    branch_pend_leave(xb, branch_attention(xb), xb->x[0].off, false);
    xb->flags_host = false;
    if (!turn)
        return;
    if (memcmp(&turn->vec, &xb->vec, sizeof(xb->vec)) == 0 && turn->fp_on == xb->fp_on && turn->vec_ok == xb->vec_ok) {
        emit_jmp_back(e, turn->start);
    } else {
        vec_flush(xb);
        branch_pend_leave(xb, emit_jmp(e), xb->x[0].off, true);
    }
    branch_handler(xb, x);
}

/* The block ends without a branch: at the page's end, at its maximal length, or before something strange. */
void x_emit_fall(struct xblock *xb, unsigned next)
{
    flags_save(xb);
    vec_flush(xb);
    if (next < PAGE_SIZE) {
        branch_pend_leave(xb, emit_jmp(&xb->e), next, true);
        return;
    }
    branch_address(xb, next);
    branch_lookup(xb);
    branch_jump(xb);
    for (unsigned n = 0; n < xb->nmiss; n++)
        branch_pend_leave(xb, xb->miss[n], next, false);
}
