/* FXSAVE, FXRSTOR and the XSAVE family (SDM vol. 1, 10.5 and ch. 13; AMD APM vol. 2, 11.5).
 *
 * An area is put together or taken apart in a local buffer: a restore reads all it needs before it changes
 * state, a save checks all of its destination before it stores. Component offsets and sizes are those of the
 * guest's CPUID leaf 0xD. A component is in use when its contents are not the initial ones. Thread: the
 * vCPU's. */
#include "engine/interp/vecstate.h"

enum { XS_LEGACY = 512, XS_HEADER = 64, XS_FIRST = XS_LEGACY + XS_HEADER, XS_MAX = 4096 };
enum { XC_X87, XC_SSE, XC_AVX, XC_OPMASK = 5, XC_ZMM_HI256, XC_HI16_ZMM, XC_COUNT };
#define XCOMP_COMPACT (1ULL << 63)

struct xs_layout {
    uint32_t off[XC_COUNT], size[XC_COUNT];
    bool align[XC_COUNT];
    uint32_t end;
};

/* Registers 0 to 15 in 64-bit code, 0 to 7 elsewhere; what belongs to the others is not touched. */
static unsigned xs_regs(const struct cpu *cpu) { return cpu->code_size == 8 ? 16 : 8; }

/* -- legacy area -- */

static void xs_put_x87(const struct cpu *cpu, uint8_t *p, bool wide)
{
    const struct x87_image *fx = &cpu->fx;
    /* AMD's CPUs save the error pointers only with an exception pending, and zeros without. */
    bool pointers = cpu->cpuid->vendor != VENDOR_AMD || fx->fsw & HX_FSW_ES;
    uint64_t keep = wide ? ~0ULL : 0x0000ffffffffffffULL;
    st_le16(p, fx->fcw);
    st_le16(p + 2, fx->fsw);
    p[4] = fx->ftw;
    p[5] = 0;
    st_le16(p + 6, pointers ? fx->fop & 0x7ff : 0);
    st_le64(p + 8, pointers ? fx->fip & keep : 0);
    st_le64(p + 16, pointers ? fx->fdp & keep : 0);
    for (unsigned n = 0; n < 8; n++) {
        memcpy(p + 32 + 16 * n, fx->st[n], 10);
        memset(p + 42 + 16 * n, 0, 6);
    }
}

static void xs_get_x87(struct cpu *cpu, const uint8_t *p, bool wide)
{
    struct x87_image *fx = &cpu->fx;
    uint64_t keep = wide ? ~0ULL : 0x0000ffffffffffffULL;
    fx->fcw = (uint16_t)((ld_le16(p) & FCW_VALID) | FCW_ONE);
    fx->fsw = ld_le16(p + 2);
    fx->ftw = p[4];
    fx->fop = ld_le16(p + 6) & 0x7ff;
    fx->fip = ld_le64(p + 8) & keep;
    fx->fdp = ld_le64(p + 16) & keep;
    x87_summarize(fx);
    for (unsigned n = 0; n < 8; n++) {
        memcpy(fx->st[n], p + 32 + 16 * n, 10);
        memset(fx->st[n] + 10, 0, 6);
    }
}

static void xs_put_mxcsr(const struct cpu *cpu, uint8_t *p)
{
    st_le32(p + 24, cpu->mxcsr);
    st_le32(p + 28, MXCSR_VALID);
}

static void xs_put_xmm(const struct cpu *cpu, uint8_t *p)
{
    for (unsigned n = 0; n < xs_regs(cpu); n++)
        memcpy(p + 160 + 16 * n, cpu->zmm[n], 16);
}

static void xs_get_xmm(struct cpu *cpu, const uint8_t *p)
{
    for (unsigned n = 0; n < xs_regs(cpu); n++)
        memcpy(cpu->zmm[n], p + 160 + 16 * n, 16);
}

/* -- extended components -- */

static void xs_put(const struct cpu *cpu, unsigned c, uint8_t *p)
{
    unsigned regs = xs_regs(cpu);
    for (unsigned n = 0; n < regs && c == XC_AVX; n++)
        memcpy(p + 16 * n, cpu->zmm[n] + 16, 16);
    for (unsigned n = 0; n < regs && c == XC_ZMM_HI256; n++)
        memcpy(p + 32 * n, cpu->zmm[n] + 32, 32);
    if (c == XC_OPMASK)
        memcpy(p, cpu->k, 64);
    if (c == XC_HI16_ZMM && regs == 16)
        memcpy(p, cpu->zmm[16], 1024);
}

