/* Code for single instructions. */
#include "engine/dbt/place.h"

#include <string.h>

void x_callout(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    place_insn(xb, x->i);
    emit_mov_imm32(e, T0, x->off);
    emit_call_rx(e, xb->t->thunk.callout[xb->flags_host]);
    xb->flags_host = xb->flags_mem = true;
    xb->vec_ok = 0; /* it may have changed what is allowed */
}

void x_flags_before(struct xblock *xb, const struct xinsn *x)
{
    if (x->use | (x->write & ~x->kill) || (x->write && x->kill != FL_ARITH))
        flags_load(xb);
}

void x_flags_after(struct xblock *xb, const struct xinsn *x)
{
    if (!x->write)
        return;
    xb->flags_host = true;
    xb->flags_mem = false;
}

static void x_store_reg(struct xblock *xb, unsigned guest, unsigned temp)
{
    if (place_of(guest) == PLACE_MEMORY)
        emit_guest(&xb->e, OP_W | 0x89, temp, guest);
}

/* The register in ModRM.reg, loaded if it is in memory. */
static unsigned x_reg_field(struct xblock *xb, const struct xinsn *x)
{
    if (x->ext != NO_REG)
        return x->ext;
    if (place_of(x->reg) != PLACE_MEMORY)
        return place_of(x->reg);
    if (x->reg_read)
        emit_guest(&xb->e, OP_W | 0x8b, T2, x->reg);
    return T2;
}

static void x_load_cl(struct xblock *xb, const struct xinsn *x)
{
    if (x->by_cl)
        emit_rr(&xb->e, OP_W | 0x89, place_of(RCX), RCX);
}

static void x_generic_mem(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    struct pending *p = place_mem(xb, x, &m);
    x_flags_before(xb, x);
    if (x->by_cl)
        place_host(xb, &m, T2);
    x_load_cl(xb, x);
    unsigned reg = x_reg_field(xb, x);
    if (x->lock)
        emit_byte(e, 0xf0);
    place_emit(xb, x->op, reg, &m);
    emit_bytes(e, x->imm, x->imm_len);
    if (x->ext == NO_REG && x->reg_write)
        x_store_reg(xb, x->reg, T2);
    x_flags_after(xb, x);
    place_done(xb, p);
}

/* May ModRM.rm's register, which is in memory, be used there? A 32-bit result must clear the upper half. */
static bool x_direct(const struct xinsn *x)
{
    return !x->no_direct && (!x->rm_write || x->i->osz != 4);
}

/* The same operation with ModRM's operands exchanged (MOV, ADD, CMP and their like; TEST is its own), or 0. */
static uint32_t x_other_way(const struct xinsn *x)
{
    unsigned op = x->op & 0xffffff;
    if (x->ext != NO_REG || x->by_cl || x->imm_len)
        return 0;
    if ((op < 0x40 && (op & 7) < 4) || (op & ~3u) == 0x88)
        return x->op ^ 2;
    return (op | 1) == 0x85 ? x->op : 0;
}

/* Its register operand is the one that is in memory: then that becomes ModRM.rm. */
static bool x_exchanged(struct xblock *xb, const struct xinsn *x)
{
    uint32_t op = x_other_way(x);
    unsigned rm = place_of(x->rm);
    if (!op || rm == PLACE_MEMORY || place_of(x->reg) != PLACE_MEMORY || x->reg_write)
        return false;
    emit_guest(&xb->e, op, rm, x->reg);
    x_flags_after(xb, x);
    return true;
}

static void x_generic_reg(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    x_flags_before(xb, x);
    if (x->ext == NO_REG && x->reg != NO_REG && x_exchanged(xb, x))
        return;
    x_load_cl(xb, x);
    unsigned reg = x_reg_field(xb, x), rm = place_of(x->rm);
    if (rm != PLACE_MEMORY) {
        emit_rr(e, x->op, reg, rm);
    } else if (x_direct(x)) {
        emit_guest(e, x->op, reg, x->rm);
    } else {
        rm = x->ext == NO_REG && x->reg == x->rm ? T2 : T1;
        if (x->rm_read)
            emit_guest(e, OP_W | 0x8b, rm, x->rm);
        emit_rr(e, x->op, reg, rm);
    }
    emit_bytes(e, x->imm, x->imm_len);
    if (rm != PLACE_MEMORY && x->rm_write)
        x_store_reg(xb, x->rm, rm);
    if (x->ext == NO_REG && x->reg_write)
        x_store_reg(xb, x->reg, T2);
    x_flags_after(xb, x);
}

