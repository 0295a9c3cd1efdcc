/* x87 control instructions and environment, and EMMS (SDM vol. 1 ch. 8; vol. 2).
 *
 * Works on the FXSAVE-format image in struct cpu. The environment's four formats: SDM vol. 1 figures 8-9 to
 * 8-12. Thread: the vCPU's. */
#include "engine/interp/vecstate.h"

void x87_set_top(struct x87_image *fx, unsigned top)
{
    unsigned by = (top - (fx->fsw >> 11)) & 7;
    if (by) {
        uint8_t old[8][16];
        memcpy(old, fx->st, sizeof(old));
        for (unsigned n = 0; n < 8; n++)
            memcpy(fx->st[n], old[(n + by) & 7], 16);
    }
    fx->fsw = (uint16_t)((fx->fsw & ~0x3800u) | top << 11);
}

void x87_summarize(struct x87_image *fx)
{
    fx->fsw &= 0x7f7f;
    if (fx->fsw & ~fx->fcw & 0x3f)
        fx->fsw |= 0x8080;
}

void x87_init(struct x87_image *fx)
{
    x87_set_top(fx, 0);
    fx->fcw = HX_FCW;
    fx->fsw = 0;
    fx->ftw = 0;
    fx->fop = 0;
    fx->fip = fx->fdp = 0;
}

static unsigned x87_tag(const uint8_t *st)
{
    uint64_t m = ld_le64(st);
    unsigned e = ld_le16(st + 8) & 0x7fff;
    if (e == 0 && m == 0)
        return 1;
    return e == 0 || e == 0x7fff || !(m >> 63) ? 2 : 0;
}

uint16_t x87_full_tags(const struct x87_image *fx)
{
    unsigned tags = 0, top = fx->fsw >> 11 & 7;
    for (unsigned n = 0; n < 8; n++)
        tags |= (fx->ftw >> n & 1 ? x87_tag(fx->st[(n - top) & 7]) : 3) << 2 * n;
    return (uint16_t)tags;
}

static uint8_t fpu_abridge(uint16_t tags)
{
    unsigned v = 0;
    for (unsigned n = 0; n < 8; n++)
        v |= (unsigned)((tags >> 2 * n & 3) != 3) << n;
    return (uint8_t)v;
}

static void fpu_set_fcw(struct x87_image *fx, uint16_t v)
{
    fx->fcw = (uint16_t)((v & FCW_VALID) | FCW_ONE);
    x87_summarize(fx);
}

/* FERR# goes away with the last unmasked error. */
static void fpu_ferr_off(struct cpu *cpu)
{
    if (!(cpu->cr0 & CR0_NE) && cpu->ops->ferr)
        cpu->ops->ferr(cpu, false);
}

static void op_fnstcw(struct cpu *cpu, const struct insn *i)
{
    hx_need_x87(cpu, false);
    mem_st16(cpu, i->seg, insn_lin(cpu, i, 2, ACC_WRITE), cpu->fx.fcw);
}

static void op_fldcw(struct cpu *cpu, const struct insn *i)
{
    hx_need_x87(cpu, true);
    fpu_set_fcw(&cpu->fx, mem_ld16(cpu, i->seg, insn_lin(cpu, i, 2, ACC_READ)));
}

static void op_fnstsw_m(struct cpu *cpu, const struct insn *i)
{
    hx_need_x87(cpu, false);
    mem_st16(cpu, i->seg, insn_lin(cpu, i, 2, ACC_WRITE), cpu->fx.fsw);
}

static void op_fnstsw_ax(struct cpu *cpu, const struct insn *i)
{
    hx_need_x87(cpu, false);
    cpu->r[RAX] = (cpu->r[RAX] & ~0xffffULL) | cpu->fx.fsw;
}

static insn_fn *fpu_select_fnstsw(struct insn *i, const struct decoded *d)
{
    return i->flags & INSN_MEM ? op_fnstsw_m : op_fnstsw_ax;
}

static void op_fnclex(struct cpu *cpu, const struct insn *i)
{
    hx_need_x87(cpu, false);
    cpu->fx.fsw &= 0x7f00;
    fpu_ferr_off(cpu);
}

static void op_fninit(struct cpu *cpu, const struct insn *i)
{
    hx_need_x87(cpu, false);
    x87_init(&cpu->fx);
    fpu_ferr_off(cpu);
}

static void op_fwait(struct cpu *cpu, const struct insn *i)
{
    if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        cpu_raise_noerr(cpu, VEC_NM);
    if (cpu->fx.fsw & HX_FSW_ES)
        hx_x87_error(cpu);
}

/* FENI, FDISI, FSETPM: no operation since the 387. */
static void op_fpu_nop(struct cpu *cpu, const struct insn *i) { hx_need_x87(cpu, false); }

static void op_emms(struct cpu *cpu, const struct insn *i)
{
    struct hx_class c = { .cr0_mask = CR0_EM | CR0_TS };
    if (!cpu_has(cpu, CPU_FEAT(FEAT_1_EDX, 23)))
        CPU_UD(cpu);
    hx_check(cpu, &c);
    if (cpu->fx.fsw & HX_FSW_ES)
        hx_x87_error(cpu);
    x87_set_top(&cpu->fx, 0);
    cpu->fx.ftw = 0;
}