/* p NULL: initial state. */
static void xs_get(struct cpu *cpu, unsigned c, const uint8_t *p)
{
    static const uint8_t zero[1024];
    unsigned regs = xs_regs(cpu);
    if (!p)
        p = zero;
    for (unsigned n = 0; n < regs && c == XC_AVX; n++)
        memcpy(cpu->zmm[n] + 16, p + 16 * n, 16);
    for (unsigned n = 0; n < regs && c == XC_ZMM_HI256; n++)
        memcpy(cpu->zmm[n] + 32, p + 32 * n, 32);
    if (c == XC_OPMASK)
        memcpy(cpu->k, p, 64);
    if (c == XC_HI16_ZMM && regs == 16)
        memcpy(cpu->zmm[16], p, 1024);
}

static bool xs_regs_used(const struct cpu *cpu, unsigned from, unsigned len)
{
    for (unsigned n = 0; n < xs_regs(cpu); n++)
        if (!mem_is_zero(cpu->zmm[n] + from, len))
            return true;
    return false;
}

static bool xs_x87_used(const struct x87_image *fx)
{
    return fx->fcw != HX_FCW || fx->fsw || fx->ftw || fx->fop || fx->fip || fx->fdp ||
           !mem_is_zero(fx->st, sizeof(fx->st));
}

/* XINUSE (SDM vol. 1, 13.6). */
static uint64_t xs_in_use(const struct cpu *cpu)
{
    uint64_t v = 0;
    v |= (uint64_t)xs_x87_used(&cpu->fx) << XC_X87;
    v |= (uint64_t)xs_regs_used(cpu, 0, 16) << XC_SSE;
    v |= (uint64_t)xs_regs_used(cpu, 16, 16) << XC_AVX;
    v |= (uint64_t)!mem_is_zero(cpu->k, sizeof(cpu->k)) << XC_OPMASK;
    v |= (uint64_t)xs_regs_used(cpu, 32, 32) << XC_ZMM_HI256;
    v |= (uint64_t)(xs_regs(cpu) == 16 && !mem_is_zero(cpu->zmm[16], 1024)) << XC_HI16_ZMM;
    return v;
}

/* -- layout -- */

static void xs_sizes(const struct cpu *cpu, struct xs_layout *l)
{
    static const uint16_t real[XC_COUNT] = {
        [XC_AVX] = 256, [XC_OPMASK] = 64, [XC_ZMM_HI256] = 512, [XC_HI16_ZMM] = 1024
    };
    const struct cpuid_table *t = cpu->cpuid;
    *l = (struct xs_layout){ .end = XS_FIRST };
    for (unsigned n = 0; n < t->count && n < ARRAY_LEN(t->leaf); n++) {
        const struct cpuid_leaf *f = &t->leaf[n];
        if (f->leaf != 0xd || f->subleaf >= XC_COUNT || !real[f->subleaf] || f->eax != real[f->subleaf] ||
            f->ebx < XS_FIRST || f->ebx > XS_MAX - f->eax)
            continue;
        l->off[f->subleaf] = f->ebx;
        l->size[f->subleaf] = f->eax;
        l->align[f->subleaf] = f->ecx & 2;
    }
}

static void xs_standard(const struct cpu *cpu, struct xs_layout *l, uint64_t rfbm)
{
    xs_sizes(cpu, l);
    for (unsigned c = XC_AVX; c < XC_COUNT; c++)
        if (rfbm >> c & 1 && l->off[c] + l->size[c] > l->end)
            l->end = l->off[c] + l->size[c];
}

/* Compacted format: components of xcomp follow each other (SDM vol. 1, 13.4.3). */
static void xs_compact(const struct cpu *cpu, struct xs_layout *l, uint64_t xcomp)
{
    xs_sizes(cpu, l);
    for (unsigned c = XC_AVX; c < XC_COUNT; c++) {
        if (!(xcomp >> c & 1))
            continue;
        if (l->align[c])
            l->end = (uint32_t)ALIGN_UP(l->end, 64);
        l->off[c] = l->end;
        l->end += l->size[c];
    }
}

/* -- FXSAVE, FXRSTOR -- */

static void xs_need_fx(struct cpu *cpu)
{
    struct hx_class c = { .cr0_mask = CR0_EM | CR0_TS };
    if (!cpu_has(cpu, CPU_FEAT(FEAT_1_EDX, 24)))
        CPU_UD(cpu);
    hx_check(cpu, &c);
}

static uint64_t xs_lin(struct cpu *cpu, const struct insn *i, unsigned size, unsigned align,
                       enum mmu_access acc)
{
    uint64_t lin = insn_lin(cpu, i, size, acc);
    if (lin & (align - 1))
        CPU_GP0(cpu);
    return lin;
}

