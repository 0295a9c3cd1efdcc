/* The generator: random encodings that the decoder accepts, with edge values in registers and memory.
 *
 * Encodings are drawn over the whole opcode space (legacy, VEX and EVEX maps), not from a list, so that every form that the
 * decoder knows has its chance. What user code may not do, what depends on time or chance, and what leaves the
 * sequence (far branches, system calls) is left out. */
#include <string.h>

#include <Zydis/Zydis.h>

#include "isa.h"

static uint8_t gen_seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];

unsigned gen_coverage(void)
{
    unsigned n = 0;
    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        n += gen_seen[m];
    return n;
}

static uint64_t pick(struct isa_rand *r, uint64_t n) { return isa_rand(r) % n; }

static uint64_t gen_value(struct isa_rand *r)
{
    static const uint64_t edge[] = {
        0, 1, 2, ~0ULL, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
        0x7fffffffffffffff, 0x8000000000000000, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 31, 32, 33, 63, 64, 65, 7, 8, 15, 16,
    };
    switch (pick(r, 4)) {
    case 0:
    case 1: return edge[pick(r, sizeof(edge) / sizeof(edge[0]))];
    case 2: return isa_rand(r) >> pick(r, 64);
    default: return isa_rand(r);
    }
}

/* Floating-point bit patterns of 4 or 8 bytes: zeros, ones, denormals, infinities, NaNs, ordinary numbers. */
static void gen_float(struct isa_rand *r, uint8_t *p, unsigned size)
{
    static const uint32_t f32[] = { 0, 0x80000000, 0x3f800000, 0xbf800000, 1, 0x807fffff, 0x00800000, 0x7f7fffff, 0x7f800000,
                                    0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345, 0x4b000001, 0x4f000000, 0x3f000000 };
    static const uint64_t f64[] = { 0, 1ULL << 63, 0x3ff0000000000000, 0xbff0000000000000, 1, 0x800fffffffffffff,
                                    0x0010000000000000, 0x7fefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000,
                                    0x7ff8000000000000, 0x7ff0000000000001, 0xfff8123456789abc, 0x43e0000000000000,
                                    0x41e0000000000000, 0x3fe0000000000000 };
    uint64_t v = size == 4 ? f32[pick(r, 16)] : f64[pick(r, 16)];
    if (pick(r, 3) == 0) {
        double d = (double)(int64_t)(isa_rand(r) >> pick(r, 60)) / 256;
        float f = (float)d;
        memcpy(&v, &d, 8);
        if (size == 4)
            memcpy(&v, &f, 4);
    }
    memcpy(p, &v, size);
}

static void gen_bytes(struct isa_rand *r, uint8_t *p, unsigned len)
{
    unsigned kind = (unsigned)pick(r, 4);
    for (unsigned n = 0; n < len; n += 8) {
        if (kind == 0) {
            gen_float(r, p + n, 4);
            gen_float(r, p + n + 4, 4);
        } else if (kind == 1) {
            gen_float(r, p + n, 8);
        } else {
            uint64_t v = kind == 2 ? gen_value(r) : isa_rand(r);
            memcpy(p + n, &v, 8);
        }
    }
}

/* An 80-bit extended value. */
static void gen_st(struct isa_rand *r, uint8_t *p)
{
    static const uint16_t exps[] = { 0, 0x8000, 0x3fff, 0xbfff, 0x7fff, 0xffff, 0x4000, 0x3ffe, 0x403e, 0x4010, 1 };
    static const uint64_t mants[] = { 0x8000000000000000, 0xc000000000000000, 0xffffffffffffffff, 0x8000000000000001, 0,
                                      0xa000000000000000 };
    uint16_t e = exps[pick(r, 11)];
    uint64_t m = mants[pick(r, 6)];
    if (pick(r, 2)) {
        m = isa_rand(r) | 1ULL << 63;
        e = (uint16_t)(0x3ff0 + pick(r, 32)) | (uint16_t)(isa_rand(r) & 0x8000);
    }
    memcpy(p, &m, 8);
    memcpy(p + 8, &e, 2);
}

bool gen_no_code32, gen_no_wild_rsp, gen_x87, gen_pointers;

/* Some registers empty; and now and then an exception that is not masked. */
static void gen_x87_state(struct isa_rand *r, struct isa_state *s)
{
    if (pick(r, 2))
        s->ftw = (uint8_t)isa_rand(r);
    if (pick(r, 16) == 0)
        s->fcw &= (uint16_t)~pick(r, 64);
}

