/* See hx_random.h. */
#include <stdlib.h>

#include "hx_random.h"

uint64_t rng_next(struct rng *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

unsigned rng_below(struct rng *r, unsigned n) { return (unsigned)(rng_next(r) >> 33) % n; }

static bool rng_one_in(struct rng *r, unsigned n) { return rng_below(r, n) == 0; }

/* ModRM, displacement and immediates; mem: a memory operand at [rbx (+ disp8)]. */
static void random_tail(struct rng *r, uint8_t *p, bool mem)
{
    unsigned reg = rng_below(r, 8);
    *p++ = (uint8_t)(mem ? (rng_one_in(r, 2) ? 0x43 : 0x03) | reg << 3 : 0xc0 | reg << 3 | rng_below(r, 8));
    if (p[-1] >> 6 == 1)
        *p++ = (uint8_t)(rng_below(r, 4) - 2);
    for (unsigned n = 0; n < 8; n++)
        *p++ = (uint8_t)rng_next(r);
}

static void random_legacy(struct rng *r, uint8_t *p, bool mem)
{
    static const uint8_t prefixes[] = { 0, 0x66, 0xf2, 0xf3 };
    unsigned prefix = prefixes[rng_below(r, 4)], map = rng_below(r, 4);
    if (rng_one_in(r, 16))
        *p++ = 0x66;
    if (prefix)
        *p++ = (uint8_t)prefix;
    if (rng_one_in(r, 2))
        *p++ = (uint8_t)(0x40 | (rng_below(r, 16) & (mem ? 0xe : 0xf)));
    *p++ = 0x0f;
    if (map == 2)
        *p++ = 0x38;
    if (map == 3)
        *p++ = 0x3a;
    *p++ = (uint8_t)rng_next(r);
    random_tail(r, p, mem);
}

static void random_vex(struct rng *r, uint8_t *p, bool mem)
{
    unsigned b = (unsigned)rng_next(r);
    *p++ = 0xc4;
    *p++ = (uint8_t)((b & 0x80) | (mem ? 0x60 : b & 0x60) | (1 + rng_below(r, 3)));
    *p++ = (uint8_t)(rng_one_in(r, 3) ? (rng_next(r) & 0x87) | 0x78 : rng_next(r));
    *p++ = (uint8_t)rng_next(r);
    random_tail(r, p, mem);
}

static void random_evex(struct rng *r, uint8_t *p, bool mem)
{
    unsigned b = (unsigned)rng_next(r), vvvv = rng_one_in(r, 3);
    *p++ = 0x62;
    *p++ = (uint8_t)((b & 0x90) | (mem ? 0x60 : b & 0x60) | (1 + rng_below(r, 3)));
    *p++ = (uint8_t)((rng_next(r) | (vvvv ? 0x78 : 0)) & 0xfb) | 4;
    *p++ = (uint8_t)(rng_next(r) | (vvvv ? 8 : 0));
    *p++ = (uint8_t)rng_next(r);
    random_tail(r, p, mem);
}

/* Gathers and scatters: [rbx + index * scale] with a vector index. */
static void random_vsib(struct rng *r, uint8_t *p)
{
    uint8_t *q = p;
    if (rng_one_in(r, 2))
        random_vex(r, p, true), p += 3;
    else
        random_evex(r, p, true), p += 4;
    q[1] = (uint8_t)((q[1] & 0xf0) | 2 | 0x20 | (rng_one_in(r, 2) ? 0x40 : 0));
    q[2] = (uint8_t)((q[2] & ~3) | 1);
    if (q[0] == 0x62)
        q[2] |= 0x78;
    *p++ = (uint8_t)(0x90 + 16 * rng_below(r, 2) + rng_below(r, 4));
    *p++ = (uint8_t)(4 | rng_below(r, 8) << 3);
    *p++ = (uint8_t)(3 | rng_below(r, 32) << 3);
}

void random_indices(struct rng *r, struct cpu *cpu, const struct decoded *d)
{
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        if (d->ops[n].type != ZYDIS_OPERAND_TYPE_MEMORY || d->ops[n].mem.type != ZYDIS_MEMOP_TYPE_VSIB)
            continue;
        bool q = d->z.opcode & 1;
        uint8_t *v = cpu->zmm[ZydisRegisterGetId(d->ops[n].mem.index) & 31];
        for (unsigned k = 0; k < 64; k += q ? 8 : 4) {
            int64_t x = (int64_t)rng_below(r, 400) - 200;
            memcpy(v + k, &x, q ? 8 : 4);
        }
    }
}

