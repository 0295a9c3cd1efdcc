/* Far transfers, software interrupts and fast system calls (SDM vol. 2; the work is in src/x86). vCPU thread.
 */
#include "engine/interp/op_system.h"
#include "x86/debug.h"

/* A trap that belongs to this transfer (a task's T bit, TF as SYSRET loads it) comes before the next
 * instruction. */
static void far_done(struct cpu *cpu)
{
    if (unlikely(debug_trap_waits(cpu)))
        debug_after(cpu, cpu->rflags & FL_TF);
}

static uint64_t far_target(struct cpu *cpu, const struct insn *i, uint16_t *sel, unsigned *size)
{
    *size = op_far_size(cpu, i);
    if (i->form != FORM_FAR)
        return op_load_far(cpu, i, *size, sel);
    *sel = i->sel;
    return i->imm;
}

void op_far_call(struct cpu *cpu, const struct insn *i)
{
    uint16_t sel;
    unsigned size;
    uint64_t off = far_target(cpu, i, &sel, &size);
    far_call(cpu, sel, off, size);
    far_done(cpu);
}

void op_far_jmp(struct cpu *cpu, const struct insn *i)
{
    uint16_t sel;
    unsigned size;
    uint64_t off = far_target(cpu, i, &sel, &size);
    far_jump(cpu, sel, off, size);
    far_done(cpu);
}

void op_far_ret(struct cpu *cpu, const struct insn *i)
{
    far_ret(cpu, i->esz, (uint16_t)i->imm);
    far_done(cpu);
}

static void op_iret(struct cpu *cpu, const struct insn *i)
{
    cpu_iret(cpu, i->esz);
    far_done(cpu);
}

static void op_int(struct cpu *cpu, const struct insn *i)
{
    cpu_interrupt(cpu, i->imm & 0xff, INT_SOFT, false, 0);
}
static void op_int3(struct cpu *cpu, const struct insn *i)
{
    cpu_interrupt(cpu, VEC_BP, INT_TRAP3, false, 0);
}
static void op_int1(struct cpu *cpu, const struct insn *i)
{
    cpu_interrupt(cpu, VEC_DB, INT_ICEBP, false, 0);
}

static void op_into(struct cpu *cpu, const struct insn *i)
{
    if (cpu->aflags & AF_OF)
        cpu_interrupt(cpu, VEC_OF, INT_TRAP3, false, 0);
}

static void op_syscall(struct cpu *cpu, const struct insn *i) { cpu_syscall(cpu); }

static void op_sysret(struct cpu *cpu, const struct insn *i)
{
    cpu_sysret(cpu, i->esz);
    far_done(cpu);
}

static void op_sysenter(struct cpu *cpu, const struct insn *i) { cpu_sysenter(cpu); }
static void op_sysexit(struct cpu *cpu, const struct insn *i) { cpu_sysexit(cpu, i->esz); }

static void op_bound(struct cpu *cpu, const struct insn *i)
{
    unsigned size = i->osz;
    uint64_t lin = insn_lin(cpu, i, 2 * size, ACC_READ);
    uint64_t low = mem_ld(cpu, i->seg, lin, size);
    uint64_t high = mem_ld(cpu, i->seg, (uint32_t)(lin + size), size);
    uint64_t v = reg_get(cpu, i->r0, size);
    unsigned shift = 64 - 8 * size; /* signed comparison at any width */
    if ((int64_t)(v << shift) < (int64_t)(low << shift) || (int64_t)(v << shift) > (int64_t)(high << shift))
        cpu_raise_noerr(cpu, VEC_BR);
}

#define END (INSN_END | INSN_BRANCH)

const struct op_entry ops_far[] = {
    { ZYDIS_MNEMONIC_IRET, END, op_iret, NULL },       { ZYDIS_MNEMONIC_IRETD, END, op_iret, NULL },
    { ZYDIS_MNEMONIC_IRETQ, END, op_iret, NULL },      { ZYDIS_MNEMONIC_INT, END, op_int, NULL },
    { ZYDIS_MNEMONIC_INT3, END, op_int3, NULL },       { ZYDIS_MNEMONIC_INT1, END, op_int1, NULL },
    { ZYDIS_MNEMONIC_INTO, END, op_into, NULL },       { ZYDIS_MNEMONIC_SYSCALL, END, op_syscall, NULL },
    { ZYDIS_MNEMONIC_SYSRET, END, op_sysret, NULL },   { ZYDIS_MNEMONIC_SYSENTER, END, op_sysenter, NULL },
    { ZYDIS_MNEMONIC_SYSEXIT, END, op_sysexit, NULL }, { ZYDIS_MNEMONIC_BOUND, 0, op_bound, NULL },
    { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