static void x_generic(struct xblock *xb, const struct xinsn *x)
{
    if (x->mem) {
        x_generic_mem(xb, x);
    } else if (x->rm != NO_REG) {
        x_generic_reg(xb, x);
    } else { /* CLC, STC, CMC */
        x_flags_before(xb, x);
        emit_byte(&xb->e, x->op & 0xff);
        x_flags_after(xb, x);
    }
}

static void x_mov_imm(struct xblock *xb, const struct xinsn *x)
{
    unsigned h = place_of(x->rm) == PLACE_MEMORY ? T2 : place_of(x->rm);
    emit_mov_imm64(&xb->e, h, x->i->osz == 8 ? x->i->imm : (uint32_t)x->i->imm);
    x_store_reg(xb, x->rm, h);
}

static void x_lea(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned h = place_of(x->reg);
    if (x->i->osz == 2) {
        place_ea(xb, x, T1, true);
        if (h == PLACE_MEMORY)
            emit_guest(e, OP_66 | 0x89, T1, x->reg);
        else
            emit_rr(e, OP_66 | 0x89, T1, h);
        return;
    }
    if (h == PLACE_MEMORY)
        h = T1;
    place_ea(xb, x, h, x->i->osz == 8);
    x_store_reg(xb, x->reg, h);
}

/* An operand in memory waits in the frame meanwhile. */
static void x_push_fetch(struct xblock *xb, const struct xinsn *x)
{
    struct xmem m;
    struct pending *p = place_mem(xb, x, &m);
    place_emit(xb, place_word(xb, 0x8b), T2, &m);
    emit_rm(&xb->e, OP_W | 0x89, T2, RSP, FRAME_TARGET);
    p->leaves = true; /* the handler does it all */
    place_done(xb, p);
    place_island(xb, true);
}

static void x_push(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    unsigned sp = place_of(RSP);
    if (x->mem)
        x_push_fetch(xb, x);
    struct pending *p = place_stack(xb, x, RSP, -(int)xb->word, MEM_WRITE, &m);
    if (x->mem || x->kind == X_PUSHF) {
        emit_rm(e, OP_W | 0x8b, T2, RSP, FRAME_TARGET);
        place_emit(xb, place_word(xb, 0x89), T2, &m);
    } else if (x->rm == NO_REG) {
        place_emit(xb, place_word(xb, 0xc7), 0, &m);
        emit_u32(e, (uint32_t)x->i->imm);
    } else {
        place_emit(xb, place_word(xb, 0x89), place_get(xb, x->rm, T2), &m);
    }
    emit_rm(e, place_word(xb, 0x8d), sp, sp, -(int)xb->word);
    place_done(xb, p);
}

static void x_pop(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    unsigned sp = place_of(RSP), h = place_of(x->rm) == PLACE_MEMORY ? T2 : place_of(x->rm);
    struct pending *p = place_stack(xb, x, RSP, 0, MEM_READ, &m);
    place_emit(xb, place_word(xb, 0x8b), h, &m);
    if (h != sp)
        emit_rm(e, place_word(xb, 0x8d), sp, sp, (int)xb->word);
    x_store_reg(xb, x->rm, h);
    place_done(xb, p);
}

static void x_leave(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    unsigned bp = place_of(RBP);
    struct pending *p = place_stack(xb, x, RBP, 0, MEM_READ, &m);
    emit_rm(e, place_word(xb, 0x8d), place_of(RSP), bp, (int)xb->word);
    place_emit(xb, place_word(xb, 0x8b), bp, &m);
    place_done(xb, p);
}

/* Of a page that the table does not know, nothing: no address of the guest's may reach the monitor's caches either. */
static void x_prefetch(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    place_linear_at(xb, x, 0);
    place_entry(xb, T1, MEM_READ);
    EMIT(e, 0xe3, 0);
    uint8_t *skip = e->p;
    emit_rsib(e, x->op, x->ext, T0, T1, 0, 0);
    if (!e->overflow)
        skip[-1] = (uint8_t)(e->p - skip);
}

static void x_bswap(struct xblock *xb, const struct xinsn *x)
{
    unsigned h = place_get(xb, x->rm, T2);
    EMIT(&xb->e, 0x40 | (x->i->osz == 8) << 3 | h >> 3, 0x0f, 0xc8 | (h & 7));
    x_store_reg(xb, x->rm, h);
}

static void x_extend(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    if (x->op & OP_66)
        emit_byte(e, 0x66);
    if (x->op & OP_W)
        emit_byte(e, 0x48);
    emit_byte(e, x->op & 0xff);
}