static void gen_state(struct isa_rand *r, struct isa_state *s)
{
    for (int n = 0; n < 16; n++)
        s->r[n] = gen_value(r);
    s->r[4] = ISA_DATA + 0x2000 + pick(r, 256) * 8; /* RSP */
    s->rflags = isa_rand(r) & 0x8d5; /* DF is set by STD, seldom, so that the host's handlers see it clear too */
    s->rflags |= pick(r, 8) == 0 ? 0x400 : 0;
    s->rflags |= pick(r, 16) == 0 ? 0x40000 : 0;
    for (int n = 0; n < 32; n++)
        gen_bytes(r, s->zmm[n], 64);
    for (int n = 0; n < 8; n++)
        s->k[n] = gen_value(r);
    s->mxcsr = 0x1f80;
    if (pick(r, 4) == 0)
        s->mxcsr = (uint32_t)isa_rand(r) & 0xffff;
    s->fcw = 0x37f;
    if (pick(r, 4) == 0)
        s->fcw = (uint16_t)((isa_rand(r) & 0x0f00) | 0x7f);
    s->fsw = (uint16_t)(isa_rand(r) & 0x7f00);
    s->ftw = pick(r, 4) ? 0xff : (uint8_t)isa_rand(r);
    for (int n = 0; n < 8; n++)
        gen_st(r, s->st[n]);
    if (gen_x87)
        gen_x87_state(r, s);
}

/* --- one instruction --- */

static bool gen_category_refused(ZydisInstructionCategory c)
{
    switch (c) {
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_CET:
    case ZYDIS_CATEGORY_MPX:
    case ZYDIS_CATEGORY_PKU:
    case ZYDIS_CATEGORY_WAITPKG:
    case ZYDIS_CATEGORY_UINTR:
    case ZYDIS_CATEGORY_AMX_TILE:
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED:
    case ZYDIS_CATEGORY_AVX512_VP2INTERSECT: /* not shown to guests */
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_TSX_LDTRK:
    case ZYDIS_CATEGORY_UFMA:
    case ZYDIS_CATEGORY_KNC:
    case ZYDIS_CATEGORY_KNCMASK:
    case ZYDIS_CATEGORY_KNCSCALAR:
    case ZYDIS_CATEGORY_PADLOCK:
    case ZYDIS_CATEGORY_AMD3DNOW:
    case ZYDIS_CATEGORY_XOP:
    case ZYDIS_CATEGORY_TBM:
    case ZYDIS_CATEGORY_FMA4:
    case ZYDIS_CATEGORY_ENQCMD:
    case ZYDIS_CATEGORY_MOVDIR:
    case ZYDIS_CATEGORY_SERIALIZE:
    case ZYDIS_CATEGORY_HRESET:
    case ZYDIS_CATEGORY_PCONFIG:
    case ZYDIS_CATEGORY_SMAP:
    case ZYDIS_CATEGORY_SGX:
    case ZYDIS_CATEGORY_CLZERO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_IO:
        return true;
    default:
        return false;
    }
}

static bool gen_mnemonic_refused(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDPRU:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_MONITORX:
    case ZYDIS_MNEMONIC_MWAITX:
    case ZYDIS_MNEMONIC_MCOMMIT:
    case ZYDIS_MNEMONIC_INVLPGB:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FNSAVE: /* instruction and data pointers depend on the CPU's maker */
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return !gen_pointers;
    case ZYDIS_MNEMONIC_PTWRITE: /* not shown to guests */
    case ZYDIS_MNEMONIC_XTEST:
        return true;
    default:
        return false;
    }
}

