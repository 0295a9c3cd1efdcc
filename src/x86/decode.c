/* The decoder: Zydis does the encoding space, this file reduces its result to struct insn.
 *
 * Zydis is set to what a CPU without MPX, CET and CLDEMOTE does: their encodings are then the reserved
 * NOPs that they are built from (SDM vol. 2, table A-6). */
#include "x86/insn.h"

static bool decode_setup(ZydisDecoder *dec, unsigned code_size, bool amd)
{
    ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LONG_64;
    ZydisStackWidth width = ZYDIS_STACK_WIDTH_64;
    if (code_size == 4) {
        mode = ZYDIS_MACHINE_MODE_LEGACY_32;
        width = ZYDIS_STACK_WIDTH_32;
    } else if (code_size == 2) {
        mode = ZYDIS_MACHINE_MODE_LEGACY_16;
        width = ZYDIS_STACK_WIDTH_16;
    }
    return ZYAN_SUCCESS(ZydisDecoderInit(dec, mode, width)) &&
           ZYAN_SUCCESS(ZydisDecoderEnableMode(dec, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE)) &&
           ZYAN_SUCCESS(ZydisDecoderEnableMode(dec, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE)) &&
           ZYAN_SUCCESS(ZydisDecoderEnableMode(dec, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE)) &&
           ZYAN_SUCCESS(ZydisDecoderEnableMode(dec, ZYDIS_DECODER_MODE_AMD_BRANCHES, amd));
}

static enum decode_result decode_status(ZyanStatus s)
{
    if (s == ZYDIS_STATUS_NO_MORE_DATA)
        return DECODE_TRUNCATED;
    return s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? DECODE_TOO_LONG : DECODE_UD;
}

/* Byte offset into cpu->r of a general register, or -1 for any other kind. */
static int decode_gpr(ZydisRegister r)
{
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return (r - ZYDIS_REGISTER_AH) * 8 + 1;
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r)) * 8;
    default:
        return -1;
    }
}

static unsigned decode_base(ZydisRegister r)
{
    if (r == ZYDIS_REGISTER_NONE)
        return R_ZERO;
    if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP || r == ZYDIS_REGISTER_IP)
        return R_RIP;
    int off = decode_gpr(r);
    return off < 0 ? R_ZERO : (unsigned)off / 8; /* a vector index (VSIB) is its handler's matter */
}

static unsigned decode_seg(ZydisRegister r)
{
    return r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS ? (unsigned)(r - ZYDIS_REGISTER_ES) : SEG_DS;
}

static void decode_mem(struct insn *i, const ZydisDecodedOperand *op)
{
    unsigned scale = op->mem.scale;
    i->flags |= INSN_MEM;
    i->base = decode_base(op->mem.base);
    i->index = decode_base(op->mem.index);
    i->scale = scale > 1 ? (uint8_t)__builtin_ctz(scale) : 0;
    i->disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
    i->seg = decode_seg(op->mem.segment);
    i->msz = op->size / 8 > 255 ? 0 : (uint8_t)(op->size / 8);
}

/* One letter an operand: r (general register), m, i, c (CL as a count), s/C/D (segment, control, debug
 * register), p (far pointer), x (anything else). */
static char decode_operand(struct insn *i, const ZydisDecodedOperand *op, unsigned n)
{
    switch (op->type) {
    case ZYDIS_OPERAND_TYPE_MEMORY:
        decode_mem(i, op);
        return 'm';
    case ZYDIS_OPERAND_TYPE_POINTER:
        i->imm = op->ptr.offset;
        i->sel = op->ptr.segment;
        return 'p';
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        if (n && i->form == FORM_I)
            i->sel = (uint16_t)op->imm.value.u; /* ENTER's nesting level */
        else
            i->imm = op->imm.value.u;
        return 'i';
    default:
        break;
    }
    ZydisRegister r = op->reg.value;
    int off = decode_gpr(r);
    if (off < 0) {
        ZydisRegisterClass cls = ZydisRegisterGetClass(r);
        i->cc = (uint8_t)ZydisRegisterGetId(r);
        if (cls == ZYDIS_REGCLASS_SEGMENT)
            i->cc = (uint8_t)decode_seg(r);
        return cls == ZYDIS_REGCLASS_SEGMENT   ? 's'
               : cls == ZYDIS_REGCLASS_CONTROL ? 'C'
               : cls == ZYDIS_REGCLASS_DEBUG   ? 'D'
                                               : 'x';
    }
    if (n == 2 && r == ZYDIS_REGISTER_CL)
        return 'c';
    if (n == 0 || (i->flags & INSN_MEM) || i->form == FORM_OTHER)
        i->r0 = (uint8_t)off; /* also the only register beside memory or a special register */
    else
        i->r1 = (uint8_t)off;
    return 'r';
}

