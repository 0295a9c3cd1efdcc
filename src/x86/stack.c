/* Pushes, pops and near jumps on the current stack and code segment; stacks of other privilege levels
 * (SDM vol. 1, 6.2; vol. 3, 6.12.1, 6.14.2, 7.2). vCPU thread; no locks. */
#include "x86/desc.h"

/* Is [off, off+size) inside a plain writable stack? The usual legacy case, without a call. */
static inline bool stack_plain(const struct cpu *cpu, uint64_t off, unsigned size)
{
    const struct seg *s = &cpu->seg[SEG_SS];
    unsigned need = ATTR_P | ATTR_S | TYPE_RW;
    return (s->attr & (need | TYPE_CODE | TYPE_CE)) == need && off + size - 1 <= s->limit;
}

static inline uint64_t stack_lin(struct cpu *cpu, uint64_t off, unsigned size, enum mmu_access acc)
{
    if (likely(stack_plain(cpu, off, size)))
        return (uint32_t)(cpu->seg[SEG_SS].base + off);
    return seg_lin(cpu, SEG_SS, off, size, acc);
}

static inline void stack_commit(struct cpu *cpu, uint64_t sp)
{
    uint64_t mask = cpu->sp_mask;
    if (mask == 0xffff)
        cpu->r[RSP] = (cpu->r[RSP] & ~mask) | (sp & mask);
    else
        cpu->r[RSP] = sp & mask;
}

void cpu_push(struct cpu *cpu, uint64_t v, unsigned size)
{
    if (likely(cpu->code_size == 8 && size == 8)) {
        uint64_t sp = cpu->r[RSP] - 8;
        mem_st64(cpu, SEG_SS, sp, v);
        cpu->r[RSP] = sp;
        return;
    }
    uint64_t sp = (cpu->r[RSP] - size) & cpu->sp_mask;
    uint64_t lin = cpu->code_size == 8 ? sp : stack_lin(cpu, sp, size, ACC_WRITE);
    if (size == 4)
        mem_st32(cpu, SEG_SS, lin, (uint32_t)v);
    else if (size == 2)
        mem_st16(cpu, SEG_SS, lin, (uint16_t)v);
    else
        mem_st64(cpu, SEG_SS, lin, v);
    stack_commit(cpu, sp);
}

uint64_t cpu_pop(struct cpu *cpu, unsigned size)
{
    uint64_t v;
    if (likely(cpu->code_size == 8 && size == 8)) {
        v = mem_ld64(cpu, SEG_SS, cpu->r[RSP]);
        cpu->r[RSP] += 8;
        return v;
    }
    uint64_t sp = cpu->r[RSP] & cpu->sp_mask;
    uint64_t lin = cpu->code_size == 8 ? sp : stack_lin(cpu, sp, size, ACC_READ);
    if (size == 4)
        v = mem_ld32(cpu, SEG_SS, lin);
    else if (size == 2)
        v = mem_ld16(cpu, SEG_SS, lin);
    else
        v = mem_ld64(cpu, SEG_SS, lin);
    stack_commit(cpu, sp + size);
    return v;
}

void cpu_jump(struct cpu *cpu, uint64_t target, unsigned osz)
{
    if (osz < 8)
        target &= mask_bytes(osz);
    if (cpu->code_size == 8) {
        if (unlikely(!cpu_canonical(cpu, target)))
            CPU_GP0(cpu);
    } else if (unlikely(target > cpu->seg[SEG_CS].limit)) {
        CPU_GP0(cpu);
    }
    cpu->r[R_RIP] = target;
}

static uint64_t stack_mask(const struct seg *ss, bool flat)
{
    if (flat)
        return ~0ULL;
    return ss->attr & ATTR_DB ? 0xffffffffu : 0xffff;
}

void stack_init(struct cpu *cpu, struct stack *st)
{
    *st = (struct stack){ .ss = cpu->seg[SEG_SS],
                          .sp = cpu->r[RSP],
                          .mask = cpu->sp_mask,
                          .idx = mem_index_of(cpu, cpu->cpl),
                          .flat = cpu->code_size == 8 };
}