static bool gen_allowed(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    if (gen_category_refused(z->meta.category) || gen_mnemonic_refused(z->mnemonic))
        return false;
    if (z->attributes & (ZYDIS_ATTRIB_IS_PRIVILEGED | ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS))
        return false;
    for (unsigned n = 0; n < z->operand_count_visible; n++) {
        if (ops[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass c = ZydisRegisterGetClass(ops[n].reg.value);
        if (c == ZYDIS_REGCLASS_SEGMENT || c == ZYDIS_REGCLASS_CONTROL || c == ZYDIS_REGCLASS_DEBUG ||
            c == ZYDIS_REGCLASS_TEST || c == ZYDIS_REGCLASS_BOUND)
            return false;
    }
    return true;
}

static unsigned gen_legacy(struct isa_rand *r, uint8_t *p)
{
    unsigned n = 0;
    static const uint8_t prefix[] = { 0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x2e };
    static const uint8_t weight[] = { 4, 8, 8, 16, 24, 32 };
    for (unsigned k = 0; k < sizeof(prefix); k++)
        if (pick(r, weight[k]) == 0)
            p[n++] = prefix[k];
    if (pick(r, 2))
        p[n++] = 0x40 | (uint8_t)pick(r, 16);
    unsigned map = (unsigned)pick(r, 8);
    if (map >= 3)
        p[n++] = 0x0f;
    if (map == 6)
        p[n++] = 0x38;
    if (map == 7)
        p[n++] = 0x3a;
    p[n++] = (uint8_t)isa_rand(r);
    return n;
}

/* x87 and MMX, with what belongs to both. */
static unsigned gen_escape(struct isa_rand *r, uint8_t *p)
{
    unsigned n = 0;
    if (pick(r, 16) == 0)
        p[n++] = 0x66;
    if (pick(r, 8) == 0)
        p[n++] = 0x40 | (uint8_t)pick(r, 16);
    unsigned kind = (unsigned)pick(r, 16);
    if (kind == 0) {
        p[n++] = 0x9b; /* FWAIT */
    } else if (kind < 5) {
        p[n++] = 0x0f;
        p[n++] = kind == 1 && pick(r, 2) ? 0x77 : pick(r, 2) ? 0x60 + (uint8_t)pick(r, 32) : 0xd0 + (uint8_t)pick(r, 48);
    } else if (kind == 5) {
        p[n++] = 0x0f;
        p[n++] = 0xae; /* FXSAVE and FXRSTOR among others */
    } else {
        p[n++] = 0xd8 + (uint8_t)pick(r, 8);
        p[n++] = (uint8_t)isa_rand(r) | (pick(r, 2) ? 0xc0 : 0);
    }
    return n;
}

static unsigned gen_vex(struct isa_rand *r, uint8_t *p)
{
    unsigned map = 1 + (unsigned)pick(r, 3);
    uint8_t pp = (uint8_t)pick(r, 4), b = (uint8_t)(isa_rand(r) & 0x78);
    if (pick(r, 2))
        b |= 0x78; /* many have no second source: vvvv = 1111 */
    p[0] = 0xc4;
    p[1] = (uint8_t)((isa_rand(r) & 0xe0) | map);
    p[2] = (uint8_t)(b | pp | (isa_rand(r) & 0x84));
    p[3] = (uint8_t)isa_rand(r);
    return 4;
}

static unsigned gen_evex(struct isa_rand *r, uint8_t *p)
{
    p[0] = 0x62;
    p[1] = (uint8_t)(isa_rand(r) & 0xf0);
    uint64_t map = isa_rand(r);
    p[1] |= (uint8_t)(map >> 32 & 3 ? 1 + map % 3 : 5 + map % 2); /* 5 and 6: half precision */
    p[2] = (uint8_t)((isa_rand(r) & 0xfb) | 4);
    p[3] = (uint8_t)isa_rand(r);
    if (pick(r, 2)) {
        p[2] |= 0x78;
        p[3] |= 8;
    }
    if (pick(r, 2))
        p[3] &= 0xf8; /* no mask */
    p[4] = (uint8_t)isa_rand(r);
    return 5;
}

struct gen_insn {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t raw[24];
};

static int gen_gpr(ZydisRegister reg)
{
    return ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR64 || ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR32
               ? ZydisRegisterGetId(reg)
               : -1;
}

/* AMD's CPUs (seen on family 25, model 17) read ESP or RSP as it was before the last pushes where it is the register operand of an EVEX
 * instruction with EVEX.X, which means nothing there. So it is not set. */
static void gen_settle_rsp(struct gen_insn *g)
{
    if (g->z.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX || !__builtin_cpu_is("amd"))
        return;
    for (unsigned n = 0; n < g->z.operand_count_visible; n++)
        if (g->ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER && g->ops[n].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM &&
            gen_gpr(g->ops[n].reg.value) == 4)
            g->raw[1] |= 0x40;
}

static void gen_insn(struct isa_rand *r, const ZydisDecoder *dec, struct gen_insn *g)
{
    for (;;) {
        unsigned kind = (unsigned)pick(r, 5), n;
        n = gen_x87 && pick(r, 4) ? gen_escape(r, g->raw) : kind < 3 ? gen_legacy(r, g->raw) : kind == 3 ? gen_vex(r, g->raw) : gen_evex(r, g->raw);
        for (unsigned k = n; k < sizeof(g->raw); k++)
            g->raw[k] = (uint8_t)isa_rand(r);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(dec, g->raw, 15, &g->z, g->ops)) || !gen_allowed(&g->z, g->ops))
            continue;
        if (g->z.meta.category == ZYDIS_CATEGORY_NOP && pick(r, 8))
            continue;
        gen_settle_rsp(g);
        return;
    }
}

