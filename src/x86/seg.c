/* Segment registers, descriptor tables, LDTR and TR (SDM vol. 3 ch. 3 and 5; vol. 2, MOV and LLDT/LTR).
 * Runs on the vCPU's own thread; no locks. */
#include "x86/desc.h"
#include "x86/mem.h"
#include "x86/seg.h"

void seg_unpack(struct seg *s, uint16_t sel, uint64_t desc)
{
    uint32_t limit = (uint32_t)((desc & 0xffff) | bits(desc, 51, 48) << 16);
    s->sel = sel;
    s->base = bits(desc, 39, 16) | bits(desc, 63, 56) << 24;
    s->attr = (uint16_t)(bits(desc, 47, 40) | bits(desc, 55, 52) << 8);
    s->limit = s->attr & ATTR_G ? limit << 12 | 0xfff : limit;
}

bool seg_descriptor(struct cpu *cpu, uint16_t sel, uint64_t *desc, uint64_t *addr)
{
    uint64_t base = cpu->gdtr.base;
    uint64_t limit = cpu->gdtr.limit;
    if (sel & SEL_TI) {
        if (!(cpu->ldtr.attr & ATTR_P))
            return false;
        base = cpu->ldtr.base;
        limit = cpu->ldtr.limit;
    }
    if ((uint64_t)(sel | 7) > limit)
        return false;
    base += sel & ~7u;
    if (!cpu->long_mode)
        base = (uint32_t)base;
    *desc = mem_sys_ld(cpu, base, 8);
    if (addr)
        *addr = base;
    return true;
}

uint64_t seg_fetch(struct cpu *cpu, uint16_t sel, unsigned vec, uint32_t ext, uint64_t *addr)
{
    uint64_t desc;
    if (!seg_descriptor(cpu, sel, &desc, addr))
        cpu_raise(cpu, vec, sel_err(sel) | ext);
    return desc;
}

void seg_mark_accessed(struct cpu *cpu, uint64_t addr, uint64_t *desc)
{
    if (*desc >> 40 & TYPE_ACCESSED)
        return;
    *desc |= BIT(40);
    /* Only the access byte is written: a neighbour that edits base or limit at the same time loses nothing.
     */
    mem_sys_st(cpu, addr + 5, bits(*desc, 47, 40), 1);
}

void seg_set_real(struct cpu *cpu, struct seg *s, uint16_t sel)
{
    s->sel = sel;
    s->base = (uint32_t)sel << 4;
    if (!(s->attr & ATTR_P)) { /* was made unusable in protected mode */
        s->attr = ATTR_P | ATTR_S | TYPE_RW | TYPE_ACCESSED;
        s->limit = 0xffff;
    }
    s->attr &= (uint16_t)~ATTR_DPL;
}

void seg_set_v86(struct seg *s, uint16_t sel)
{
    *s = (struct seg){ .sel = sel,
                       .base = (uint32_t)sel << 4,
                       .limit = 0xffff,
                       .attr = ATTR_P | ATTR_S | ATTR_DPL | TYPE_RW | TYPE_ACCESSED };
}

void seg_set_null(struct seg *s, uint16_t sel, unsigned dpl)
{
    *s = (struct seg){ .sel = sel, .attr = (uint16_t)(dpl << ATTR_DPL_SHIFT) };
}

uint64_t seg_fetch_ss(struct cpu *cpu, uint16_t sel, unsigned cpl, unsigned vec, uint32_t ext, uint64_t *addr)
{
    if (sel_null(sel))
        cpu_raise(cpu, vec, ext);
    uint64_t desc = seg_fetch(cpu, sel, vec, ext, addr);
    if ((sel & SEL_RPL) != cpl || !desc_stack(desc) || desc_dpl(desc) != cpl)
        cpu_raise(cpu, vec, sel_err(sel) | ext);
    if (!desc_present(desc))
        cpu_raise(cpu, VEC_SS, sel_err(sel) | ext);
    return desc;
}

static void seg_load_ss(struct cpu *cpu, uint16_t sel)
{
    if (sel_null(sel)) {
        if (cpu->code_size != 8 || cpu->cpl == 3 || (sel & SEL_RPL) != cpu->cpl)
            CPU_GP0(cpu);
        seg_set_null(&cpu->seg[SEG_SS], sel, cpu->cpl);
        return;
    }
    uint64_t addr;
    uint64_t desc = seg_fetch_ss(cpu, sel, cpu->cpl, VEC_GP, 0, &addr);
    seg_mark_accessed(cpu, addr, &desc);
    seg_unpack(&cpu->seg[SEG_SS], sel, desc);
}

static void seg_load_data(struct cpu *cpu, unsigned n, uint16_t sel)
{
    if (sel_null(sel)) {
        seg_set_null(&cpu->seg[n], sel, 0);
        return;
    }
    uint64_t addr;
    uint64_t desc = seg_fetch(cpu, sel, VEC_GP, 0, &addr);
    bool conforming = desc_code(desc) && desc_conforming(desc);
    unsigned rpl = sel & SEL_RPL;
    if (!desc_readable(desc) || (!conforming && (rpl > desc_dpl(desc) || cpu->cpl > desc_dpl(desc))))
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    if (!desc_present(desc))
        cpu_raise(cpu, VEC_NP, sel_err(sel));
    seg_mark_accessed(cpu, addr, &desc);
    seg_unpack(&cpu->seg[n], sel, desc);
}

