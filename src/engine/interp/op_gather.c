/* Gathers and scatters (AVX2, AVX-512F; SDM vol. 2).
 *
 * Elements are processed from the lowest up. Each that is done has its mask element cleared, so that a fault
 * in the middle leaves a state from which the instruction goes on. Thread: the vCPU's. */
#include "engine/interp/vecstate.h"

/* spare[0]: data register; [1]: index register; [2]: mask register (vector or k); [3]: form */
enum { GATHER_EVEX = 1, GATHER_DATA8 = 2, GATHER_INDEX8 = 4, GATHER_COUNT_SHIFT = 3 };

static unsigned gather_data(const struct insn *i) { return i->spare[3] & GATHER_DATA8 ? 8 : 4; }
static unsigned gather_count(const struct insn *i) { return i->spare[3] >> GATHER_COUNT_SHIFT; }

/* Vector length in bytes. */
static unsigned gather_vl(const struct insn *i)
{
    return gather_count(i) * (i->spare[3] & (GATHER_DATA8 | GATHER_INDEX8) ? 8 : 4);
}

static void gather_need(struct cpu *cpu, const struct insn *i)
{
    bool evex = i->spare[3] & GATHER_EVEX;
    ZydisISASet set = !evex                ? ZYDIS_ISA_SET_AVX2GATHER
                      : gather_vl(i) == 64 ? ZYDIS_ISA_SET_AVX512F_512
                                           : ZYDIS_ISA_SET_AVX512F_128;
    if (!hx_has_isa(cpu->cpuid, set))
        CPU_UD(cpu);
    hx_need_avx(cpu, evex);
}

static uint64_t gather_lin(struct cpu *cpu, const struct insn *i, unsigned n, enum mmu_access acc)
{
    const uint8_t *idx = cpu->zmm[i->spare[1] & 31];
    int64_t x = i->spare[3] & GATHER_INDEX8 ? (int64_t)ld_le64(idx + 8 * n) : (int32_t)ld_le32(idx + 4 * n);
    uint64_t ea = (cpu->r[i->base] + ((uint64_t)x << i->scale) + (uint64_t)i->disp) & i->addr_mask;
    if (i->flags & INSN_LEGACY)
        return seg_lin(cpu, i->seg, ea, gather_data(i), acc);
    return cpu->lin_base[i->seg] + ea;
}

static bool gather_active(const struct cpu *cpu, const struct insn *i, unsigned n)
{
    unsigned el = gather_data(i);
    if (i->spare[3] & GATHER_EVEX)
        return cpu->k[i->spare[2] & 7] >> n & 1;
    return cpu->zmm[i->spare[2] & 31][n * el + el - 1] & 0x80;
}

static void gather_done(struct cpu *cpu, const struct insn *i, unsigned n)
{
    unsigned el = gather_data(i);
    if (i->spare[3] & GATHER_EVEX)
        cpu->k[i->spare[2] & 7] &= ~(1ULL << n);
    else
        memset(cpu->zmm[i->spare[2] & 31] + n * el, 0, el);
}

/* Intel's CPUs, with VEX: before anything is loaded, the mask becomes elements of all ones or all zeroes and goes to zero
 * above the vector length (SDM vol. 2, VPGATHERDD), which shows if an element faults. AMD's leave what they did not come to. */
static void gather_mask(struct cpu *cpu, const struct insn *i)
{
    unsigned el = gather_data(i), vl = gather_vl(i);
    uint8_t *mask = cpu->zmm[i->spare[2] & 31];

    for (unsigned n = 0; n < vl / el; n++)
        memset(mask + n * el, gather_active(cpu, i, n) ? 0xff : 0, el);
    memset(mask + vl, 0, 64 - vl);
}

/* The register's part above the elements goes to zero at the end. What is above the vector length goes, but for VEX on
 * AMD's CPUs, with the first element that arrives, which shows if a later one faults (as the CPUs do it; the manual leaves
 * it open). */