/* An interesting address for an operand of size bytes: inside, at page ends, across them, unmapped, read-only. */
static uint64_t gen_address(struct isa_rand *r, unsigned size)
{
    uint64_t page = ISA_DATA + 0x1000 * pick(r, 4);
    switch (pick(r, 16)) {
    case 0: return page + 0x1000 - pick(r, 64);          /* near or across a page's end; the last page's is unmapped */
    case 1: return page + 0x1000 - size;                 /* just fits */
    case 2: return ISA_RO + pick(r, 0x1000);
    case 3: return ISA_DATA - pick(r, 32);               /* begins before the first page */
    case 4: return pick(r, 4) ? page + pick(r, 0x1000) : 0x8000000000000000ULL + isa_rand(r) % 0x1000;
    default: return page + (pick(r, 0xf00) & ~63ULL);    /* aligned */
    }
}

static bool gen_is_vsib(ZydisRegister reg)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(reg);
    return c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM || c == ZYDIS_REGCLASS_ZMM;
}

/* Make the memory operand point at target by setting its base register or displacement. at: address of the insn. */
static void gen_aim(struct gen_insn *g, struct isa_state *s, const ZydisDecodedOperand *op, uint64_t target, uint64_t at)
{
    int base = gen_gpr(op->mem.base), index = gen_gpr(op->mem.index);
    uint64_t disp = op->mem.disp.has_displacement ? (uint64_t)op->mem.disp.value : 0;
    uint64_t rest = disp + (index >= 0 ? s->r[index] * op->mem.scale : 0);
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
        uint32_t d = (uint32_t)(target - (at + g->z.length));
        memcpy(g->raw + g->z.raw.disp.offset, &d, 4);
    } else if (base == 4 && (target - rest) >> 47) {
        return; /* not every host's kernel goes on with a stack pointer that it thinks little of */
    } else if (base >= 0 && base != index) {
        s->r[base] = target - rest;
    } else if (base < 0 && g->z.raw.disp.size == 32 && index < 0) {
        uint32_t d = (uint32_t)target;
        memcpy(g->raw + g->z.raw.disp.offset, &d, 4);
    } else if (g->z.raw.disp.size == 64) {
        memcpy(g->raw + g->z.raw.disp.offset, &target, 8);
    }
}

/* Small element offsets for gathers and scatters, so that most of them stay in the data. */
static void gen_vsib(struct isa_rand *r, struct isa_state *s, ZydisRegister reg, bool qwords)
{
    uint8_t *v = s->zmm[ZydisRegisterGetId(reg)];
    memset(v, 0, 64);
    for (unsigned n = 0; n < 64; n += qwords ? 8 : 4) {
        int32_t off = (int32_t)pick(r, 64) - 16;
        if (pick(r, 24) == 0)
            off = 0x4000;
        int64_t wide = off;
        memcpy(v + n, &wide, qwords ? 8 : 4);
    }
}

static void gen_memory(struct isa_rand *r, struct isa_seq *s, struct gen_insn *g)
{
    for (unsigned n = 0; n < g->z.operand_count; n++) {
        const ZydisDecodedOperand *op = &g->ops[n];
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && op->mem.base == ZYDIS_REGISTER_RSP)
            continue;
        if (gen_is_vsib(op->mem.index)) {
            const char *name = ZydisMnemonicGetString(g->z.mnemonic);
            gen_vsib(r, &s->in, op->mem.index, strstr(name, "q") != NULL);
            gen_aim(g, &s->in, op, ISA_DATA + 0x1000 + pick(r, 64), s->at + s->len);
            continue;
        }
        unsigned size = op->size / 8;
        gen_aim(g, &s->in, op, gen_address(r, size ? size : 1), s->at + s->len);
    }
    if (g->z.meta.category == ZYDIS_CATEGORY_STRINGOP) {
        s->in.r[6] = gen_address(r, 8);
        s->in.r[7] = gen_address(r, 8);
        s->in.r[1] = pick(r, 40);
    }
    if (g->z.mnemonic == ZYDIS_MNEMONIC_ENTER)
        s->in.r[5] = gen_address(r, 8);
    if (g->z.mnemonic == ZYDIS_MNEMONIC_XLAT)
        s->in.r[3] = gen_address(r, 1);
}