void seg_load(struct cpu *cpu, unsigned n, uint16_t sel)
{
    if (cpu_real(cpu))
        seg_set_real(cpu, &cpu->seg[n], sel);
    else if (cpu_v86(cpu))
        seg_set_v86(&cpu->seg[n], sel);
    else if (n == SEG_SS)
        seg_load_ss(cpu, sel);
    else
        seg_load_data(cpu, n, sel);
    cpu_update_mode(cpu);
}

void seg_drop_inner(struct cpu *cpu, unsigned cpl)
{
    static const uint8_t regs[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    for (unsigned k = 0; k < ARRAY_LEN(regs); k++) {
        struct seg *s = &cpu->seg[regs[k]];
        unsigned conforming_code = TYPE_CODE | TYPE_CE;
        if (!(s->attr & ATTR_P) || seg_dpl(s) >= cpl || (s->attr & conforming_code) == conforming_code)
            continue;
        seg_set_null(s, 0, 0);
    }
}

static _Noreturn void seg_fault(struct cpu *cpu, unsigned seg)
{
    cpu_raise(cpu, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

static bool seg_type_ok(const struct seg *s, enum mmu_access acc)
{
    if (!(s->attr & ATTR_P))
        return false;
    if (acc & ACC_EXEC)
        return true;
    if (s->attr & TYPE_CODE)
        return !(acc & ACC_WRITE) && (s->attr & TYPE_RW);
    return !(acc & ACC_WRITE) || (s->attr & TYPE_RW);
}

static bool seg_limit_ok(const struct seg *s, uint64_t off, uint64_t last, bool expand_down)
{
    if (!expand_down)
        return last <= s->limit;
    return off > s->limit && last <= (s->attr & ATTR_DB ? 0xffffffffu : 0xffffu);
}

uint64_t seg_lin(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size, enum mmu_access acc)
{
    const struct seg *s = &cpu->seg[seg];
    if (cpu->code_size == 8)
        return cpu->lin_base[seg] + off;
    bool checked = cpu_protected(cpu) && !cpu_v86(cpu);
    bool expand_down = checked && (s->attr & (TYPE_CODE | TYPE_CE)) == TYPE_CE;
    if (unlikely(checked && !seg_type_ok(s, acc)))
        seg_fault(cpu, seg);
    if (unlikely(!seg_limit_ok(s, off, off + size - 1, expand_down)))
        seg_fault(cpu, seg);
    return (uint32_t)(s->base + off);
}

/* Descriptor of an LDT or a TSS, with the upper half of its base in long mode. */
static uint64_t seg_fetch_system(struct cpu *cpu, uint16_t sel, uint64_t *addr, uint64_t *high)
{
    if (sel & SEL_TI)
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    if (cpu->long_mode && (uint32_t)(sel & ~7u) + 15 > cpu->gdtr.limit)
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    uint64_t desc = seg_fetch(cpu, sel, VEC_GP, 0, addr);
    *high = 0;
    if (cpu->long_mode) {
        *high = mem_sys_ld(cpu, *addr + 8, 8);
        if (bits(*high, 44, 40) || !cpu_canonical(cpu, *high << 32))
            cpu_raise(cpu, VEC_GP, sel_err(sel));
        *high <<= 32;
    }
    return desc;
}

void seg_load_ldtr(struct cpu *cpu, uint16_t sel)
{
    if (sel_null(sel)) {
        seg_set_null(&cpu->ldtr, sel, 0);
        return;
    }
    uint64_t addr, high;
    uint64_t desc = seg_fetch_system(cpu, sel, &addr, &high);
    if (desc_s(desc) || desc_type(desc) != DESC_LDT)
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    if (!desc_present(desc))
        cpu_raise(cpu, VEC_NP, sel_err(sel));
    seg_unpack(&cpu->ldtr, sel, desc);
    cpu->ldtr.base |= high;
}

void seg_load_tr(struct cpu *cpu, uint16_t sel)
{
    if (sel_null(sel))
        CPU_GP0(cpu);
    uint64_t addr, high;
    uint64_t desc = seg_fetch_system(cpu, sel, &addr, &high);
    bool tss16 = desc_type(desc) == DESC_TSS16 && !cpu->long_mode;
    if (desc_s(desc) || (desc_type(desc) != DESC_TSS32 && !tss16))
        cpu_raise(cpu, VEC_GP, sel_err(sel));
    if (!desc_present(desc))
        cpu_raise(cpu, VEC_NP, sel_err(sel));
    desc |= (uint64_t)DESC_BUSY << 40;
    mem_sys_st(cpu, addr + 5, bits(desc, 47, 40), 1);
    seg_unpack(&cpu->tr, sel, desc);
    cpu->tr.base |= high;
}
