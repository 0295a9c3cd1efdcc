/* Rewriting one guest instruction as 64-bit host code with its memory operand at [register].
 *
 * Prefixes are reduced to the mandatory ones, operand size and REX; segment, address size, SIB and
 * displacement go. The result is decoded again as 64-bit code and must name the same operands, or the
 * instruction is refused: what the host will execute is thereby what the guest's decode said. Encodings: SDM
 * vol. 2 ch. 2. */
#include "engine/interp/hostexec.h"

unsigned hx_gpr(ZydisRegister r)
{
    return (unsigned)ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
}

static bool encode_is_gpr(const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass c = ZydisRegisterGetClass(op->reg.value);
    return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
           c == ZYDIS_REGCLASS_GPR64;
}

static bool encode_is_mem(const struct decoded *d)
{
    return (d->z.attributes & ZYDIS_ATTRIB_HAS_MODRM) && d->z.raw.modrm.mod != 3;
}

/* First register of list that is not in used, or HX_NO_REG. */
static uint8_t encode_pick(const char *list, unsigned n, uint32_t used)
{
    for (unsigned k = 0; k < n; k++)
        if (!(used >> (unsigned char)list[k] & 1))
            return (uint8_t)list[k];
    return HX_NO_REG;
}

/* Choose host registers for struct cpu, the memory address and the guest's RSP. The latter two must be
 * encodable without extension bits, and not be RAX, which carries flags. RDI and RSI come first: they hold
 * the arguments. */
static bool encode_registers(const struct decoded *d, struct hx_code *out)
{
    static const char cpu_list[] = { RDI, R8, R9, R10, R11 };
    static const char low_list[] = { RSI, RDI, RCX, RDX, RBX };
    uint32_t used = 0;
    for (unsigned n = 0; n < d->z.operand_count; n++)
        if (encode_is_gpr(&d->ops[n]))
            used |= 1u << hx_gpr(d->ops[n].reg.value);
    bool rsp = used >> RSP & 1;
    used &= ~(1u << RSP);
    out->cpu_reg = encode_pick(cpu_list, sizeof(cpu_list), used);
    uint32_t busy = used | 1u << (out->cpu_reg & 31);
    out->mem_reg = encode_is_mem(d) ? encode_pick(low_list, sizeof(low_list), busy) : HX_NO_REG;
    if (out->mem_reg != HX_NO_REG)
        busy |= 1u << out->mem_reg;
    out->rename = rsp ? encode_pick(low_list, sizeof(low_list), busy) : HX_NO_REG;
    out->gpr_used = used | (rsp && out->rename != HX_NO_REG ? 1u << out->rename : 0);
    return out->cpu_reg != HX_NO_REG && (!rsp || out->rename != HX_NO_REG) &&
           (!encode_is_mem(d) || out->mem_reg != HX_NO_REG);
}

/* Is RSP the register operand with this encoding? */
static bool encode_rsp_at(const struct decoded *d, ZydisOperandEncoding enc)
{
    for (unsigned n = 0; n < d->z.operand_count; n++)
        if (encode_is_gpr(&d->ops[n]) && d->ops[n].encoding == enc && hx_gpr(d->ops[n].reg.value) == RSP)
            return true;
    return false;
}

static void encode_byte(struct hx_code *c, unsigned b)
{
    if (c->len < sizeof(c->bytes))
        c->bytes[c->len++] = (uint8_t)b;
}