static void gen_append(struct isa_seq *s, const uint8_t *p, unsigned len, uint16_t mnemonic)
{
    memcpy(s->code + s->len, p, len);
    s->start[s->n] = (uint16_t)s->len;
    s->mnemonic[s->n++] = mnemonic;
    s->len += len;
}

/* Flags beyond Zydis' table that depend on the count: OF of shifts and rotates by other than one; all after a double shift
 * by more than the width. */
static uint64_t gen_undefined(const ZydisDecodedInstruction *z)
{
    uint64_t u = z->cpu_flags ? z->cpu_flags->undefined : 0;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR: case ZYDIS_MNEMONIC_SAR:
        return u | 0x811; /* OF, AF, and CF with a count beyond the width */
    case ZYDIS_MNEMONIC_ROL: case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL: case ZYDIS_MNEMONIC_RCR:
        return u | 0x800;
    case ZYDIS_MNEMONIC_SHLD: case ZYDIS_MNEMONIC_SHRD:
        return u | 0x8d5;
    default:
        return u & 0x8d5;
    }
}

/* A forward conditional jump over the next instruction, whose length is given. */
static void gen_branch(struct isa_rand *r, struct isa_seq *s, unsigned over)
{
    uint8_t b[6] = { 0x0f, (uint8_t)(0x80 | pick(r, 16)), (uint8_t)over, 0, 0, 0 };
    uint8_t t[2] = { (uint8_t)(0x70 | pick(r, 16)), (uint8_t)over };
    if (pick(r, 2))
        gen_append(s, b, 6, ZYDIS_MNEMONIC_JZ);
    else
        gen_append(s, t, 2, ZYDIS_MNEMONIC_JZ);
}

/* SUB dword [abs32], 1 or ADD dword [abs32], 1: the SIB form without base in 64-bit code. */
static void gen_count(struct isa_seq *s, uint64_t at, bool add)
{
    uint8_t modrm = add ? 0 : 0x28, b[8] = { 0x83 };
    uint32_t where = (uint32_t)at;
    unsigned n = 1;
    b[n++] = s->code32 ? modrm | 5 : modrm | 4;
    if (!s->code32)
        b[n++] = 0x25;
    memcpy(b + n, &where, 4);
    b[n + 4] = 1;
    gen_append(s, b, n + 5, add ? ZYDIS_MNEMONIC_ADD : ZYDIS_MNEMONIC_SUB);
}

/* MOV r9d or eax, imm32, whose immediate the instruction before it counts up: code that changes itself while it is hot. */
static void gen_self_modify(struct isa_seq *s)
{
    unsigned size = s->code32 ? 7 : 8, head = s->code32 ? 1 : 2;
    uint8_t mov[6] = { 0x41, 0xb9, 0x11, 0x22, 0x33, 0x44 };
    gen_count(s, s->at + s->len + size + head, true);
    if (s->code32)
        mov[1] = 0xb8;
    gen_append(s, mov + 2 - head, 4 + head, ZYDIS_MNEMONIC_MOV);
}

/* The end of a loop: count down, and back to the first instruction. */
static void gen_loop_end(struct isa_seq *s)
{
    uint8_t jnz[6] = { 0x0f, 0x85 };
    gen_count(s, ISA_COUNT, false);
    uint32_t back = (uint32_t)-(int32_t)(s->len + sizeof(jnz));
    memcpy(jnz + 2, &back, 4);
    gen_append(s, jnz, sizeof(jnz), ZYDIS_MNEMONIC_JNZ);
    s->undefined = 0;
}

/* LEA base, [base + step]: the operand of a loop's instruction wanders, and no flag changes. */
static void gen_wander(struct isa_rand *r, struct isa_seq *s, const struct gen_insn *g)
{
    static const int16_t steps[] = { 1, 3, 8, 16, 64, -1, -8, 4, 2, 32, 0x3f1, 0x1000, -0x201, 0xffc };
    for (unsigned n = 0; n < g->z.operand_count_visible; n++) {
        const ZydisDecodedOperand *op = &g->ops[n];
        int base = op->type == ZYDIS_OPERAND_TYPE_MEMORY ? gen_gpr(op->mem.base) : -1;
        if (base < 0 || base == 4 || base == gen_gpr(op->mem.index) || pick(r, 3) == 0)
            continue;
        uint8_t lea[8] = { (uint8_t)(0x48 | (base >> 3) * 5), 0x8d, (uint8_t)(0x80 | (base & 7) * 9) };
        unsigned len = 3;
        int32_t step = steps[pick(r, sizeof(steps) / sizeof(steps[0]))];
        if ((base & 7) == 4)
            lea[len++] = 0x24;
        memcpy(lea + len, &step, 4);
        len += 4;
        gen_append(s, lea + s->code32, len - s->code32, ZYDIS_MNEMONIC_LEA);
    }
}