void random_code(struct rng *r, uint8_t code[32])
{
    bool mem = rng_one_in(r, 2);
    memset(code, 0x90, 32);
    switch (rng_below(r, 9)) {
    case 8:
        random_vsib(r, code);
        break;
    case 0:
    case 1:
        random_legacy(r, code, mem);
        break;
    case 2:
    case 3:
        random_vex(r, code, mem);
        break;
    case 4:
        code[0] = (uint8_t)(0xd8 + rng_below(r, 8));
        random_tail(r, code + 1, mem);
        break;
    default:
        random_evex(r, code, mem);
        break;
    }
}

static uint32_t random_f32(struct rng *r)
{
    static const uint32_t v[] = { 0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                  0x7fc00000, 0x7f800001, 1,          0x007fffff, 0x7f7fffff, 0x4f000000,
                                  0xcf000000, 0x3f000000, 0x40490fdb, 0x4b800001 };
    return rng_one_in(r, 2) ? v[rng_below(r, ARRAY_LEN(v))] : (uint32_t)rng_next(r);
}

static uint64_t random_f64(struct rng *r)
{
    static const uint64_t v[] = { 0,
                                  1ULL << 63,
                                  0x3ff0000000000000,
                                  0x7ff0000000000000,
                                  0xfff0000000000000,
                                  0x7ff8000000000000,
                                  0x7ff0000000000001,
                                  1,
                                  0x000fffffffffffff,
                                  0x7fefffffffffffff,
                                  0x41e0000000000000,
                                  0x43e0000000000000,
                                  0x3fe0000000000000,
                                  0x36a0000000000000 };
    return rng_one_in(r, 2) ? v[rng_below(r, ARRAY_LEN(v))] : rng_next(r);
}

static void random_vector(struct rng *r, void *out, unsigned bytes)
{
    unsigned kind = rng_below(r, 5);
    for (unsigned n = 0; n < bytes; n += 8) {
        uint64_t v = kind == 0   ? random_f64(r)
                     : kind == 1 ? random_f32(r) | (uint64_t)random_f32(r) << 32
                     : kind == 2 ? rng_next(r)
                     : kind == 3 ? rng_next(r) & 0x0f0f0f0f0f0f0f0fULL
                                 : (rng_next(r) & 0x8080808080808080ULL) | (rng_one_in(r, 3) ? ~0ULL : 0);
        memcpy((char *)out + n, &v, 8);
    }
}

static void random_x87(struct rng *r, struct x87_image *fx)
{
    memset(fx, 0, sizeof(*fx));
    fx->fcw = (uint16_t)(rng_one_in(r, 3)
                             ? 0x37f
                             : 0x40 | (rng_below(r, 4) ? 0x3f : rng_below(r, 64)) | rng_below(r, 16) << 8);
    fx->fsw = (uint16_t)((rng_one_in(r, 2) ? 0 : rng_below(r, 8)) << 11 | rng_below(r, 8) << 8);
    if (rng_one_in(r, 4))
        fx->fsw |= (uint16_t)(rng_below(r, 64) & fx->fcw);
    if (rng_one_in(r, 32))
        fx->fsw |= (uint16_t)(1 << rng_below(r, 6));
    if (fx->fsw & ~fx->fcw & 0x3f)
        fx->fsw |= 0x8080;
    fx->ftw = (uint8_t)(rng_one_in(r, 2) ? 0xff : rng_next(r));
    for (unsigned n = 0; n < 8; n++) {
        uint64_t m = rng_next(r) | (rng_below(r, 8) ? 1ULL << 63 : 0);
        uint16_t e =
            (uint16_t)(rng_below(r, 3) ? (rng_next(r) & 0x8000) | (0x3ff0 + rng_below(r, 40)) : rng_next(r));
        static const uint16_t edge[] = { 0, 0x8000, 0x7fff, 0xffff, 1, 0x7ffe, 0x43ff, 0x3c00 };
        if (rng_one_in(r, 6))
            e = edge[rng_below(r, 8)];
        if (rng_one_in(r, 6))
            m = rng_one_in(r, 2) ? 0 : 1ULL << 63;
        memcpy(fx->st[n], &m, 8);
        memcpy(fx->st[n] + 8, &e, 2);
    }
}

static void random_masks(struct rng *r, struct cpu *cpu)
{
    for (unsigned n = 0; n < 8; n++) {
        unsigned kind = rng_below(r, 5);
        cpu->k[n] = kind == 0   ? ~0ULL
                    : kind == 1 ? 0
                    : kind == 2 ? rng_next(r)
                    : kind == 3 ? rng_next(r) & rng_next(r) & rng_next(r)
                                : 1ULL << rng_below(r, 16);
    }
}

