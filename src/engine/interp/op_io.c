/* IN, OUT, INS and OUTS (SDM vol. 2; vol. 1, 19.5 for the I/O permission bitmap). vCPU thread; no locks: the
 * bus takes its own. */
#include "engine/interp/op_system.h"
#include "x86/debug.h"

#define IO_SLICE 64 /* iterations before the instruction gives way to whatever waits */

/* #GP(0) unless IOPL or the current TSS's bitmap allows all size ports. */
static void io_check(struct cpu *cpu, uint16_t port, unsigned size)
{
    if (likely(!cpu_v86(cpu) && cpu->cpl <= cpu_iopl(cpu)))
        return;
    bool tss32 = (cpu->tr.attr & ATTR_P) && (cpu->tr.attr & ATTR_TYPE & 9) == 9;
    if (!tss32 || cpu->tr.limit < 103)
        CPU_GP0(cpu);
    uint32_t map = (uint32_t)mem_sys_ld(cpu, cpu->tr.base + 102, 2) + port / 8u;
    if (map + 1 > cpu->tr.limit) /* always two bytes: a port range may cross into the second */
        CPU_GP0(cpu);
    uint64_t allowed = mem_sys_ld(cpu, cpu->tr.base + map, 2);
    if (allowed >> (port & 7) & ((1u << size) - 1))
        CPU_GP0(cpu);
}

/* An I/O breakpoint traps behind the access. */
static void io_done(struct cpu *cpu)
{
    if (unlikely(cpu->pending_db))
        debug_after(cpu, cpu->rflags & FL_TF);
}

static uint64_t io_read(struct cpu *cpu, uint16_t port, unsigned size)
{
    debug_check_io(cpu, port, size);
    return cpu->ops->io_in(cpu, port, size);
}

static void io_write(struct cpu *cpu, uint16_t port, uint64_t v, unsigned size)
{
    debug_check_io(cpu, port, size);
    cpu->ops->io_out(cpu, port, v & mask_bytes(size), size);
}

static void io_in(struct cpu *cpu, const struct insn *i, uint16_t port)
{
    io_check(cpu, port, i->esz);
    reg_set(cpu, RAX * 8, io_read(cpu, port, i->esz), i->esz);
    io_done(cpu);
}

static void io_out(struct cpu *cpu, const struct insn *i, uint16_t port)
{
    io_check(cpu, port, i->esz);
    io_write(cpu, port, cpu->r[RAX], i->esz);
    io_done(cpu);
}

static void op_in_imm(struct cpu *cpu, const struct insn *i) { io_in(cpu, i, i->imm & 0xff); }
static void op_in_dx(struct cpu *cpu, const struct insn *i) { io_in(cpu, i, (uint16_t)cpu->r[RDX]); }
static void op_out_imm(struct cpu *cpu, const struct insn *i) { io_out(cpu, i, i->imm & 0xff); }
static void op_out_dx(struct cpu *cpu, const struct insn *i) { io_out(cpu, i, (uint16_t)cpu->r[RDX]); }

/* Ports have no 64-bit width: REX.W changes nothing. */
static void io_fix_size(struct insn *i, const struct decoded *d)
{
    bool byte = !(d->z.opcode & 1);
    i->esz = byte ? 1 : d->z.operand_width == 16 ? 2 : 4;
}

static insn_fn *select_in(struct insn *i, const struct decoded *d)
{
    io_fix_size(i, d);
    return d->z.opcode < 0xe8 ? op_in_imm : op_in_dx;
}

static insn_fn *select_out(struct insn *i, const struct decoded *d)
{
    io_fix_size(i, d);
    return d->z.opcode < 0xe8 ? op_out_imm : op_out_dx;
}

/* -- string forms -- */

static uint64_t io_string_lin(struct cpu *cpu, const struct insn *i, unsigned seg, unsigned reg,
                              enum mmu_access acc)
{
    uint64_t off = cpu->r[reg] & i->addr_mask;
    if (i->flags & INSN_LEGACY)
        return seg_lin(cpu, seg, off, i->esz, acc);
    return cpu->lin_base[seg] + off;
}

static void io_advance(struct cpu *cpu, const struct insn *i, unsigned reg)
{
    uint64_t step = cpu->rflags & FL_DF ? -(uint64_t)i->esz : i->esz;
    reg_set(cpu, reg * 8, cpu->r[reg] + step, i->asz);
}

static void io_ins_one(struct cpu *cpu, const struct insn *i, uint16_t port)
{
    uint64_t lin = io_string_lin(cpu, i, SEG_ES, RDI, ACC_WRITE);
    mem_probe(cpu, SEG_ES, lin, i->esz, ACC_WRITE); /* a fault must not swallow what the device gives */
    mem_st(cpu, SEG_ES, lin, io_read(cpu, port, i->esz), i->esz);
    io_advance(cpu, i, RDI);
}

static void io_outs_one(struct cpu *cpu, const struct insn *i, uint16_t port)
{
    uint64_t lin = io_string_lin(cpu, i, i->seg, RSI, ACC_READ);
    io_write(cpu, port, mem_ld(cpu, i->seg, lin, i->esz), i->esz);
    io_advance(cpu, i, RSI);
}

/* One element, or RCX of them; registers show the progress at every fault and interruption. */
static void io_string(struct cpu *cpu, const struct insn *i,
                      void (*one)(struct cpu *cpu, const struct insn *i, uint16_t port))
{
    uint16_t port = (uint16_t)cpu->r[RDX];
    io_check(cpu, port, i->esz);
    if (!(i->flags & (INSN_REP | INSN_REPNE))) {
        one(cpu, i, port);
        io_done(cpu);
        return;
    }
    for (unsigned n = 0; cpu->r[RCX] & i->addr_mask; n++) {
        bool stop =
            n && (n >= IO_SLICE || cpu->step || atomic_load_explicit(&cpu->attention, memory_order_relaxed));
        if (stop) {
            cpu->r[R_RIP] = cpu->start_rip;
            return;
        }
        one(cpu, i, port);
        reg_set(cpu, RCX * 8, cpu->r[RCX] - 1, i->asz);
        if (unlikely(cpu->pending_db)) {
            if (cpu->r[RCX] & i->addr_mask)
                cpu->r[R_RIP] = cpu->start_rip;
            io_done(cpu);
        }
    }
}

static void op_ins(struct cpu *cpu, const struct insn *i) { io_string(cpu, i, io_ins_one); }
static void op_outs(struct cpu *cpu, const struct insn *i) { io_string(cpu, i, io_outs_one); }

static insn_fn *select_ins(struct insn *i, const struct decoded *d)
{
    io_fix_size(i, d);
    return op_ins;
}

static insn_fn *select_outs(struct insn *i, const struct decoded *d)
{
    io_fix_size(i, d);
    return op_outs;
}

const struct op_entry ops_io[] = {
    { ZYDIS_MNEMONIC_IN, INSN_END, NULL, select_in },
    { ZYDIS_MNEMONIC_OUT, INSN_END, NULL, select_out },
    { ZYDIS_MNEMONIC_INSB, INSN_END, NULL, select_ins },
    { ZYDIS_MNEMONIC_INSW, INSN_END, NULL, select_ins },
    { ZYDIS_MNEMONIC_INSD, INSN_END, NULL, select_ins },
    { ZYDIS_MNEMONIC_OUTSB, INSN_END, NULL, select_outs },
    { ZYDIS_MNEMONIC_OUTSW, INSN_END, NULL, select_outs },
    { ZYDIS_MNEMONIC_OUTSD, INSN_END, NULL, select_outs },
    { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