/* -- environment -- */

struct fpu_env {
    uint16_t fcw, fsw, ftw, fop, fcs, fds;
    uint32_t fip, fdp;
};

static bool fpu_linear_pointers(const struct cpu *cpu) { return cpu_real(cpu) || cpu_v86(cpu); }

/* The image keeps the selectors in bits 47..32 for code outside of 64-bit mode; 64-bit code has none to show.
 */
static void fpu_get_env(const struct cpu *cpu, struct fpu_env *e)
{
    const struct x87_image *fx = &cpu->fx;
    *e = (struct fpu_env){ .fcw = fx->fcw,
                           .fsw = fx->fsw,
                           .ftw = x87_full_tags(fx),
                           .fop = fx->fop & 0x7ff,
                           .fip = (uint32_t)fx->fip,
                           .fdp = (uint32_t)fx->fdp };
    if (cpu_has(cpu, CPU_FEAT(FEAT_7_EBX, 13))) /* FCS and FDS are no more */
        return;
    if (cpu->code_size == 8) {
        e->fcs = cpu->seg[SEG_CS].sel;
        e->fds = cpu->seg[SEG_DS].sel;
    } else {
        e->fcs = (uint16_t)(fx->fip >> 32);
        e->fds = (uint16_t)(fx->fdp >> 32);
    }
}

static void fpu_pack32(const struct cpu *cpu, const struct fpu_env *e, uint8_t *p)
{
    uint32_t w[7] = { e->fcw | 0xffff0000u,
                      e->fsw | 0xffff0000u,
                      e->ftw | 0xffff0000u,
                      e->fip,
                      e->fcs | (uint32_t)e->fop << 16,
                      e->fdp,
                      e->fds | 0xffff0000u };
    if (fpu_linear_pointers(cpu)) {
        uint32_t ip = e->fip + e->fcs * 16u, dp = e->fdp + e->fds * 16u;
        w[3] = (ip & 0xffff) | 0xffff0000u;
        w[4] = (ip >> 16) << 12 | e->fop;
        w[5] = (dp & 0xffff) | 0xffff0000u;
        w[6] = (dp >> 16) << 12;
    }
    memcpy(p, w, sizeof(w));
}

static void fpu_pack16(const struct cpu *cpu, const struct fpu_env *e, uint8_t *p)
{
    uint16_t w[7] = { e->fcw, e->fsw, e->ftw, (uint16_t)e->fip, e->fcs, (uint16_t)e->fdp, e->fds };
    if (fpu_linear_pointers(cpu)) {
        uint32_t ip = e->fip + e->fcs * 16u, dp = e->fdp + e->fds * 16u;
        w[3] = (uint16_t)ip;
        w[4] = (uint16_t)((ip >> 16 & 15) << 12 | e->fop);
        w[5] = (uint16_t)dp;
        w[6] = (uint16_t)((dp >> 16 & 15) << 12);
    }
    memcpy(p, w, sizeof(w));
}

static void fpu_unpack32(const struct cpu *cpu, struct fpu_env *e, const uint8_t *p)
{
    uint32_t w[7];
    memcpy(w, p, sizeof(w));
    *e = (struct fpu_env){ .fcw = (uint16_t)w[0],
                           .fsw = (uint16_t)w[1],
                           .ftw = (uint16_t)w[2],
                           .fip = w[3],
                           .fcs = (uint16_t)w[4],
                           .fop = w[4] >> 16 & 0x7ff,
                           .fdp = w[5],
                           .fds = (uint16_t)w[6] };
    if (fpu_linear_pointers(cpu)) {
        e->fip = (w[3] & 0xffff) | (w[4] >> 12 & 0xffff) << 16;
        e->fdp = (w[5] & 0xffff) | (w[6] >> 12 & 0xffff) << 16;
        e->fop = w[4] & 0x7ff;
        e->fcs = e->fds = 0;
    }
}

static void fpu_unpack16(const struct cpu *cpu, struct fpu_env *e, const uint8_t *p)
{
    uint16_t w[7];
    memcpy(w, p, sizeof(w));
    *e = (struct fpu_env){
        .fcw = w[0], .fsw = w[1], .ftw = w[2], .fip = w[3], .fcs = w[4], .fdp = w[5], .fds = w[6]
    };
    if (fpu_linear_pointers(cpu)) {
        e->fip = w[3] | (w[4] & 0xf000u) << 4;
        e->fdp = w[5] | (w[6] & 0xf000u) << 4;
        e->fop = w[4] & 0x7ff;
        e->fcs = e->fds = 0;
    }
}

static void fpu_set_env(struct cpu *cpu, const struct fpu_env *e)
{
    struct x87_image *fx = &cpu->fx;
    x87_set_top(fx, e->fsw >> 11 & 7);
    fx->fsw = e->fsw;
    fx->ftw = fpu_abridge(e->ftw);
    fpu_set_fcw(fx, e->fcw);
    fx->fop = e->fop;
    fx->fip = e->fip;
    fx->fdp = e->fdp;
    if (cpu->code_size != 8) {
        fx->fip |= (uint64_t)e->fcs << 32;
        fx->fdp |= (uint64_t)e->fds << 32;
    }
}

