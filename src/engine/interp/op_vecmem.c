/* Vector instructions whose memory accesses go element by element, and MXCSR and whole-register housekeeping:
 * MASKMOVQ, (V)MASKMOVDQU, VMASKMOVPS/PD, VPMASKMOVD/Q, LDMXCSR, STMXCSR, VZEROALL, VZEROUPPER (SDM vol. 2).
 *
 * A masked element does not touch memory and cannot fault. Stores check all their elements before the first
 * is written. Thread: the vCPU's. */
#include "engine/interp/vecstate.h"
#include "ram/ram.h"

/* Of n bytes at lin, those in its page. */
static unsigned vec_in_page(uint64_t lin, unsigned n)
{
    unsigned room = (unsigned)PAGE_REST(lin);
    return n < room ? n : room;
}

/* A page's part at once where it can be reached directly, else view by view. */
void vec_read(struct cpu *cpu, unsigned seg, uint64_t lin, void *buf, unsigned n)
{
    for (unsigned at = 0, len; at < n; at += len) {
        len = vec_in_page(lin + at, n - at);
        const void *p = mem_fast_rd(cpu, lin + at, len);
        if (!p) {
            len = n - at < 64 ? n - at : 64;
            p = mem_view_r(cpu, seg, lin + at, len);
        }
        memcpy((char *)buf + at, p, len);
    }
}

void vec_write_probed(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned n)
{
    for (unsigned at = 0, len; at < n; at += len) {
        len = vec_in_page(lin + at, n - at);
        void *p = mem_fast_wr(cpu, lin + at, len);
        if (!p) {
            len = n - at < 64 ? n - at : 64;
            p = mem_view_w(cpu, seg, lin + at, len);
        }
        memcpy(p, (const char *)buf + at, len);
        mem_commit(cpu);
    }
}

void vec_write(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned n)
{
    mem_probe(cpu, seg, lin, n, ACC_WRITE);
    vec_write_probed(cpu, seg, lin, buf, n);
}

uint64_t vec_ld_elem(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    uint64_t v = 0;
    if (likely(!(cpu->rflags & FL_AC)))
        return mem_ld(cpu, seg, lin, size);
    for (unsigned n = 0; n < size; n++)
        v |= mem_ld(cpu, seg, lin + n, 1) << 8 * n;
    return v;
}

void vec_probe_elem(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    unsigned step = cpu->rflags & FL_AC ? 1 : size;
    for (unsigned n = 0; n < size; n += step)
        mem_probe(cpu, seg, lin + n, step, ACC_WRITE);
}

void vec_st_elem(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t v, unsigned size)
{
    if (likely(!(cpu->rflags & FL_AC))) {
        mem_st(cpu, seg, lin, v, size);
        return;
    }
    vec_probe_elem(cpu, seg, lin, size);
    for (unsigned n = 0; n < size; n++)
        mem_st(cpu, seg, lin + n, v >> 8 * n, 1);
}

/* -- VMASKMOV: spare[0] data register, [1] mask register, [2] vector bytes, [3] element bytes -- */

static bool vecmem_active(const struct cpu *cpu, const struct insn *i, unsigned off)
{
    return cpu->zmm[i->spare[1] & 31][off + i->spare[3] - 1] & 0x80;
}

static void vecmem_need_maskmov(struct cpu *cpu, const struct insn *i)
{
    bool avx2 = i->op == ZYDIS_MNEMONIC_VPMASKMOVD || i->op == ZYDIS_MNEMONIC_VPMASKMOVQ;
    if (!hx_has_isa(cpu->cpuid, avx2 ? ZYDIS_ISA_SET_AVX2 : ZYDIS_ISA_SET_AVX))
        CPU_UD(cpu);
    hx_need_avx(cpu, false);
}

static uint64_t vecmem_ld(struct cpu *cpu, const struct insn *i, unsigned off)
{
    return vec_ld_elem(cpu, i->seg, hx_elem_lin(cpu, i, off, i->spare[3], ACC_READ), i->spare[3]);
}

static void vecmem_st(struct cpu *cpu, const struct insn *i, unsigned off, uint64_t v)
{
    vec_st_elem(cpu, i->seg, hx_elem_lin(cpu, i, off, i->spare[3], ACC_WRITE), v, i->spare[3]);
}

static void op_vmaskmov_ld(struct cpu *cpu, const struct insn *i)
{
    uint8_t v[64] = { 0 };
    unsigned el = i->spare[3];
    vecmem_need_maskmov(cpu, i);
    for (unsigned off = 0; off < i->spare[2]; off += el)
        if (vecmem_active(cpu, i, off)) {
            uint64_t x = vecmem_ld(cpu, i, off);
            memcpy(v + off, &x, el);
        }
    memcpy(cpu->zmm[i->spare[0] & 31], v, sizeof(v));
}