/* Which memory the data is in, and what may be done with it. */
static void gen_layout(struct isa_rand *r, struct isa_seq *s)
{
    for (unsigned n = 0; n < ISA_PAGES; n++) {
        unsigned other = (unsigned)pick(r, n + 1);
        s->where[n] = s->where[other];
        s->where[other] = (uint8_t)n;
        uint64_t rights = pick(r, 24);
        s->rights[n] = rights == 0 ? ISA_NONE : rights < 3 ? ISA_R : ISA_RW;
    }
}

void gen_seq(struct isa_seq *s, uint64_t seed, uint64_t n)
{
    struct isa_rand of_seed = { seed };
    struct isa_rand r = { isa_rand(&of_seed) ^ n * 0xd1342543de82ef95ULL };
    static const uint8_t define_flags[] = { 0x48, 0x83, 0xc0, 0x11 }; /* add rax, 0x11 (dec eax; add eax, 0x11): all six defined */
    ZydisDecoder dec;
    r.s = isa_rand(&r); /* so that neighbours do not run through the same numbers */
    memset(s, 0, sizeof(*s));
    s->code32 = pick(&r, 4) == 0 && !gen_no_code32;
    if (s->code32)
        ZydisDecoderInit(&dec, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(&dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    gen_state(&r, &s->in);
    for (int k = 0; k < 8 && s->code32; k++) /* the upper halves are not defined across the change of mode */
        s->in.r[k] = (uint32_t)s->in.r[k];
    for (unsigned k = 0; k < ISA_DATA_SIZE; k += 64)
        gen_bytes(&r, s->data + k, 64);
    unsigned count = pick(&r, 2) ? 1 : 2 + (unsigned)pick(&r, 4);
    if (gen_x87)
        count = 1 + (unsigned)pick(&r, 8);
    /* Anywhere in the code pages, often so that it straddles two of them. */
    uint64_t room = ISA_CODE_SIZE - SEQ_MAX_BYTES;
    s->at = ISA_CODE + (pick(&r, 4) ? pick(&r, room) : 0x1000 * (1 + pick(&r, 2)) - pick(&r, 16));
    s->in.rip = s->at;
    s->loops = pick(&r, 3) == 0 ? 2 + (uint32_t)pick(&r, pick(&r, 8) ? 40 : 300) : 1;
    if (gen_x87 && pick(&r, 2))
        s->loops = 2 + (uint32_t)pick(&r, pick(&r, 8) ? 40 : 3000);
    gen_layout(&r, s);
    for (unsigned k = 0; k < count; k++) {
        struct gen_insn g;
        if (s->loops > 1 && pick(&r, 6) == 0)
            gen_self_modify(s);
        gen_insn(&r, &dec, &g);
        gen_seen[g.z.mnemonic] = 1;
        if (count > 1 && pick(&r, 6) == 0)
            gen_branch(&r, s, g.z.length);
        gen_memory(&r, s, &g);
        gen_append(s, g.raw, g.z.length, (uint16_t)g.z.mnemonic);
        s->undefined = gen_undefined(&g.z);
        if (s->loops > 1 && pick(&r, 2))
            gen_wander(&r, s, &g);
        if ((k + 1 < count || s->loops > 1) && s->undefined) {
            gen_append(s, define_flags, sizeof(define_flags), ZYDIS_MNEMONIC_ADD);
            s->undefined = 0;
        }
    }
    if (s->loops > 1)
        gen_loop_end(s);
    s->start[s->n] = (uint16_t)s->len;
    s->code[s->len++] = 0xcc;
    for (int k = 0; k < 8 && s->code32; k++)
        s->in.r[k] = (uint32_t)s->in.r[k];
    if (gen_no_wild_rsp && s->in.r[4] >> 47 && s->in.r[4] >> 47 != 0x1ffff) /* in the upper half, where nothing is mapped */
        s->in.r[4] |= 0xffff800000000000ULL;
}