/* Environment of 14 or 28 bytes; the registers of FNSAVE follow it. Returns its size. */
static unsigned fpu_pack(const struct cpu *cpu, unsigned size, uint8_t *p)
{
    struct fpu_env e;
    fpu_get_env(cpu, &e);
    if (size == 28 || size == 108) {
        fpu_pack32(cpu, &e, p);
        return 28;
    }
    fpu_pack16(cpu, &e, p);
    return 14;
}

static unsigned fpu_unpack(struct cpu *cpu, unsigned size, const uint8_t *p)
{
    struct fpu_env e;
    bool wide = size == 28 || size == 108;
    if (wide)
        fpu_unpack32(cpu, &e, p);
    else
        fpu_unpack16(cpu, &e, p);
    fpu_set_env(cpu, &e);
    return wide ? 28 : 14;
}

static void op_fnstenv(struct cpu *cpu, const struct insn *i)
{
    uint8_t buf[28];
    hx_need_x87(cpu, false);
    uint64_t lin = insn_lin(cpu, i, i->msz, ACC_WRITE);
    vec_write(cpu, i->seg, lin, buf, fpu_pack(cpu, i->msz, buf));
    fpu_set_fcw(&cpu->fx, cpu->fx.fcw | 0x3f);
}

static void op_fldenv(struct cpu *cpu, const struct insn *i)
{
    uint8_t buf[28];
    hx_need_x87(cpu, true);
    vec_read(cpu, i->seg, insn_lin(cpu, i, i->msz, ACC_READ), buf, i->msz);
    fpu_unpack(cpu, i->msz, buf);
}

static void op_fnsave(struct cpu *cpu, const struct insn *i)
{
    uint8_t buf[108];
    hx_need_x87(cpu, false);
    uint64_t lin = insn_lin(cpu, i, i->msz, ACC_WRITE);
    unsigned at = fpu_pack(cpu, i->msz, buf);
    for (unsigned n = 0; n < 8; n++)
        memcpy(buf + at + 10 * n, cpu->fx.st[n], 10);
    vec_write(cpu, i->seg, lin, buf, at + 80);
    x87_init(&cpu->fx);
    fpu_ferr_off(cpu);
}

static void op_frstor(struct cpu *cpu, const struct insn *i)
{
    uint8_t buf[108];
    hx_need_x87(cpu, true);
    vec_read(cpu, i->seg, insn_lin(cpu, i, i->msz, ACC_READ), buf, i->msz);
    unsigned at = fpu_unpack(cpu, i->msz, buf);
    for (unsigned n = 0; n < 8; n++) {
        memcpy(cpu->fx.st[n], buf + at + 10 * n, 10);
        memset(cpu->fx.st[n] + 10, 0, 6);
    }
}

/* A form of an unexpected size is none of ours. */
static insn_fn *fpu_select_env(struct insn *i, const struct decoded *d)
{
    bool ok = i->msz == 14 || i->msz == 28;
    return !ok ? NULL : i->op == ZYDIS_MNEMONIC_FNSTENV ? op_fnstenv : op_fldenv;
}

static insn_fn *fpu_select_save(struct insn *i, const struct decoded *d)
{
    bool ok = i->msz == 94 || i->msz == 108;
    return !ok ? NULL : i->op == ZYDIS_MNEMONIC_FNSAVE ? op_fnsave : op_frstor;
}

const struct op_entry ops_fpu[] = {
    { .op = ZYDIS_MNEMONIC_FNSTCW, .fn = op_fnstcw },
    { .op = ZYDIS_MNEMONIC_FLDCW, .fn = op_fldcw },
    { .op = ZYDIS_MNEMONIC_FNSTSW, .select = fpu_select_fnstsw },
    { .op = ZYDIS_MNEMONIC_FNCLEX, .fn = op_fnclex },
    { .op = ZYDIS_MNEMONIC_FNINIT, .fn = op_fninit },
    { .op = ZYDIS_MNEMONIC_FWAIT, .fn = op_fwait },
    { .op = ZYDIS_MNEMONIC_FENI8087_NOP, .fn = op_fpu_nop },
    { .op = ZYDIS_MNEMONIC_FDISI8087_NOP, .fn = op_fpu_nop },
    { .op = ZYDIS_MNEMONIC_FSETPM287_NOP, .fn = op_fpu_nop },
    { .op = ZYDIS_MNEMONIC_FNSTENV, .select = fpu_select_env },
    { .op = ZYDIS_MNEMONIC_FLDENV, .select = fpu_select_env },
    { .op = ZYDIS_MNEMONIC_FNSAVE, .select = fpu_select_save },
    { .op = ZYDIS_MNEMONIC_FRSTOR, .select = fpu_select_save },
    { .op = ZYDIS_MNEMONIC_EMMS, .fn = op_emms },
    { .op = ZYDIS_MNEMONIC_INVALID },
};