static uint8_t decode_form(const char *k)
{
    static const struct { char kinds[4]; uint8_t form; } forms[] = {
        { "", FORM_NONE }, { "r", FORM_R }, { "m", FORM_M }, { "i", FORM_I }, { "rr", FORM_RR },
        { "rm", FORM_RM }, { "mr", FORM_MR }, { "ri", FORM_RI }, { "mi", FORM_MI }, { "rri", FORM_RRI },
        { "rmi", FORM_RMI }, { "mri", FORM_MRI }, { "rrc", FORM_RRC }, { "mrc", FORM_MRC }, { "p", FORM_FAR },
        { "ii", FORM_I }, { "rs", FORM_RR }, { "sr", FORM_RR }, { "ms", FORM_MR }, { "sm", FORM_RM },
        { "rC", FORM_RR }, { "Cr", FORM_RR }, { "rD", FORM_RR }, { "Dr", FORM_RR }, { "s", FORM_R },
    };
    for (unsigned n = 0; n < ARRAY_LEN(forms); n++)
        if (strncmp(forms[n].kinds, k, 3) == 0)
            return forms[n].form;
    return FORM_OTHER;
}

static void decode_operands(struct insn *i, const struct decoded *d)
{
    char kinds[6] = "";
    unsigned n = d->z.operand_count_visible;
    i->form = FORM_OTHER;
    for (unsigned k = 0; k < n && k < 5; k++) {
        const ZydisDecodedOperand *op = &d->ops[k];
        kinds[k] = decode_operand(i, op, k);
        if (k == 0 && (kinds[0] == 'r' || kinds[0] == 'm' || kinds[0] == 'i'))
            i->form = kinds[0] == 'i' ? FORM_I : FORM_NONE;
        if (k == 0)
            i->osz = (uint8_t)(op->size / 8);
        else if (k == 1)
            i->osz2 = (uint8_t)(op->size / 8);
    }
    i->form = decode_form(kinds);
    /* A register after a special one: the general register is always r0. */
    if (kinds[0] == 'r' && kinds[1] == 'm')
        i->r1 = 0;
}

/* --- where Zydis 4.0 and the processors differ --- */

/* F3 90 with REX.B is XCHG R8, rAX on AMD's CPUs; on Intel's it is PAUSE. */
static void amend_pause(struct decoded *d)
{
    ZydisDecodedInstruction *z = &d->z;
    if (z->mnemonic != ZYDIS_MNEMONIC_PAUSE || !(z->attributes & ZYDIS_ATTRIB_HAS_REX) || !z->raw.rex.B)
        return;
    ZydisDecodedOperand *r8 = &d->ops[0], *rax = &d->ops[1];
    bool wide = z->raw.rex.W, narrow = !wide && (z->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE);
    z->mnemonic = ZYDIS_MNEMONIC_XCHG;
    z->operand_count = z->operand_count_visible = 2;
    *r8 = (ZydisDecodedOperand){ .type = ZYDIS_OPERAND_TYPE_REGISTER, .size = wide ? 64 : narrow ? 16 : 32 };
    *rax = *r8;
    r8->reg.value = wide ? ZYDIS_REGISTER_R8 : narrow ? ZYDIS_REGISTER_R8W : ZYDIS_REGISTER_R8D;
    rax->reg.value = wide ? ZYDIS_REGISTER_RAX : narrow ? ZYDIS_REGISTER_AX : ZYDIS_REGISTER_EAX;
}

/* A SIB base of 101b with mod 0 means "no base, disp32" whatever REX.B says; with 32-bit addresses Zydis takes R13D. */
static void amend_r13d(struct decoded *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    if (z->address_width != 32 || z->raw.modrm.mod != 0 || z->raw.modrm.rm != 4 || z->raw.sib.base != 5)
        return;
    for (unsigned n = 0; n < z->operand_count_visible; n++) {
        ZydisDecodedOperand *op = &d->ops[n];
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.base != ZYDIS_REGISTER_R13D)
            continue;
        op->mem.base = ZYDIS_REGISTER_NONE;
        op->mem.disp.has_displacement = ZYAN_TRUE;
        op->mem.disp.value = z->raw.disp.value;
    }
}

/* VEX.W outside of 64-bit mode: PCMPESTRx ignores it, where Zydis takes RAX and RDX. VPEXTRQ and VPINSRQ are invalid on AMD's
 * CPUs, on Intel's they are VPEXTRD and VPINSRD. False: invalid. */
static bool amend_vex_w(const ZydisDecoder *dec, struct decoded *d, bool amd)
{
    const ZydisDecodedInstruction *z = &d->z;
    if (d->code_size == 8 || z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || z->raw.vex.size != 3 || !z->raw.vex.W ||
        z->opcode_map != ZYDIS_OPCODE_MAP_0F3A)
        return true;
    bool quad = z->opcode == 0x16 || z->opcode == 0x22;
    if (quad && amd)
        return false;
    if (!quad && z->opcode != 0x60 && z->opcode != 0x61)
        return true;
    d->raw[z->raw.vex.offset + 2] &= 0x7f;
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(dec, d->raw, z->length, &d->z, d->ops));
}