/* AMD's fast mode leaves the XMM registers out at privilege 0 in 64-bit code. */
static bool xs_fast(const struct cpu *cpu)
{
    return cpu->efer & EFER_FFXSR && cpu->cpl == 0 && cpu->code_size == 8;
}

static void xs_fxsave(struct cpu *cpu, const struct insn *i, bool wide)
{
    uint8_t buf[416];
    unsigned n = 160 + (xs_fast(cpu) ? 0 : 16 * xs_regs(cpu));
    xs_need_fx(cpu);
    uint64_t lin = xs_lin(cpu, i, XS_LEGACY, 16, ACC_WRITE);
    xs_put_x87(cpu, buf, wide);
    xs_put_mxcsr(cpu, buf);
    xs_put_xmm(cpu, buf);
    mem_probe(cpu, i->seg, lin, XS_LEGACY, ACC_WRITE);
    vec_write_probed(cpu, i->seg, lin, buf, n);
}

static void xs_fxrstor(struct cpu *cpu, const struct insn *i, bool wide)
{
    uint8_t buf[XS_LEGACY];
    xs_need_fx(cpu);
    vec_read(cpu, i->seg, xs_lin(cpu, i, XS_LEGACY, 16, ACC_READ), buf, sizeof(buf));
    if (ld_le32(buf + 24) & ~MXCSR_VALID)
        CPU_GP0(cpu);
    xs_get_x87(cpu, buf, wide);
    if (!(cpu->cr4 & CR4_OSFXSR))
        return;
    cpu->mxcsr = ld_le32(buf + 24);
    if (!xs_fast(cpu))
        xs_get_xmm(cpu, buf);
}

static void op_fxsave(struct cpu *cpu, const struct insn *i) { xs_fxsave(cpu, i, false); }
static void op_fxsave64(struct cpu *cpu, const struct insn *i) { xs_fxsave(cpu, i, true); }
static void op_fxrstor(struct cpu *cpu, const struct insn *i) { xs_fxrstor(cpu, i, false); }
static void op_fxrstor64(struct cpu *cpu, const struct insn *i) { xs_fxrstor(cpu, i, true); }

/* -- XSAVE -- */

enum xs_kind { XS_PLAIN, XS_OPT, XS_C, XS_S };

/* #UD, #NM and, for the supervisor forms, #GP(0). Returns the requested features. */
static uint64_t xs_need(struct cpu *cpu, enum xs_kind kind)
{
    static const uint8_t bit[] = { [XS_OPT] = 0, [XS_C] = 1, [XS_S] = 3 };
    struct hx_class c = { .cr0_mask = CR0_TS, .cr4_need = CR4_OSXSAVE };
    if (!cpu_has(cpu, CPU_FEAT(FEAT_1_ECX, 26)) ||
        (kind != XS_PLAIN && !cpu_has(cpu, CPU_FEAT(FEAT_D1_EAX, 0) + bit[kind])))
        CPU_UD(cpu);
    hx_check(cpu, &c);
    if (kind == XS_S && cpu->cpl)
        CPU_GP0(cpu);
    uint64_t all = (uint32_t)cpu->r[RAX] | cpu->r[RDX] << 32;
    return all & cpu->xcr0 & ((1ULL << XC_COUNT) - 1); /* no supervisor component exists here: XSS is 0 */
}

/* Store the parts of the legacy area that go with the components of `save`. */
static void xs_store_legacy(struct cpu *cpu, const struct insn *i, uint64_t lin, uint64_t save, bool mxcsr,
                            bool wide)
{
    uint8_t buf[XS_LEGACY];
    xs_put_x87(cpu, buf, wide);
    xs_put_mxcsr(cpu, buf);
    xs_put_xmm(cpu, buf);
    if (save & BIT(XC_X87)) {
        vec_write_probed(cpu, i->seg, lin, buf, 24);
        vec_write_probed(cpu, i->seg, lin + 32, buf + 32, 128);
    }
    if (mxcsr)
        vec_write_probed(cpu, i->seg, lin + 24, buf + 24, 8);
    if (save & BIT(XC_SSE))
        vec_write_probed(cpu, i->seg, lin + 160, buf + 160, 16 * xs_regs(cpu));
}

static void xs_store_extended(struct cpu *cpu, const struct insn *i, uint64_t lin, uint64_t save,
                              const struct xs_layout *l)
{
    uint8_t buf[1024];
    for (unsigned c = XC_AVX; c < XC_COUNT; c++) {
        if (!(save >> c & 1) || !l->size[c] || (c == XC_HI16_ZMM && xs_regs(cpu) < 16))
            continue;
        unsigned n = c == XC_OPMASK ? 64 : l->size[c] * xs_regs(cpu) / 16;
        xs_put(cpu, c, buf);
        vec_write_probed(cpu, i->seg, lin + l->off[c], buf, n);
    }
}

