/* Code for single instructions. A memory operand is always [R15] when the instruction itself comes. */
#include "engine/dbt/place.h"

#include <string.h>

void x_callout(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    flags_save(xb);
    vec_flush(xb);
    emit_mov_imm64(e, R14, (uintptr_t)x->i);
    emit_mov_imm32(e, RAX, x->off);
    emit_call_rx(e, xb->t->thunk.callout);
    xb->flags_host = false;
    xb->fp_on = false;
}

void x_flags_before(struct xblock *xb, const struct xinsn *x)
{
    uint16_t kept = x->write ? x->live & ~x->kill : 0;
    if (x->use | kept)
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
        emit_guest(&xb->e, OP_W | 0x8b, R14, x->reg);
    return R14;
}

static void x_generic_mem(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct pending *p = NULL;
    flags_save(xb);
    place_linear(xb, x);
    if (x->mem & MEM_WRITE)
        p = place_write(xb, x, x->i->seg, x->size, x->mem & MEM_READ);
    else
        place_read(xb, x, x->i->seg, x->size);
    x_flags_before(xb, x);
    unsigned reg = x_reg_field(xb, x);
    if (x->lock)
        emit_byte(e, 0xf0);
    emit_rm(e, x->op, reg, R15, 0);
    emit_bytes(e, x->imm, x->imm_len);
    if (x->ext == NO_REG && x->reg_write)
        x_store_reg(xb, x->reg, R14);
    x_flags_after(xb, x);
    if (p)
        place_store_done(xb, p);
}

/* May ModRM.rm's register, which is in memory, be used there? A 32-bit result must clear the upper half. */
static bool x_direct(const struct xinsn *x)
{
    return !x->no_direct && (!x->rm_write || x->i->osz != 4);
}

static void x_generic_reg(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    x_flags_before(xb, x);
    unsigned reg = x_reg_field(xb, x), rm = place_of(x->rm);
    if (rm != PLACE_MEMORY) {
        emit_rr(e, x->op, reg, rm);
    } else if (x_direct(x)) {
        emit_guest(e, x->op, reg, x->rm);
    } else {
        rm = x->ext == NO_REG && x->reg == x->rm ? R14 : R15;
        if (x->rm_read)
            emit_guest(e, OP_W | 0x8b, rm, x->rm);
        emit_rr(e, x->op, reg, rm);
    }
    emit_bytes(e, x->imm, x->imm_len);
    if (rm != PLACE_MEMORY && x->rm_write)
        x_store_reg(xb, x->rm, rm);
    if (x->ext == NO_REG && x->reg_write)
        x_store_reg(xb, x->reg, R14);
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
    unsigned h = place_of(x->rm) == PLACE_MEMORY ? R14 : place_of(x->rm);
    emit_mov_imm64(&xb->e, h, x->i->osz == 8 ? x->i->imm : (uint32_t)x->i->imm);
    x_store_reg(xb, x->rm, h);
}

static void x_lea(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned h = place_of(x->reg);
    if (x->i->osz == 2) {
        place_ea(xb, x, R15, true);
        if (h == PLACE_MEMORY)
            emit_guest(e, OP_66 | 0x89, R15, x->reg);
        else
            emit_rr(e, OP_66 | 0x89, R15, h);
        return;
    }
    if (h == PLACE_MEMORY)
        h = R15;
    place_ea(xb, x, h, x->i->osz == 8);
    x_store_reg(xb, x->reg, h);
}

static void x_push(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned sp = place_of(RSP);
    flags_save(xb);
    emit_rm(e, OP_W | 0x8d, R15, sp, -8);
    struct pending *p = place_write(xb, x, SEG_SS, 8, false);
    if (x->rm == NO_REG) {
        emit_rm(e, OP_W | 0xc7, 0, R15, 0);
        emit_u32(e, (uint32_t)x->i->imm);
    } else {
        emit_rm(e, OP_W | 0x89, place_get(xb, x->rm, R14), R15, 0);
    }
    emit_rm(e, OP_W | 0x8d, sp, sp, -8);
    place_store_done(xb, p);
}

