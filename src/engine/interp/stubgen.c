/* The code of a stub: registers in, the instruction, registers out.
 *
 * Called as unsigned stub(struct cpu *cpu, void *mem), SysV ABI. Order: save callee-saved registers in use;
 * pointers to their registers; vectors, masks, MMX; MXCSR; flags; general registers; the instruction; general
 * registers back; flags; vectors; MXCSR; restore. Vector loads are as wide as the operand; legacy SSE stores
 * back 16 bytes (upper bits are preserved in struct cpu), VEX and EVEX store the whole register, whose upper
 * part the host has zeroed. */
#include "engine/interp/hostexec.h"

#define OFF(field) ((uint32_t)offsetof(struct cpu, field))

struct gen {
    uint8_t *p, *end, *start;
    const struct hx_code *hc;
    unsigned vec_width;
    bool legacy, overflow;
    uint32_t gpr_out, saved;
    uint32_t vec_in, vec_out, mask_in, mask_out, mmx_in, mmx_out;
    uint8_t vec_size[32];
    bool flags, bw;
    uint8_t cls;
};

static void gen_byte(struct gen *g, unsigned b)
{
    if (g->p < g->end)
        *g->p++ = (uint8_t)b;
    else
        g->overflow = true;
}

static void gen_bytes(struct gen *g, const void *src, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        gen_byte(g, ((const uint8_t *)src)[k]);
}
#define GEN(g, ...) gen_bytes(g, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* ModRM and disp32: [cpu + off]. The cpu register is never RSP or R12, so there is no SIB. */
static void gen_cpu_mem(struct gen *g, unsigned reg, uint32_t off)
{
    gen_byte(g, 0x80 | (reg & 7) << 3 | (g->hc->cpu_reg & 7));
    gen_bytes(g, &off, 4);
}

/* Legacy-encoded instruction with a [cpu + off] operand; prefix and op2 0: none. */
static void gen_legacy(struct gen *g, unsigned prefix, unsigned w, unsigned op1, unsigned op2, unsigned reg,
                       uint32_t off)
{
    unsigned rex = w << 3 | (reg >> 3 & 1) << 2 | (g->hc->cpu_reg >> 3 & 1);
    if (prefix)
        gen_byte(g, prefix);
    if (rex)
        gen_byte(g, 0x40 | rex);
    gen_byte(g, op1);
    if (op2)
        gen_byte(g, op2);
    gen_cpu_mem(g, reg, off);
}

static void gen_mov_rr(struct gen *g, unsigned dst, unsigned src)
{
    if (dst != src)
        GEN(g, 0x48 | (src >> 3) << 2 | dst >> 3, 0x89, 0xc0 | (src & 7) << 3 | (dst & 7));
}

static void gen_push_pop(struct gen *g, unsigned op, unsigned reg)
{
    if (reg >= 8)
        gen_byte(g, 0x41);
    gen_byte(g, op | (reg & 7));
}

/* VMOVUPS between vector register v and [cpu + off]: op 0x10 loads, 0x11 stores. */
static void gen_vmovups(struct gen *g, unsigned op, unsigned v, unsigned size, uint32_t off)
{
    unsigned b = g->hc->cpu_reg >> 3 & 1, l = size == 64 ? 2 : size == 32 ? 1 : 0;
    if (g->legacy) {
        gen_legacy(g, 0, 0, 0x0f, op, v, off);
    } else if (size == 64 || v >= 16) {
        GEN(g, 0x62, (~v >> 3 & 1) << 7 | 0x40 | !b << 5 | (~v >> 4 & 1) << 4 | 1, 0x7c, l << 5 | 8, op);
        gen_cpu_mem(g, v, off);
    } else {
        GEN(g, 0xc4, (~v >> 3 & 1) << 7 | 0x40 | !b << 5 | 1, 0x78 | l << 2, op);
        gen_cpu_mem(g, v, off);
    }
}