void random_vector_state(struct rng *r, struct cpu *cpu)
{
    for (unsigned n = 0; n < 32; n++)
        random_vector(r, cpu->zmm[n], 64);
}

void random_state(struct rng *r, struct cpu *cpu)
{
    for (unsigned n = 0; n < 16; n++) {
        static const uint64_t edge[] = { 0, 1, ~0ULL, 1ULL << 63, 0x7fffffff, 0x80000000, 0xff, 64 };
        cpu->r[n] = rng_below(r, 3) ? rng_next(r) : edge[rng_below(r, 8)];
    }
    unsigned off = rng_below(r, 4);
    cpu->r[RBX] = ARENA_BASE + (off == 0   ? ARENA_SIZE - rng_below(r, 130)
                                : off == 1 ? 4000 + rng_below(r, 200)
                                           : 0x1000 + 64 * rng_below(r, 8));
    cpu->r[RDI] = cpu->r[RBX];
    cpu->aflags = aflags_from_rflags((uint32_t)rng_next(r) & FL_ARITH);
    random_vector_state(r, cpu);
    for (unsigned n = 0; n < 4; n++)
        random_vector(r, (void *)(ARENA_BASE + 4096 * n + (n & 1 ? 0 : 3968)), 128);
    random_vector(r, (void *)(ARENA_BASE + 0x1000), 1024);
    random_vector(r, (void *)(ARENA_BASE + ARENA_SIZE - 256), 256);
    random_masks(r, cpu);
    random_x87(r, &cpu->fx);
    cpu->mxcsr = HX_MXCSR | rng_below(r, 4) << 13;
    if (rng_one_in(r, 4))
        cpu->mxcsr = (cpu->mxcsr ^ rng_below(r, 0x10000)) & 0xffff;
}

bool random_skip(const struct decoded *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return true;
    default:
        break;
    }
    for (unsigned n = 0; n < d->z.operand_count; n++) /* only addresses that random_state() has prepared */
        if (d->ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            d->ops[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
            ((d->ops[n].mem.base != ZYDIS_REGISTER_RBX && d->ops[n].mem.base != ZYDIS_REGISTER_EBX) ||
             (d->ops[n].mem.index != ZYDIS_REGISTER_NONE && d->ops[n].mem.type != ZYDIS_MEMOP_TYPE_VSIB)))
            return true;
    for (unsigned n = 0; n < d->z.operand_count; n++) /* no RSP as an operand: it is the host's stack here */
        if (d->ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, d->ops[n].reg.value) ==
                ZYDIS_REGISTER_RSP)
            return true;
    return d->z.meta.isa_ext == ZYDIS_ISA_EXT_XSAVE || d->z.meta.isa_ext == ZYDIS_ISA_EXT_XSAVEC ||
           d->z.meta.isa_ext == ZYDIS_ISA_EXT_XSAVEOPT || d->z.meta.isa_ext == ZYDIS_ISA_EXT_XSAVES;
}

void random_to32(uint8_t *code, struct cpu *cpu)
{
    for (unsigned n = 0; n < 16; n++)
        cpu->r[n] = (uint32_t)cpu->r[n];
    if (code[0] == 0xc4 || code[0] == 0x62) {
        code[1] |= code[0] == 0xc4 ? 0xe0 : 0xf0;
        code[2] |= 0x40;
        code[3] |= code[0] == 0x62 ? 8 : 0;
    }
}

static bool random_same_operand(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == ZYDIS_OPERAND_TYPE_REGISTER)
        return a->reg.value == b->reg.value || ZydisRegisterGetClass(a->reg.value) == ZYDIS_REGCLASS_FLAGS;
    return a->size == b->size;
}

bool random_skip32(const struct decoded *d)
{
    struct insn i;
    struct decoded wide;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL || d->z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER)
        return true;
    if (insn_decode(d->raw, 15, 8, true, &i, &wide) != DECODE_OK || wide.z.mnemonic != d->z.mnemonic ||
        wide.z.operand_count != d->z.operand_count || wide.z.length != d->z.length)
        return true;
    for (unsigned n = 0; n < d->z.operand_count; n++)
        if (!random_same_operand(&d->ops[n], &wide.ops[n]) && d->ops[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
            return true;
        else if (d->ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY && d->ops[n].size != wide.ops[n].size)
            return true;
    return false;
}

void random_no512(struct cpu *cpu)
{
    for (unsigned n = 0; n < 32; n++)
        memset(cpu->zmm[n] + (n < 16 ? 32 : 0), 0, n < 16 ? 32 : 64);
}