static void op_vmaskmov_st(struct cpu *cpu, const struct insn *i)
{
    unsigned el = i->spare[3];
    vecmem_need_maskmov(cpu, i);
    for (unsigned off = 0; off < i->spare[2]; off += el)
        if (vecmem_active(cpu, i, off))
            vec_probe_elem(cpu, i->seg, hx_elem_lin(cpu, i, off, el, ACC_WRITE), el);
    for (unsigned off = 0; off < i->spare[2]; off += el)
        if (vecmem_active(cpu, i, off)) {
            uint64_t x = 0;
            memcpy(&x, cpu->zmm[i->spare[0] & 31] + off, el);
            vecmem_st(cpu, i, off, x);
        }
}

static insn_fn *vecmem_select_maskmov(struct insn *i, const struct decoded *d)
{
    bool store = d->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    const ZydisDecodedOperand *data = &d->ops[store ? 2 : 0], *mask = &d->ops[1];
    if (d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || data->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        mask->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return NULL;
    bool q = i->op == ZYDIS_MNEMONIC_VMASKMOVPD || i->op == ZYDIS_MNEMONIC_VPMASKMOVQ;
    i->spare[0] = (uint8_t)ZydisRegisterGetId(data->reg.value);
    i->spare[1] = (uint8_t)ZydisRegisterGetId(mask->reg.value);
    i->spare[2] = d->z.avx.vector_length == 256 ? 32 : 16;
    i->spare[3] = q ? 8 : 4;
    return store ? op_vmaskmov_st : op_vmaskmov_ld;
}

/* -- MASKMOVQ, MASKMOVDQU: bytes to DS:rDI. spare[0] data register, [1] mask register -- */

static uint64_t vecmem_rdi_lin(struct cpu *cpu, const struct insn *i, unsigned off, unsigned size)
{
    uint64_t ea = (cpu->r[RDI] + off) & i->addr_mask;
    return i->flags & INSN_LEGACY ? seg_lin(cpu, i->seg, ea, size, ACC_WRITE) : cpu->lin_base[i->seg] + ea;
}

/* The whole operand is checked even where the mask is clear, as the manual allows and CPUs do, eight bytes at a
 * time, which shows when alignment is checked; Intel's CPUs begin with the upper ones. */
static void vecmem_maskmov_bytes(struct cpu *cpu, const struct insn *i, const uint8_t *v, const uint8_t *mask,
                                 unsigned n)
{
    unsigned first = n == 16 && cpu->cpuid->vendor == VENDOR_INTEL ? 8 : 0;
    for (unsigned k = 0; k < n; k += 8)
        mem_probe(cpu, i->seg, vecmem_rdi_lin(cpu, i, k ^ first, 8), 8, ACC_WRITE);
    for (unsigned k = 0; k < n; k++)
        if (mask[k] & 0x80)
            mem_st8(cpu, i->seg, vecmem_rdi_lin(cpu, i, k, 1), v[k]);
}

static void op_maskmovdqu(struct cpu *cpu, const struct insn *i)
{
    bool vex = i->op == ZYDIS_MNEMONIC_VMASKMOVDQU;
    if (!hx_has_isa(cpu->cpuid, vex ? ZYDIS_ISA_SET_AVX : ZYDIS_ISA_SET_SSE2))
        CPU_UD(cpu);
    if (vex)
        hx_need_avx(cpu, false);
    else
        hx_need_sse(cpu);
    vecmem_maskmov_bytes(cpu, i, cpu->zmm[i->spare[0] & 31], cpu->zmm[i->spare[1] & 31], 16);
}

static void op_maskmovq(struct cpu *cpu, const struct insn *i)
{
    struct hx_class c = { .cr0_mask = CR0_EM | CR0_TS };
    if (!hx_has_isa(cpu->cpuid, ZYDIS_ISA_SET_SSE))
        CPU_UD(cpu);
    hx_check(cpu, &c);
    if (cpu->fx.fsw & HX_FSW_ES)
        hx_x87_error(cpu);
    hx_mmx_enter(cpu); /* also if the store faults, as AMD's CPUs do */
    vecmem_maskmov_bytes(cpu, i, cpu->fx.st[i->spare[0] & 7], cpu->fx.st[i->spare[1] & 7], 8);
}

static insn_fn *vecmem_select_bytes(struct insn *i, const struct decoded *d)
{
    i->spare[0] = (uint8_t)ZydisRegisterGetId(d->ops[0].reg.value);
    i->spare[1] = (uint8_t)ZydisRegisterGetId(d->ops[1].reg.value);
    return i->op == ZYDIS_MNEMONIC_MASKMOVQ ? op_maskmovq : op_maskmovdqu;
}

/* -- MXCSR -- */

static void vecmem_need_mxcsr(struct cpu *cpu, const struct insn *i)
{
    bool vex = i->op == ZYDIS_MNEMONIC_VLDMXCSR || i->op == ZYDIS_MNEMONIC_VSTMXCSR;
    if (!hx_has_isa(cpu->cpuid, vex ? ZYDIS_ISA_SET_AVX : ZYDIS_ISA_SET_SSE))
        CPU_UD(cpu);
    if (vex)
        hx_need_avx(cpu, false);
    else
        hx_need_sse(cpu);
}

static void op_ldmxcsr(struct cpu *cpu, const struct insn *i)
{
    vecmem_need_mxcsr(cpu, i);
    uint32_t v = mem_ld32(cpu, i->seg, insn_lin(cpu, i, 4, ACC_READ));
    if (v & ~MXCSR_VALID)
        CPU_GP0(cpu);
    cpu->mxcsr = v;
}

static void op_stmxcsr(struct cpu *cpu, const struct insn *i)
{
    vecmem_need_mxcsr(cpu, i);
    mem_st32(cpu, i->seg, insn_lin(cpu, i, 4, ACC_WRITE), cpu->mxcsr);
}

/* -- VZEROALL, VZEROUPPER: registers 0 to 15, or to 7 outside of 64-bit mode -- */

static inline void vecmem_zero(struct cpu *cpu, unsigned from)
{
    hx_need_avx(cpu, false);
    unsigned count = cpu->code_size == 8 ? 16 : 8;
    for (unsigned n = 0; n < count; n++) /* constant sizes: this runs at the end of every AVX routine */
        for (unsigned at = from; at < 64; at += 16)
            memset(cpu->zmm[n] + at, 0, 16);
}

static void op_vzeroall(struct cpu *cpu, const struct insn *i) { vecmem_zero(cpu, 0); }
static void op_vzeroupper(struct cpu *cpu, const struct insn *i) { vecmem_zero(cpu, 16); }

#define GATHER(name)                                                                                         \
    {                                                                                                        \
        .op = ZYDIS_MNEMONIC_##name, .select = gather_select                                                 \
    }
#define SCATTER(name)                                                                                        \
    {                                                                                                        \
        .op = ZYDIS_MNEMONIC_##name, .select = scatter_select                                                \
    }

const struct op_entry ops_vecmem[] = {
    { .op = ZYDIS_MNEMONIC_VMASKMOVPS, .select = vecmem_select_maskmov },
    { .op = ZYDIS_MNEMONIC_VMASKMOVPD, .select = vecmem_select_maskmov },
    { .op = ZYDIS_MNEMONIC_VPMASKMOVD, .select = vecmem_select_maskmov },
    { .op = ZYDIS_MNEMONIC_VPMASKMOVQ, .select = vecmem_select_maskmov },
    { .op = ZYDIS_MNEMONIC_MASKMOVQ, .select = vecmem_select_bytes },
    { .op = ZYDIS_MNEMONIC_MASKMOVDQU, .select = vecmem_select_bytes },
    { .op = ZYDIS_MNEMONIC_VMASKMOVDQU, .select = vecmem_select_bytes },
    { .op = ZYDIS_MNEMONIC_LDMXCSR, .fn = op_ldmxcsr },
    { .op = ZYDIS_MNEMONIC_VLDMXCSR, .fn = op_ldmxcsr },
    { .op = ZYDIS_MNEMONIC_STMXCSR, .fn = op_stmxcsr },
    { .op = ZYDIS_MNEMONIC_VSTMXCSR, .fn = op_stmxcsr },
    { .op = ZYDIS_MNEMONIC_VZEROALL, .fn = op_vzeroall },
    { .op = ZYDIS_MNEMONIC_VZEROUPPER, .fn = op_vzeroupper },
    GATHER(VGATHERDPS),
    GATHER(VGATHERDPD),
    GATHER(VGATHERQPS),
    GATHER(VGATHERQPD),
    GATHER(VPGATHERDD),
    GATHER(VPGATHERDQ),
    GATHER(VPGATHERQD),
    GATHER(VPGATHERQQ),
    SCATTER(VSCATTERDPS),
    SCATTER(VSCATTERDPD),
    SCATTER(VSCATTERQPS),
    SCATTER(VSCATTERQPD),
    SCATTER(VPSCATTERDD),
    SCATTER(VPSCATTERDQ),
    SCATTER(VPSCATTERQD),
    SCATTER(VPSCATTERQQ),
    { .op = ZYDIS_MNEMONIC_INVALID },
};