/* KMOVQ (or KMOVW on a host without AVX512BW) between k and [cpu + off]: op 0x90 loads, 0x91 stores. */
static void gen_kmov(struct gen *g, unsigned op, unsigned k, uint32_t off)
{
    unsigned b = g->hc->cpu_reg >> 3 & 1;
    GEN(g, 0xc4, 0xc0 | !b << 5 | 1, g->bw ? 0xf8 : 0x78, op);
    gen_cpu_mem(g, k, off);
}

static void gen_note_vec(struct gen *g, const ZydisDecodedOperand *op, unsigned size, bool wr)
{
    unsigned v = (unsigned)ZydisRegisterGetId(op->reg.value) & 31;
    g->vec_in |= 1u << v;
    if (wr)
        g->vec_out |= 1u << v;
    if (size > g->vec_size[v])
        g->vec_size[v] = (uint8_t)size;
}

/* What one operand reads and writes. Registers that are only written are loaded too: many writes are partial.
 */
static void gen_note(struct gen *g, const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return;
    bool wr = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    unsigned id = (unsigned)ZydisRegisterGetId(op->reg.value), gpr;
    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_XMM:
        gen_note_vec(g, op, 16, wr);
        break;
    case ZYDIS_REGCLASS_YMM:
        gen_note_vec(g, op, 32, wr);
        break;
    case ZYDIS_REGCLASS_ZMM:
        gen_note_vec(g, op, 64, wr);
        break;
    case ZYDIS_REGCLASS_MASK:
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MASK && id == 0)
            break; /* no masking */
        g->mask_in |= 1u << (id & 7);
        g->mask_out |= wr ? 1u << (id & 7) : 0;
        break;
    case ZYDIS_REGCLASS_MMX:
        g->mmx_in |= 1u << (id & 7);
        g->mmx_out |= wr ? 1u << (id & 7) : 0;
        break;
    case ZYDIS_REGCLASS_FLAGS:
        g->flags = true;
        break;
    case ZYDIS_REGCLASS_X87:
        break;
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        gpr = hx_gpr(op->reg.value);
        g->gpr_out |= wr ? 1u << (gpr == RSP ? g->hc->rename & 15 : gpr) : 0;
        break;
    default:
        break;
    }
}

/* Flags: AX holds them as LAHF and SETO made them; adding 127 to AL turns 1 into an overflow. */
static void gen_load_flags(struct gen *g)
{
    if (!g->flags)
        return;
    gen_legacy(g, 0, 0, 0x8b, 0, RAX, OFF(aflags));
    GEN(g, 0x04, 0x7f, 0x9e);
}

static void gen_store_flags(struct gen *g)
{
    if (!g->flags)
        return;
    GEN(g, 0x9f, 0x0f, 0x90, 0xc0, 0x0f, 0xb7, 0xc0); /* lahf; seto al; movzx eax, ax */
    gen_legacy(g, 0, 0, 0x89, 0, RAX, OFF(aflags));
}

static unsigned gen_guest_reg(const struct gen *g, unsigned host)
{
    return host == g->hc->rename ? RSP : host;
}

static void gen_prologue(struct gen *g)
{
    const struct hx_code *hc = g->hc;
    uint32_t all = hc->gpr_used | (hc->mem_reg == HX_NO_REG ? 0 : 1u << hc->mem_reg);
    GEN(g, 0xf3, 0x0f, 0x1e, 0xfa); /* endbr64 */
    g->saved = all & (1u << RBX | 1u << RBP | 0xf000u);
    for (unsigned r = 0; r < 16; r++)
        if (g->saved >> r & 1)
            gen_push_pop(g, 0x50, r);
    gen_mov_rr(g, hc->cpu_reg, RDI);
    if (hc->mem_reg != HX_NO_REG)
        gen_mov_rr(g, hc->mem_reg, RSI);
}

static void gen_epilogue(struct gen *g)
{
    for (unsigned r = 16; r-- > 0;)
        if (g->saved >> r & 1)
            gen_push_pop(g, 0x58, r);
    gen_byte(g, 0xc3);
}