static void x_mul(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct pending *p = NULL;
    struct xmem m;
    if (x->mem)
        p = place_mem(xb, x, &m);
    flags_load(xb);
    unsigned rm = x->mem ? 0 : place_get(xb, x->rm, T2);
    if (x->divides)
        place_fault_to_handler(xb, x); /* #DE */
    if (x->mem)
        place_emit(xb, x->op, x->ext, &m);
    else
        emit_rr(e, x->op, x->ext, rm);
    x_flags_after(xb, x);
    if (p)
        place_done(xb, p);
}

/* Memory form only. */
static void x_cmpxchg(struct xblock *xb, const struct xinsn *x)
{
    struct xmem m;
    struct pending *p = place_mem(xb, x, &m);
    unsigned reg = x_reg_field(xb, x);
    emit_byte(&xb->e, 0xf0);
    place_emit(xb, x->op, reg, &m);
    x_flags_after(xb, x);
    place_done(xb, p);
}

/* Without REX the encoding names the high bytes, and the host's RCX. */
static void x_high(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct pending *p = NULL;
    struct xmem m;
    unsigned reg = x->ext != NO_REG ? x->ext : x->reg;
    bool moves = x->ext == NO_REG && (x->i->op == ZYDIS_MNEMONIC_MOVZX || x->i->op == ZYDIS_MNEMONIC_MOVSX);
    if (x->mem) {
        p = place_mem(xb, x, &m);
        place_host(xb, &m, T0);
    }
    x_flags_before(xb, x);
    if (!x->mem)
        emit_rr(e, OP_W | 0x89, place_of(RCX), RCX);
    if (x->lock)
        emit_byte(e, 0xf0);
    if (x->mem)
        place_emit(xb, x->op, reg, &m);
    else
        emit_rr(e, x->op, reg, x->rm);
    emit_bytes(e, x->imm, x->imm_len);
    bool reg_rcx = x->ext == NO_REG && (moves ? reg == RCX : (reg & 3) == RCX);
    if (!x->mem && (reg_rcx || (x->rm & 3) == RCX))
        emit_rr(e, OP_W | 0x89, RCX, place_of(RCX));
    x_flags_after(xb, x);
    if (p)
        place_done(xb, p);
}

/* The arithmetic flags are the host's; the others are in struct cpu, where RF and VM are 0 now. */
static void x_pushf(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    flags_load(xb);
    EMIT(e, 0x9c, 0x41, 0x5e); /* pushfq; pop r14 */
    place_pext(e, T2, T2, DATA_OFF(mask_arith));
    place_pdep(e, T2, T2, DATA_OFF(mask_arith));
    emit_cpu(e, 0x8b, T0, CPU_OFF(rflags));
    emit_rsib(e, OP_W | 0x8d, T2, T2, T0, 0, 0);
    emit_rm(e, OP_W | 0x89, T2, RSP, FRAME_TARGET);
    x_push(xb, x);
}

void x_emit(struct xblock *xb, const struct xinsn *x)
{
    static void (*const by[])(struct xblock *xb, const struct xinsn *x) = {
        [X_CALL] = x_callout,  [X_GENERIC] = x_generic, [X_MOV_IMM] = x_mov_imm, [X_LEA] = x_lea,
        [X_PUSH] = x_push,     [X_POP] = x_pop,         [X_LEAVE] = x_leave,     [X_EXTEND] = x_extend,
        [X_MUL] = x_mul,       [X_CMPXCHG] = x_cmpxchg, [X_BSWAP] = x_bswap,
        [X_VEC] = x_vec,       [X_HIGH] = x_high,       [X_CLI] = x_set_if,      [X_STI] = x_set_if,
        [X_PUSHF] = x_pushf,   [X_MXCSR] = x_mxcsr,     [X_PREFETCH] = x_prefetch, [X_FENCE] = x_fence,
        [X_SET_DF] = x_set_df, [X_SET_AC] = x_set_ac,   [X_SWAPGS] = x_swapgs, [X_TSC] = x_tsc,   [X_SEG_BASE] = x_seg_base,
        [X_SELECTOR] = x_selector, [X_FROM_CR] = x_from_cr, [X_STRING] = x_string,   [X_BIT] = x_bit,         [X_CMPXCHG16] = x_cmpxchg16,
        [X_VZERO] = x_vzero,   [X_X87] = x_x87,         [X_X87_CONTROL] = x_x87_control,
    };
    if (x->kind != X_NOTHING)
        by[x->kind](xb, x);
    place_island_soon(xb);
}