void stack_set(struct cpu *cpu, struct stack *st, const struct seg *ss, uint64_t sp, unsigned cpl, bool flat)
{
    *st = (struct stack){
        .ss = *ss, .sp = sp, .mask = stack_mask(ss, flat), .idx = mem_index_of(cpu, cpl), .flat = flat
    };
}

static bool stack_inside(const struct cpu *cpu, const struct stack *st, uint64_t off, unsigned size)
{
    uint64_t last = off + size - 1;
    bool expand_down = !cpu_real(cpu) && (st->ss.attr & (TYPE_CODE | TYPE_CE)) == TYPE_CE;
    if (!cpu_real(cpu) && !(st->ss.attr & ATTR_P))
        return false;
    if (!expand_down)
        return last <= st->ss.limit;
    return off > st->ss.limit && last <= stack_mask(&st->ss, false);
}

/* Linear address of size bytes at off; raises #SS. */
static uint64_t stack_at(struct cpu *cpu, const struct stack *st, uint64_t off, unsigned size)
{
    bool ok = st->flat ? cpu_canonical(cpu, off) && cpu_canonical(cpu, off + size - 1)
                       : stack_inside(cpu, st, off, size);
    if (!ok)
        cpu_raise(cpu, VEC_SS, st->fault_err);
    return st->flat ? off : (uint32_t)(st->ss.base + off);
}

void stack_room(struct cpu *cpu, const struct stack *st, unsigned bytes)
{
    uint64_t low = (st->sp - bytes) & st->mask;
    if (!st->flat && low < (st->sp & st->mask))
        (void)stack_at(cpu, st, low, bytes);
}

void stack_push(struct cpu *cpu, struct stack *st, uint64_t v, unsigned size)
{
    uint64_t sp = (st->sp - size) & st->mask;
    mem_st_idx(cpu, st->idx, SEG_SS, stack_at(cpu, st, sp, size), v & mask_bytes(size), size);
    st->sp = sp;
}

uint64_t stack_pop(struct cpu *cpu, struct stack *st, unsigned size)
{
    uint64_t sp = st->sp & st->mask;
    uint64_t v = mem_ld_idx(cpu, st->idx, SEG_SS, stack_at(cpu, st, sp, size), size);
    st->sp = (sp + size) & st->mask;
    return v;
}

uint64_t stack_merge(uint64_t rsp, const struct stack *st)
{
    if (st->mask == 0xffff)
        return (rsp & ~0xffffULL) | (st->sp & 0xffff);
    return st->sp & st->mask;
}

void tss_stack(struct cpu *cpu, unsigned cpl, uint32_t ext, struct stack *st)
{
    bool tss32 = (cpu->tr.attr & ATTR_TYPE) & 8;
    unsigned entry = tss32 ? 8 : 4;
    unsigned off = (tss32 ? 4 : 2) + cpl * entry;
    unsigned width = tss32 ? 4 : 2;
    if (off + width + 1 > cpu->tr.limit) /* the last byte of SS */
        cpu_raise(cpu, VEC_TS, sel_err(cpu->tr.sel) | ext);
    uint64_t sp = mem_sys_ld(cpu, cpu->tr.base + off, width);
    uint16_t sel = (uint16_t)mem_sys_ld(cpu, cpu->tr.base + off + width, 2);
    uint64_t addr = 0;
    uint64_t desc = seg_fetch_ss(cpu, sel, cpl, VEC_TS, ext, &addr);
    seg_mark_accessed(cpu, addr, &desc);
    struct seg ss;
    seg_unpack(&ss, sel, desc);
    stack_set(cpu, st, &ss, sp, cpl, false);
    st->fault_err = sel_err(sel) | ext;
}

uint64_t tss_rsp(struct cpu *cpu, unsigned slot, uint32_t ext)
{
    unsigned off = slot < 3 ? 4 + slot * 8 : 0x24 + (slot - 3) * 8;
    if (off + 7 > cpu->tr.limit)
        cpu_raise(cpu, VEC_TS, sel_err(cpu->tr.sel) | ext);
    uint64_t rsp = mem_sys_ld(cpu, cpu->tr.base + off, 8);
    if (!cpu_canonical(cpu, rsp))
        cpu_raise(cpu, VEC_SS, ext);
    return rsp;
}