static void gen_load(struct gen *g)
{
    if (g->cls & HX_X87)
        gen_legacy(g, 0, 1, 0x0f, 0xae, 1, OFF(fx)); /* fxrstor64 */
    for (unsigned v = 0; v < 32; v++)
        if (g->vec_in >> v & 1)
            gen_vmovups(g, 0x10, v, v >= 16 ? 64 : g->vec_size[v], OFF(zmm) + 64 * v);
    for (unsigned k = 0; k < 8; k++) {
        if (g->mask_in >> k & 1)
            gen_kmov(g, 0x90, k, OFF(k) + 8 * k);
        if (g->mmx_in >> k & 1)
            gen_legacy(g, 0, 0, 0x0f, 0x6f, k, OFF(fx.st) + 16 * k);
    }
    if (g->cls & HX_MXCSR_USE)
        gen_legacy(g, 0, 0, 0x0f, 0xae, 2, OFF(mxcsr));
    gen_load_flags(g);
    for (unsigned r = 0; r < 16; r++)
        if (g->hc->gpr_used >> r & 1)
            gen_legacy(g, 0, 1, 0x8b, 0, r, OFF(r) + 8 * gen_guest_reg(g, r));
}

static void gen_store(struct gen *g)
{
    for (unsigned r = 0; r < 16; r++)
        if (g->gpr_out >> r & 1)
            gen_legacy(g, 0, 1, 0x89, 0, r, OFF(r) + 8 * gen_guest_reg(g, r));
    gen_store_flags(g);
    for (unsigned v = 0; v < 32; v++)
        if (g->vec_out >> v & 1)
            gen_vmovups(g, 0x11, v, g->legacy ? 16 : g->vec_width, OFF(zmm) + 64 * v);
    for (unsigned k = 0; k < 8; k++) {
        if (g->mask_out >> k & 1)
            gen_kmov(g, 0x91, k, OFF(k) + 8 * k);
        if (g->mmx_out >> k & 1) {
            gen_legacy(g, 0, 0, 0x0f, 0x7f, k, OFF(fx.st) + 16 * k);
            gen_legacy(g, 0x66, 0, 0xc7, 0, 0, OFF(fx.st) + 16 * k + 8); /* exponent and sign: all ones */
            GEN(g, 0xff, 0xff);
        }
    }
    if (g->cls & HX_X87)
        gen_legacy(g, 0, 1, 0x0f, 0xae, 0, OFF(fx)); /* fxsave64 */
    if (g->cls & HX_MMX)
        GEN(g, 0x0f, 0x77);
    if (g->cls & HX_MXCSR_USE) {
        gen_legacy(g, 0, 0, 0x0f, 0xae, 3, OFF(mxcsr));
        gen_legacy(g, 0, 0, 0x0f, 0xae, 2, OFF(fx.mxcsr)); /* the handler keeps the host's own value there */
    }
    if (g->cls & HX_VZERO)
        GEN(g, 0xc5, 0xf8, 0x77);
}

unsigned hx_generate(struct stub *s, const struct decoded *d, const struct hx_code *hc, unsigned vec_width,
                     uint8_t *out, unsigned room)
{
    struct gen g = {
        .p = out, .end = out + room, .start = out, .hc = hc, .vec_width = vec_width, .cls = s->c.flags
    };
    g.legacy = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    g.bw = __builtin_cpu_supports("avx512bw");
    for (unsigned n = 0; n < d->z.operand_count; n++)
        gen_note(&g, &d->ops[n]);
    gen_prologue(&g);
    gen_load(&g);
    s->pc_insn = (uint16_t)(g.p - out);
    gen_bytes(&g, hc->bytes, hc->len);
    gen_store(&g);
    s->pc_end = (uint16_t)(g.p - out);
    GEN(&g, 0x31, 0xc0);
    gen_epilogue(&g);
    /* Fault exit: EAX was set by the signal handler. The host's vector and MMX state is cleaned as above. */
    s->pc_fault = (uint16_t)(g.p - out);
    if (s->c.flags & HX_MMX)
        GEN(&g, 0x0f, 0x77);
    if (s->c.flags & HX_VZERO)
        GEN(&g, 0xc5, 0xf8, 0x77);
    gen_epilogue(&g);
    return g.overflow ? 0 : (unsigned)(g.p - out);
}
