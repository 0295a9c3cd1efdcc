/* Segment registers as data: MOV, PUSH, POP, far pointers, and the bases of FS and GS (SDM vol. 2). vCPU
 * thread. */
#include "engine/interp/op_system.h"

void op_mov_from_seg(struct cpu *cpu, const struct insn *i) { op_store_word(cpu, i, cpu->seg[i->cc].sel); }

static void segreg_load(struct cpu *cpu, unsigned n, uint16_t sel)
{
    seg_load(cpu, n, sel);
    if (n == SEG_SS)
        cpu->shadow = SHADOW_MOVSS; /* until after the next instruction, which sets ESP */
}

void op_mov_to_seg(struct cpu *cpu, const struct insn *i)
{
    if (i->cc == SEG_CS || i->cc >= SEG_COUNT)
        CPU_UD(cpu);
    segreg_load(cpu, i->cc, op_src16(cpu, i, i->r0));
}

void op_push_seg(struct cpu *cpu, const struct insn *i) { cpu_push(cpu, cpu->seg[i->cc].sel, i->esz); }

void op_pop_seg(struct cpu *cpu, const struct insn *i)
{
    uint64_t before = cpu->r[RSP];
    uint16_t sel = (uint16_t)cpu_pop(cpu, i->esz);
    uint64_t after = cpu->r[RSP];
    cpu->r[RSP] = before; /* in case the selector is refused */
    segreg_load(cpu, i->cc, sel);
    cpu->r[RSP] = after;
}

static void segreg_far(struct cpu *cpu, const struct insn *i, unsigned n)
{
    uint16_t sel;
    unsigned size = op_far_size(cpu, i);
    uint64_t off = op_load_far(cpu, i, size, &sel);
    seg_load(cpu, n, sel);
    reg_set(cpu, i->r0, off, size);
}

void op_lds(struct cpu *cpu, const struct insn *i) { segreg_far(cpu, i, SEG_DS); }
void op_les(struct cpu *cpu, const struct insn *i) { segreg_far(cpu, i, SEG_ES); }
void op_lfs(struct cpu *cpu, const struct insn *i) { segreg_far(cpu, i, SEG_FS); }
void op_lgs(struct cpu *cpu, const struct insn *i) { segreg_far(cpu, i, SEG_GS); }
void op_lss(struct cpu *cpu, const struct insn *i) { segreg_far(cpu, i, SEG_SS); }

static void segreg_set_base(struct cpu *cpu, unsigned n, uint64_t base)
{
    cpu->seg[n].base = base;
    cpu->lin_base[n] = base;
}

void op_swapgs(struct cpu *cpu, const struct insn *i)
{
    if (cpu->code_size != 8)
        CPU_UD(cpu);
    op_need_cpl0(cpu);
    uint64_t base = cpu->kernel_gs_base;
    cpu->kernel_gs_base = cpu->seg[SEG_GS].base;
    segreg_set_base(cpu, SEG_GS, base);
}

static void segreg_check_fsgsbase(struct cpu *cpu)
{
    if (cpu->code_size != 8 || !(cpu->cr4 & CR4_FSGSBASE))
        CPU_UD(cpu);
}

static void segreg_read_base(struct cpu *cpu, const struct insn *i, unsigned n)
{
    segreg_check_fsgsbase(cpu);
    reg_set(cpu, i->r0, cpu->seg[n].base, i->osz);
}

static void segreg_write_base(struct cpu *cpu, const struct insn *i, unsigned n)
{
    segreg_check_fsgsbase(cpu);
    uint64_t base = reg_get(cpu, i->r0, i->osz);
    if (!cpu_canonical(cpu, base))
        CPU_GP0(cpu);
    segreg_set_base(cpu, n, base);
}

void op_rdfsbase(struct cpu *cpu, const struct insn *i) { segreg_read_base(cpu, i, SEG_FS); }
void op_rdgsbase(struct cpu *cpu, const struct insn *i) { segreg_read_base(cpu, i, SEG_GS); }
void op_wrfsbase(struct cpu *cpu, const struct insn *i) { segreg_write_base(cpu, i, SEG_FS); }
void op_wrgsbase(struct cpu *cpu, const struct insn *i) { segreg_write_base(cpu, i, SEG_GS); }
