/* Writing host instructions. Registers are host registers by their encoding numbers (RAX .. R15).
 *
 * Memory operands of generated code come in three kinds: [register + displacement], a field of struct cpu (GS
 * points at it), and a field of struct dbt_data (relative to RIP). */
#ifndef VITRO_DBT_EMIT_H
#define VITRO_DBT_EMIT_H

#include <stddef.h>
#include <string.h>

#include "engine/dbt/dbt.h"

struct emit {
    struct dbt *t;
    uint8_t *p, *end; /* in the writable view */
    bool overflow;
};

/* What is written for one guest instruction, or one way out of it, is shorter; so it is enough to ask emit_room() before each. */
#define EMIT_SLACK 2048
static inline void emit_room(struct emit *e) { e->overflow |= e->end - e->p < EMIT_SLACK; }

#define CPU_OFF(field) ((uint32_t)offsetof(struct cpu, field))
#define CPU_REG(n) (CPU_OFF(r) + 8u * (n))
#define DATA_OFF(field) ((uint32_t)offsetof(struct dbt_data, field))

/* An opcode for the functions below: up to three bytes, the last one in the low byte (0x0fb6 is 0F B6), and options. */
#define OP_W     0x01000000u /* 64-bit operand */
#define OP_66    0x02000000u
#define OP_BYTE  0x04000000u /* byte registers: 4 to 7 need a REX prefix */
#define OP_F3    0x08000000u
#define OP_F2    0x10000000u

static inline void emit_byte(struct emit *e, unsigned b) { *e->p++ = (uint8_t)b; }
static inline void emit_bytes(struct emit *e, const void *src, unsigned n)
{
    memcpy(e->p, src, n);
    e->p += n;
}
static inline void emit_u32(struct emit *e, uint32_t v) { emit_bytes(e, &v, 4); }
#define EMIT(e, ...) emit_bytes(e, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* reg and rm registers. */
void emit_rr(struct emit *e, uint32_t op, unsigned reg, unsigned rm);
/* reg, [base + disp]. base is any register. */
void emit_rm(struct emit *e, uint32_t op, unsigned reg, unsigned base, int32_t disp);
/* reg, [base + (index << scale) + disp]; base or index 0xff: absent. index is not RSP. */
void emit_rsib(struct emit *e, uint32_t op, unsigned reg, unsigned base, unsigned index, unsigned scale, int32_t disp);
/* reg, field of struct cpu at off. */
void emit_cpu(struct emit *e, uint32_t op, unsigned reg, uint32_t off);
/* reg, field of struct dbt_data at off; imm: bytes of immediate that will follow. */
void emit_data(struct emit *e, uint32_t op, unsigned reg, uint32_t off, unsigned imm);
void emit_mov_imm64(struct emit *e, unsigned reg, uint64_t v);
void emit_mov_imm32(struct emit *e, unsigned reg, uint32_t v); /* zero-extends */

/* Branches. Forward ones return where their rel32 is, for emit_here(). */
uint8_t *emit_jcc(struct emit *e, unsigned cc);
uint8_t *emit_jmp(struct emit *e);
uint8_t *emit_call(struct emit *e);
void emit_here(struct emit *e, uint8_t *rel); /* the branch comes here */
void emit_to(struct emit *e, uint8_t *rel, const uint8_t *rw_target);
void emit_jmp_back(struct emit *e, const uint8_t *rw_target);
/* To code known by its executable address. */
void emit_call_rx(struct emit *e, const uint8_t *rx);
void emit_jmp_rx(struct emit *e, const uint8_t *rx);
/* Start at a multiple of n bytes. */
void emit_align(struct emit *e, unsigned n);

static inline const uint8_t *emit_rx(const struct emit *e, const uint8_t *rw) { return e->t->rx + (rw - e->t->rw); }

#endif
