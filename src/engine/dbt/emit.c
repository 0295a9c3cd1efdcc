/* Encoding of host instructions: prefixes, REX, opcode, ModRM, SIB (SDM vol. 2, chapter 2). */
#include "engine/dbt/emit.h"

#include <string.h>

/* Writes at p, which the compiler can keep in a register: through e->p, each byte might change e. */
static inline uint8_t *put_opcode(uint8_t *p, uint32_t op, unsigned reg, unsigned index, unsigned base)
{
    unsigned rex = (op & OP_W ? 8 : 0) | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1);
    if (op & (OP_66 | OP_F3 | OP_F2)) {
        if (op & OP_66)
            *p++ = 0x66;
        if (op & OP_F3)
            *p++ = 0xf3;
        if (op & OP_F2)
            *p++ = 0xf2;
    }
    if (rex || (op & OP_BYTE && ((reg & 12) == 4 || (base & 12) == 4)))
        *p++ = (uint8_t)(0x40 | rex);
    if (op >> 16 & 0xff)
        *p++ = (uint8_t)(op >> 16);
    if (op >> 8 & 0xff)
        *p++ = (uint8_t)(op >> 8);
    *p++ = (uint8_t)op;
    return p;
}

static inline uint8_t *put_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
    return p + 4;
}

void emit_rr(struct emit *e, uint32_t op, unsigned reg, unsigned rm)
{
    uint8_t *p = put_opcode(e->p, op, reg, 0, rm);
    *p++ = (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7));
    e->p = p;
}

void emit_rsib(struct emit *e, uint32_t op, unsigned reg, unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    bool no_base = base == 0xff, no_index = index == 0xff;
    unsigned b = no_base ? 5 : base, x = no_index ? 4 : index;
    unsigned mod = no_base ? 0 : disp == (int8_t)disp ? 1 : 2;
    if (!no_base && disp == 0 && (base & 7) != 5)
        mod = 0;
    uint8_t *p = put_opcode(e->p, op, reg, no_index ? 0 : x, no_base ? 0 : b);
    if (no_index && !no_base && (b & 7) != 4) {
        *p++ = (uint8_t)(mod << 6 | (reg & 7) << 3 | (b & 7));
    } else {
        *p++ = (uint8_t)(mod << 6 | (reg & 7) << 3 | 4);
        *p++ = (uint8_t)(scale << 6 | (x & 7) << 3 | (b & 7));
    }
    if (mod == 1)
        *p++ = (uint8_t)disp;
    else if (mod == 2 || no_base)
        p = put_u32(p, (uint32_t)disp);
    e->p = p;
}

void emit_rm(struct emit *e, uint32_t op, unsigned reg, unsigned base, int32_t disp)
{
    emit_rsib(e, op, reg, base, 0xff, 0, disp);
}

void emit_cpu(struct emit *e, uint32_t op, unsigned reg, uint32_t off)
{
    emit_byte(e, 0x65);
    emit_rsib(e, op, reg, 0xff, 0xff, 0, (int32_t)off);
}

void emit_data(struct emit *e, uint32_t op, unsigned reg, uint32_t off, unsigned imm)
{
    const struct dbt *t = e->t;
    uint8_t *p = put_opcode(e->p, op, reg, 0, 0);
    *p++ = (uint8_t)((reg & 7) << 3 | 5);
    intptr_t next = (intptr_t)emit_rx(e, p) + 4 + imm;
    e->p = put_u32(p, (uint32_t)((intptr_t)t->data + (intptr_t)off - next));
}

void emit_mov_imm64(struct emit *e, unsigned reg, uint64_t v)
{
    if (v >> 32 == 0) {
        emit_mov_imm32(e, reg, (uint32_t)v);
        return;
    }
    EMIT(e, 0x48 | reg >> 3, 0xb8 | (reg & 7));
    emit_bytes(e, &v, 8);
}

void emit_mov_imm32(struct emit *e, unsigned reg, uint32_t v)
{
    uint8_t *p = e->p;
    if (reg >= 8)
        *p++ = 0x41;
    *p++ = (uint8_t)(0xb8 | (reg & 7));
    e->p = put_u32(p, v);
}

uint8_t *emit_jcc(struct emit *e, unsigned cc)
{
    EMIT(e, 0x0f, 0x80 | cc);
    uint8_t *rel = e->p;
    emit_u32(e, 0);
    return rel;
}

static uint8_t *emit_branch(struct emit *e, unsigned op)
{
    emit_byte(e, op);
    uint8_t *rel = e->p;
    emit_u32(e, 0);
    return rel;
}

uint8_t *emit_jmp(struct emit *e) { return emit_branch(e, 0xe9); }
uint8_t *emit_call(struct emit *e) { return emit_branch(e, 0xe8); }

void emit_to(struct emit *e, uint8_t *rel, const uint8_t *rw_target)
{
    int32_t d = (int32_t)(rw_target - (rel + 4));
    if (!e->overflow)
        memcpy(rel, &d, 4);
}

void emit_here(struct emit *e, uint8_t *rel) { emit_to(e, rel, e->p); }

void emit_jmp_back(struct emit *e, const uint8_t *rw_target)
{
    uint8_t *rel = emit_jmp(e);
    emit_to(e, rel, rw_target);
}

static void emit_rel_rx(struct emit *e, unsigned op, const uint8_t *rx)
{
    uint8_t *p = e->p;
    *p++ = (uint8_t)op;
    e->p = put_u32(p, (uint32_t)(rx - (emit_rx(e, p) + 4)));
}

void emit_call_rx(struct emit *e, const uint8_t *rx) { emit_rel_rx(e, 0xe8, rx); }
void emit_jmp_rx(struct emit *e, const uint8_t *rx) { emit_rel_rx(e, 0xe9, rx); }

void emit_align(struct emit *e, unsigned n)
{
    while ((uintptr_t)e->p % n)
        emit_byte(e, 0xcc);
}
