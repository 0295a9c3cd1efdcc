/* Which guest instructions the host CPU may execute, and under which conditions of the guest's state.
 *
 * This is a security boundary: the list is by instruction set and closed. Sets with system instructions,
 * control flow, strings or stack are not on it; single members of listed sets that are not plain data
 * processing are refused by name or by shape (any memory operand but one explicit ModRM operand, any prefix
 * with a meaning of its own). Conditions: SDM vol. 1 ch. 13, vol. 2 section 2.4 to 2.8 (exception classes),
 * vol. 3 tables 23-x. */
#include <cpuid.h>

#include "engine/interp/hostexec.h"

enum hx_kind { KIND_NONE, KIND_GPR, KIND_X87, KIND_MMX, KIND_SSE, KIND_VEX };

#define F1C(b)  (CPU_FEAT(FEAT_1_ECX, b) + 1)
#define F1D(b)  (CPU_FEAT(FEAT_1_EDX, b) + 1)
#define F7B(b)  (CPU_FEAT(FEAT_7_EBX, b) + 1)
#define F7C(b)  (CPU_FEAT(FEAT_7_ECX, b) + 1)
#define F7D(b)  (CPU_FEAT(FEAT_7_EDX, b) + 1)
#define F8C(b)  (CPU_FEAT(FEAT_8_1_ECX, b) + 1)
#define F71A(b) (CPU_FEAT(FEAT_7_1_EAX, b) + 1)
#define AVX512(f)                                                                                            \
    {                                                                                                        \
        F7B(16), f                                                                                           \
    }
#define AVX512VL(f)                                                                                          \
    {                                                                                                        \
        F7B(16), F7B(31), f                                                                                  \
    }