static void x_pop(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned sp = place_of(RSP), h = place_of(x->rm) == PLACE_MEMORY ? R14 : place_of(x->rm);
    flags_save(xb);
    emit_rr(e, OP_W | 0x89, sp, R15);
    place_read(xb, x, SEG_SS, 8);
    emit_rm(e, OP_W | 0x8d, sp, sp, 8); /* before: POP RSP */
    emit_rm(e, OP_W | 0x8b, h, R15, 0);
    x_store_reg(xb, x->rm, h);
}

static void x_leave(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    flags_save(xb);
    emit_rr(e, OP_W | 0x89, place_of(RBP), R15);
    place_read(xb, x, SEG_SS, 8);
    emit_rm(e, OP_W | 0x8d, place_of(RSP), place_of(RBP), 8);
    emit_rm(e, OP_W | 0x8b, place_of(RBP), R15, 0);
}

static void x_bswap(struct xblock *xb, const struct xinsn *x)
{
    unsigned h = place_get(xb, x->rm, R14);
    EMIT(&xb->e, 0x40 | (x->i->osz == 8) << 3 | h >> 3, 0x0f, 0xc8 | (h & 7));
    x_store_reg(xb, x->rm, h);
}

/* Guest RAX is in a register that these do not know: by way of the host's. */
static void x_extend(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    emit_rr(e, OP_W | 0x89, place_of(RAX), RAX);
    if (x->op & OP_66)
        emit_byte(e, 0x66);
    if (x->op & OP_W)
        emit_byte(e, 0x48);
    emit_byte(e, x->op & 0xff);
    if ((x->op & 0xff) == 0x98)
        emit_rr(e, OP_W | 0x89, RAX, place_of(RAX));
}

static void x_mul(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned rm = R15;
    if (x->mem) {
        flags_save(xb);
        place_linear(xb, x);
        place_read(xb, x, x->i->seg, x->size);
    }
    x_flags_before(xb, x);
    if (!x->mem)
        rm = place_get(xb, x->rm, R15);
    emit_rr(e, OP_W | 0x89, place_of(RAX), RAX);
    if (x->mem)
        emit_rm(e, x->op, x->ext, R15, 0);
    else
        emit_rr(e, x->op, x->ext, rm);
    emit_rr(e, OP_W | 0x89, RAX, place_of(RAX));
    x_flags_after(xb, x);
}

/* Memory form only. */
static void x_cmpxchg(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    flags_save(xb);
    place_linear(xb, x);
    struct pending *p = place_write(xb, x, x->i->seg, x->size, true);
    unsigned reg = x_reg_field(xb, x);
    emit_rr(e, OP_W | 0x89, place_of(RAX), RAX);
    emit_byte(e, 0xf0);
    emit_rm(e, x->op, reg, R15, 0);
    emit_rr(e, OP_W | 0x89, RAX, place_of(RAX));
    x_flags_after(xb, x);
    place_store_done(xb, p);
}

void x_emit(struct xblock *xb, const struct xinsn *x)
{
    static void (*const by[])(struct xblock *xb, const struct xinsn *x) = {
        [X_CALL] = x_callout,  [X_GENERIC] = x_generic, [X_MOV_IMM] = x_mov_imm, [X_LEA] = x_lea,
        [X_PUSH] = x_push,     [X_POP] = x_pop,         [X_LEAVE] = x_leave,     [X_EXTEND] = x_extend,
        [X_MUL] = x_mul,       [X_CMPXCHG] = x_cmpxchg, [X_BSWAP] = x_bswap,
        [X_VEC] = x_vec,
    };
    if (x->kind != X_NOTHING)
        by[x->kind](xb, x);
}
