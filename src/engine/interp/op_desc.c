/* Descriptor-table registers and questions about selectors (SDM vol. 2: LGDT to ARPL). vCPU thread. */
#include "engine/interp/op_system.h"
#include "x86/desc.h"

static void desc_load_table(struct cpu *cpu, const struct insn *i, struct dtr *t)
{
    op_need_cpl0(cpu);
    unsigned wide = i->flags & INSN_LEGACY ? 4 : 8;
    uint64_t lin = insn_lin(cpu, i, 2 + wide, ACC_READ);
    uint16_t limit = mem_ld16(cpu, i->seg, lin);
    lin += 2;
    uint64_t base = mem_ld(cpu, i->seg, wide == 4 ? (uint32_t)lin : lin, wide);
    if (wide == 8 && !cpu_canonical(cpu, base))
        CPU_GP0(cpu);
    if (i->esz == 2 && wide == 4)
        base &= 0xffffff;
    *t = (struct dtr){ .base = base, .limit = limit };
}

/* The whole base is stored whatever the operand size, as CPUs since the 386 do. */
static void desc_store_table(struct cpu *cpu, const struct insn *i, const struct dtr *t)
{
    op_check_umip(cpu);
    unsigned wide = i->flags & INSN_LEGACY ? 4 : 8;
    uint64_t lin = insn_lin(cpu, i, 2 + wide, ACC_WRITE);
    mem_probe(cpu, i->seg, lin, 2 + wide, ACC_WRITE);
    mem_st16(cpu, i->seg, lin, t->limit);
    lin += 2;
    mem_st(cpu, i->seg, wide == 4 ? (uint32_t)lin : lin, t->base, wide);
}

void op_lgdt(struct cpu *cpu, const struct insn *i) { desc_load_table(cpu, i, &cpu->gdtr); }
void op_lidt(struct cpu *cpu, const struct insn *i) { desc_load_table(cpu, i, &cpu->idtr); }
void op_sgdt(struct cpu *cpu, const struct insn *i) { desc_store_table(cpu, i, &cpu->gdtr); }
void op_sidt(struct cpu *cpu, const struct insn *i) { desc_store_table(cpu, i, &cpu->idtr); }

void op_lldt(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    op_need_cpl0(cpu);
    seg_load_ldtr(cpu, op_src16(cpu, i, i->r0));
}

void op_ltr(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    op_need_cpl0(cpu);
    seg_load_tr(cpu, op_src16(cpu, i, i->r0));
}

void op_sldt(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    op_check_umip(cpu);
    op_store_word(cpu, i, cpu->ldtr.sel);
}

void op_str(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    op_check_umip(cpu);
    op_store_word(cpu, i, cpu->tr.sel);
}

static void desc_set_zf(struct cpu *cpu, bool zf)
{
    cpu->aflags = zf ? cpu->aflags | AF_ZF : cpu->aflags & ~AF_ZF;
}

/* May the program look at this selector's descriptor? types: bit n for system type n. */
static bool desc_visible(struct cpu *cpu, uint16_t sel, unsigned types, uint64_t *desc)
{
    if (sel_null(sel) || !seg_descriptor(cpu, sel, desc, NULL))
        return false;
    if (!desc_s(*desc) && !(types >> desc_type(*desc) & 1))
        return false;
    if (desc_code(*desc) && desc_conforming(*desc))
        return true;
    return cpu->cpl <= desc_dpl(*desc) && (sel & SEL_RPL) <= desc_dpl(*desc);
}

void op_lar(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    unsigned types = BIT(DESC_LDT) | BIT(DESC_TSS32) | BIT(DESC_TSS32_BUSY) | BIT(DESC_CALL32);
    if (!cpu->long_mode)
        types |= BIT(DESC_TSS16) | BIT(DESC_TSS16_BUSY) | BIT(DESC_CALL16) | BIT(DESC_TASK);
    uint64_t desc;
    bool ok = desc_visible(cpu, op_src16(cpu, i, i->r1), types, &desc);
    if (ok)
        reg_set(cpu, i->r0, (desc >> 32) & 0xffff00, i->osz);
    desc_set_zf(cpu, ok);
}

void op_lsl(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    unsigned types = BIT(DESC_LDT) | BIT(DESC_TSS32) | BIT(DESC_TSS32_BUSY);
    if (!cpu->long_mode)
        types |= BIT(DESC_TSS16) | BIT(DESC_TSS16_BUSY);
    uint64_t desc;
    struct seg s;
    bool ok = desc_visible(cpu, op_src16(cpu, i, i->r1), types, &desc);
    if (ok) {
        seg_unpack(&s, 0, desc);
        reg_set(cpu, i->r0, s.limit, i->osz);
    }
    desc_set_zf(cpu, ok);
}

void op_verr(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    uint64_t desc;
    bool ok = desc_visible(cpu, op_src16(cpu, i, i->r0), 0, &desc) && desc_readable(desc);
    desc_set_zf(cpu, ok);
}

void op_verw(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    uint64_t desc;
    bool ok = desc_visible(cpu, op_src16(cpu, i, i->r0), 0, &desc) && desc_stack(desc);
    desc_set_zf(cpu, ok);
}

void op_arpl(struct cpu *cpu, const struct insn *i)
{
    op_need_protected(cpu);
    bool mem = i->flags & INSN_MEM;
    uint16_t src = REG16(cpu, mem ? i->r0 : i->r1);
    if (!mem) {
        uint16_t v = REG16(cpu, i->r0);
        bool low = (v & SEL_RPL) < (src & SEL_RPL);
        if (low)
            reg_set16(cpu, i->r0, (uint16_t)((v & ~SEL_RPL) | (src & SEL_RPL)));
        desc_set_zf(cpu, low);
        return;
    }
    op_u16 *p = op_rmw(cpu, i, 2);
    bool low = (*p & SEL_RPL) < (src & SEL_RPL);
    if (low)
        *p = (uint16_t)((*p & ~SEL_RPL) | (src & SEL_RPL));
    mem_commit(cpu);
    desc_set_zf(cpu, low);
}