/* A set that comes in 128, 256 (both need VL) and 512 bits. */
#define SETS(name, f)                                                                                        \
    [ZYDIS_ISA_SET_##name##_128] = { KIND_VEX, AVX512VL(f) },                                                \
    [ZYDIS_ISA_SET_##name##_256] = { KIND_VEX, AVX512VL(f) },                                                \
    [ZYDIS_ISA_SET_##name##_512] = { KIND_VEX, AVX512(f) }

static const struct hx_set {
    uint8_t kind;
    uint16_t feat[3]; /* all needed; number + 1, 0: none */
} hx_sets[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    [ZYDIS_ISA_SET_BMI1] = { KIND_GPR, { F7B(3) } },
    [ZYDIS_ISA_SET_BMI2] = { KIND_GPR, { F7B(8) } },
    [ZYDIS_ISA_SET_ADOX_ADCX] = { KIND_GPR, { F7B(19) } },
    [ZYDIS_ISA_SET_LZCNT] = { KIND_GPR, { F8C(5) } },
    [ZYDIS_ISA_SET_POPCNT] = { KIND_GPR, { F1C(23) } },
    [ZYDIS_ISA_SET_MOVBE] = { KIND_GPR, { F1C(22) } },
    [ZYDIS_ISA_SET_X87] = { KIND_X87, { F1D(0) } },
    [ZYDIS_ISA_SET_FCMOV] = { KIND_X87, { F1D(0), F1D(15) } },
    [ZYDIS_ISA_SET_SSE3X87] = { KIND_X87, { F1D(0), F1C(0) } },
    [ZYDIS_ISA_SET_PENTIUMMMX] = { KIND_MMX, { F1D(23) } },
    [ZYDIS_ISA_SET_SSE2MMX] = { KIND_MMX, { F1D(23), F1D(26) } },
    [ZYDIS_ISA_SET_SSSE3MMX] = { KIND_MMX, { F1D(23), F1C(9) } },
    [ZYDIS_ISA_SET_SSE] = { KIND_SSE, { F1D(25) } },
    [ZYDIS_ISA_SET_SSE2] = { KIND_SSE, { F1D(26) } },
    [ZYDIS_ISA_SET_SSE3] = { KIND_SSE, { F1C(0) } },
    [ZYDIS_ISA_SET_SSSE3] = { KIND_SSE, { F1C(9) } },
    [ZYDIS_ISA_SET_SSE4] = { KIND_SSE, { F1C(19) } },
    [ZYDIS_ISA_SET_SSE42] = { KIND_SSE, { F1C(20) } },
    [ZYDIS_ISA_SET_SSE4A] = { KIND_SSE, { F8C(6) } },
    [ZYDIS_ISA_SET_AES] = { KIND_SSE, { F1C(25) } },
    [ZYDIS_ISA_SET_PCLMULQDQ] = { KIND_SSE, { F1C(1) } },
    [ZYDIS_ISA_SET_SHA] = { KIND_SSE, { F7B(29) } },
    [ZYDIS_ISA_SET_GFNI] = { KIND_SSE, { F7C(8) } },
    [ZYDIS_ISA_SET_AVX] = { KIND_VEX, { F1C(28) } },
    [ZYDIS_ISA_SET_AVX2] = { KIND_VEX, { F1C(28), F7B(5) } },
    [ZYDIS_ISA_SET_AVXAES] = { KIND_VEX, { F1C(28), F1C(25) } },
    [ZYDIS_ISA_SET_AVX_GFNI] = { KIND_VEX, { F1C(28), F7C(8) } },
    [ZYDIS_ISA_SET_AVX_VNNI] = { KIND_VEX, { F1C(28), F71A(4) } },
    [ZYDIS_ISA_SET_F16C] = { KIND_VEX, { F1C(28), F1C(29) } },
    [ZYDIS_ISA_SET_FMA] = { KIND_VEX, { F1C(28), F1C(12) } },
    [ZYDIS_ISA_SET_VAES] = { KIND_VEX, { F1C(28), F7C(9) } },
    [ZYDIS_ISA_SET_VPCLMULQDQ] = { KIND_VEX, { F1C(28), F7C(10) } },
    SETS(AVX512F, 0),
    [ZYDIS_ISA_SET_AVX512F_128N] = { KIND_VEX, AVX512(0) },
    [ZYDIS_ISA_SET_AVX512F_SCALAR] = { KIND_VEX, AVX512(0) },
    [ZYDIS_ISA_SET_AVX512F_KOP] = { KIND_VEX, AVX512(0) },
    SETS(AVX512BW, F7B(30)),
    [ZYDIS_ISA_SET_AVX512BW_128N] = { KIND_VEX, AVX512(F7B(30)) },
    [ZYDIS_ISA_SET_AVX512BW_KOP] = { KIND_VEX, AVX512(F7B(30)) },
    SETS(AVX512DQ, F7B(17)),
    [ZYDIS_ISA_SET_AVX512DQ_128N] = { KIND_VEX, AVX512(F7B(17)) },
    [ZYDIS_ISA_SET_AVX512DQ_SCALAR] = { KIND_VEX, AVX512(F7B(17)) },
    [ZYDIS_ISA_SET_AVX512DQ_KOP] = { KIND_VEX, AVX512(F7B(17)) },
    SETS(AVX512CD, F7B(28)),
    SETS(AVX512_IFMA, F7B(21)),
    SETS(AVX512_VBMI, F7C(1)),
    SETS(AVX512_VBMI2, F7C(6)),
    SETS(AVX512_GFNI, F7C(8)),
    SETS(AVX512_VAES, F7C(9)),
    SETS(AVX512_VPCLMULQDQ, F7C(10)),
    SETS(AVX512_VNNI, F7C(11)),
    SETS(AVX512_BITALG, F7C(12)),
    SETS(AVX512_VPOPCNTDQ, F7C(14)),
    SETS(AVX512_BF16, F71A(5)),
    SETS(AVX512_FP16, F7D(23)),
    [ZYDIS_ISA_SET_AVX512_FP16_128N] = { KIND_VEX, AVX512(F7D(23)) },
    [ZYDIS_ISA_SET_AVX512_FP16_SCALAR] = { KIND_VEX, AVX512(F7D(23)) },
    /* Not executed by stubs, but asked about by handlers in C. */
    [ZYDIS_ISA_SET_AVX2GATHER] = { KIND_NONE, { F1C(28), F7B(5) } },
};

static bool allow_feature(const struct cpuid_table *t, unsigned f)
{
    return t->feat[(f - 1) / 32] >> ((f - 1) % 32) & 1;
}

bool hx_has_isa(const struct cpuid_table *t, ZydisISASet set)
{
    if ((unsigned)set >= ARRAY_LEN(hx_sets) || !hx_sets[set].feat[0])
        return false;
    for (unsigned n = 0; n < ARRAY_LEN(hx_sets[set].feat); n++)
        if (hx_sets[set].feat[n] && !allow_feature(t, hx_sets[set].feat[n]))
            return false;
    return true;
}

/* Members of listed sets that are state management or have implicit memory: done in C or not at all. */
static bool allow_refused(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FWAIT:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
    case ZYDIS_MNEMONIC_FEMMS:
    case ZYDIS_MNEMONIC_EMMS:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return true;
    default:
        return false;
    }
}

static const ZydisDecodedOperand *allow_mem(const struct decoded *d)
{
    for (unsigned n = 0; n < d->z.operand_count; n++)
        if (d->ops[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &d->ops[n];
    return NULL;
}

/* At most one memory operand, explicit, an ordinary ModRM one of at most 64 bytes, read or written but not
 * both. */
static bool allow_mem_shape(const struct decoded *d)
{
    unsigned count = 0;
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        const ZydisDecodedOperand *op = &d->ops[n];
        if (op->type == ZYDIS_OPERAND_TYPE_POINTER)
            return false;
        if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op->imm.is_relative)
            return false;
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        bool rd = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ,
             wr = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        if (++count > 1 || op->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
            op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || !op->size || op->size > 512 || op->size % 8 ||
            rd == wr)
            return false;
    }
    return true;
}

/* Only registers that a stub can carry. */
static bool allow_registers(const struct decoded *d)
{
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        if (d->ops[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegister r = d->ops[n].reg.value;
        if (d->ops[n].attributes & ZYDIS_OATTRIB_IS_MULTISOURCE4)
            return false;
        switch (ZydisRegisterGetClass(r)) {
        case ZYDIS_REGCLASS_GPR8:
        case ZYDIS_REGCLASS_GPR16:
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64:
        case ZYDIS_REGCLASS_X87:
        case ZYDIS_REGCLASS_MMX:
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
        case ZYDIS_REGCLASS_ZMM:
        case ZYDIS_REGCLASS_MASK:
        case ZYDIS_REGCLASS_FLAGS:
            break;
        default:
            if (r != ZYDIS_REGISTER_X87STATUS && r != ZYDIS_REGISTER_X87CONTROL && r != ZYDIS_REGISTER_X87TAG)
                return false;
        }
    }
    return true;
}

static bool allow_prefixes(const struct decoded *d)
{
    const ZydisInstructionAttributes bad =
        ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE |
        ZYDIS_ATTRIB_HAS_XACQUIRE | ZYDIS_ATTRIB_HAS_XRELEASE | ZYDIS_ATTRIB_IS_PRIVILEGED;
    return !(d->z.attributes & bad) && d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_NONE &&
           (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
            d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ||
            d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX);
}

static bool allow_has_class(const struct decoded *d, ZydisRegisterClass a)
{
    for (unsigned n = 0; n < d->z.operand_count; n++)
        if (d->ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(d->ops[n].reg.value) == a)
            return true;
    return false;
}

static bool allow_uses_mxcsr(const struct decoded *d)
{
    switch (d->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E11:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return true;
    default:
        break;
    }
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_CVTPI2PS:
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
    case ZYDIS_MNEMONIC_CVTPI2PD:
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
        return true;
    default:
        break;
    }
    /* Whatever else computes on floating-point elements: loading MXCSR in vain does no harm. */
    for (unsigned n = 0; n < d->z.operand_count_visible; n++) {
        ZydisElementType t = d->ops[n].element_type;
        if (t == ZYDIS_ELEMENT_TYPE_FLOAT16 || t == ZYDIS_ELEMENT_TYPE_FLOAT32 ||
            t == ZYDIS_ELEMENT_TYPE_FLOAT64)
            return d->z.meta.category != ZYDIS_CATEGORY_DATAXFER &&
                   d->z.meta.category != ZYDIS_CATEGORY_BROADCAST &&
                   d->z.meta.category != ZYDIS_CATEGORY_LOGICAL_FP &&
                   d->z.meta.category != ZYDIS_CATEGORY_BLEND;
    }
    return false;
}

/* Memory operands that must be aligned whatever EFLAGS.AC says. */
static unsigned allow_align(const struct cpuid_table *t, const struct decoded *d, unsigned size)
{
    if (d->z.meta.isa_set == ZYDIS_ISA_SET_SHA && t->vendor == VENDOR_AMD)
        return 0; /* Zen does not check these */
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return 0;
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQA32:
    case ZYDIS_MNEMONIC_VMOVDQA64:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        return size - 1;
    default:
        return d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && size == 16 ? 15 : 0;
    }
}

/* Elements that the mask covers: of the memory operand, or of the vector that it is broadcast to. */
static unsigned allow_mask_bits(const struct decoded *d, const ZydisDecodedOperand *mem)
{
    static const uint8_t to[] = {
        [ZYDIS_BROADCAST_MODE_1_TO_2] = 2,   [ZYDIS_BROADCAST_MODE_1_TO_4] = 4,
        [ZYDIS_BROADCAST_MODE_1_TO_8] = 8,   [ZYDIS_BROADCAST_MODE_1_TO_16] = 16,
        [ZYDIS_BROADCAST_MODE_1_TO_32] = 32, [ZYDIS_BROADCAST_MODE_1_TO_64] = 64,
        [ZYDIS_BROADCAST_MODE_2_TO_4] = 4,   [ZYDIS_BROADCAST_MODE_2_TO_8] = 8,
        [ZYDIS_BROADCAST_MODE_2_TO_16] = 16, [ZYDIS_BROADCAST_MODE_4_TO_8] = 8,
        [ZYDIS_BROADCAST_MODE_4_TO_16] = 16, [ZYDIS_BROADCAST_MODE_8_TO_16] = 16,
    };
    unsigned mode = d->z.avx.broadcast.mode;
    return mode && mode < ARRAY_LEN(to) ? to[mode] : mem->element_count;
}

/* Exception classes without fault suppression (NF) access all of their operand. */
static bool allow_suppresses(const struct decoded *d)
{
    switch (d->z.mnemonic) { /* NF, whatever the decoder's table says */
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VDBPSADBW:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
        return false;
    default:
        break;
    }
    switch (d->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E4:
    case ZYDIS_EXCEPTION_CLASS_E5:
    case ZYDIS_EXCEPTION_CLASS_E6:
    case ZYDIS_EXCEPTION_CLASS_E10:
    case ZYDIS_EXCEPTION_CLASS_E11:
        return true;
    default:
        return false;
    }
}

static bool allow_packed(const struct decoded *d)
{
    return d->z.meta.category == ZYDIS_CATEGORY_COMPRESS || d->z.meta.category == ZYDIS_CATEGORY_EXPAND ||
           d->z.mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSB || d->z.mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSW ||
           d->z.mnemonic == ZYDIS_MNEMONIC_VPEXPANDB || d->z.mnemonic == ZYDIS_MNEMONIC_VPEXPANDW;
}

/* What goes element by element, when that can be told from a whole: VPCOMPRESS does so without a mask too, VPEXPAND does not. */
static bool allow_mask(const struct decoded *d, const ZydisDecodedOperand *mem, struct hx_class *c)
{
    unsigned mode = d->z.avx.mask.mode;
    bool suppress = allow_suppresses(d), all = mode == ZYDIS_MASK_MODE_DISABLED;
    if (d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX || (all && !(allow_packed(d) && c->mem_write)) || (!suppress && !c->mem_write))
        return true;
    if (!all && mode != ZYDIS_MASK_MODE_MERGING && mode != ZYDIS_MASK_MODE_ZEROING &&
        d->z.meta.category != ZYDIS_CATEGORY_BLEND) /* VBLENDM* select by their mask, and suppress alike */
        return false;
    c->whole = !suppress;
    c->mask_reg = all ? 0 : d->z.avx.mask.reg - ZYDIS_REGISTER_K0;
    c->el_size = mem->element_size / 8;
    c->el_count = mem->element_count;
    c->mask_bits = allow_mask_bits(d, mem);
    c->packed = allow_packed(d);
    return (c->mask_reg || all) && c->el_size && c->el_size <= 8 && c->el_count && c->mask_bits >= c->el_count &&
           c->el_size * c->el_count == mem->size / 8 && c->mask_bits % c->el_count == 0;
}

static void allow_conditions(const struct decoded *d, enum hx_kind kind, struct hx_class *c)
{
    bool legacy = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    if (kind == KIND_X87) {
        c->cr0_mask = CR0_EM | CR0_TS;
        c->nm_on_em = true;
        c->flags |= HX_X87;
    } else if (kind != KIND_GPR && legacy) {
        bool xmm = allow_has_class(d, ZYDIS_REGCLASS_XMM), mmx = allow_has_class(d, ZYDIS_REGCLASS_MMX);
        if (xmm || mmx)
            c->cr0_mask = CR0_EM | CR0_TS;
        if (xmm || (c->flags & HX_MXCSR_USE))
            c->cr4_need = CR4_OSFXSR;
        if (mmx)
            c->flags |= HX_MMX;
    } else if (!legacy) {
        c->cr0_mask = c->cr0_want = CR0_PE;
        c->rflags_bad = FL_VM;
        if (kind == KIND_VEX) {
            bool z =
                d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || allow_has_class(d, ZYDIS_REGCLASS_MASK);
            c->cr0_mask |= CR0_TS;
            c->cr4_need = CR4_OSXSAVE;
            c->xcr0_need = XCR0_SSE | XCR0_AVX | (z ? XCR0_AVX512 : 0);
            c->flags |= HX_VZERO;
        }
    }
}

bool hx_allow(const struct cpuid_table *t, const struct decoded *d, struct hx_class *c)
{
    ZydisISASet set = d->z.meta.isa_set;
    if (set == ZYDIS_ISA_SET_PPRO && d->z.meta.isa_ext == ZYDIS_ISA_EXT_X87)
        set = ZYDIS_ISA_SET_FCMOV; /* FCOMI and its relatives came with FCMOV */
    *c = (struct hx_class){ 0 };
    if (!hx_has_isa(t, set) || hx_sets[set].kind == KIND_NONE || allow_refused(d->z.mnemonic) ||
        !allow_mem_shape(d) || !allow_registers(d) || !allow_prefixes(d))
        return false;
    enum hx_kind kind = hx_sets[set].kind;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_FISTTP) /* an SSE3 addition to x87 */
        kind = KIND_X87;
    if (kind != KIND_GPR && kind != KIND_X87 && allow_uses_mxcsr(d))
        c->flags |= HX_MXCSR_USE;
    allow_conditions(d, kind, c);
    const ZydisDecodedOperand *mem = allow_mem(d);
    if (!mem)
        return true;
    c->mem_size = mem->size / 8;
    c->mem_write = mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    c->align = allow_align(t, d, c->mem_size);
    return allow_mask(d, mem, c);
}