static void xs_save_standard(struct cpu *cpu, const struct insn *i, bool opt, bool wide)
{
    uint64_t rfbm = xs_need(cpu, opt ? XS_OPT : XS_PLAIN), used = xs_in_use(cpu);
    struct xs_layout l;
    xs_standard(cpu, &l, rfbm);
    uint64_t lin = xs_lin(cpu, i, l.end, 64, ACC_WRITE);
    mem_probe(cpu, i->seg, lin, l.end, ACC_WRITE);
    uint64_t bv = mem_ld64(cpu, i->seg, lin + XS_LEGACY);
    uint64_t save = opt ? rfbm & used : rfbm;
    xs_store_legacy(cpu, i, lin, save, rfbm & (BIT(XC_SSE) | BIT(XC_AVX)), wide);
    xs_store_extended(cpu, i, lin, save, &l);
    mem_st64(cpu, i->seg, lin + XS_LEGACY, (bv & ~rfbm) | (used & rfbm));
}

static void xs_save_compact(struct cpu *cpu, const struct insn *i, enum xs_kind kind, bool wide)
{
    uint64_t rfbm = xs_need(cpu, kind), save = rfbm & xs_in_use(cpu);
    struct xs_layout l;
    if (cpu->mxcsr != HX_MXCSR)
        save |= rfbm & BIT(XC_SSE);
    xs_compact(cpu, &l, rfbm);
    uint64_t lin = xs_lin(cpu, i, l.end, 64, ACC_WRITE);
    mem_probe(cpu, i->seg, lin, l.end, ACC_WRITE);
    xs_store_legacy(cpu, i, lin, save, save & BIT(XC_SSE), wide);
    xs_store_extended(cpu, i, lin, save, &l);
    mem_st64(cpu, i->seg, lin + XS_LEGACY, save);
    mem_st64(cpu, i->seg, lin + XS_LEGACY + 8, rfbm | XCOMP_COMPACT);
}

/* -- XRSTOR -- */

/* The header's checks (SDM vol. 1, 13.8.1 and 13.12). */
static void xs_check_header(struct cpu *cpu, const uint8_t *h, bool supervisor)
{
    uint64_t bv = ld_le64(h), xcomp = ld_le64(h + 8);
    bool compact = xcomp & XCOMP_COMPACT;
    bool bad = bv & ~cpu->xcr0;
    if (compact)
        bad = bad || (xcomp & ~XCOMP_COMPACT & ~cpu->xcr0) || (bv & ~xcomp) || !mem_is_zero(h + 16, 48) ||
              !(supervisor || cpu_has(cpu, CPU_FEAT(FEAT_D1_EAX, 1)));
    else
        bad = bad || supervisor || !mem_is_zero(h + 8, 16);
    if (bad)
        CPU_GP0(cpu);
}

static void xs_load(struct cpu *cpu, const uint8_t *buf, uint64_t rfbm, const struct xs_layout *l, bool wide)
{
    uint64_t bv = ld_le64(buf + XS_LEGACY);
    bool compact = ld_le64(buf + XS_LEGACY + 8) & XCOMP_COMPACT;
    if (rfbm & bv & BIT(XC_X87))
        xs_get_x87(cpu, buf, wide);
    else if (rfbm & BIT(XC_X87)) {
        x87_init(&cpu->fx);
        memset(cpu->fx.st, 0, sizeof(cpu->fx.st));
    }
    if (!compact && rfbm & (BIT(XC_SSE) | BIT(XC_AVX)))
        cpu->mxcsr = ld_le32(buf + 24);
    else if (compact && rfbm & BIT(XC_SSE))
        cpu->mxcsr = bv & BIT(XC_SSE) ? ld_le32(buf + 24) : HX_MXCSR;
    if (rfbm & BIT(XC_SSE)) {
        static const uint8_t zero[XS_LEGACY];
        xs_get_xmm(cpu, bv & BIT(XC_SSE) ? buf : zero);
    }
    for (unsigned c = XC_AVX; c < XC_COUNT; c++)
        if (rfbm >> c & 1)
            xs_get(cpu, c, bv >> c & 1 ? buf + l->off[c] : NULL);
}