static void op_gather(struct cpu *cpu, const struct insn *i)
{
    unsigned el = gather_data(i), count = gather_count(i);
    bool evex = i->spare[3] & GATHER_EVEX, intel = cpu->cpuid->vendor == VENDOR_INTEL;
    uint8_t *dst = cpu->zmm[i->spare[0] & 31];
    gather_need(cpu, i);
    if (!evex && intel)
        gather_mask(cpu, i);
    for (unsigned n = 0; n < count; n++) {
        if (gather_active(cpu, i, n)) {
            uint64_t v = vec_ld_elem(cpu, i->seg, gather_lin(cpu, i, n, ACC_READ), el);
            memcpy(dst + n * el, &v, el);
            if (evex || intel)
                memset(dst + gather_vl(i), 0, 64 - gather_vl(i));
        }
        gather_done(cpu, i, n);
    }
    memset(dst + count * el, 0, 64 - count * el);
    if (evex)
        cpu->k[i->spare[2] & 7] = 0;
    else
        memset(cpu->zmm[i->spare[2] & 31], 0, 64);
}

static void op_scatter(struct cpu *cpu, const struct insn *i)
{
    unsigned el = gather_data(i), count = gather_count(i);
    const uint8_t *src = cpu->zmm[i->spare[0] & 31];
    gather_need(cpu, i);
    for (unsigned n = 0; n < count; n++) {
        if (gather_active(cpu, i, n)) {
            uint64_t v = 0;
            memcpy(&v, src + n * el, el);
            vec_st_elem(cpu, i->seg, gather_lin(cpu, i, n, ACC_WRITE), v, el);
        }
        gather_done(cpu, i, n);
    }
    cpu->k[i->spare[2] & 7] = 0;
}

/* Fill spare from the operands: the data register, the mask and the VSIB operand. */
static bool gather_parse(struct insn *i, const struct decoded *d, unsigned data, unsigned mem, unsigned mask)
{
    const ZydisDecodedOperand *m = &d->ops[mem], *k = &d->ops[mask], *r = &d->ops[data];
    bool evex = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    if (m->type != ZYDIS_OPERAND_TYPE_MEMORY || m->mem.type != ZYDIS_MEMOP_TYPE_VSIB ||
        k->type != ZYDIS_OPERAND_TYPE_REGISTER || r->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    if ((ZydisRegisterGetClass(k->reg.value) == ZYDIS_REGCLASS_MASK) != evex ||
        (evex && k->reg.value == ZYDIS_REGISTER_K0))
        return false;
    bool q = d->z.mnemonic == ZYDIS_MNEMONIC_VGATHERQPS || d->z.mnemonic == ZYDIS_MNEMONIC_VGATHERQPD ||
             d->z.mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || d->z.mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ ||
             d->z.mnemonic == ZYDIS_MNEMONIC_VSCATTERQPS || d->z.mnemonic == ZYDIS_MNEMONIC_VSCATTERQPD ||
             d->z.mnemonic == ZYDIS_MNEMONIC_VPSCATTERQD || d->z.mnemonic == ZYDIS_MNEMONIC_VPSCATTERQQ;
    unsigned el = m->element_size / 8, widest = q || el == 8 ? 8 : 4,
             count = d->z.avx.vector_length / 8 / widest;
    if ((el != 4 && el != 8) || !count || count > 16)
        return false;
    i->spare[0] = (uint8_t)ZydisRegisterGetId(r->reg.value);
    i->spare[1] = (uint8_t)ZydisRegisterGetId(m->mem.index);
    i->spare[2] = (uint8_t)ZydisRegisterGetId(k->reg.value);
    i->spare[3] = (uint8_t)((evex ? GATHER_EVEX : 0) | (el == 8 ? GATHER_DATA8 : 0) |
                            (q ? GATHER_INDEX8 : 0) | count << GATHER_COUNT_SHIFT);
    return true;
}

insn_fn *gather_select(struct insn *i, const struct decoded *d)
{
    bool evex = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    return gather_parse(i, d, 0, evex ? 2 : 1, evex ? 1 : 2) ? op_gather : NULL;
}

insn_fn *scatter_select(struct insn *i, const struct decoded *d)
{
    return gather_parse(i, d, 2, 0, 1) ? op_scatter : NULL;
}