static bool encode_has_mandatory(const struct decoded *d, unsigned prefix)
{
    for (unsigned n = 0; n < d->z.raw.prefix_count; n++)
        if (d->z.raw.prefixes[n].value == prefix && d->z.raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            return true;
    return false;
}

static void encode_legacy_head(const struct decoded *d, bool opsize, struct hx_code *c)
{
    if (opsize || encode_has_mandatory(d, 0x66))
        encode_byte(c, 0x66);
    if (encode_has_mandatory(d, 0xf2))
        encode_byte(c, 0xf2);
    if (encode_has_mandatory(d, 0xf3))
        encode_byte(c, 0xf3);
    if (d->code_size == 8 && (d->z.attributes & ZYDIS_ATTRIB_HAS_REX)) {
        unsigned b = encode_is_mem(d) ? 0 : d->z.raw.rex.B;
        encode_byte(c, 0x40u | d->z.raw.rex.W << 3 | d->z.raw.rex.R << 2 | b);
    }
    if (d->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        encode_byte(c, 0x0f);
    if (d->z.opcode_map == ZYDIS_OPCODE_MAP_0F38)
        encode_byte(c, 0x38);
    if (d->z.opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        encode_byte(c, 0x3a);
}

/* The bits that select registers are inverted. Outside of 64-bit mode the upper ones are fixed or ignored,
 * and W is ignored where it would select a 64-bit general register: w0 clears it. */
static void encode_vex_head(const struct decoded *d, bool w0, struct hx_code *c)
{
    const uint8_t *p = d->raw + d->z.raw.vex.offset;
    unsigned b1, b2;
    if (d->z.raw.vex.size == 3) {
        b1 = p[1];
        b2 = p[2];
    } else {
        b1 = (p[1] & 0x80u) | 0x61;
        b2 = p[1] & 0x7fu;
    }
    if (encode_is_mem(d))
        b1 |= 0x60;
    if (d->code_size != 8) {
        b1 |= 0xe0;
        b2 |= 0x40;
    }
    if (w0)
        b2 &= 0x7f;
    if (encode_rsp_at(d, ZYDIS_OPERAND_ENCODING_NDSNDD))
        b2 = (b2 & 0x87u) | (15u ^ c->rename) << 3;
    encode_byte(c, 0xc4);
    encode_byte(c, b1);
    encode_byte(c, b2);
}

static void encode_evex_head(const struct decoded *d, bool w0, struct hx_code *c)
{
    const uint8_t *p = d->raw + d->z.raw.evex.offset;
    unsigned b1 = p[1], b2 = p[2], b3 = p[3];
    if (encode_is_mem(d))
        b1 |= 0x60;
    if (d->code_size != 8) {
        b1 |= 0xf0;
        b2 |= 0x40;
        b3 |= 0x08;
    }
    if (w0)
        b2 &= 0x7f;
    encode_byte(c, 0x62);
    encode_byte(c, b1);
    encode_byte(c, b2);
    encode_byte(c, b3);
}

static void encode_modrm(const struct decoded *d, struct hx_code *c)
{
    unsigned reg = d->z.raw.modrm.reg & 7u, rm = d->z.raw.modrm.rm & 7u, mod = 3;
    if (encode_rsp_at(d, ZYDIS_OPERAND_ENCODING_MODRM_REG))
        reg = c->rename;
    if (encode_is_mem(d)) {
        mod = 0;
        rm = c->mem_reg;
    } else if (encode_rsp_at(d, ZYDIS_OPERAND_ENCODING_MODRM_RM)) {
        rm = c->rename;
    }
    encode_byte(c, mod << 6 | reg << 3 | rm);
}

static void encode_imm(const struct decoded *d, struct hx_code *c)
{
    bool is4 = false;
    for (unsigned n = 0; n < d->z.operand_count; n++)
        is4 |= d->ops[n].encoding == ZYDIS_OPERAND_ENCODING_IS4;
    for (unsigned n = 0; n < 2; n++)
        for (unsigned k = 0; k < d->z.raw.imm[n].size / 8u; k++) {
            unsigned b = d->raw[(d->z.raw.imm[n].offset + k) % sizeof(d->raw)];
            encode_byte(c, is4 && d->code_size != 8 ? b & 0x7f : b);
        }
}

/* One way to write it: variant bit 0 adds an operand-size prefix (legacy) or clears W (VEX, EVEX). */
static void encode_variant(const struct decoded *d, bool variant, struct hx_code *c)
{
    c->len = 0;
    if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        encode_vex_head(d, variant, c);
    else if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        encode_evex_head(d, variant, c);
    else
        encode_legacy_head(d, variant, c);
    unsigned op = d->z.opcode;
    if (encode_rsp_at(d, ZYDIS_OPERAND_ENCODING_OPCODE))
        op = (op & 0xf8) | c->rename;
    encode_byte(c, op);
    if (d->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)
        encode_modrm(d, c);
    encode_imm(d, c);
}

static bool encode_same_reg(ZydisRegister guest, ZydisRegister host, unsigned rename)
{
    ZydisRegisterClass cls = ZydisRegisterGetClass(guest);
    if (cls != ZydisRegisterGetClass(host))
        return false;
    switch (cls) {
    case ZYDIS_REGCLASS_FLAGS:
        return true;
    case ZYDIS_REGCLASS_GPR8: /* AH to BH and SPL to DIL share numbers: compare names, but for SPL */
        if (guest != ZYDIS_REGISTER_SPL)
            return guest == host;
        /* fall through */
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        if (hx_gpr(guest) == RSP)
            return hx_gpr(host) == rename && (host < ZYDIS_REGISTER_AH || host > ZYDIS_REGISTER_BH);
        return guest == host;
    default:
        return guest == host;
    }
}

static bool encode_same_mem(const ZydisDecodedOperand *op, unsigned mem_reg)
{
    return op->mem.type == ZYDIS_MEMOP_TYPE_MEM &&
           ZydisRegisterGetClass(op->mem.base) == ZYDIS_REGCLASS_GPR64 && hx_gpr(op->mem.base) == mem_reg &&
           op->mem.index == ZYDIS_REGISTER_NONE &&
           (!op->mem.disp.has_displacement || op->mem.disp.value == 0) &&
           op->mem.segment == ZYDIS_REGISTER_DS;
}

static bool encode_same_operand(const ZydisDecodedOperand *g, const ZydisDecodedOperand *h,
                                const struct hx_code *c)
{
    bool flags =
        g->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(g->reg.value) == ZYDIS_REGCLASS_FLAGS;
    if (g->type != h->type || g->visibility != h->visibility || g->actions != h->actions ||
        g->encoding != h->encoding || g->attributes != h->attributes)
        return false;
    if (!flags && (g->size != h->size || g->element_size != h->element_size ||
                   g->element_count != h->element_count || g->element_type != h->element_type))
        return false;
    switch (g->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        return encode_same_reg(g->reg.value, h->reg.value, c->rename);
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return encode_same_mem(h, c->mem_reg);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return g->imm.value.u == h->imm.value.u && !h->imm.is_relative;
    default:
        return false;
    }
}

static bool encode_same_form(const ZydisDecodedInstruction *g, const ZydisDecodedInstruction *h)
{
    const ZydisInstructionAttributes none =
        ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE |
        ZYDIS_ATTRIB_HAS_SEGMENT | ZYDIS_ATTRIB_HAS_ADDRESSSIZE | ZYDIS_ATTRIB_IS_PRIVILEGED;
    return g->mnemonic == h->mnemonic && g->encoding == h->encoding && g->opcode_map == h->opcode_map &&
           g->meta.isa_set == h->meta.isa_set && g->meta.category == h->meta.category &&
           g->operand_count == h->operand_count && g->operand_count_visible == h->operand_count_visible &&
           g->avx.mask.mode == h->avx.mask.mode && g->avx.mask.reg == h->avx.mask.reg &&
           g->avx.broadcast.mode == h->avx.broadcast.mode && g->avx.rounding.mode == h->avx.rounding.mode &&
           g->avx.has_sae == h->avx.has_sae && g->avx.vector_length == h->avx.vector_length &&
           !(h->attributes & none);
}

static bool encode_verify(const struct decoded *d, const struct hx_code *c)
{
    ZydisDecoder dec;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderInit(&dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)) ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&dec, c->bytes, c->len, &z, ops)))
        return false;
    if (z.length != c->len || c->len > 15 || !encode_same_form(&d->z, &z))
        return false;
    for (unsigned n = 0; n < z.operand_count; n++)
        if (!encode_same_operand(&d->ops[n], &ops[n], c))
            return false;
    return true;
}

bool hx_encode(const struct decoded *d, struct hx_code *out)
{
    *out = (struct hx_code){ .mem_reg = HX_NO_REG, .rename = HX_NO_REG };
    if (!encode_registers(d, out))
        return false;
    /* Outside of 64-bit mode W is tried clear first: where it is ignored there it would not be here. */
    bool first = d->code_size != 8 && d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    encode_variant(d, first, out);
    if (encode_verify(d, out))
        return true;
    encode_variant(d, !first, out);
    return encode_verify(d, out) && (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || d->code_size != 8);
}