static void xs_restore(struct cpu *cpu, const struct insn *i, bool supervisor, bool wide)
{
    uint8_t buf[XS_MAX];
    struct xs_layout l;
    uint64_t rfbm = xs_need(cpu, supervisor ? XS_S : XS_PLAIN);
    uint64_t lin = xs_lin(cpu, i, XS_FIRST, 64, ACC_READ);
    vec_read(cpu, i->seg, lin, buf, XS_FIRST);
    xs_check_header(cpu, buf + XS_LEGACY, supervisor);
    uint64_t bv = ld_le64(buf + XS_LEGACY), xcomp = ld_le64(buf + XS_LEGACY + 8);
    bool compact = xcomp & XCOMP_COMPACT;
    bool mxcsr = compact ? rfbm & bv & BIT(XC_SSE) : rfbm & (BIT(XC_SSE) | BIT(XC_AVX));
    if (mxcsr && ld_le32(buf + 24) & ~MXCSR_VALID)
        CPU_GP0(cpu);
    if (compact)
        xs_compact(cpu, &l, xcomp);
    else
        xs_standard(cpu, &l, rfbm & bv);
    for (unsigned c = XC_AVX; c < XC_COUNT; c++)
        if (rfbm & bv & BIT(c) && l.size[c])
            vec_read(cpu, i->seg, insn_lin(cpu, i, l.off[c] + l.size[c], ACC_READ) + l.off[c], buf + l.off[c],
                     l.size[c]);
    xs_load(cpu, buf, rfbm, &l, wide);
}

static void op_xsave(struct cpu *cpu, const struct insn *i) { xs_save_standard(cpu, i, false, false); }
static void op_xsave64(struct cpu *cpu, const struct insn *i) { xs_save_standard(cpu, i, false, true); }
static void op_xsaveopt(struct cpu *cpu, const struct insn *i) { xs_save_standard(cpu, i, true, false); }
static void op_xsaveopt64(struct cpu *cpu, const struct insn *i) { xs_save_standard(cpu, i, true, true); }
static void op_xsavec(struct cpu *cpu, const struct insn *i) { xs_save_compact(cpu, i, XS_C, false); }
static void op_xsavec64(struct cpu *cpu, const struct insn *i) { xs_save_compact(cpu, i, XS_C, true); }
static void op_xsaves(struct cpu *cpu, const struct insn *i) { xs_save_compact(cpu, i, XS_S, false); }
static void op_xsaves64(struct cpu *cpu, const struct insn *i) { xs_save_compact(cpu, i, XS_S, true); }
static void op_xrstor(struct cpu *cpu, const struct insn *i) { xs_restore(cpu, i, false, false); }
static void op_xrstor64(struct cpu *cpu, const struct insn *i) { xs_restore(cpu, i, false, true); }
static void op_xrstors(struct cpu *cpu, const struct insn *i) { xs_restore(cpu, i, true, false); }
static void op_xrstors64(struct cpu *cpu, const struct insn *i) { xs_restore(cpu, i, true, true); }

const struct op_entry ops_xsave[] = {
    { .op = ZYDIS_MNEMONIC_FXSAVE, .fn = op_fxsave },
    { .op = ZYDIS_MNEMONIC_FXSAVE64, .fn = op_fxsave64 },
    { .op = ZYDIS_MNEMONIC_FXRSTOR, .fn = op_fxrstor },
    { .op = ZYDIS_MNEMONIC_FXRSTOR64, .fn = op_fxrstor64 },
    { .op = ZYDIS_MNEMONIC_XSAVE, .fn = op_xsave },
    { .op = ZYDIS_MNEMONIC_XSAVE64, .fn = op_xsave64 },
    { .op = ZYDIS_MNEMONIC_XSAVEOPT, .fn = op_xsaveopt },
    { .op = ZYDIS_MNEMONIC_XSAVEOPT64, .fn = op_xsaveopt64 },
    { .op = ZYDIS_MNEMONIC_XSAVEC, .fn = op_xsavec },
    { .op = ZYDIS_MNEMONIC_XSAVEC64, .fn = op_xsavec64 },
    { .op = ZYDIS_MNEMONIC_XSAVES, .fn = op_xsaves },
    { .op = ZYDIS_MNEMONIC_XSAVES64, .fn = op_xsaves64 },
    { .op = ZYDIS_MNEMONIC_XRSTOR, .fn = op_xrstor },
    { .op = ZYDIS_MNEMONIC_XRSTOR64, .fn = op_xrstor64 },
    { .op = ZYDIS_MNEMONIC_XRSTORS, .fn = op_xrstors },
    { .op = ZYDIS_MNEMONIC_XRSTORS64, .fn = op_xrstors64 },
    { .op = ZYDIS_MNEMONIC_INVALID },
};