/* With an operand-size prefix Intel's MOVSXD reads 16 bits, AMD's 32. */
static void amend_movsxd(struct decoded *d)
{
    if (d->z.mnemonic == ZYDIS_MNEMONIC_MOVSXD && d->z.operand_width == 16)
        d->ops[1].size = 16;
}

/* A near return with an operand-size prefix in AMD's 64-bit mode pops 16 bits, like the other near branches
 * (APM vol. 3, RET); Zydis says 64. */
static unsigned decode_operand_width(const ZydisDecodedInstruction *z, bool amd)
{
    bool near_ret = z->mnemonic == ZYDIS_MNEMONIC_RET && z->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
    if (amd && near_ret && z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64 &&
        (z->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) && !z->raw.rex.W)
        return 16;
    return z->operand_width;
}

/* AMD has no register form of 0F 0D (APM vol. 3, PREFETCHW); Intel's is a reserved NOP. False: invalid. */
static bool decode_amend(const ZydisDecoder *dec, struct decoded *d, bool amd)
{
    const ZydisDecodedInstruction *z = &d->z;
    if (amd)
        amend_pause(d);
    else
        amend_movsxd(d);
    amend_r13d(d);
    bool map_0f = z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    return amend_vex_w(dec, d, amd) && !(amd && map_0f && z->opcode == 0x0d && z->raw.modrm.mod == 3);
}

static unsigned decode_flags(const ZydisDecodedInstruction *z)
{
    unsigned f = 0;
    if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        f |= INSN_LOCK;
    if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        f |= INSN_REP;
    if (z->attributes & ZYDIS_ATTRIB_HAS_REPNE)
        f |= INSN_REPNE;
    return f;
}

static uint8_t decode_string_seg(const ZydisDecodedInstruction *z)
{
    static const struct { ZydisInstructionAttributes a; uint8_t seg; } over[] = {
        { ZYDIS_ATTRIB_HAS_SEGMENT_CS, SEG_CS }, { ZYDIS_ATTRIB_HAS_SEGMENT_SS, SEG_SS },
        { ZYDIS_ATTRIB_HAS_SEGMENT_DS, SEG_DS }, { ZYDIS_ATTRIB_HAS_SEGMENT_ES, SEG_ES },
        { ZYDIS_ATTRIB_HAS_SEGMENT_FS, SEG_FS }, { ZYDIS_ATTRIB_HAS_SEGMENT_GS, SEG_GS },
    };
    for (unsigned n = 0; n < ARRAY_LEN(over); n++)
        if (z->attributes & over[n].a)
            return over[n].seg;
    return SEG_DS;
}

enum decode_result insn_decode(const uint8_t *p, unsigned n, unsigned code_size, bool amd, struct insn *i,
                               struct decoded *d)
{
    ZydisDecoder dec;
    if (!decode_setup(&dec, code_size, amd))
        return DECODE_UD;
    ZyanStatus s = ZydisDecoderDecodeFull(&dec, p, n > 15 ? 15 : n, &d->z, d->ops);
    if (!ZYAN_SUCCESS(s))
        return s == ZYDIS_STATUS_NO_MORE_DATA && n >= 15 ? DECODE_TOO_LONG : decode_status(s);
    memset(d->raw, 0, sizeof(d->raw));
    memcpy(d->raw, p, d->z.length);
    d->code_size = (uint8_t)code_size;
    if (!decode_amend(&dec, d, amd))
        return DECODE_UD;

    *i = (struct insn){ .op = d->z.mnemonic, .len = d->z.length, .base = R_ZERO, .index = R_ZERO };
    i->flags = (uint8_t)decode_flags(&d->z) | (code_size == 8 ? 0 : INSN_LEGACY);
    i->esz = (uint8_t)(decode_operand_width(&d->z, amd) / 8);
    i->asz = d->z.address_width / 8;
    i->addr_mask = i->asz ? mask_bytes(i->asz) : ~0ULL;
    i->seg = decode_string_seg(&d->z);
    i->rex = d->z.attributes & (ZYDIS_ATTRIB_HAS_REX | ZYDIS_ATTRIB_HAS_VEX | ZYDIS_ATTRIB_HAS_EVEX) ? 1 : 0;
    decode_operands(i, d);
    if (i->form != FORM_RR || i->cc == 0)
        if (d->z.meta.category == ZYDIS_CATEGORY_COND_BR || d->z.meta.category == ZYDIS_CATEGORY_CMOV ||
            d->z.meta.category == ZYDIS_CATEGORY_SETCC)
            i->cc = d->z.opcode & 15;
    return DECODE_OK;
}
